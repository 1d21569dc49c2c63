package command

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/agent/api"
	"berth/appliance/cli"
)

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Make all checks; what is wrong comes first, the cause before its effects", Args: cobra.NoArgs, GroupID: "look",
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := a.agent().Health(c.Context())
			err = show(a, h, err, func(h api.Health) error {
				var b strings.Builder
				fmt.Fprintf(&b, "%s\n", strings.ToUpper(h.State))
				var well [][]string
				for _, check := range h.Checks {
					if check.State == "healthy" {
						well = append(well, []string{check.Name, "well: " + check.About})
						continue
					}
					text := check.Text
					if len(check.Causes) > 0 {
						text += " (because of: " + strings.Join(check.Causes, ", ") + ")"
					}
					writeProblems(&b, []api.Problem{{Name: check.Name, Text: text, Hint: check.Hint, Explains: check.Explains}})
				}
				b.WriteByte('\n')
				if _, err := fmt.Fprint(a.stdout, b.String()); err != nil {
					return err
				}
				return a.table(append([][]string{{"check", ""}}, well...)...)
			})
			if err == nil && h.State != "healthy" {
				err = cli.ErrUnwell
			}
			return err
		},
	}
}

func (a *app) servicesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "services", Short: "List the services, or start, stop, restart one", Args: cobra.NoArgs, GroupID: "look",
		Example: "  berth-agent services\n  berth-agent services restart berth-core",
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.agent().Services(c.Context())
			return show(a, l, err, func(l []api.Service) error {
				rows := [][]string{{"name", "state", "since", "memory", "restarts", "what it is for"}}
				for _, s := range l {
					state := s.State
					if s.State == "failed" {
						state += " (" + s.Detail + ")"
					}
					memory := ""
					if s.MemoryBytes > 0 { // else it does not run, or nobody counts
						memory = size(s.MemoryBytes)
					}
					rows = append(rows, []string{s.Name, state, at(s.Since), memory, strconv.Itoa(s.Restarts), s.Title})
				}
				return a.table(rows...)
			})
		},
	}
	for _, action := range []string{"start", "stop", "restart"} {
		c.AddCommand(&cobra.Command{
			Use: action + " NAME", Short: strings.ToUpper(action[:1]) + action[1:] + " a service", Args: cobra.ExactArgs(1), ValidArgsFunction: a.serviceNames,
			RunE: func(c *cobra.Command, args []string) error {
				s, err := a.agent().Act(c.Context(), args[0], action)
				return show(a, s, err, func(s api.Service) error { return a.said(nil, "%s is %s", s.Name, s.State) })
			},
		})
	}
	return c
}

// serviceNames completes names in a shell.
func (a *app) serviceNames(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	l, err := a.agent().Services(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range l {
		names = append(names, s.Name+"\t"+s.Title)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) logsCommand() *cobra.Command {
	var lines int
	var journal bool
	c := &cobra.Command{
		Use: "logs [COMPONENT]", Short: "Show the newest log messages", Args: cobra.MaximumNArgs(1), GroupID: "look",
		Long:    "Shows the newest messages of the log service, or of systemd's journal. To search the\nlog service, or to follow it: berth logs --help.",
		Example: "  berth-agent logs registry\n  berth-agent logs --journal berth-postgres --lines 50",
		RunE: func(c *cobra.Command, args []string) error {
			source, component := "berth", ""
			if journal {
				source = "journal"
			}
			if len(args) > 0 {
				component = args[0]
			}
			l, err := a.agent().Logs(c.Context(), source, component, lines)
			return show(a, l, err, func(l []api.Line) error {
				for _, line := range l {
					if _, err := fmt.Fprintf(a.stdout, "%s %-8s %-10s %s\n", at(line.Time), line.Level, line.Component, harmless(line.Text)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().IntVarP(&lines, "lines", "n", 100, "how many, at most 1000")
	c.Flags().BoolVar(&journal, "journal", false, "of systemd's journal; COMPONENT is a unit")
	return c
}

// harmless keeps a stranger's words from steering the terminal.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

func (a *app) auditCommand() *cobra.Command {
	var entries int
	c := &cobra.Command{
		Use: "audit", Short: "Show who changed what on the appliance, the newest first", Args: cobra.NoArgs, GroupID: "look",
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.agent().Audit(c.Context(), entries)
			return show(a, l, err, func(l []api.Event) error {
				rows := [][]string{{"time", "user", "from", "action", "what", "result"}}
				for _, e := range l {
					rows = append(rows, []string{at(e.Time), harmless(e.User), harmless(e.From), e.Action, harmless(strings.TrimSpace(e.Target + " " + e.Detail)), harmless(e.Result)})
				}
				return a.table(rows...)
			})
		},
	}
	c.Flags().IntVarP(&entries, "entries", "n", 50, "how many")
	return c
}

func (a *app) openAPICommand() *cobra.Command {
	return &cobra.Command{
		Use: "openapi", Short: "Print the API's document (OpenAPI 3.1)", Args: cobra.NoArgs, GroupID: "look",
		Long: "Prints the document of the REST API, which the console has as a page to read at\nhttps://ADDRESS:5480/api/docs/.",
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.agent().OpenAPI(c.Context())
			if err == nil {
				_, err = a.stdout.Write(b)
			}
			return err
		},
	}
}
