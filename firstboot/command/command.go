// Package command is berth-agent firstboot …: what berth-firstboot.service runs at
// every boot, a look at how far it is, and a check of an environment or a settings
// file before anything is deployed.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/ovfenv"
	"berth/appliance/setting"
	"berth/appliance/systemd"
	"berth/firstboot"
	"berth/firstboot/step"
)

// New gives the command. A flag --json of a command above it is heeded.
func New() *cobra.Command {
	c := &cobra.Command{Use: "firstboot", Short: "What happens at the first boot, and at every later one"}
	c.AddCommand(runCommand(), statusCommand(), checkCommand(), offeredCommand(), settleCommand())
	return c
}

// Files are where an OVF environment is looked for besides guestinfo and CD: the
// first is for machines that others set up, the second for a hand-made one.
func Files() []string { return []string{"/run/berth-seed/ovf-env.xml", "/etc/berth/ovf-env.xml"} }

// patience is how long an answer of systemd may take before a step has failed.
const patience = 2 * time.Minute

// payload is what only install.sh puts onto a machine.
const payload = "/usr/lib/berth"

func runCommand() *cobra.Command {
	var tool string
	c := &cobra.Command{
		Use: "run", Short: "Do what this boot needs; berth-firstboot.service runs it", Args: cobra.NoArgs,
		Long: "Does the first boot, or what is left of it: imports the OVF environment (guestinfo, CD,\n" +
			strings.Join(Files(), ", ") + "), and does the steps. At later boots it mounts\n" +
			"the disks and starts the services. It ends well if it waits for the wizard.",
		RunE: func(c *cobra.Command, _ []string) error {
			// On another machine it would set root's password, and format disks.
			if _, err := os.Stat(payload); err != nil {
				return fault.Wrap(fault.Precondition, err, "this machine is not an appliance: there is no %s", payload)
			}
			unix.Umask(0o022) // modes are said where files are made
			settle(c.Context())
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			conn := systemd.New(patience)
			defer conn.Close()
			sources := []ovfenv.Source{ovfenv.GuestInfo(guestinfo.New(tool)), ovfenv.CD("/dev")}
			for _, f := range Files() {
				sources = append(sources, ovfenv.File(f))
			}
			m := step.Machine{Systemd: conn}
			return firstboot.Run(c.Context(), firstboot.Options{Sources: sources, Steps: m.All(), Log: log, Reach: m.Reach})
		},
	}
	c.Flags().StringVar(&tool, "guestinfo-tool", "", "`path` of vmware-rpctool or vmtoolsd (default: whichever is there)")
	return c
}

// settle waits until udev has seen to the devices that were there at power-on: CD
// drives want a module. Where there is no udev there is nothing to wait for.
func settle(ctx context.Context) {
	if _, err := os.Stat("/run/udev/control"); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/udevadm", "settle", "--timeout=15")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	_ = cmd.Run() // the disks are looked for again if they are not there
}

func statusCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "status", Short: "Show how far the first boot is, and why it waits or has failed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := firstboot.ReadState(dir)
			if err != nil {
				return err
			}
			if asJSON(c) {
				return writeJSON(c.OutOrStdout(), s)
			}
			return show(c.OutOrStdout(), s)
		},
	}
	c.Flags().StringVar(&dir, "state", setting.StateDir, "`directory` of the state")
	return c
}

