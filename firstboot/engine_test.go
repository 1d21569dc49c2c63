package firstboot_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/ovfenv"
	"berth/appliance/setting"
	"berth/firstboot"
)

// environment is the document with these properties.
func environment(t testing.TB, values map[string]string) []byte {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"><PropertySection>`)
	for k, v := range values {
		fmt.Fprintf(&b, `<Property oe:key="%s" oe:value="`, k)
		if err := xml.EscapeText(&b, []byte(v)); err != nil {
			t.Fatal(err)
		}
		b.WriteString(`"/>`)
	}
	return []byte(b.String() + `</PropertySection></Environment>`)
}

// machine is a directory for the state, the effects of fake steps and the environment.
type machine struct {
	dir   string
	point func() // may kill this process
	steps []firstboot.Step
}

func newMachine(t testing.TB) *machine {
	m := &machine{dir: t.TempDir(), point: func() {}}
	m.fake()
	return m
}

// fake makes steps that leave a file; every second one can see that it has.
func (m *machine) fake() {
	for i, name := range []string{"credentials", "disks", "network", "database", "services"} {
		file := filepath.Join(m.dir, "effect-"+name)
		step := firstboot.Step{Name: name, Title: "Do the " + name, Limit: time.Minute, EveryBoot: name == "disks" || name == "services",
			Apply: func(_ context.Context, w *firstboot.Work) (string, error) {
				m.point()
				if w.First && w.Answers.RootPassword == "" {
					return "", errors.New("there are no answers")
				}
				old, _ := os.ReadFile(file)
				err := durable.WriteFile(file, append(old, 'x'), 0o600)
				m.point()
				return "well", err
			}}
		if i%2 == 1 {
			step.Check = func(context.Context, *firstboot.Work) (bool, error) {
				m.point()
				_, err := os.Stat(file)
				return err == nil, nil
			}
		}
		m.steps = append(m.steps, step)
	}
}

func (m *machine) environment() string { return filepath.Join(m.dir, "ovf-env.xml") }

// Handle makes every line of the log a point.
type pointHandler struct {
	slog.Handler
	m *machine
}

func (h pointHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h pointHandler) Handle(context.Context, slog.Record) error {
	h.m.point()
	return nil
}
func (h pointHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (m *machine) options() firstboot.Options {
	return firstboot.Options{Dir: filepath.Join(m.dir, "state"), Settings: filepath.Join(m.dir, "appliance.yaml"),
		Sources: []ovfenv.Source{ovfenv.File(m.environment())}, Steps: m.steps, Log: slog.New(pointHandler{m: m})}
}

func (m *machine) run(t testing.TB) (firstboot.State, error) {
	t.Helper()
	err := firstboot.Run(t.Context(), m.options())
	s, rerr := firstboot.ReadState(filepath.Join(m.dir, "state"))
	if rerr != nil {
		t.Fatal(rerr)
	}
	return s, err
}

func (m *machine) write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) settings(t testing.TB) {
	t.Helper()
	if err := setting.Write(filepath.Join(m.dir, "appliance.yaml"), setting.Appliance()); err != nil {
		t.Fatal(err)
	}
}

// secretFiles are what must not be left when the first boot has ended.
func (m *machine) secretFiles(t testing.TB) (found []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(m.dir, "state", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), "Passw0rd") {
			found = append(found, filepath.Base(f))
		}
	}
	return found
}

func TestUnattendedFirstBoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(t, "ovf-env.xml", environment(t, minimal("network.hostname", "berth.example.com", "vami.other", "1")))
	s, err := m.run(t)
	if err != nil || s.Phase != firstboot.Ready || !s.Done() || s.Source != m.environment() {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, step := range s.Steps {
		if step.Status != firstboot.StepDone || step.Title == "" || step.Ended.IsZero() {
			t.Errorf("%+v", step)
		}
	}
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "vami.other") {
		t.Errorf("warnings are %q", s.Warnings)
	}
	if left := m.secretFiles(t); left != nil {
		t.Errorf("passwords are left in %v", left)
	}
	if err := firstboot.SaveAnswers(filepath.Join(m.dir, "state"), from(t, minimal())); !fault.Is(err, fault.Precondition) {
		t.Errorf("answers after the end: %v", err)
	}
	// The second boot does only what every boot needs.
	m.settings(t)
	if s, err = m.run(t); err != nil || s.Phase != firstboot.Ready || s.Changed != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, want := range map[string]int{"credentials": 1, "disks": 1, "network": 1, "database": 1, "services": 2} {
		if b, err := os.ReadFile(filepath.Join(m.dir, "effect-"+name)); err != nil || len(b) != want {
			t.Errorf("%s was done %d times, want %d", name, len(b), want)
		}
	}
}

// Without answers it waits; the wizard's let it go on.
func TestWaitsForTheWizard(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	values := minimal("network.hostname", "from.example.com")
	delete(values, "registry.admin_password")
	values["network.dns"] = "not an address"
	m.write(t, "ovf-env.xml", environment(t, values))
	s, err := m.run(t)
	if err != nil || s.Phase != firstboot.Waiting || !slices.Equal(s.Missing, []string{"registry.admin_password"}) || len(s.Faults) != 3 || s.Faults[0].Field != "network.dns" {
		t.Fatalf("%+v, %v", s, err)
	}
	state := filepath.Join(m.dir, "state")
	a, found, err := firstboot.LoadAnswers(state)
	if err != nil || !found || a.Settings.Network.Hostname != "from.example.com" || a.RootPassword.Reveal() != "Root-Passw0rd" {
		t.Fatalf("the wizard begins with %+v, %v, %v", a, found, err)
	}
	a.RegistryPassword, a.Settings.Network.DNS = "Registry-Passw0rd", nil
	if err := firstboot.SaveAnswers(state, a); err != nil {
		t.Fatal(err)
	}
	if s, err = m.run(t); err != nil || s.Phase != firstboot.Ready || s.Faults != nil || s.Missing != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	if left := m.secretFiles(t); left != nil {
		t.Errorf("passwords are left in %v", left)
	}
}

func TestUnattendedWithSomethingMissing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(t, "ovf-env.xml", environment(t, map[string]string{"install.unattended": "True", "install.restore_url": "sftp://x", "appliance.root_password": "Root-Passw0rd"}))
	s, err := m.run(t)
	if !fault.Is(err, fault.Invalid) || s.Phase != firstboot.Failed || s.Hint == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, word := range []string{"appliance.console_password", "registry.admin_password", "install.restore_url"} {
		if !strings.Contains(s.Text, word) {
			t.Errorf("%q does not name %s", s.Text, word)
		}
	}
	// Corrected, as vCenter would at the next power-on; what was scrubbed is still known.
	m.write(t, "ovf-env.xml", environment(t, minimal("install.unattended", "True", "appliance.root_password", "")))
	if s, err = m.run(t); err != nil || s.Phase != firstboot.Ready {
		t.Fatalf("%+v, %v", s, err)
	}
}

// A step that fails says why, and is done again, with those after it, when it can.
func TestStepFails(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(t, "ovf-env.xml", environment(t, minimal()))
	good := m.steps[2].Apply
	m.steps[2].Apply = func(context.Context, *firstboot.Work) (string, error) {
		return "", fault.New(fault.Unavailable, "there is no carrier").WithHint("connect the adapter")
	}
	s, err := m.run(t)
	step, failed := s.Failure()
	if err == nil || s.Phase != firstboot.Failed || !failed || step.Name != "network" || step.Text != "there is no carrier" || step.Hint != "connect the adapter" || !strings.Contains(s.Text, step.Text) {
		t.Fatalf("%+v, %v", s, err)
	}
	if s.Steps[1].Status != firstboot.StepDone || s.Steps[3].Status != firstboot.StepPending {
		t.Errorf("%+v", s.Steps)
	}
	m.steps[2].Apply = good
	if s, err = m.run(t); err != nil || s.Phase != firstboot.Ready || s.Text != "" {
		t.Fatalf("%+v, %v", s, err)
	}
	if b, _ := os.ReadFile(filepath.Join(m.dir, "effect-credentials")); len(b) != 1 {
		t.Errorf("the first step was done %d times", len(b))
	}
}

