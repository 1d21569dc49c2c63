package command

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/agent/api"
	"berth/appliance/cli"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say what this appliance is, and what is wrong with it", Args: cobra.NoArgs, GroupID: "look",
		Long: "Says where the registry and the console are, how far the first boot is, and what is\n" +
			"wrong, the cause first. The exit status is 1 if anything is.",
		RunE: func(c *cobra.Command, _ []string) error {
			// What the agent knows may be half a minute old; who types this wants to know now.
			agent := a.agent()
			if _, err := agent.Health(c.Context()); err != nil {
				return err
			}
			s, err := agent.Status(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(s)
			} else {
				err = writeStatus(a.stdout, s)
			}
			if err == nil && (s.Phase != api.Ready || len(s.Problems) > 0) {
				err = cli.ErrUnwell
			}
			return err
		},
	}
}

// below begins a value's next line.
const below = "\n             "

// writeStatus writes for people.
func writeStatus(w io.Writer, s api.Status) error {
	var b strings.Builder
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\n", name, value)
		}
	}
	row("version", s.Version)
	row("host name", s.Hostname)
	// One a line: a terminal is 80 columns wide, and an address with IPv6 has 40.
	row("registry", strings.Join(s.Registry, below))
	row("console", strings.Join(s.Console, below))
	row("certificate", s.Fingerprint)
	row("up since", s.Booted.Local().Format(time.DateTime+" MST"))
	row("first boot", phaseText(s))
	row("setup code", s.Code)
	row("health", s.Health)
	row("read-only", s.ReadOnly)
	if s.Pending != nil {
		row("network", "a change is taken back at "+s.Pending.Until.Local().Format(time.TimeOnly)+" unless it is confirmed (berth-agent network confirm)")
	}
	if s.Power != nil {
		row("planned", s.Power.Action+" at "+s.Power.At.Local().Format(time.DateTime))
	}
	for _, step := range s.Steps {
		if s.Phase != api.Ready {
			fmt.Fprintf(&b, "  %-8s %s", step.Status, step.Title)
			if step.Text != "" && step.Status != "done" {
				fmt.Fprintf(&b, ": %s", step.Text)
			}
			b.WriteByte('\n')
		}
	}
	writeProblems(&b, s.Problems)
	for _, warning := range s.Warnings {
		fmt.Fprintf(&b, "\nwarning: %s\n", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func phaseText(s api.Status) string {
	if s.Phase == api.Waiting && len(s.Missing) > 0 {
		return s.Phase + " for " + strings.Join(s.Missing, ", ")
	}
	return s.Phase
}

func writeProblems(b *strings.Builder, list []api.Problem) {
	for _, p := range list {
		fmt.Fprintf(b, "\n%s: %s\n", p.Name, p.Text)
		if p.Hint != "" {
			fmt.Fprintf(b, "  do: %s\n", p.Hint)
		}
		if len(p.Explains) > 0 {
			fmt.Fprintf(b, "  because of it: %s\n", strings.Join(p.Explains, ", "))
		}
	}
}
