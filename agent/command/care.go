package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

func (a *app) disksCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "disks", Short: "Show how full the disks are, change their limits, let one grow, or replace a lost one", Args: cobra.NoArgs, GroupID: "care",
		Example: "  berth-agent disks\n  berth-agent disks grow data",
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.agent().Disks(c.Context())
			return show(a, d, err, a.writeDisks)
		},
	}
	var limits setting.Disks
	set := &cobra.Command{Use: "set", Short: "Change when a disk counts as nearly full, and when the registry takes no more pushes", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		d, err := a.agent().Disks(c.Context())
		if err != nil {
			return err
		}
		if c.Flags().Changed("warn") {
			d.Settings.WarnPercent = limits.WarnPercent
		}
		if c.Flags().Changed("read-only") {
			d.Settings.ReadOnlyPercent = limits.ReadOnlyPercent
		}
		d, err = a.agent().SetDisks(c.Context(), d.Settings)
		return show(a, d, err, a.writeDisks)
	}}
	set.Flags().IntVar(&limits.WarnPercent, "warn", 0, "in `percent`; 0 is 80")
	set.Flags().IntVar(&limits.ReadOnlyPercent, "read-only", 0, "in `percent`; 0 is 95")
	c.AddCommand(set, &cobra.Command{
		Use: "grow ROLE", Short: "Make a file system as large as its disk, which was enlarged in vCenter", Args: cobra.ExactArgs(1), ValidArgs: []string{"data", "database", "log"},
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.agent().Grow(c.Context(), args[0])
			return show(a, d, err, func(d api.Disk) error {
				if d.Text != "" {
					return a.said(nil, "%s: %s, %s", d.Role, size(d.Bytes), d.Text)
				}
				return a.said(nil, "%s has %s now", d.Role, size(d.Bytes))
			})
		},
	}, &cobra.Command{
		Use: "replace ROLE DEVICE", Short: "Take another disk for a role whose own one is lost", Args: cobra.ExactArgs(2), ValidArgs: []string{"data", "database", "log"},
		Long: "When a disk is missing the appliance does not start. If it is lost for good, this takes\nanother one in its place and goes on with the start: a blank one for the log, a copy of\nthe lost one for data or database. A disk with anything else on it is not touched.",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.agent().ReplaceDisk(c.Context(), args[0], args[1])
			return show(a, d, err, a.writeDisks)
		},
	})
	return c
}

func (a *app) writeDisks(d api.Disks) error {
	rows := [][]string{{"role", "mounted", "device", "size", "used", "", "state"}}
	for _, x := range d.Disks {
		rows = append(rows, []string{x.Role, x.Mount, x.Device, size(x.Bytes), size(x.Used), fmt.Sprintf("%d %%", x.Percent), strings.TrimSpace(x.State + " " + x.Text)})
	}
	if d.ReadOnly != "" {
		fmt.Fprintf(a.stdout, "the registry takes no pushes: %s\n\n", d.ReadOnly)
	}
	return a.table(rows...)
}

func (a *app) supportCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "support", Short: "Make, list, download and delete support bundles", Args: cobra.NoArgs, GroupID: "care",
		Example: "  berth-agent support create --output /root/support.tar.gz",
		RunE:    func(c *cobra.Command, _ []string) error { return a.listBundles(c) },
	}
	var output string
	create := &cobra.Command{Use: "create", Short: "Make a support bundle, and wait for it", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		to, err := a.target(output)
		if err != nil {
			return err
		}
		defer to.abandon() // nothing happens if it is whole
		b, err := a.agent().CreateBundle(c.Context())
		for err == nil && b.State == "running" {
			select {
			case <-c.Context().Done():
				return fault.Wrap(fault.Unavailable, c.Context().Err(), "interrupted; %s is made all the same", b.ID).WithHint("berth-agent support download %s", b.ID)
			case <-time.After(500 * time.Millisecond):
			}
			b, err = a.agent().Bundle(c.Context(), b.ID)
		}
		if err == nil && b.Fault != nil {
			err = fault.New(fault.Unavailable, "%s", b.Fault.Text).WithHint("%s", b.Fault.Hint)
		}
		if err == nil && output != "" {
			err = a.download(c, b.ID, to)
		}
		return show(a, b, err, func(b api.Bundle) error { return a.said(nil, "%s: %s", b.ID, size(uint64(b.Bytes))) })
	}}
	create.Flags().StringVarP(&output, "output", "o", "", "download it into `file`; - is standard output")
	download := &cobra.Command{Use: "download ID", Short: "Download a support bundle", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		if output == "" {
			output = "berth-support-" + args[0] + ".tar.gz"
		}
		to, err := a.target(output)
		if err != nil {
			return err
		}
		defer to.abandon()
		return a.download(c, args[0], to)
	}}
	download.Flags().StringVarP(&output, "output", "o", "", "into `file`; - is standard output")
	c.AddCommand(create, download,
		&cobra.Command{Use: "list", Short: "List the support bundles", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return a.listBundles(c) }},
		&cobra.Command{Use: "delete ID", Short: "Delete a support bundle", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return a.said(a.agent().DeleteBundle(c.Context(), args[0]), "%s is deleted", args[0])
		}},
	)
	return c
}