func TestStepThatHangs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(t, "ovf-env.xml", environment(t, minimal()))
	m.steps[1].Limit, m.steps[1].Check = 10*time.Millisecond, nil
	m.steps[1].Apply = func(ctx context.Context, _ *firstboot.Work) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	s, err := m.run(t)
	if step, _ := s.Failure(); err == nil || step.Name != "disks" || !strings.Contains(step.Text, "within 10ms") || !strings.Contains(step.Hint, "try again") {
		t.Fatalf("%+v, %v", s, err)
	}
}

// Other answers do every step again.
func TestOtherAnswers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	fails := m.steps[4].Apply
	m.steps[4].Apply = func(context.Context, *firstboot.Work) (string, error) { return "", errors.New("no") }
	state := filepath.Join(m.dir, "state")
	for range 2 { // whatever has failed, there is something to do
		if err := os.MkdirAll(state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := firstboot.SaveAnswers(state, from(t, minimal())); err != nil {
			t.Fatal(err)
		}
		if s, err := m.run(t); err == nil || s.Hint == "" {
			t.Fatalf("nothing failed, or there is no hint: %+v", s)
		}
	}
	m.steps[4].Apply = fails
	if _, err := m.run(t); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(m.dir, "effect-credentials")); len(b) != 2 {
		t.Errorf("the first step was done %d times, want 2", len(b))
	}
}

// The environment at a later boot: gone, broken, changed, or with the passwords
// again. None of it keeps the services from coming up.
func TestEnvironmentAtALaterBoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first := minimal("network.hostname", "a.example.com", "network.mode", "static", "network.ip4", "192.0.2.2/24", "appliance.ssh_enabled", "False", "network.dns", "192.0.2.1")
	m.write(t, "ovf-env.xml", environment(t, first))
	if _, err := m.run(t); err != nil {
		t.Fatal(err)
	}
	m.settings(t)
	later := func(t *testing.T, document []byte) firstboot.State {
		t.Helper()
		if document == nil {
			os.Remove(m.environment())
		} else {
			m.write(t, "ovf-env.xml", document)
		}
		s, err := m.run(t)
		if err != nil || s.Phase != firstboot.Ready {
			t.Fatalf("%+v, %v", s, err)
		}
		return s
	}
	if s := later(t, nil); s.Changed != nil || s.Warnings != nil {
		t.Errorf("gone: %+v", s)
	}
	if s := later(t, []byte("<Environment><Prop")); len(s.Warnings) != 1 || s.Changed != nil {
		t.Errorf("broken: %+v", s)
	}
	changed := minimal("appliance.root_password", "Other-Passw0rd", "network.hostname", "b.example.com", "network.mode", "dhcp", "appliance.ssh_enabled", "false", "network.ip4", "",
		"network.dns", "192.0.2.1", "install.unattended", "False", "registry.external_fqdn", "new.example.com")
	if s := later(t, environment(t, changed)); !slices.Equal(s.Changed, []string{"network.mode", "network.hostname", "registry.external_fqdn"}) {
		t.Errorf("changed: %+v", s.Changed)
	}
	if s := later(t, environment(t, first)); s.Changed != nil {
		t.Errorf("changed back: %+v", s.Changed)
	}
	// Once somebody has seen to it, it is not told again.
	later(t, environment(t, changed))
	if err := firstboot.Settle(filepath.Join(m.dir, "state")); err != nil {
		t.Fatal(err)
	}
	if s, err := firstboot.ReadState(filepath.Join(m.dir, "state")); err != nil || s.Changed != nil || s.Offered != nil || s.Warnings != nil || s.Phase != firstboot.Ready {
		t.Errorf("settled: %+v, %v", s, err)
	}
	if s := later(t, environment(t, changed)); s.Changed != nil {
		t.Errorf("after it was settled: %+v", s.Changed)
	}
	if left := m.secretFiles(t); left != nil {
		t.Errorf("passwords are left in %v", left)
	}
}

