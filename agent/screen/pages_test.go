package screen_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"berth/agent/api"
)

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

func TestLogin(t *testing.T) {
	m := ready()
	x := open(t, m)
	x.press("f2")
	x.shows("Authentication required", "Password")
	x.write("nonsens")
	x.hides("nonsens")
	x.shows("*******")
	x.press("enter")
	x.shows("The password is wrong.")
	x.hides("*******")
	x.write("Console pass 1")
	x.press("enter")
	x.shows("Customize")
	x.press("esc")
	x.shows("State", "Ready")
	x.press("f12")
	x.shows("Authentication required")
	x.write("Console pass 1")
	x.press("enter")
	x.choose("Restart")
	x.shows("goes down")
	if !slices.Contains(m.did, "reboot") {
		t.Errorf("did %q", m.did)
	}
}

func TestNetworkIsChangedAndConfirmed(t *testing.T) {
	m := ready()
	x := open(t, m)
	x.login()
	x.choose("Network")
	x.shows("192.0.2.10/24", "192.0.2.53", "DHCP")
	x.choose("Change")
	x.press("right") // static
	x.shows("(*) static")
	for range 8 {
		x.press("tab")
	}
	x.press("enter")
	x.shows("Static needs an address.", "It is no address.")
	x.write("198.51.100.7/24")
	m.pending = api.Pending{ID: "p1", Until: start.Add(120 * time.Second)}
	for range 7 {
		x.press("tab")
	}
	x.press("enter")
	x.shows("keep the change?", "come back in 120 s")
	x.later(30 * time.Second)
	x.shows("come back in 90 s")
	x.choose("Keep")
	x.shows("The new settings are kept")
	if !slices.Equal(m.did, []string{"network static 198.51.100.7/24", "confirm p1"}) {
		t.Errorf("did %q", m.did)
	}
}

// An agent that was restarted in mid-change still has the change to confirm.
func TestPendingChangeIsFound(t *testing.T) {
	m := ready()
	m.network.Pending = &api.Pending{ID: "p2", Until: start.Add(time.Minute)}
	x := open(t, m)
	x.login()
	x.choose("Network")
	x.shows("come back in 60 s")
	x.choose("Take them back")
	if !slices.Equal(m.did, []string{"revert"}) {
		t.Errorf("did %q", m.did)
	}
}

func TestPasswords(t *testing.T) {
	m := ready()
	x := open(t, m)
	x.login()
	x.choose("Passwords")
	x.choose("root")
	x.write("short")
	x.press("tab")
	x.write("shorr")
	x.press("tab", "enter")
	x.shows("The two are not the same.")
	x.press("ctrl+u")
	x.write("short")
	x.press("tab", "enter")
	x.shows("shorter than 8")
	x.press("ctrl+u")
	x.write("Long enough & <ok>")
	x.press("tab", "ctrl+u")
	x.write("Long enough & <ok>")
	x.press("tab", "enter")
	x.shows("The new password is set")
	if m.passwords["root"] != "Long enough & <ok>" {
		t.Errorf("root's is %q", m.passwords["root"])
	}
}

func TestLostPassword(t *testing.T) {
	m := ready()
	x := open(t, m)
	x.press("f2")
	x.press("tab", "right", "enter")
	x.shows("guestinfo.berth.reset", "RST2-7K2P-QQ4M-ABCD", "govc vm.change")
	for range 4 {
		x.later(time.Second)
	}
	x.hides("set anew")
	m.proved = true
	for range 4 {
		x.later(time.Second)
	}
	x.shows("may be set anew")
	x.choose("Set the console")
	x.write("Brand new 9")
	x.press("tab")
	x.write("Brand new 9")
	x.press("tab", "enter", "enter")
	if m.passwords["console"] != "Brand new 9" {
		t.Errorf("the console's is %q", m.passwords["console"])
	}
	x.choose("Done")
	x.shows("State", "Ready")
}

