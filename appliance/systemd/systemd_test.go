package systemd_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/systemd"
)

func TestWithoutSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		t.Skip("skipped: systemd runs here")
	}
	if _, err := systemd.Open(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

// machine connects to the systemd of a machine that is there to be changed: the
// container in which tests/boot runs this test's binary.
func machine(t *testing.T, units map[string]string) *systemd.Conn {
	t.Helper()
	if os.Getenv("BERTH_TEST_MACHINE") == "" {
		t.Skip("skipped: it changes units of the machine; tests/boot runs it in a container")
	}
	c, err := systemd.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range units {
		if err := os.WriteFile("/run/systemd/system/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for name := range units {
			if err := c.Stop(ctx, name); err != nil {
				t.Error(err)
			}
			os.Remove("/run/systemd/system/" + name)
		}
		if err := c.Load(ctx); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func one(t *testing.T, c *systemd.Conn, name string) systemd.Unit {
	t.Helper()
	units, err := c.Units(t.Context(), name)
	if err != nil || len(units) != 1 {
		t.Fatalf("%s: %v, %v", name, units, err)
	}
	return units[0]
}

func TestMachineLife(t *testing.T) {
	c := machine(t, map[string]string{
		"berthtest-good.service": "[Unit]\nDescription=A good one\n[Service]\nType=notify\nNotifyAccess=all\nRestart=always\nRestartSec=0\n" +
			"ExecStart=/bin/sh -c 'systemd-notify --ready --status=\"all is well\"; exec sleep 1000'\n[Install]\nWantedBy=multi-user.target\n",
	})
	ctx, name := t.Context(), "berthtest-good.service"
	if u := one(t, c, name); u.Active != "inactive" || u.Load != "loaded" {
		t.Errorf("before: %+v", u)
	}
	if err := c.Start(ctx, name); err != nil {
		t.Fatal(err)
	}
	first := one(t, c, name)
	if first.Active != "active" || first.Sub != "running" || first.MainPID == 0 || first.StatusText != "all is well" ||
		first.Description != "A good one" || first.Result != "success" || time.Since(first.Since) > time.Minute {
		t.Errorf("running: %+v", first)
	}
	if err := c.Restart(ctx, name); err != nil {
		t.Fatal(err)
	}
	if second := one(t, c, name); second.MainPID == first.MainPID {
		t.Error("it was not restarted")
	}
	if err := c.Reload(ctx, name); err != nil {
		t.Error(err)
	}
	if err := c.Enable(ctx, name); err != nil {
		t.Fatal(err)
	}
	if u := one(t, c, name); u.File != "enabled-runtime" && u.File != "enabled" {
		t.Errorf("enabled: %+v", u)
	}
	if err := c.Disable(ctx, name); err != nil {
		t.Fatal(err)
	}
	if u := one(t, c, name); u.File != "disabled" {
		t.Errorf("disabled: %+v", u)
	}
	if err := c.Stop(ctx, name); err != nil {
		t.Fatal(err)
	}
	if u := one(t, c, name); u.Active != "inactive" {
		t.Errorf("stopped: %+v", u)
	}
	if units, err := c.Units(ctx, "systemd-journald*", "dbus.socket", "berthtest-*"); err != nil || len(units) < 4 {
		t.Errorf("by patterns: %v, %v", units, err)
	}
	if state, err := c.State(ctx); err != nil || state == "" {
		t.Errorf("the system: %q, %v", state, err)
	}
}

// TestMachineFaults reads why something failed where a person would look.
func TestMachineFaults(t *testing.T) {
	c := machine(t, map[string]string{
		"berthtest-bad.service":   "[Service]\nType=notify\nExecStart=/bin/sh -c 'echo the disk is on fire >&2; sleep 0.3; exit 3'\n",
		"berthtest-slow.service":  "[Service]\nType=notify\nTimeoutStartSec=1\nExecStart=/bin/sleep 1000\n",
		"berthtest-needs.service": "[Unit]\nRequires=berthtest-bad.service\nAfter=berthtest-bad.service\n[Service]\nExecStart=/bin/sleep 1000\n",
		"berthtest-hangs.service": "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n",
	})
	for name, want := range map[string][]string{
		"berthtest-bad.service":   {"it failed (it ended with an error)", "the disk is on fire"},
		"berthtest-slow.service":  {"cannot start berthtest-slow.service", "did not get ready in time"},
		"berthtest-needs.service": {"something that it needs could not be started"},
		"berthtest-none.service":  {"there is no such unit"},
	} {
		err := c.Start(t.Context(), name)
		if err == nil {
			t.Errorf("%s: it started", name)
			continue
		}
		for _, w := range want {
			if f := fault.Of(err); !strings.Contains(f.Text+"\n"+f.Hint, w) {
				t.Errorf("%s: %q / %q does not say %q", name, f.Text, f.Hint, w)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := c.Start(ctx, "berthtest-hangs.service"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "still under way") {
		t.Errorf("a start that takes longer than the caller waits: %v", err)
	}
	if u := one(t, c, "berthtest-none.service"); u.Load != "not-found" {
		t.Errorf("a unit that is not there: %+v", u)
	}
	for _, name := range []string{"", "x", "-x.service", "a b.service", "../x.service", "x.service\n", "x.nothing", "--root=x.service"} {
		if err := c.Stop(t.Context(), name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestMachineReexec loses the connection, as an update of systemd does.
func TestMachineReexec(t *testing.T) {
	c := machine(t, nil)
	if err := c.Start(t.Context(), "systemd-journald.service"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if u := one(t, c, "systemd-journald.service"); u.Active != "active" {
		t.Errorf("%+v", u)
	}
}
