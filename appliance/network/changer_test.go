package network_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/appliance/fault"
	"berth/appliance/network"
	"berth/appliance/setting"
)

var (
	oldNet = setting.Network{Mode: "static", IP4: "192.0.2.10/24", IP6: "2001:db8::10/64"}
	newNet = setting.Network{Mode: "static", IP4: "198.51.100.10/24"}
)

// A machine has the settings in force, and those in its file.
type machine struct {
	mu       sync.Mutex
	dir      string
	force    string // the address
	file     string
	broken   error // of what Apply says of newNet
	boot     string
	applied  int
	commits  error
	crashNow func() // in Apply
}

func (m *machine) changer() *network.Changer {
	return &network.Changer{Dir: m.dir, Log: slog.New(slog.DiscardHandler), Boot: m.boot,
		Apply: func(_ context.Context, n setting.Network) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.force = n.IP4
			m.applied++
			if m.crashNow != nil {
				m.crashNow()
			}
			if n.IP4 == newNet.IP4 {
				return m.broken
			}
			return nil
		},
		Commit: func(_ context.Context, n setting.Network) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.commits == nil {
				m.file = n.IP4
			}
			return m.commits
		}}
}

func (m *machine) expect(t *testing.T, what, force, file string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.force != force || m.file != file {
		t.Errorf("%s: in force %s, in the file %s; want %s and %s", what, m.force, m.file, force, file)
	}
}

// agent runs a changer until stop.
func agent(t *testing.T, c *network.Changer) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// trial runs a test with a machine that has the old network, in false time.
func trial(t *testing.T, test func(t *testing.T, m *machine)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		test(t, &machine{dir: dir, force: oldNet.IP4, file: oldNet.IP4, boot: "first"})
	})
}

