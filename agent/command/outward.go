package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/agent/api"
	"berth/appliance/cli"
	"berth/appliance/setting"
)

func (a *app) proxyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "proxy", Short: "Show, change or test the proxy for outgoing connections", Args: cobra.NoArgs, GroupID: "change",
		Long: "Show, change or test the proxy for outgoing connections.\n\nWebhooks, OIDC providers and a collector of traces are reached through it. Directories (LDAP), collectors of log\n" +
			"messages, time servers, vCenter and an object store are connected to directly, as is this machine itself. A change\nrestarts the REST API and the background jobs; pushes and pulls go on.",
		Example: "  berth-agent proxy set --http http://proxy.example.com:3128 --no-proxy .example.com,10.0.0.0/8\n  berth-agent proxy test https://registry-1.docker.io/v2/",
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.agent().Proxy(c.Context())
			return show(a, p, err, a.writeProxy)
		},
	}
	var wanted setting.Proxy
	var file string
	set := &cobra.Command{Use: "set", Short: "Change what is named, and leave the rest", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		p, err := a.agent().Proxy(c.Context())
		if err != nil {
			return err
		}
		f := c.Flags()
		for name, set := range map[string]func(){
			"http": func() { p.HTTP = wanted.HTTP }, "https": func() { p.HTTPS = wanted.HTTPS }, "no-proxy": func() { p.NoProxy = wanted.NoProxy }, "username": func() { p.Username = wanted.Username },
		} {
			if f.Changed(name) {
				set()
			}
		}
		if file != "" {
			password, err := a.password(c.Context(), file, "")
			if err != nil {
				return err
			}
			text := password.Reveal()
			p.Password = &text
		}
		p, err = a.agent().SetProxy(c.Context(), p)
		return show(a, p, err, a.writeProxy)
	}}
	set.Flags().StringVar(&wanted.HTTP, "http", "", "`URL` of the proxy for http")
	set.Flags().StringVar(&wanted.HTTPS, "https", "", "`URL` of the proxy for https, if it is another")
	set.Flags().StringSliceVar(&wanted.NoProxy, "no-proxy", nil, "`names`, domains and networks that are connected to directly")
	set.Flags().StringVar(&wanted.Username, "username", "", "`name` for the proxy")
	set.Flags().StringVar(&file, "password-file", "", "`file` with its password; - is standard input")
	c.AddCommand(set, &cobra.Command{Use: "test URL", Short: "Try to reach a URL through it", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		t, err := a.agent().TestProxy(c.Context(), api.ProxyTest{URL: args[0]})
		return a.tested(t, err)
	}})
	return c
}

// tested prints how a test came out; one that did not is an exit status of 1.
func (a *app) tested(t api.Tested, err error) error {
	err = show(a, t, err, func(t api.Tested) error {
		if _, err := fmt.Fprintln(a.stdout, t.Text); err != nil || t.Hint == "" {
			return err
		}
		_, err := fmt.Fprintln(a.stdout, "  do: "+t.Hint)
		return err
	})
	if err == nil && !t.OK {
		err = cli.ErrUnwell
	}
	return err
}

func (a *app) writeProxy(p api.Proxy) error {
	if p.HTTP+p.HTTPS == "" {
		return a.said(nil, "there is no proxy")
	}
	return a.facts("http", p.HTTP, "https", p.HTTPS, "directly", list(p.NoProxy), "user", p.Username, "password", yes(p.HasPassword))
}

func (a *app) syslogCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "syslog", Short: "Show, change or test the collectors of log messages", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent syslog add siem tls://siem.example.com:6514 --ca siem-ca.pem\n  berth-agent syslog test siem\n  berth-agent syslog remove siem",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.agent().Syslog(c.Context())
			return show(a, s, err, a.writeSyslog)
		},
	}
	c.AddCommand(a.syslogAdd(),
		&cobra.Command{Use: "remove NAME", Short: "Remove a collector", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return a.changeSyslog(c, args[0], nil)
		}},
		&cobra.Command{Use: "test NAME", Short: "Send a test message to a collector", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			t, err := a.agent().TestSyslog(c.Context(), args[0])
			return a.tested(t, err)
		}},
	)
	return c
}

