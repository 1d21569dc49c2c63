package command

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/appliance/unit"
	"berth/services/debug"
	"berth/services/metric"
)

// instruments are what a process measures itself with, and what an
// administrator looks into it with. The zero value is none.
type instruments struct {
	level   *slog.LevelVar
	metrics *metric.Registry
}

// newInstruments makes those of one process.
func newInstruments(s setting.Settings) instruments {
	i := instruments{level: logLevel(s)}
	if s.Metrics != "off" {
		i.metrics = metric.New()
	}
	return i
}

// logLevel is the settings' level, which can be changed while the process runs.
func logLevel(s setting.Settings) *slog.LevelVar {
	level := &slog.LevelVar{}
	if s.LogLevel != "" {
		l, _ := debug.ParseLevel(s.LogLevel) // checked by Settings.Check
		level.Set(l)
	}
	return level
}

// service gives what a service registers its metrics with.
func (i instruments) service(name string) prometheus.Registerer { return i.metrics.Service(name) }

// defaultMetrics is where metrics are unless the settings say otherwise.
const defaultMetrics = "127.0.0.1:9180"

// open opens the metrics' port and the debug socket, which serve then serves
// until its context ends. name is "" for a process with all services, which has
// the first port and the socket debug.sock; a service of its own has its place in
// setting.MetricsPorts, and NAME.debug.sock.
func (i instruments) open(ctx context.Context, s setting.Settings, name string, log *slog.Logger) (serve func(context.Context) error, err error) {
	o := debug.Options{Level: i.level}
	var port net.Listener
	if i.metrics != nil {
		o.Metrics = i.metrics.Handler()
		if port, err = listenMetrics(ctx, s, name, log); err != nil {
			return nil, err
		}
	}
	socket, err := unit.Listen(ctx, "debug", "unix", debugSocket(s, name), 0o600)
	if err != nil {
		if port != nil {
			port.Close()
		}
		return nil, err
	}
	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		if port != nil {
			mux := http.NewServeMux()
			mux.Handle("GET /metrics", o.Metrics)
			g.Go(func() error { return serveHTTP(ctx, port, mux, log) })
		}
		g.Go(func() error { return serveHTTP(ctx, socket, debug.Handler(o), log) })
		return g.Wait()
	}, nil
}

// debugSocket is the path of a process's debug socket.
func debugSocket(s setting.Settings, name string) string {
	if name == "" {
		return filepath.Join(s.Run, "debug.sock")
	}
	return filepath.Join(s.Run, name+".debug.sock")
}

// metricsAddress is where a process serves its metrics, and whether the settings
// insist on it.
func metricsAddress(s setting.Settings, name string) (address string, must bool) {
	address, must = defaultMetrics, false
	if s.Metrics != "" {
		address, must = s.Metrics, true
	}
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.Atoi(port)
	if at := slices.Index(setting.MetricsPorts(), name); err == nil && bad == nil && at > 0 && n > 0 {
		address = net.JoinHostPort(host, strconv.Itoa(n+at))
	}
	return address, must
}

// listenMetrics opens the metrics' port; nil if another program has the usual one.
func listenMetrics(ctx context.Context, s setting.Settings, name string, log *slog.Logger) (net.Listener, error) {
	address, must := metricsAddress(s, name)
	l, err := unit.Listen(ctx, "metrics", "tcp", address, 0)
	if err == nil {
		log.Info("serving metrics", "address", l.Addr().String())
		return l, nil
	}
	if !must {
		log.Warn("there are no metrics: another program has their port; name another one in the setting metrics", "address", address, "err", err)
		return nil, nil
	}
	return nil, fault.Wrap(fault.Precondition, err, "cannot serve metrics on %s", address).On("metrics").
		WithHint("another program may have the port: choose another address, or \"off\" (ss -ltnp shows who it is)")
}