// Secrets are blanked in guestinfo once they are written down, everything else is
// left; and again when vCenter has written them anew.
func TestScrub(t *testing.T) { // not in parallel: it writes a program
	m := newMachine(t)
	tool := filepath.Join(m.dir, "vmware-rpctool")
	err := os.WriteFile(tool, []byte(`#!/bin/sh
set -f
cd "$(dirname "$0")"
case $1 in
"info-get guestinfo.ovfEnv") cat ovf-env.xml ;;
"info-set guestinfo.ovfEnv "*) printf %s "${1#info-set guestinfo.ovfEnv }" >ovf-env.xml ;;
*) exit 1 ;;
esac
`), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	const odd = `vc&<>"'.x`
	run := func(values map[string]string) {
		m.write(t, "ovf-env.xml", environment(t, values))
		o := m.options()
		o.Sources = []ovfenv.Source{ovfenv.GuestInfo(guestinfo.New(tool))}
		if err := firstboot.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(m.environment())
		if err != nil || strings.Contains(string(b), "Passw0rd") {
			t.Errorf("passwords are left: %s, %v", b, err)
		}
		if e, err := ovfenv.Parse(b); err != nil || len(values) < 5 && (e.Properties["other.key"] != odd || e.Repaired) {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	run(minimal("other.key", odd))
	m.settings(t)
	run(minimal("other.key", odd))
	run(minimal("other.key", odd, "tls.certificate", strings.Repeat("&", 60_000))) // too long for an argument: all is taken away
}

// TestCut kills the process at every point of a first boot, in a child, and runs it
// again: it must end ready, with each step's work done and no secret left.
func TestCut(t *testing.T) {
	if dir := os.Getenv("BERTH_CUT_DIR"); dir != "" {
		child(t, dir)
		return
	}
	t.Parallel()
	const most = 60
	for n := 1; ; n++ {
		if n > most {
			t.Fatalf("it is still cut off at point %d", n)
		}
		m := newMachine(t)
		m.write(t, "ovf-env.xml", environment(t, minimal()))
		cmd := exec.Command(os.Args[0], "-test.run=^TestCut$")
		cmd.Env = append(os.Environ(), "BERTH_CUT_DIR="+m.dir, "BERTH_CUT_AT="+strconv.Itoa(n))
		out, err := cmd.CombinedOutput()
		killed := err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
		if err != nil && !killed {
			t.Fatalf("point %d: %v: %s", n, err, out)
		}
		m.settings(t)
		s, err := m.run(t)
		if err != nil || s.Phase != firstboot.Ready || !s.Done() {
			t.Fatalf("cut off at point %d, then: %+v, %v", n, s, err)
		}
		for _, step := range m.steps {
			if _, err := os.Stat(filepath.Join(m.dir, "effect-"+step.Name)); err != nil {
				t.Errorf("cut off at point %d: %v", n, err)
			}
		}
		if left := m.secretFiles(t); left != nil {
			t.Errorf("cut off at point %d: passwords are left in %v", n, left)
		}
		if !killed {
			if n < 10 {
				t.Errorf("there are only %d points", n-1)
			}
			return
		}
	}
}

func child(t *testing.T, dir string) {
	at, err := strconv.Atoi(os.Getenv("BERTH_CUT_AT"))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: dir, point: func() {
		if at--; at == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}}
	m.fake()
	if _, err := m.run(t); err != nil {
		t.Fatal(err)
	}
}