func asJSON(c *cobra.Command) bool {
	is, err := c.Flags().GetBool("json")
	return err == nil && is
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func show(out io.Writer, s firstboot.State) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "phase: %s\n", s.Phase)
	for _, line := range []struct{ name, text string }{{"reason", s.Text}, {"what to do", s.Hint}, {"environment", s.Source}} {
		if line.text != "" {
			fmt.Fprintf(&b, "%s: %s\n", line.name, line.text)
		}
	}
	if s.Done() {
		fmt.Fprintf(&b, "first boot ended: %s\n", s.Installed.Format(time.RFC3339))
	}
	fmt.Fprintln(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, step := range s.Steps {
		took := ""
		if !step.Ended.IsZero() {
			took = step.Ended.Sub(step.Begun).Round(10 * time.Millisecond).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", step.Status, step.Title, took, step.Text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, list := range []struct {
		name  string
		items []string
	}{{"missing", s.Missing}, {"changed since the first boot, not applied (berth-agent firstboot offered)", s.Changed}, {"warnings", s.Warnings}} {
		if list.items != nil {
			fmt.Fprintf(&b, "\n%s:\n  %s\n", list.name, strings.Join(list.items, "\n  "))
		}
	}
	showFaults(&b, s.Faults)
	_, err := out.Write(b.Bytes())
	return err
}

func showFaults(b *bytes.Buffer, faults []firstboot.Fault) {
	for _, f := range faults {
		if b.WriteString("  "); f.Field != "" {
			b.WriteString(f.Field + ": ")
		}
		b.WriteString(f.Text + "\n")
		if f.Hint != "" {
			fmt.Fprintf(b, "    hint: %s\n", f.Hint)
		}
	}
}

func offeredCommand() *cobra.Command {
	var dir, file string
	c := &cobra.Command{
		Use: "offered", Short: "Print the settings with what has changed in the OVF environment since the first boot", Args: cobra.NoArgs,
		Long: "What somebody has changed in the virtual machine's vApp properties since the first boot\n" +
			"is never applied by itself. This prints the present settings with these values.",
		Example: "  berth-agent firstboot offered | berth-agent config apply - && berth-agent firstboot settle",
		RunE: func(c *cobra.Command, _ []string) error {
			state, err := firstboot.ReadState(dir)
			if err != nil {
				return err
			}
			if state.Offered == nil {
				return fault.New(fault.NotFound, "no property has changed that settings could take").WithHint("see berth-agent firstboot status")
			}
			present, err := setting.Read(file)
			if err != nil {
				return err
			}
			s, err := state.Offer(present)
			if err != nil {
				return err
			}
			b, err := setting.Encode(s)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		},
	}
	c.Flags().StringVar(&dir, "state", setting.StateDir, "`directory` of the state")
	c.Flags().StringVar(&file, "config", setting.File, "settings `file`")
	return c
}

func settleCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "settle", Short: "Take the OVF environment as it is now for known, so that nothing of it is offered any more", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return firstboot.Settle(dir) },
	}
	c.Flags().StringVar(&dir, "state", setting.StateDir, "`directory` of the state")
	return c
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Report every fault in an OVF environment or a settings file (- is standard input)", Args: cobra.ExactArgs(1),
		Long: "Reads FILE as the first boot would: an OVF environment (XML), a settings file as it goes\n" +
			"into install.config_b64 (YAML), or properties, one a line as NAME=VALUE. It needs no\n" +
			"appliance and changes nothing.",
		Example: "  berth-agent firstboot check ovf-env.xml\n  vmware-rpctool 'info-get guestinfo.ovfEnv' | berth-agent firstboot check -",
		RunE: func(c *cobra.Command, args []string) error {
			b, err := read(c.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			faults, missing, err := examine(b)
			if err != nil {
				return err
			}
			if asJSON(c) {
				err = writeJSON(c.OutOrStdout(), map[string]any{"faults": faults, "missing": missing})
			} else {
				err = report(c.OutOrStdout(), faults, missing)
			}
			if err == nil && len(faults) > 0 {
				err = fault.New(fault.Invalid, "faults in %s: %d", args[0], len(faults))
			}
			return err
		},
	}
}

func read(stdin io.Reader, file string) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "cannot read the file").On(file)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, ovfenv.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return b, nil
}

// examine tells the forms apart by how they begin.
func examine(b []byte) (faults []firstboot.Fault, missing []string, err error) {
	text := strings.TrimLeft(string(b), "\ufeff \t\r\n")
	if values, wrong, ok := lines(text); ok {
		a, err := firstboot.FromProperties(values)
		return judge(a, errors.Join(wrong, err))
	}
	if strings.HasPrefix(text, "<") || bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}) {
		e, err := ovfenv.Parse(b)
		if err != nil {
			return nil, nil, err
		}
		return judge(firstboot.FromProperties(e.Properties))
	}
	a := firstboot.NewAnswers()
	s, err := setting.DecodeOver(a.Settings, strings.NewReader(text))
	if err != nil {
		return firstboot.Faults(err), nil, nil
	}
	a.Settings = s
	return judge(a, nil)
}

// lines reads NAME=VALUE, if the first line is of that form with a property's name;
// wrong is what it cannot read of the others, and names that nobody knows.
func lines(text string) (values map[string]string, wrong error, ok bool) {
	values = map[string]string{}
	var all []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, isPair := strings.Cut(line, "=")
		isPair = isPair && !strings.ContainsAny(name, " :<\"")
		switch {
		case len(values) == 0 && !(isPair && strings.Count(name, ".") == 1):
			return nil, nil, false
		case !isPair:
			all = append(all, fault.New(fault.Invalid, "it is not NAME=VALUE").On(fmt.Sprintf("line %d", number)))
		default:
			values[name] = value
		}
	}
	for _, name := range firstboot.Unknown(values) {
		all = append(all, fault.New(fault.Invalid, "there is no such property").On(name).WithHint("docs/properties.md has their names"))
	}
	return values, errors.Join(all...), len(values) > 0
}

func judge(a firstboot.Answers, err error) ([]firstboot.Fault, []string, error) {
	return firstboot.Faults(errors.Join(err, a.Check())), a.Missing(), nil
}

func report(out io.Writer, faults []firstboot.Fault, missing []string) error {
	var b bytes.Buffer
	if len(faults) == 0 {
		b.WriteString("no faults\n")
	}
	showFaults(&b, faults)
	for _, name := range missing {
		fmt.Fprintf(&b, "  %s: missing; the wizard will ask for it\n", name)
	}
	_, err := out.Write(b.Bytes())
	return err
}
