package screen_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	uv "github.com/charmbracelet/ultraviolet"

	"berth/agent/api"
	"berth/agent/screen"
)

func TestReady(t *testing.T) {
	x := open(t, ready())
	x.shows("Berth 0.3.0", "registry.example.com", "2 x Intel(R) Xeon(R) Gold 6338, 4 GiB", "Ready", "https://registry.example.com:5480/",
		"AA:BB:CC:DD  EE:FF:00:11", "docker login registry.example.com", "<F2> or <C> Customize", "<F12> or <P> Shut down")
	// Every line is as wide as the screen, at any size.
	for _, size := range []tea.WindowSizeMsg{{Width: 80, Height: 24}, {Width: 80, Height: 25}, {Width: 128, Height: 48}, {Width: 40, Height: 12}, {Width: 0, Height: 0}, {Width: 1, Height: 1}} {
		x.send(size)
		w, h := size.Width, size.Height
		if w == 0 {
			w, h = 80, 24
		}
		rows := strings.Split(x.text(), "\n")
		if len(rows) != max(h, 8) {
			t.Errorf("%v: %d rows", size, len(rows))
		}
		for _, r := range rows {
			if n := len([]rune(r)); n != max(w, 20) {
				t.Errorf("%v: a row of %d columns: %q", size, n, r)
			}
		}
	}
}

func TestProblemsRootCauseFirst(t *testing.T) {
	m := ready()
	m.status.Problems = []api.Problem{{Text: "The database disk is missing.", Hint: "Attach the disk to the virtual machine again and restart it."}, {Text: "second"}, {Text: "third"}}
	x := open(t, m)
	x.shows("Needs attention", "The database disk is missing.", "Attach the disk", "Second.", "and 1 more")
	x.hides("Third")
}

func TestWaitingForSetup(t *testing.T) {
	m := ready()
	m.status.Phase, m.status.Code, m.status.Registry = api.Waiting, "K7PM-3XQ4", nil
	m.status.Console = []string{"https://berth:5480/", "https://192.0.2.10:5480/"}
	x := open(t, m)
	x.hides("https://berth:")
	x.shows("waiting to be set up", "https://192.0.2.10:5480/", "K 7 P M - 3 X Q 4", "AA:BB:CC:DD", "<F2> or <C> Set up here")
	m.status.Console = []string{"https://berth:5480/"} // a name that nobody's DNS knows is no address
	m.status.Problems = []api.Problem{{Text: "the appliance has not been set up yet"}}
	x.later(3 * time.Second)
	x.shows("It has no address", "set the address here")
	x.hides("has not been set up yet") // said already, in better words
}

// In a small window the code is what must not fall off the end.
func TestWaitingInASmallWindow(t *testing.T) {
	m := ready()
	m.status.Phase, m.status.Code, m.status.Registry = api.Waiting, "K7PM-3XQ4-ABCD", nil
	m.status.Console = []string{"https://192.0.2.10:5480", "https://[2001:db8:1111:2222:3333:4444:5555:6666]:5480", "https://192.0.2.11:5480"}
	x := open(t, m)
	x.send(tea.WindowSizeMsg{Width: 40, Height: 14})
	x.shows("https://192.0.2.10:5480", "AA:BB:CC:DD", "66:77:88:99", "K 7 P M - 3 X Q 4 - A B C D", "<C> Set up")
	x.send(tea.WindowSizeMsg{Width: 40, Height: 12})
	x.shows("https://192.0.2.10:5480", "66:77:88:99", "K 7 P M - 3 X Q 4 - A B C D")
	x.send(tea.WindowSizeMsg{Width: 80, Height: 25})
	x.shows("https://192.0.2.11:5480", "K 7 P M - 3 X Q 4 - A B C D", "Container registry")
}

// What will happen by itself stands on the front, and docker is told a name with a dot.
func TestReadySaysWhatIsPlanned(t *testing.T) {
	m := ready()
	m.status.Registry = []string{"https://berth", "https://192.0.2.10"}
	m.status.ReadOnly = "the data disk is full"
	m.status.Pending = &api.Pending{Until: start}
	m.status.Power = &api.PowerState{Action: "shutdown", At: start}
	x := open(t, m)
	x.shows("takes no pushes. The data disk is full.", "taken back at 18:00:00 UTC", "shuts down at 2026-11-21 18:00:00 UTC", "docker login 192.0.2.10")
}

