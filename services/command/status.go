package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/health"
)

func (a *app) statusCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "status", Short: "Say what is wrong, the cause first, and what to do", Args: cobra.NoArgs, GroupID: "care",
		Long: "Asks everything that Berth consists of from outside: it needs no running Berth, and\n" +
			"changes nothing. What is wrong by itself comes first, with what to do and with what\n" +
			"fails because of it. The exit status is 0 if all is well, 1 if anything is not (also\n" +
			"if it only should be seen to), and 2 if the question was wrong.",
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return cli.Mistake(fault.New(fault.Invalid, "it must be text or json, not %q", output).On("--output"))
			}
			s, err := a.settings(c)
			if err != nil {
				return err
			}
			p, err := newPatient(c.Context(), s)
			if err != nil {
				return err
			}
			defer p.close()
			report := health.Run(c.Context(), p.checks())
			if output == "json" {
				err = writeJSON(a.stdout, statusDocument(report))
			} else {
				err = writeStatus(a.stdout, report, isTerminal(a.stdout))
			}
			if err == nil && report.State != health.Healthy {
				err = cli.ErrUnwell
			}
			return err
		},
	}
	a.settingFlags(c)
	c.Flags().StringVar(&a.flags.HTTPS, "https", a.flags.HTTPS, "`address` that Berth serves TLS on, host:port")
	c.Flags().StringVar(&a.flags.HTTP, "http", "", "`address` that Berth serves without TLS on")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

// statusResult is one check in JSON.
type statusResult struct {
	Name     string   `json:"name"`
	About    string   `json:"about"`
	Status   string   `json:"status"` // healthy, degraded, unhealthy
	Error    string   `json:"error,omitempty"`
	Hint     string   `json:"hint,omitempty"`
	Causes   []string `json:"causes,omitempty"`
	Explains []string `json:"explains,omitempty"`
	Millis   int64    `json:"ms"`
}

// statusReport is the whole in JSON, in the order of the text.
type statusReport struct {
	Status string         `json:"status"`
	Checks []statusResult `json:"checks"`
}

func statusDocument(r health.Report) statusReport {
	d := statusReport{Status: string(r.State), Checks: []statusResult{}}
	for _, x := range r.Results {
		w := statusResult{Name: x.Name, About: x.About, Status: string(x.State), Hint: x.Hint, Causes: x.Causes, Explains: x.Explains, Millis: x.Took.Milliseconds()}
		if x.Err != nil {
			w.Error = x.Err.Error()
		}
		d.Checks = append(d.Checks, w)
	}
	return d
}

// writeStatus writes for people. colour is for terminals.
func writeStatus(w io.Writer, r health.Report, colour bool) error {
	var b strings.Builder
	paint := func(s health.State, text string) string {
		if !colour {
			return text
		}
		return map[health.State]string{health.Healthy: "\x1b[32m", health.Degraded: "\x1b[33m", health.Unhealthy: "\x1b[31m"}[s] + text + "\x1b[0m"
	}
	fmt.Fprintf(&b, "%s\n\n", paint(r.State, strings.ToUpper(string(r.State))))
	for _, x := range r.Results {
		if !x.Root() {
			continue
		}
		fmt.Fprintf(&b, "  %s  %s\n", paint(x.State, fmt.Sprintf("%-12s", x.Name)), x.Err)
		if x.Hint != "" {
			fmt.Fprintf(&b, "  %-12s  do: %s\n", "", x.Hint)
		}
		if len(x.Explains) > 0 {
			fmt.Fprintf(&b, "  %-12s  because of it: %s\n", "", strings.Join(x.Explains, ", "))
		}
		b.WriteByte('\n')
	}
	for _, x := range r.Results {
		switch {
		case x.Root():
		case x.State == health.Healthy:
			fmt.Fprintf(&b, "  %s  well: %s\n", paint(x.State, fmt.Sprintf("%-12s", x.Name)), x.About)
		default:
			fmt.Fprintf(&b, "  %s  %s\n", paint(x.State, fmt.Sprintf("%-12s", x.Name)), x.Err)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
