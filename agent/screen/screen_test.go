package screen_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"berth/agent/api"
	"berth/agent/screen"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// machine is an appliance that does what it is told, for looking at the screen.
type machine struct {
	status    api.Status
	down      error
	network   api.Network
	pending   api.Pending
	ssh       api.SSH
	proved    bool
	setup     api.Setup
	log       []api.Line
	did       []string
	passwords map[string]string
}

func (m *machine) note(format string, args ...any) {
	m.did = append(m.did, fmt.Sprintf(format, args...))
}

func (m *machine) Status(context.Context) (api.Status, error) { return m.status, m.down }
func (m *machine) Verify(_ context.Context, user string, password secret.Text) error {
	account := map[string]string{"admin": "console", "root": "root"}[user]
	if p, ok := m.passwords[account]; !ok || p != password.Reveal() {
		return fault.New(fault.Unauthenticated, "the password is wrong")
	}
	return nil
}
func (m *machine) Network(context.Context) (api.Network, error) { return m.network, m.down }
func (m *machine) ChangeNetwork(_ context.Context, n setting.Network) (api.Pending, error) {
	if n.Static() && n.IP4 == "" {
		return api.Pending{}, errors.Join(fault.New(fault.Invalid, "static needs an address").On("network.ip4"), fault.New(fault.Invalid, "it is no address").On("network.dns"))
	}
	m.note("network %s %s", n.Mode, n.IP4)
	return m.pending, nil
}
func (m *machine) ConfirmNetwork(_ context.Context, id string) error {
	m.note("confirm %s", id)
	return nil
}
func (m *machine) RevertNetwork(context.Context) error { m.note("revert"); return nil }
func (m *machine) RestoreAccess(context.Context) error { m.note("restore"); return nil }
func (m *machine) SetPassword(_ context.Context, account string, p secret.Text) error {
	if len(p) < 8 {
		return fault.New(fault.Invalid, "it is shorter than 8 characters").On("password")
	}
	m.passwords[account] = p.Reveal()
	return nil
}
func (m *machine) SSH(context.Context) (api.SSH, error) { return m.ssh, nil }
func (m *machine) SetSSH(_ context.Context, s api.SetSSH) (api.SSH, error) {
	m.note("ssh %t %g", *s.Enabled, *s.Hours)
	return m.ssh, nil
}
func (m *machine) Services(context.Context) ([]api.Service, error) {
	return []api.Service{{Name: "berth-registry", Title: "Registry", State: "active", MemoryBytes: 70 << 20}, {Name: "berth-jobs", Title: "Jobs", State: "failed", Detail: "exit-code", Actions: []string{"start", "restart"}}}, m.down
}
func (m *machine) Act(_ context.Context, service, verb string) (api.Service, error) {
	m.note("%s %s", verb, service)
	return api.Service{State: "active"}, nil
}
func (m *machine) Logs(context.Context, string, string, int) ([]api.Line, error) {
	return m.log, m.down
}
func (m *machine) Certificates(context.Context) (api.Certificates, error) {
	return api.Certificates{Server: api.Certificate{Fingerprint: m.status.Fingerprint, Names: []string{"registry.example.com", "192.0.2.10"}, Until: start.Add(397 * 24 * time.Hour)}}, nil
}
func (m *machine) RenewCertificate(context.Context) (api.Certificates, error) {
	m.note("renew")
	return api.Certificates{}, nil
}
func (m *machine) CreateBundle(context.Context) (api.Bundle, error) {
	return api.Bundle{ID: "20261121-180000", State: "running"}, nil
}
func (m *machine) Bundle(_ context.Context, id string) (api.Bundle, error) {
	return api.Bundle{ID: id, State: "done", Bytes: 5 << 20}, nil
}
func (m *machine) Power(_ context.Context, action string, _ api.Power) (api.PowerState, error) {
	m.note("%s", action)
	return api.PowerState{}, nil
}
func (m *machine) Begin(context.Context) (secret.Text, error) { return "RST2-7K2P-QQ4M-ABCD", nil }
func (m *machine) Shown(context.Context) (bool, error)        { return m.proved, nil }
func (m *machine) Setup(context.Context) (api.Setup, error)   { return m.setup, nil }
func (m *machine) CheckSetup(_ context.Context, a api.Answers) error {
	m.note("check")
	var out []error
	for _, name := range []string{"appliance.root_password", "appliance.console_password", "registry.admin_password"} {
		if a.Values[name] == "" {
			out = append(out, fault.New(fault.Invalid, "it is missing").On(name))
		}
	}
	return errors.Join(out...)
}
func (m *machine) ApplySetup(_ context.Context, a api.Answers) error {
	m.note("apply %s %s", a.Values["network.hostname"], a.Disks["data"])
	return nil
}

var start = time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)

const print1 = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99"