func TestProgressAndFailure(t *testing.T) {
	m := ready()
	m.status.Phase = api.Running
	for i, title := range []string{"Passwords", "Disks", "Host name", "Network", "Time", "Certificate", "Database", "Keys", "Firewall", "Services", "Health", "vCenter"} {
		status := "pending"
		switch {
		case i < 6:
			status = "done"
		case i == 6:
			status = "running"
		}
		m.status.Steps = append(m.status.Steps, api.Step{Title: title, Status: status, Text: map[bool]string{true: "making the cluster"}[i == 6]})
	}
	x := open(t, m)
	x.shows("being set up", "[ ok ] Disks", "[ .. ] Database - making the cluster", "[    ] Health")
	m.status.Installed = true // a later boot
	x.later(3 * time.Second)
	x.shows("The appliance is starting.")
	m.status.Installed, m.status.Phase = false, api.Failed
	m.status.Steps[6] = api.Step{Title: "Database", Status: "failed", Text: "the disk is full", Hint: "give the database disk more room"}
	m.status.Code = "K7PM-3XQ4"
	x.later(3 * time.Second)
	x.shows("https://192.0.2.10:5480/", "K7PM-3XQ4", "<F2> or <C> Set up here") // nothing of it falls off the end
	m.status.Code = ""
	x.later(3 * time.Second)
	x.shows("could not be finished", "[FAIL] Database", "Database: the disk is full", "What to do: Give the database disk more room.")
	x.login()
	x.choose("Setup")
	x.shows("the disk is full", "Try again")
	x.choose("Try again")
	if len(m.did) != 1 || m.did[0] != "apply  " {
		t.Errorf("did %q", m.did)
	}
}

func TestAgentIsAway(t *testing.T) {
	m := ready()
	m.down = errors.New("dial unix /run/berth/agent.sock: connection refused")
	x := open(t, m)
	x.shows("The appliance is starting", "does not answer yet")
	m.down = nil
	x.later(3 * time.Second)
	x.shows("Ready")
	m.down = errors.New("dial unix /run/berth/agent.sock: connection refused")
	x.later(3 * time.Second)
	x.shows("The management agent does not answer", "the last that was known", "https://registry.example.com/")
	m.down = nil
	x.later(3 * time.Second)
	x.hides("does not answer")
}

// No key leaves the screen, and what a stranger has written does not steer the terminal.
func TestHarmless(t *testing.T) {
	m := ready()
	m.status.Hostname = "evil\x1b]0;x\x07\x1b[2J名前.example"
	m.log = []api.Line{{Text: "ok"}, {Text: "\x1b[31mred\x1b[0m \x1bc\tafter ✓ \u202e"}}
	x := open(t, m)
	for _, k := range []string{"ctrl+c", "ctrl+z", "ctrl+d", "esc"} {
		x.press(k)
		x.shows("Customize")
	}
	if view := x.m.View().Content; strings.Contains(view, "\x1b]") || strings.Contains(view, "\x1b[2J") {
		t.Error("a host name steers the terminal")
	}
	x.login()
	x.choose("Logs")
	x.choose("Everything")
	x.shows("[31mred[0m c after ?")
	if strings.Contains(x.m.View().Content, "\x1bc") {
		t.Error("a message in the log steers the terminal")
	}
	before := x.cleared
	x.press("ctrl+l")
	if x.cleared != before+1 {
		t.Error("Ctrl-L does not draw the screen anew")
	}
}

func TestIdleLogout(t *testing.T) {
	x := open(t, ready())
	x.login()
	x.later(9 * time.Minute)
	x.shows("Customize")
	x.press("down")
	x.later(9 * time.Minute)
	x.shows("Services")
	x.later(2 * time.Minute)
	x.shows("State", "Ready")
	x.hides("Services")
}

// The Linux console says F2 as ESC [ [ B.
func TestConsoleKeys(t *testing.T) {
	f := screen.ConsoleKeys()
	if f(nil, uv.UnknownCsiEvent("\x1b[[")) != nil {
		t.Error("the sequence's beginning is a message")
	}
	if k, ok := f(nil, tea.KeyPressMsg{Code: 'b', Text: "B"}).(tea.KeyPressMsg); !ok || k.String() != "f2" {
		t.Errorf("got %v", k)
	}
	if k, ok := f(nil, tea.KeyPressMsg{Code: 'b', Text: "B"}).(tea.KeyPressMsg); !ok || k.String() != "B" {
		t.Errorf("got %v", k)
	}
}

// The whole program on a pipe: F2 as the console sends it opens the login, and
// nothing but the context ends it.
func TestRun(t *testing.T) {
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	from, out := io.Pipe()
	ctx, cancel := contextOf(t)
	done := make(chan error, 1)
	// Not as a file: bubbletea's reader of files closes at its end what another goroutine waits on, which the race detector sees.
	go func() { done <- screen.Run(ctx, ready(), ready(), struct{ io.Reader }{in}, out) }()
	seen := make(chan string, 1)
	go func() {
		all, buf := "", make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if all += string(buf[:n]); err != nil || strings.Contains(all, "Authentication required") {
				seen <- all
				io.Copy(io.Discard, from)
				return
			}
		}
	}()
	if _, err := keys.WriteString("\x03\x1a\x1c\x1b[[B"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-seen:
	case err := <-done:
		t.Fatalf("the screen ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("F2 does not open the login")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("asked to end: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
