package command

import (
	"context"

	"berth/services/logs"
	"berth/services/metric"
)

// runLogs is the log service.
func runLogs(ctx context.Context, p *process, ready func()) error {
	s := p.settings
	svc, err := logs.New(logs.Options{Dir: s.LogsDir(), Settings: s.Logs, Intake: s.Socket("syslog"), API: s.Socket("logs"), Log: p.log})
	if err != nil {
		return err
	}
	meter, end := metric.Scoped(p.meter("logs")) // a log service that has failed is started again
	defer end()
	svc.Measure(meter)
	return svc.Run(ctx, ready)
}