func ready() *machine {
	return &machine{
		passwords: map[string]string{"console": "Console pass 1"},
		status: api.Status{Version: "0.3.0", Hostname: "registry.example.com", Machine: api.Machine{Processor: "Intel(R) Xeon(R) Gold 6338", Processors: 2, MemoryBytes: 4 << 30},
			Addresses: []string{"192.0.2.10"}, Registry: []string{"https://registry.example.com/", "https://192.0.2.10/"},
			Console: []string{"https://registry.example.com:5480/", "https://192.0.2.10:5480/"}, Fingerprint: print1, Phase: api.Ready},
		network: api.Network{Now: api.NetworkNow{Interface: "eth0", MAC: "00:50:56:aa:bb:cc", Up: true, Addresses: []string{"192.0.2.10/24"}, Gateway4: "192.0.2.1", DNS: []string{"192.0.2.53"}, Hostname: "registry.example.com"}},
		setup: api.Setup{Disks: []api.SetupDisk{{Device: "/dev/sda", Bytes: 8 << 30, Role: "system", State: "system"}, {Device: "/dev/sdb", Bytes: 100 << 30, State: "blank"},
			{Device: "/dev/sdc", Bytes: 20 << 30, Role: "database", State: "marked"}, {Device: "/dev/sdd", Bytes: 1 << 40, State: "foreign"}}},
	}
}

// a terminal drives the screen as bubbletea does, and answers commands at once.
type terminal struct {
	t       testing.TB
	m       tea.Model
	clock   time.Time
	cleared int
}

func open(t testing.TB, m *machine) *terminal {
	t.Helper()
	x := &terminal{t: t, m: screen.New(t.Context(), m, m), clock: start}
	x.send(tea.WindowSizeMsg{Width: 80, Height: 25})
	x.send(screen.Tick(start))
	return x
}

// send gives a message, and everything that follows from it but the clock.
func (x *terminal) send(msg tea.Msg) {
	x.t.Helper()
	queue := []tea.Msg{msg}
	for n := 0; len(queue) > 0; n++ {
		if n > 200 {
			x.t.Fatal("the screen keeps itself busy")
		}
		var cmd tea.Cmd
		x.m, cmd = x.m.Update(queue[0])
		queue = append(queue[1:], x.run(cmd)...)
	}
}

func (x *terminal) run(cmd tea.Cmd) []tea.Msg {
	if cmd == nil || screen.IsTick(cmd) {
		return nil
	}
	msg := cmd()
	if reflect.TypeOf(msg) == reflect.TypeOf(tea.ClearScreen()) {
		x.cleared++
		return nil
	}
	if batch, ok := msg.(tea.BatchMsg); ok {
		var out []tea.Msg
		for _, c := range batch {
			out = append(out, x.run(c)...)
		}
		return out
	}
	if msg == nil {
		return nil
	}
	return []tea.Msg{msg}
}

func (x *terminal) later(d time.Duration) {
	x.t.Helper()
	x.clock = x.clock.Add(d)
	x.send(screen.Tick(x.clock))
}

var named = map[string]tea.Key{"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
	"left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight}, "f2": {Code: tea.KeyF2}, "f12": {Code: tea.KeyF12}, "home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd},
	"backspace": {Code: tea.KeyBackspace}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+z": {Code: 'z', Mod: tea.ModCtrl}, "ctrl+d": {Code: 'd', Mod: tea.ModCtrl},
	"ctrl+l": {Code: 'l', Mod: tea.ModCtrl}, "ctrl+u": {Code: 'u', Mod: tea.ModCtrl}, "pgup": {Code: tea.KeyPgUp}}

func (x *terminal) press(keys ...string) {
	x.t.Helper()
	for _, k := range keys {
		key, ok := named[k]
		if !ok {
			x.t.Fatalf("no key %q", k)
		}
		x.send(tea.KeyPressMsg(key))
	}
}

func (x *terminal) write(text string) {
	x.t.Helper()
	for _, r := range text {
		x.send(tea.KeyPressMsg{Code: r, Text: string(r)})
	}
}

func (x *terminal) text() string { return ansi.Strip(x.m.View().Content) }

func (x *terminal) shows(want ...string) {
	x.t.Helper()
	got := x.text()
	for _, w := range want {
		if !strings.Contains(got, w) {
			x.t.Errorf("the screen does not show %q:\n%s", w, got)
		}
	}
}

func (x *terminal) hides(not ...string) {
	x.t.Helper()
	for _, n := range not {
		if strings.Contains(x.text(), n) {
			x.t.Errorf("the screen shows %q:\n%s", n, x.text())
		}
	}
}

// login gets behind F2.
func (x *terminal) login() {
	x.t.Helper()
	x.press("f2")
	x.write("Console pass 1")
	x.press("enter")
	x.shows("Customize", "Network")
}

// choose goes to the item of a list that begins so, and presses Enter.
func (x *terminal) choose(label string) {
	x.t.Helper()
	x.press("home")
	for range 30 {
		if screen.Chosen(x.m, label) {
			x.press("enter")
			return
		}
		x.press("down")
	}
	x.t.Fatalf("there is no %q to choose:\n%s", label, x.text())
}
