package command

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

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

// logsCommand is `berth logs`.
func (a *app) logsCommand() *cobra.Command {
	c := &cobra.Command{Use: "logs", Short: "Collect, keep and forward log messages", GroupID: "run"}
	i := slices.IndexFunc(services(), func(s service) bool { return s.name == "logs" })
	serve := a.serviceCommand("serve", services()[i])
	serve.GroupID = ""
	c.AddCommand(serve)
	return c
}