func (a *app) syslogAdd() *cobra.Command {
	var one api.Collector
	var ca string
	c := &cobra.Command{Use: "add NAME udp|tcp|tls://HOST[:PORT]", Short: "Add or change a collector", Args: cobra.ExactArgs(2), RunE: func(c *cobra.Command, args []string) error {
		one.Name, one.To = args[0], args[1]
		if ca != "" {
			var err error
			if one.CACertificate, err = a.input(ca); err != nil {
				return err
			}
		}
		return a.changeSyslog(c, one.Name, &one)
	}}
	c.Flags().StringVar(&one.Format, "format", "", "rfc5424 (the usual one) or json")
	c.Flags().StringVar(&one.Level, "level", "", "the least severe that is sent")
	c.Flags().StringVar(&ca, "ca", "", "`file` with authorities to trust instead of the system's (tls)")
	c.Flags().StringVar(&one.ServerName, "server-name", "", "`name` in its certificate, if it is another")
	return c
}

// changeSyslog puts a collector in the place of the one of its name; nil removes it.
func (a *app) changeSyslog(c *cobra.Command, name string, one *api.Collector) error {
	s, err := a.agent().Syslog(c.Context())
	if err != nil {
		return err
	}
	wanted, found := api.Syslog{Forward: []api.Collector{}}, false
	for _, have := range s.Forward {
		switch {
		case have.Name != name:
			wanted.Forward = append(wanted.Forward, have)
		case one != nil:
			wanted.Forward, found = append(wanted.Forward, *one), true
		default:
			found = true
		}
	}
	if !found && one == nil {
		return cli.Mistake(fmt.Errorf("there is no collector %q", name))
	}
	if !found {
		wanted.Forward = append(wanted.Forward, *one)
	}
	s, err = a.agent().SetSyslog(c.Context(), wanted)
	return show(a, s, err, a.writeSyslog)
}

func (a *app) writeSyslog(s api.Syslog) error {
	if len(s.Forward) == 0 {
		return a.said(nil, "log messages are kept here and sent to nobody")
	}
	rows := [][]string{{"name", "to", "format", "level", "waiting", "state"}}
	for _, f := range s.Forward {
		row := []string{f.Name, f.To, f.Format, f.Level, "", "the log service does not say"}
		for _, now := range s.Now {
			if now.Name == f.Name {
				row[4], row[5] = fmt.Sprint(now.Waiting), "ok"
				if now.Error != "" {
					row[5] = now.Error
				}
			}
		}
		rows = append(rows, row)
	}
	return a.table(rows...)
}

func (a *app) setupCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "setup", Short: "Show where the first boot stands, or give it its answers", Args: cobra.NoArgs, GroupID: "care",
		Long:    "Shows where the first boot stands. Its answers are values by the names of the OVF\nproperties (docs/properties.md), one to a line: NAME=VALUE. They are read from a file or\nstandard input, so that passwords are in no command line.",
		Example: "  berth-agent setup\n  berth-agent setup apply answers.txt",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.agent().Setup(c.Context())
			return show(a, s, err, a.writeSetup)
		},
	}
	for _, what := range []struct{ use, short string }{{"check", "Say everything that is wrong with the answers"}, {"apply", "Begin the first boot with the answers"}} {
		c.AddCommand(&cobra.Command{Use: what.use + " FILE", Short: what.short + " (- is standard input)", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			text, err := a.input(args[0])
			if err != nil {
				return err
			}
			answers, err := parseAnswers(text)
			if err != nil {
				return err
			}
			if what.use == "check" {
				return a.said(a.agent().CheckSetup(c.Context(), answers), "nothing is wrong")
			}
			return a.said(a.agent().ApplySetup(c.Context(), answers), "the first boot has begun: berth-agent setup says how far it is")
		}})
	}
	return c
}

// parseAnswers reads lines NAME=VALUE; disks.ROLE=DEVICE chooses a blank disk.
func parseAnswers(text string) (api.Answers, error) {
	a := api.Answers{Values: map[string]string{}, Disks: map[string]string{}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return a, cli.Mistake(fmt.Errorf("line %d is not NAME=VALUE", number))
		}
		if role, isDisk := strings.CutPrefix(strings.TrimSpace(name), "disks."); isDisk {
			a.Disks[role] = value
			continue
		}
		a.Values[strings.TrimSpace(name)] = value
	}
	return a, nil
}

func (a *app) writeSetup(s api.Setup) error {
	if err := a.facts("phase", s.Phase, "why", s.Text, "do", s.Hint, "missing", list(s.Missing), "registry", list(s.Registry), "console", list(s.Console)); err != nil {
		return err
	}
	for _, f := range s.Faults {
		fmt.Fprintf(a.stdout, "  %s: %s\n", f.Field, f.Text)
	}
	rows := [][]string{{"step", "state", ""}}
	for _, step := range s.Steps {
		rows = append(rows, []string{step.Title, step.Status, strings.TrimSpace(step.Text + " " + step.Hint)})
	}
	return a.table(rows...)
}