func TestServicesLogsAndTheRest(t *testing.T) {
	m := ready()
	for range 100 {
		m.log = append(m.log, api.Line{Time: start, Component: "berth", Text: "a line"})
	}
	m.log[0].Text, m.log[99].Text = "the first line", "the last line"
	x := open(t, m)
	x.login()
	x.choose("Services")
	x.shows("berth-registry", "active", "berth-jobs", "failed")
	x.choose("berth-jobs")
	x.choose("Restart")
	x.shows("Done. berth-jobs is active now.")
	x.press("enter", "esc")
	x.choose("Logs")
	x.choose("Registry")
	x.shows("the last line", "(following)")
	x.press("home")
	x.shows("the first line", "lines 1-")
	x.later(3 * time.Second)
	x.shows("the first line")
	x.press("end")
	x.shows("the last line")
	x.press("esc", "esc")
	m.ssh = api.SSH{Enabled: true, Keys: []string{"ssh-ed25519 AAAA"}, Fingerprints: []string{"ssh-ed25519 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"}}
	x.choose("SSH")
	x.shows("Host keys     ssh-ed25519 SHA256:47DEQpj8HBSa", "root's authorized keys (1); passwords are not accepted")
	x.choose("On for two hours")
	x.shows("SSH is on for two hours")
	x.press("enter", "esc")
	x.choose("Certificate")
	x.shows("396 days", "registry.example.com", "AA:BB:CC:DD")
	x.choose("Renew")
	x.choose("Renew")
	x.shows("A new certificate is served")
	x.press("enter", "esc")
	x.choose("Support bundle")
	x.choose("Collect")
	x.shows("20261121-180000 is ready: 5 MiB")
	x.press("enter")
	x.choose("Restore access")
	x.press("enter") // Cancel is where the bar is
	x.choose("Restore access")
	x.choose("Restore access")
	x.shows("The network uses DHCP")
	if !slices.Equal(m.did, []string{"restart berth-jobs", "ssh true 2", "renew", "restore"}) {
		t.Errorf("did %q", m.did)
	}
}

func TestSetUpHere(t *testing.T) {
	m := ready()
	m.status.Phase, m.status.Code = api.Waiting, "K7PM-3XQ4"
	x := open(t, m)
	x.press("f2")
	x.shows("Set up", "Network", "Passwords", "Storage", "vCenter")
	x.choose("Apply")
	x.shows("5 answers are missing or wrong", "!! Passwords", "!! Storage")
	x.choose("Network")
	x.press("right", "tab")
	x.write("198.51.100.7/24")
	for range 7 {
		x.press("tab")
	}
	m.pending = api.Pending{ID: "p1", Until: start.Add(2 * time.Minute)}
	x.press("enter")
	x.shows("keep the change?")
	x.choose("Keep")
	x.press("enter")
	x.choose("Names")
	x.write("registry.example.com")
	x.press("tab", "tab", "enter")
	x.shows("ok Names")
	x.choose("Passwords")
	for i := range 3 {
		x.write("Secret pass 1")
		x.press("tab")
		x.write("Secret pass 1")
		if i < 2 {
			x.press("tab")
		}
	}
	x.hides("Secret")
	x.press("tab", "tab", "tab", "enter")
	x.choose("Storage")
	x.shows("/dev/sdc, 20 GiB", "/dev/sdd, 1 TiB")
	x.choose("data")
	x.shows("/dev/sdb (will be formatted)", "EVERYTHING ON IT IS")
	x.choose("log")
	x.shows("log       on the system disk")
	x.press("esc")
	x.choose("Apply")
	x.shows("These disks are formatted", "/dev/sdb for")
	x.choose("Format and apply")
	x.shows("waiting to be set up") // until the next look
	want := []string{"check", "network static 198.51.100.7/24", "confirm p1", "check", "apply registry.example.com /dev/sdb"}
	if !slices.Equal(m.did, want) {
		t.Errorf("did %q", m.did)
	}
}