func begin(t *testing.T, c *network.Changer) network.Pending {
	t.Helper()
	p, err := c.Change(t.Context(), oldNet, newNet, network.ConfirmTime)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNobodyConfirms(t *testing.T) {
	trial(t, func(t *testing.T, m *machine) {
		c := m.changer()
		defer agent(t, c)()
		p := begin(t, c)
		m.expect(t, "before the answer is out", oldNet.IP4, oldNet.IP4)
		if err := c.Confirm(t.Context(), p.ID, netip.Addr{}); !fault.Is(err, fault.Precondition) {
			t.Errorf("confirmed before it is in force: %v", err)
		}
		time.Sleep(time.Second)
		m.expect(t, "on trial", newNet.IP4, oldNet.IP4)
		if got, ok := c.Pending(); !ok || !got.Applied || time.Until(got.Until) > network.ConfirmTime || time.Until(got.Until) < network.ConfirmTime-2*time.Second {
			t.Errorf("pending: %+v, %v", got, ok)
		}
		if _, err := c.Change(t.Context(), newNet, oldNet, network.ConfirmTime); !fault.Is(err, fault.Conflict) {
			t.Errorf("a second change: %v", err)
		}
		for _, wrong := range []string{"192.0.2.10", "127.0.0.1", "fe80::1", "198.51.100.11"} {
			if err := c.Confirm(t.Context(), p.ID, netip.MustParseAddr(wrong)); !fault.Is(err, fault.Precondition) {
				t.Errorf("confirmed over %s: %v", wrong, err)
			}
		}
		time.Sleep(network.ConfirmTime - 2*time.Second)
		m.expect(t, "shortly before", newNet.IP4, oldNet.IP4)
		time.Sleep(2 * time.Second)
		m.expect(t, "afterwards", oldNet.IP4, oldNet.IP4)
		if err := c.Confirm(t.Context(), p.ID, netip.MustParseAddr("198.51.100.10")); !fault.Is(err, fault.NotFound) {
			t.Errorf("too late: %v", err)
		}
		if o, ok := c.Last(); !ok || o.ID != p.ID || o.Confirmed || !strings.Contains(o.Text, "nobody has confirmed") {
			t.Errorf("the outcome: %+v", o)
		}
		if left, _ := os.ReadDir(m.dir); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestConfirmed(t *testing.T) {
	for _, over := range []netip.Addr{{}, netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("::ffff:198.51.100.10")} {
		t.Run(over.String(), func(t *testing.T) {
			trial(t, func(t *testing.T, m *machine) {
				c := m.changer()
				defer agent(t, c)()
				p := begin(t, c)
				time.Sleep(time.Minute)
				if err := c.Confirm(t.Context(), "another", over); !fault.Is(err, fault.NotFound) {
					t.Errorf("another one: %v", err)
				}
				if err := c.Confirm(t.Context(), p.ID, over); err != nil {
					t.Fatal(err)
				}
				if err := c.Revert(t.Context(), p.ID); err == nil {
					t.Error("taken back after it was confirmed")
				}
				time.Sleep(time.Hour)
				m.expect(t, "confirmed", newNet.IP4, newNet.IP4)
				if o, ok := c.Last(); !ok || !o.Confirmed || m.applied != 1 {
					t.Errorf("the outcome: %+v, applied %d times", o, m.applied)
				}
			})
		})
	}
}

func TestTakenBackAndRefused(t *testing.T) {
	trial(t, func(t *testing.T, m *machine) {
		c := m.changer()
		defer agent(t, c)()
		p := begin(t, c)
		time.Sleep(time.Second)
		if err := c.Revert(t.Context(), p.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		m.expect(t, "taken back", oldNet.IP4, oldNet.IP4)
		m.broken = fault.New(fault.Conflict, "another machine has the address")
		begin(t, c)
		time.Sleep(time.Second)
		m.expect(t, "a network that does not work", oldNet.IP4, oldNet.IP4)
		if o, _ := c.Last(); !strings.Contains(o.Text, "another machine has the address") {
			t.Errorf("the outcome: %+v", o)
		}
		if _, err := c.Change(t.Context(), oldNet, newNet, time.Second); !fault.Is(err, fault.Invalid) {
			t.Errorf("no time to confirm: %v", err)
		}
	})
}

// TestAgentDies is killed at every moment, and starts again soon or late.
func TestAgentDies(t *testing.T) {
	for name, at := range map[string]time.Duration{"before it is applied": 100 * time.Millisecond, "on trial": 30 * time.Second} {
		for again, away := range map[string]time.Duration{"soon": time.Second, "late": 10 * time.Minute} {
			t.Run(name+", "+again, func(t *testing.T) {
				trial(t, func(t *testing.T, m *machine) {
					first := m.changer()
					stop := agent(t, first)
					p := begin(t, first)
					time.Sleep(at)
					stop()
					time.Sleep(away)
					second := m.changer()
					defer agent(t, second)()
					if got, ok := second.Pending(); !ok || got.ID != p.ID {
						t.Errorf("pending: %+v, %v", got, ok)
					}
					time.Sleep(network.ConfirmTime + 2*time.Second)
					m.expect(t, "in the end", oldNet.IP4, oldNet.IP4)
					if _, ok := second.Pending(); ok {
						t.Error("it is still pending")
					}
				})
			})
		}
	}
}

// TestRestart comes up with the old network, whatever was on trial.
func TestRestart(t *testing.T) {
	for _, confirmed := range []bool{false, true} {
		t.Run("", func(t *testing.T) {
			trial(t, func(t *testing.T, m *machine) {
				c := m.changer()
				stop := agent(t, c)
				p := begin(t, c)
				time.Sleep(time.Second)
				m.mu.Lock()
				m.commits = errors.New("the disk is full")
				m.mu.Unlock()
				if confirmed {
					if err := c.Confirm(t.Context(), p.ID, netip.Addr{}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Second)
				stop()
				m.boot, m.force, m.commits = "second", oldNet.IP4, nil
				defer agent(t, m.changer())()
				time.Sleep(time.Second)
				if confirmed {
					m.expect(t, "it had been confirmed", newNet.IP4, newNet.IP4)
				} else {
					m.expect(t, "it had not been confirmed", oldNet.IP4, oldNet.IP4)
				}
			})
		})
	}
}

func TestBrokenChangeFile(t *testing.T) {
	trial(t, func(t *testing.T, m *machine) {
		if err := os.WriteFile(filepath.Join(m.dir, "network-change.json"), []byte("{\"id\""), 0o600); err != nil {
			t.Fatal(err)
		}
		c := m.changer()
		defer agent(t, c)()
		time.Sleep(time.Second)
		if _, ok := c.Pending(); ok {
			t.Error("it is pending")
		}
		begin(t, c)
	})
}
