package command

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/agent/api"
	"berth/agent/machine"
	"berth/appliance/cert"
	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/systemd"
)

// installed is a machine whose first boot has ended.
func installed(b *rig) {
	b.state(`{"phase":"ready","installed":"2026-11-01T00:00:00Z","steps":[]}`)
	if err := os.MkdirAll(filepath.Join(b.root, setting.DataMount, "tls"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	s := setting.Appliance()
	s.Network.Hostname = "berth.example.com"
	if err := os.MkdirAll(filepath.Join(b.root, filepath.Dir(setting.File)), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := setting.Write(filepath.Join(b.root, setting.File), s); err != nil {
		b.t.Fatal(err)
	}
	if _, err := cert.Ensure(filepath.Join(b.root, setting.DataMount, "tls"), []string{"berth.example.com"}); err != nil {
		b.t.Fatal(err)
	}
	for _, name := range []string{"logs", "token", "core", "jobs", "registry"} {
		b.system.units = append(b.system.units, systemd.Unit{Name: "berth-" + name + ".service", Load: "loaded", Active: "active"})
	}
}

// begun waits until the daemon has done what it does at its start.
func (b *rig) begun() {
	b.t.Helper()
	b.wait("start", func() bool { return b.system.asked("firewall [] [] [] ssh false") })
}

func (b *rig) settings() setting.Settings {
	b.t.Helper()
	s, err := setting.Read(filepath.Join(b.root, setting.File))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// When what follows from settings fails, the settings and what was done before are as they were.
func TestFailureChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	before := b.settings()
	b.begun()
	b.system.mu.Lock()
	b.system.fail["firewall [203.0.113.0/24]"] = fault.New(fault.Unavailable, "nft refuses")
	b.system.calls = nil
	b.system.mu.Unlock()
	_, err := b.client.ApplyConfiguration(t.Context(), "time:\n  zone: Asia/Tokyo\nfirewall:\n  registry: [203.0.113.0/24]\n")
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "nft refuses") {
		t.Errorf("got %v", err)
	}
	if now := b.settings(); now.Time.Zone != before.Time.Zone || len(now.Firewall.Registry) > 0 {
		t.Errorf("the settings have changed: %+v", now)
	}
	want := []string{"time Asia/Tokyo []", "firewall [203.0.113.0/24] [] [] ssh false", "time  []", "firewall [] [] [] ssh false"}
	if got := b.system.all(); !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

// A section that is not named stays; one that is named is replaced; services that read it at their start are restarted.
func TestApplyConfiguration(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	b.begun()
	b.system.forget()
	d, err := b.client.ApplyConfiguration(t.Context(), "proxy:\n  http: http://proxy.example.com:3128\ndisks:\n  warn_percent: 70\n")
	if err != nil || !d.Done || len(d.Changes) != 2 || d.Pending != nil {
		t.Errorf("%+v, %v", d, err)
	}
	if got, want := b.system.all(), []string{"restart berth-core.service", "restart berth-jobs.service"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	if s := b.settings(); s.Proxy.HTTP == "" || s.Network.Hostname != "berth.example.com" || s.Data != setting.DataMount {
		t.Errorf("%+v", s)
	}
	b.system.forget()
	exported, err := b.client.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d, err = b.client.ApplyConfiguration(t.Context(), string(exported)); err != nil || len(d.Changes)+len(d.Actions) > 0 || len(b.system.all()) > 0 {
		t.Errorf("not idempotent: %+v, %v, %q", d, err, b.system.all())
	}
	// A network that is different is on trial, and in the settings when it is confirmed.
	if d, err = b.client.ApplyConfiguration(t.Context(), "network:\n  hostname: berth.example.com\n  mode: static\n  ip4: 192.0.2.20/24\n"); err != nil || d.Pending == nil {
		t.Fatalf("%+v, %v", d, err)
	}
	if s := b.settings(); s.Network.Static() {
		t.Errorf("written before it was confirmed: %+v", s.Network)
	}
	if _, err := b.client.ChangeNetwork(t.Context(), setting.Network{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("two changes at once: %v", err)
	}
	if err := b.client.ConfirmNetwork(t.Context(), ""); err != nil {
		t.Error(err)
	}
	b.wait("confirmed network", func() bool { return b.settings().Network.IP4 == "192.0.2.20/24" })
}

// Whoever uses the proxy reads it at the start: another password alone is a reason to restart, the same one is none.
func TestSetProxy(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	b.begun()
	set := func(p setting.Proxy, password string, restarts ...string) {
		t.Helper()
		b.system.forget()
		got, err := b.client.SetProxy(t.Context(), api.Proxy{Proxy: p, Password: &password})
		if err != nil || got.HasPassword != (password != "") || got.Password != nil {
			t.Errorf("%+v, %v", got, err)
		}
		for i, name := range restarts {
			restarts[i] = "restart berth-" + name + ".service"
		}
		if all := b.system.all(); !slices.Equal(all, restarts) {
			t.Errorf("asked for %q, want %q", all, restarts)
		}
	}
	p := setting.Proxy{HTTP: "http://proxy.example.com:3128", Username: "berth"}
	set(p, "one", "core", "jobs")
	set(p, "one")
	set(p, "two", "core", "jobs")
	set(p, "", "core", "jobs")
	if _, err := b.client.ApplyConfiguration(t.Context(), "traces: http://collector.example.com:4318\n"); err != nil {
		t.Fatal(err)
	}
	set(p, "three", "token", "core", "jobs", "registry")
	set(setting.Proxy{}, "", "token", "core", "jobs", "registry")
}

func TestBrokenSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, installed, func(b *rig) { b.write(setting.File, "https: [") })
	s, err := b.client.Status(t.Context())
	if err != nil || len(s.Problems) == 0 || !strings.Contains(s.Problems[0].Text, "cannot be used") {
		t.Errorf("%+v, %v", s.Problems, err)
	}
	if _, err := b.client.SetNames(t.Context(), nil); !fault.Is(err, fault.Precondition) {
		t.Errorf("%v", err)
	}
	// A configuration that was exported takes their place.
	if _, err := b.client.ApplyConfiguration(t.Context(), "trash_days: -9\n"); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	d, err := b.client.ApplyConfiguration(t.Context(), "network:\n  hostname: berth.example.com\ntrash_days: 3\n")
	if err != nil || !d.Done {
		t.Errorf("%+v, %v", d, err)
	}
	if s := b.settings(); s.TrashDays != 3 || s.Network.Hostname != "berth.example.com" || s.Data != setting.DataMount {
		t.Errorf("%+v", s)
	}
}

func TestPower(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	if _, err := b.client.Power(t.Context(), "explode", api.Power{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := b.client.Power(t.Context(), machine.Reboot, api.Power{Seconds: -1}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	if _, err := b.client.Power(t.Context(), machine.Shutdown, api.Power{Seconds: 3600}); err != nil {
		t.Error(err)
	}
	if _, err := b.client.Power(t.Context(), machine.Reboot, api.Power{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("two plans: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.root, setting.AgentRunDir, "power.json")); err != nil {
		t.Errorf("the plan would not survive the agent: %v", err)
	}
	if err := b.client.CancelPower(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := b.client.Power(t.Context(), machine.Reboot, api.Power{Reason: "test"}); err != nil {
		t.Error(err)
	}
	b.wait("reboot", func() bool { return b.system.asked("reboot") })
	if b.system.asked("poweroff") {
		t.Error("the plan that was cancelled was done")
	}
}

// What has changed is told to vSphere, once.
func TestPublication(t *testing.T) {
	t.Parallel()
	b := setup(t, installed, func(b *rig) { b.system.tools = true })
	b.wait("publication", func() bool {
		b.system.mu.Lock()
		defer b.system.mu.Unlock()
		return b.system.published["guestinfo.berth.url"] == "https://berth.example.com" || len(b.system.published) >= 6
	})
	b.system.mu.Lock()
	defer b.system.mu.Unlock()
	for key, value := range b.system.published {
		if key != "guestinfo.berth.url" && value == "" && key != "guestinfo.berth.address" {
			t.Errorf("%s is empty", key)
		}
	}
	if b.system.published["guestinfo.berth.phase"] != "ready" {
		t.Errorf("%v", b.system.published)
	}
}

// The setup says everything that is wrong at once, keeps secrets to itself, and starts the first boot.
func TestSetup(t *testing.T) {
	t.Parallel()
	b := setup(t, waiting)
	b.system.mu.Lock()
	b.system.disks = []machine.BlockDevice{{Device: "/dev/sdb", Bytes: 1 << 30, State: "blank"}, {Device: "/dev/sdc", Bytes: 1 << 30, State: "foreign"}}
	b.system.mu.Unlock()
	answers := api.Answers{Values: map[string]string{"network.mode": "static", "network.ip4": "nonsense", "appliance.root_password": "short", "no.such": "x"},
		Disks: map[string]string{"data": "/dev/sdc", "nosuch": "/dev/sdb"}}
	err := b.client.CheckSetup(t.Context(), answers)
	for _, want := range []string{"network.ip4", "appliance.root_password", "appliance.console_password", "registry.admin_password", "no.such", "disks.data", "disks.nosuch"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault names %s: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "short:") {
		t.Errorf("it repeats a password: %v", err)
	}
	answers = api.Answers{Disks: map[string]string{"data": "/dev/sdb"}, Values: map[string]string{"network.hostname": "berth.example.com", "appliance.root_password": "Root-1-Password",
		"appliance.console_password": "Console-1-Password", "registry.admin_password": "Registry-1-Password"}}
	if err := b.client.ApplySetup(t.Context(), answers); err != nil {
		t.Fatal(err)
	}
	b.wait("first boot", func() bool { return b.system.asked("restart berth-firstboot.service") })
	s, err := b.client.Setup(t.Context())
	if err != nil || s.Answers.Values["network.hostname"] != "berth.example.com" || s.Answers.Disks["data"] != "/dev/sdb" || !slices.Contains(s.Secrets, "appliance.root_password") {
		t.Errorf("%+v, %v", s, err)
	}
	if text, _ := json.Marshal(s); strings.Contains(string(text), "1-Password") {
		t.Errorf("a password is in %s", text)
	}
	// What was given before need not be given again.
	if err := b.client.CheckSetup(t.Context(), api.Answers{Values: map[string]string{"network.hostname": "other.example.com"}}); err != nil {
		t.Error(err)
	}
	code := filepath.Join(b.root, setting.AgentRunDir, "setup-code")
	if info, err := os.Stat(code); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	b.state(`{"phase":"ready","installed":"2026-11-01T00:00:00Z","steps":[]}`)
	b.wait("end of the code", func() bool { _, err := os.Stat(code); return os.IsNotExist(err) })
	if err := b.client.ApplySetup(t.Context(), answers); !fault.Is(err, fault.Conflict) {
		t.Errorf("set up twice: %v", err)
	}
}

// A browser that was left open is not enough to change a password, and a new one ends the other sessions.
func TestPasswordsOfTheConsole(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	login := func() (cookie, csrf string) {
		resp, body := b.https("POST", "/api/v1/sessions", "", `{"username":"admin","password":"`+consolePassword+`"}`)
		var s api.Session
		if resp.StatusCode != 201 || json.Unmarshal([]byte(body), &s) != nil {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		cookie, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
		return cookie, s.CSRF
	}
	mine, token := login()
	other, _ := login()
	for current, want := range map[string]int{"": 403, "wrong": 403} {
		resp, body := b.https("PUT", "/api/v1/passwords/root", "", `{"password":"Next-1-Password","current":"`+current+`"}`, "Cookie", mine, api.CSRFHeader, token)
		if resp.StatusCode != want || b.system.asked("root password") {
			t.Errorf("%q: %d %s", current, resp.StatusCode, body)
		}
	}
	resp, body := b.https("PUT", "/api/v1/passwords/console", "", `{"password":"Next-1-Password","current":"`+consolePassword+`"}`, "Cookie", mine, api.CSRFHeader, token)
	if resp.StatusCode != 204 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	for cookie, want := range map[string]int{mine: 200, other: 401} {
		if resp, _ := b.https("GET", "/api/v1/status", "", "", "Cookie", cookie); resp.StatusCode != want {
			t.Errorf("%d, want %d", resp.StatusCode, want)
		}
	}
	if err := b.client.SetPassword(t.Context(), machine.Console, "short"); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	if err := b.client.Verify(t.Context(), "admin", secret.Text("Next-1-Password")); err != nil {
		t.Error(err)
	}
	events, err := b.client.Audit(t.Context(), 100)
	text, _ := json.Marshal(events)
	if err != nil || !strings.Contains(string(text), "change a password") || strings.Contains(string(text), "Next-1") || strings.Contains(string(text), consolePassword) {
		t.Errorf("%s, %v", text, err)
	}
}

// The command line says what programs need, and what people do.
func TestCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"services"}, cli.OK, "berth-core"},
		{[]string{"services", "stop", "berth-agent"}, cli.Failed, "it is what answers you"},
		{[]string{"network"}, cli.OK, "192.0.2.10/24"},
		{[]string{"names", "set", "images.example.com"}, cli.OK, "images.example.com"},
		{[]string{"names", "set", "no name"}, cli.Usage, "hostnames"},
		{[]string{"time", "set", "--zone", "Mars/Base"}, cli.Usage, "time.zone"},
		{[]string{"time", "test"}, cli.Failed, "no time server is set"},
		{[]string{"firewall", "set", "--console", "203.0.113.0/24"}, cli.OK, "203.0.113.0/24"},
		{[]string{"ssh", "on", "--hours", "2"}, cli.OK, "on until"},
		{[]string{"ssh", "on", "--hours", "-1"}, cli.Usage, "hours"},
		{[]string{"ssh", "on", "--hours", "NaN"}, cli.Usage, "--hours: it must be a number"},
		{[]string{"password", "nobody"}, cli.Usage, "berth-agent password --help"},
		{[]string{"disks", "grow"}, cli.Usage, "see berth-agent disks grow --help"},
		{[]string{"disks", "set", "--warn", "x"}, cli.Usage, "see berth-agent disks set --help"},
		{[]string{"support", "create", "--output", "/nonexistent/x"}, cli.Usage, "--output: cannot write the file"},
		{[]string{"certificate"}, cli.OK, "the appliance's own authority"},
		{[]string{"certificate", "ca"}, cli.OK, "BEGIN CERTIFICATE"},
		{[]string{"certificate", "csr", "images.example.com"}, cli.OK, "BEGIN CERTIFICATE REQUEST"},
		{[]string{"certificate", "upload", "/nonexistent.pem"}, cli.Usage, "cannot read the file"},
		{[]string{"certificate", "renew"}, cli.OK, "fingerprint"},
		{[]string{"disks"}, cli.OK, "/storage/data"},
		{[]string{"disks", "grow", "system"}, cli.Failed, "no disk"},
		{[]string{"proxy", "set", "--http", "http://u:p@h:1"}, cli.Usage, "proxy.http"},
		{[]string{"syslog"}, cli.OK, "sent to nobody"},
		{[]string{"syslog", "add", "a", "ftp://x"}, cli.Usage, "to"},
		{[]string{"config", "validate", "/nonexistent"}, cli.Usage, "cannot read the file"},
		{[]string{"logs"}, cli.Failed, "the log service does not answer"},
		{[]string{"reboot", "--in", "1h"}, cli.OK, "reboot at"},
		{[]string{"shutdown", "--cancel"}, cli.OK, "taken back"},
		{[]string{"support", "list"}, cli.OK, "ID  STATE  BEGUN  SIZE\n"}, // none was made that could not be written
		{[]string{"audit"}, cli.OK, "switch SSH"},
		{[]string{"openapi"}, cli.OK, `"openapi": "3.1.0"`},
		{[]string{"setup"}, cli.OK, "ready"},
	} {
		code, out, errs := b.run(c.args...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("berth-agent %v: exit status %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
	}
}

// SSH ends when its time is over, though nobody asks.
func TestSSHEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	on, hours := true, 1.0/3600
	if _, err := b.client.SetSSH(t.Context(), api.SetSSH{Enabled: &on, Hours: &hours}); err != nil {
		t.Fatal(err)
	}
	if !b.settings().SSH.Enabled {
		t.Error("it is not on")
	}
	b.wait("end of SSH", func() bool { return !b.settings().SSH.Enabled && b.system.asked("ssh false") })
}

// A daemon that cannot have its port serves its socket all the same.
func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	first := setup(t)
	root := t.TempDir()
	socket := filepath.Join(first.root, "second.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	a := &app{stdout: os.Stderr, stderr: os.Stderr, socket: socket}
	go func() {
		ended <- a.serve(ctx, daemon{root: root, socket: socket, listen: strings.TrimPrefix(first.base, "https://"), system: newRecorded()})
	}()
	second := &rig{t: t, root: root, socket: socket}
	second.wait("answer", func() bool {
		code, _, _ := second.run("status")
		return code == cli.Failed && errors.Is(ctx.Err(), nil) && answers(second)
	})
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}

func answers(b *rig) bool {
	_, out, _ := b.run("status")
	return strings.Contains(out, "first boot")
}

// Answers come from files that people write.
func FuzzParseAnswers(f *testing.F) {
	f.Add("network.hostname=berth.example.com\n# a comment\ndisks.data=/dev/sdb\n\nappliance.root_password= a=b \r\n")
	f.Add("no answer")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAnswers(text)
		if err == nil && len(a.Values)+len(a.Disks) > strings.Count(text, "=") {
			t.Errorf("%q became %+v", text, a)
		}
	})
}
