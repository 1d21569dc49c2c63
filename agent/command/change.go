package command

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/agent/api"
	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

func (a *app) networkCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "network", Short: "Show or change the network", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent network\n  berth-agent network set --mode static --ip4 192.0.2.10/24 --gateway4 192.0.2.1 --dns 192.0.2.53\n  berth-agent network confirm",
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.agent().Network(c.Context())
			return show(a, n, err, a.writeNetwork)
		},
	}
	c.AddCommand(a.networkSet(),
		&cobra.Command{Use: "confirm [ID]", Short: "Keep the change of the network", Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return a.said(a.agent().ConfirmNetwork(c.Context(), strings.Join(args, "")), "the change is kept")
		}},
		&cobra.Command{Use: "revert", Short: "Take the change of the network back now", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			return a.said(a.agent().RevertNetwork(c.Context()), "the change is taken back")
		}},
		&cobra.Command{Use: "restore", Short: "Go back to DHCP, and open the firewall for the console", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			return a.said(a.agent().RestoreAccess(c.Context()), "the network comes from DHCP, and every network may reach the console")
		}},
	)
	return c
}

func (a *app) writeNetwork(n api.Network) error {
	pending := ""
	if n.Pending != nil {
		pending = n.Pending.ID + ", is being made"
		if n.Pending.Applied {
			pending = n.Pending.ID + ", taken back at " + at(n.Pending.Until) + " unless it is confirmed"
		}
	}
	s := n.Settings
	mode := s.Mode
	if mode == "" {
		mode = "dhcp"
	}
	return a.facts("host name", n.Now.Hostname, "interface", n.Now.Interface+" "+n.Now.MAC, "link", map[bool]string{true: "up", false: "down"}[n.Now.Up],
		"addresses", list(n.Now.Addresses), "gateways", strings.TrimSpace(n.Now.Gateway4+" "+n.Now.Gateway6), "dns", list(n.Now.DNS), "search", list(n.Now.Search),
		"settings", strings.TrimSpace(mode+" "+s.IP4+" "+s.IP6), "pending", pending)
}

func (a *app) networkSet() *cobra.Command {
	var n setting.Network
	c := &cobra.Command{
		Use: "set", Short: "Change the network; unless confirmed within two minutes, it is taken back", Args: cobra.NoArgs,
		Long: "Changes what is named and leaves the rest. The change is in force at once and taken\nback after two minutes, unless it is confirmed: at the console under the new address,\nor here (berth-agent network confirm).",
		RunE: func(c *cobra.Command, _ []string) error {
			now, err := a.agent().Network(c.Context())
			if err != nil {
				return err
			}
			s, f := now.Settings, c.Flags()
			for name, set := range map[string]func(){
				"hostname": func() { s.Hostname = n.Hostname }, "mode": func() { s.Mode = n.Mode }, "ip4": func() { s.IP4 = n.IP4 }, "gateway4": func() { s.Gateway4 = n.Gateway4 },
				"ip6": func() { s.IP6 = n.IP6 }, "gateway6": func() { s.Gateway6 = n.Gateway6 }, "dns": func() { s.DNS = n.DNS }, "search": func() { s.Search = n.Search },
			} {
				if f.Changed(name) {
					set()
				}
			}
			if f.Changed("mode") && s.Mode == "dhcp" { // addresses of before belong to static
				for name, field := range map[string]*string{"ip4": &s.IP4, "gateway4": &s.Gateway4} {
					if !f.Changed(name) {
						*field = ""
					}
				}
			}
			p, err := a.agent().ChangeNetwork(c.Context(), s)
			return show(a, p, err, func(p api.Pending) error {
				where := "by its new address"
				if len(p.Addresses) > 0 {
					where = "at " + list(p.Addresses)
				}
				return a.said(nil, "the change is taken back at %s unless it is confirmed:\n  berth-agent network confirm %s\nor over the network, %s", at(p.Until), p.ID, where)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&n.Hostname, "hostname", "", "the machine's `name`, fully qualified")
	f.StringVar(&n.Mode, "mode", "", "dhcp or static")
	f.StringVar(&n.IP4, "ip4", "", "`address` with its prefix length, 192.0.2.10/24")
	f.StringVar(&n.Gateway4, "gateway4", "", "default route, an `address`")
	f.StringVar(&n.IP6, "ip6", "", "`address` with its prefix length")
	f.StringVar(&n.Gateway6, "gateway6", "", "default route, an `address`")
	f.StringSliceVar(&n.DNS, "dns", nil, "`addresses` of servers")
	f.StringSliceVar(&n.Search, "search", nil, "`domains` that are tried behind short names")
	return c
}

func (a *app) namesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "names", Short: "Show or change the names of the registry", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent names set registry.example.com images.example.com",
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.agent().Names(c.Context())
			return show(a, n, err, a.writeNames)
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "set [NAME]…", Short: "Change the names beside the machine's own; the certificate follows", Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.agent().SetNames(c.Context(), args)
			return show(a, n, err, a.writeNames)
		},
	})
	return c
}

