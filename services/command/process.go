package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"berth/appliance/logger"
	"berth/appliance/setting"
	"berth/services/metric"
	"berth/services/trace"
)

// process is what a service shares with the others of its process: all of them
// under `berth up`, none where each is a unit.
type process struct {
	settings setting.Settings
	log      *slog.Logger
	level    *slog.LevelVar
	sink     *logger.Sink     // nil = the log service is off
	metrics  *metric.Registry // nil = none
	spans    *trace.Exporter  // nil = none
}

// newProcess makes the parts that need not be started. Run them with start.
func newProcess(stderr io.Writer, s setting.Settings, component string) *process {
	p := &process{settings: s, level: new(slog.LevelVar)}
	if l, ok := logger.Level(s.LogLevel); ok { // checked by Settings.Check
		p.level.Set(l)
	}
	if s.Metrics != "off" {
		p.metrics = metric.New()
	}
	if !s.Logs.Off {
		p.sink = logger.NewSink(s.Socket("syslog"))
	}
	p.log = logger.New(logger.Options{Component: component, Stderr: stderr, Level: p.level, Sink: p.sink})
	return p
}

// as gives the process to one of its services.
func (p *process) as(component string) *process {
	other := *p
	other.log = logger.For(p.log, component)
	return &other
}

// start runs what lives as long as the process. stop lets it end its work, and
// waits for that: call it when nothing logs any more.
func (p *process) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if p.sink != nil {
			_ = p.sink.Run(ctx) // it has no errors: what cannot be sent waits, or is counted
		}
	}()
	return func() { cancel(); <-done }
}

// restartPause is how long a log service that has failed is left alone.
const restartPause = 5 * time.Second

// startLogs starts the log service of `berth up`, before all others and to end
// after them, and sends it this process's lines. It fails if the service cannot
// start; what befalls it later is no reason for a registry to stop.
func (p *process) startLogs(ctx context.Context) (stop func(), err error) {
	stopSink := p.start(ctx)
	if p.sink == nil {
		return stopSink, nil
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, failed, ended := make(chan struct{}), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		begun := sync.OnceFunc(func() { close(ready) })
		for {
			err := runLogs(ctx, p.as("logs"), begun)
			if ctx.Err() != nil {
				return
			}
			select {
			case <-ready:
			default:
				failed <- err
				return
			}
			p.log.Error("the log service has failed and is started again", "err", err, "pause", restartPause.String())
			select {
			case <-time.After(restartPause):
			case <-ctx.Done():
				return
			}
		}
	}()
	stop = func() { stopSink(); cancel(); <-ended }
	select {
	case <-ready:
		return stop, nil
	case err = <-failed:
		stop()
		return nil, fmt.Errorf("logs: %w", err)
	}
}