func (a *app) listBundles(c *cobra.Command) error {
	l, err := a.agent().Bundles(c.Context())
	return show(a, l, err, func(l []api.Bundle) error {
		rows := [][]string{{"id", "state", "begun", "size"}}
		for _, b := range l {
			rows = append(rows, []string{b.ID, b.State, at(b.Begun), size(uint64(b.Bytes))})
		}
		return a.table(rows...)
	})
}

// target is where a download goes: a file, which is gone again if it does not become
// whole, or standard output.
type target struct {
	io.Writer
	file *os.File // nil: it is none, or whole
}

// target opens the file before there is anything to write: what cannot be written
// is said at once. "-" is standard output, "" nothing.
func (a *app) target(path string) (*target, error) {
	if path == "" || path == "-" {
		return &target{Writer: a.stdout}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot write the file").On("--output")
	}
	return &target{f, f}, nil
}

// abandon takes half a file away.
func (o *target) abandon() {
	if o.file == nil {
		return
	}
	info, err := o.file.Stat()
	o.file.Close()
	if err == nil && info.Mode().IsRegular() {
		os.Remove(o.file.Name())
	}
}

// whole closes the file.
func (o *target) whole() error {
	if o.file == nil {
		return nil
	}
	info, err := o.file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = o.file.Sync()
	}
	if err != nil {
		return err
	}
	f := o.file
	o.file = nil
	return f.Close()
}

func (a *app) download(c *cobra.Command, id string, to *target) error {
	in, err := a.agent().DownloadBundle(c.Context(), id)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err = io.Copy(to, in); err != nil {
		return err
	}
	return to.whole()
}

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Export, validate and apply the whole configuration", Args: cobra.NoArgs, GroupID: "care",
		Example: "  berth-agent config export > appliance.yaml\n  berth-agent config validate appliance.yaml\n  berth-agent config apply appliance.yaml",
	}
	c.AddCommand(&cobra.Command{Use: "export", Short: "Print all settings as YAML, without secrets", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return a.raw(a.agent().Configuration(c.Context()))
	}})
	for _, what := range []struct{ use, short string }{
		{"validate", "Say what applying a file would change, or everything that is wrong with it"},
		{"apply", "Apply what is different in a file; sections that it does not name stay as they are"},
	} {
		c.AddCommand(&cobra.Command{Use: what.use + " FILE", Short: what.short + " (- is standard input)", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			text, err := a.input(args[0])
			if err != nil {
				return err
			}
			do := a.agent().ValidateConfiguration
			if what.use == "apply" {
				do = a.agent().ApplyConfiguration
			}
			d, err := do(c.Context(), text)
			return show(a, d, err, a.writeApplied)
		}})
	}
	return c
}

func (a *app) writeApplied(d api.Applied) error {
	if len(d.Changes) == 0 {
		return a.said(nil, "nothing is different")
	}
	rows := [][]string{{"field", "from", "to"}}
	for _, x := range d.Changes {
		one := func(s string) string { return harmless(strings.Join(strings.Fields(s), " ")) }
		rows = append(rows, []string{x.Field, one(x.From), one(x.To)})
	}
	if err := a.table(rows...); err != nil {
		return err
	}
	verb := "this would "
	if d.Done {
		verb = "done: "
	}
	for _, x := range d.Actions {
		fmt.Fprintln(a.stdout, verb+x)
	}
	if d.Pending != nil {
		return a.said(nil, "the change of the network is taken back at %s unless it is confirmed: berth-agent network confirm %s", at(d.Pending.Until), d.Pending.ID)
	}
	return nil
}

func (a *app) powerCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, what := range []struct{ action, short string }{{"reboot", "Restart the machine"}, {"shutdown", "Switch the machine off"}} {
		var p api.Power
		var cancel bool
		var in time.Duration
		c := &cobra.Command{
			Use: what.action, Short: what.short + ", at once or later", Args: cobra.NoArgs, GroupID: "care",
			Example: "  berth-agent " + what.action + " --in 10m --reason 'move to another rack'\n  berth-agent " + what.action + " --cancel",
			RunE: func(c *cobra.Command, _ []string) error {
				if cancel {
					return a.said(a.agent().CancelPower(c.Context()), "what was planned is taken back")
				}
				p.Seconds = int(in.Round(time.Second) / time.Second)
				s, err := a.agent().Power(c.Context(), what.action, p)
				return show(a, s, err, func(s api.PowerState) error { return a.said(nil, "%s at %s", s.Action, at(s.At)) })
			},
		}
		c.Flags().DurationVar(&in, "in", 0, "after this `time`: 90s, 10m, 2h")
		c.Flags().StringVar(&p.Reason, "reason", "", "`text` for the audit trail")
		c.Flags().BoolVar(&cancel, "cancel", false, "take a planned reboot or shutdown back")
		list = append(list, c)
	}
	return list
}