func (a *app) writeNames(n api.Names) error {
	return a.facts("host name", n.Hostname, "names", list(n.Names), "in the certificate", list(n.Certificate), "not in it", list(n.Missing))
}

func (a *app) timeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "time", Short: "Show or change time zone and time servers, or test a server", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent time set --zone Europe/Berlin --ntp ntp1.example.com,ntp2.example.com\n  berth-agent time test ntp1.example.com",
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.agent().Time(c.Context())
			return show(a, t, err, a.writeTime)
		},
	}
	var t setting.Time
	set := &cobra.Command{Use: "set", Short: "Change what is named, and leave the rest", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		now, err := a.agent().Time(c.Context())
		if err != nil {
			return err
		}
		s := now.Settings
		if c.Flags().Changed("zone") {
			s.Zone = t.Zone
		}
		if c.Flags().Changed("ntp") {
			s.NTP = t.NTP
		}
		now, err = a.agent().SetTime(c.Context(), s)
		return show(a, now, err, a.writeTime)
	}}
	set.Flags().StringVar(&t.Zone, "zone", "", "`name` of the tz database")
	set.Flags().StringSliceVar(&t.NTP, "ntp", nil, "`servers`; empty: from DHCP")
	test := &cobra.Command{Use: "test [SERVER]", Short: "Ask a server, or those of the settings", Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		answers, err := a.agent().TestTime(c.Context(), strings.Join(args, ""))
		bad := false
		err = show(a, answers, err, func(l []api.TimeAnswer) error {
			rows := [][]string{{"server", "offset", "round trip", "stratum", ""}}
			for _, t := range l {
				if t.Fault != nil {
					rows = append(rows, []string{t.Server, "", "", "", t.Fault.Text})
					continue
				}
				rows = append(rows, []string{t.Server, fmt.Sprintf("%.1f ms", t.OffsetMillis), fmt.Sprintf("%.1f ms", t.RTTMillis), fmt.Sprint(t.Stratum), "ok"})
			}
			return a.table(rows...)
		})
		for _, t := range answers {
			bad = bad || t.Fault != nil
		}
		if err == nil && bad {
			err = cli.ErrUnwell
		}
		return err
	}}
	c.AddCommand(set, test)
	return c
}

func (a *app) writeTime(t api.Time) error {
	return a.facts("time", t.Now.Format(time.RFC3339), "zone", t.Zone, "synchronised", yes(t.Synchronized), "with", t.Server, "state", t.Text, "servers", list(t.Settings.NTP))
}

func (a *app) firewallCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "firewall", Short: "Show or change which networks reach which ports", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent firewall set --console 192.0.2.0/24,2001:db8::/64\n  berth-agent firewall set --registry ''",
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := a.agent().Firewall(c.Context())
			return show(a, f, err, a.writeFirewall)
		},
	}
	var wanted setting.Firewall
	var force bool
	set := &cobra.Command{Use: "set", Short: "Change what is named, and leave the rest; an empty list admits all", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		f, err := a.agent().Firewall(c.Context())
		if err != nil {
			return err
		}
		for name, field := range map[string]struct{ to, from *[]string }{
			"registry": {&f.Registry, &wanted.Registry}, "console": {&f.Console, &wanted.Console}, "ssh": {&f.SSH, &wanted.SSH},
		} {
			if c.Flags().Changed(name) {
				*field.to = *field.from
			}
		}
		f, err = a.agent().SetFirewall(c.Context(), f, force)
		return show(a, f, err, a.writeFirewall)
	}}
	set.Flags().StringSliceVar(&wanted.Registry, "registry", nil, "`networks` for ports 80 and 443")
	set.Flags().StringSliceVar(&wanted.Console, "console", nil, "`networks` for port 5480")
	set.Flags().StringSliceVar(&wanted.SSH, "ssh", nil, "`networks` for port 22")
	set.Flags().BoolVar(&force, "force", false, "also if it shuts out who asks")
	c.AddCommand(set)
	return c
}

func (a *app) writeFirewall(f setting.Firewall) error {
	from := func(l []string) string {
		if len(l) == 0 {
			return "everywhere"
		}
		return list(l)
	}
	return a.table([]string{"port", "reached from"}, []string{"registry (80, 443)", from(f.Registry)}, []string{"console (5480)", from(f.Console)}, []string{"ssh (22)", from(f.SSH)})
}

func (a *app) sshCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ssh", Short: "Show whether SSH is on, or switch it", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent ssh on --hours 2\n  berth-agent ssh keys /root/admin.pub\n  berth-agent ssh off",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.agent().SSH(c.Context())
			return show(a, s, err, a.writeSSH)
		},
	}
	enabled, disabled := true, false
	var hours float64
	on := &cobra.Command{Use: "on", Short: "Switch SSH on, for ever or for a time", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		if math.IsNaN(hours) || math.IsInf(hours, 0) {
			return fault.New(fault.Invalid, "it must be a number").On("--hours")
		}
		s, err := a.agent().SetSSH(c.Context(), api.SetSSH{Enabled: &enabled, Hours: &hours})
		return show(a, s, err, a.writeSSH)
	}}
	on.Flags().Float64Var(&hours, "hours", 0, "for so many `hours`; 0: for ever")
	c.AddCommand(on,
		&cobra.Command{Use: "off", Short: "Switch SSH off", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.agent().SetSSH(c.Context(), api.SetSSH{Enabled: &disabled})
			return show(a, s, err, a.writeSSH)
		}},
		&cobra.Command{Use: "keys FILE", Short: "Set root's authorized keys (- is standard input; an empty file takes all away)", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			text, err := a.input(args[0])
			if err != nil {
				return err
			}
			keys := strings.Split(text, "\n")
			s, err := a.agent().SetSSH(c.Context(), api.SetSSH{Keys: &keys})
			return show(a, s, err, a.writeSSH)
		}},
	)
	return c
}

func (a *app) writeSSH(s api.SSH) error {
	state := "off"
	if s.Enabled {
		state = "on"
	}
	if s.Enabled && !s.Until.IsZero() {
		state += " until " + at(s.Until)
	}
	return a.facts("ssh", state, "keys of root", fmt.Sprint(len(s.Keys)), "host keys", strings.Join(s.Fingerprints, ", "))
}

func (a *app) passwordCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "password console|root|registry", Short: "Change a password", Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"console", "root", "registry"}, GroupID: "change",
		Long:    "Changes the password of console (the user admin at port 5480), root (of the machine) or\nregistry (the user admin of the registry). It is asked for, or read from standard input\nor a file; never given on the command line, which others can see.",
		Example: "  berth-agent password console\n  berth-agent password registry --password-file /root/password",
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.password(c.Context(), file, "new password of "+args[0])
			if err != nil {
				return err
			}
			return a.said(a.agent().SetPassword(c.Context(), args[0], p), "%s has a new password", args[0])
		},
	}
	c.Flags().StringVar(&file, "password-file", "", "take it from `file`; - is standard input")
	return c
}
