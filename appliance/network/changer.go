package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// ConfirmTime is how long a change waits to be confirmed.
const ConfirmTime = 120 * time.Second

// A Changer changes the network on trial: the new settings are in force at once,
// and the old ones come back unless somebody who reaches the machine at its new
// address confirms them in time. The machine's settings file has the new ones only
// after that, so that a machine that restarts meanwhile starts with the old ones.
//
// A change is a file in Dir from before its first to after its last step: an agent
// that is killed at any point takes it up again. All work is done by Run.
type Changer struct {
	// Dir is where the pending change is kept, setting.StateDir.
	Dir string
	// Apply puts settings in force: the package's Apply.
	Apply func(ctx context.Context, n setting.Network) error
	// Commit writes confirmed settings into the settings file.
	Commit func(ctx context.Context, n setting.Network) error
	Log    *slog.Logger
	// Boot tells one boot of the machine from another; empty: the kernel's boot_id.
	Boot string

	mu   sync.Mutex
	last Outcome
	wake chan struct{}
	now  *change // what is in the file; nil if there is none
	read bool
}

// A Pending change.
type Pending struct {
	ID  string          `json:"id"`
	Old setting.Network `json:"old"`
	New setting.Network `json:"new"`
	// Applied is true as soon as the new settings are in force.
	Applied bool `json:"applied"`
	// Until is when the old ones come back; zero before Applied.
	Until time.Time `json:"until,omitzero"`
}

// An Outcome is how the last change since the agent's start ended.
type Outcome struct {
	ID        string    `json:"id"`
	Confirmed bool      `json:"confirmed"`
	Text      string    `json:"text"` // why the old settings are back
	At        time.Time `json:"at"`
}

// change is a Pending as it is in the file.
type change struct {
	Pending
	Wait      time.Duration `json:"wait"`
	Boot      string        `json:"boot"`
	Confirmed bool          `json:"confirmed"`
	Reverting string        `json:"reverting"` // why
	deadline  time.Time     // in this process's time, which no NTP server moves
}

// settle is how long Run waits before it applies a change, so that the answer to
// whoever asked for it gets out on the old address.
const settle = 500 * time.Millisecond

// Change begins a change from old to n, which waits as long as wait to be confirmed
// (ConfirmTime), and returns before it is in force: Pending tells how it goes on,
// Last how it ended. One that is pending already is a Conflict.
func (c *Changer) Change(_ context.Context, old, n setting.Network, wait time.Duration) (Pending, error) {
	if wait < 10*time.Second || wait > time.Hour {
		return Pending{}, fault.New(fault.Invalid, "the time to confirm is 10 seconds to an hour").On("wait")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		return Pending{}, err
	}
	if c.now != nil {
		return Pending{}, fault.New(fault.Conflict, "another change of the network is not finished").WithHint("confirm it or take it back first")
	}
	id := make([]byte, 8)
	rand.Read(id) // never fails (crypto/rand, Go 1.24)
	next := &change{Pending: Pending{ID: hex.EncodeToString(id), Old: old, New: n}, Wait: wait, Boot: c.boot()}
	if err := c.store(next); err != nil {
		return Pending{}, err
	}
	return next.Pending, nil
}

// Pending gives the change that is neither confirmed nor taken back yet.
func (c *Changer) Pending() (Pending, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil || c.now == nil {
		return Pending{}, false
	}
	return c.now.Pending, true
}

// Last tells how the last change ended; false if there was none since the start.
func (c *Changer) Last() (Outcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.last.ID != ""
}

// Confirm makes a change last. over is the machine's address at which the request
// to confirm came in: it must be one that the new settings name, if they name any of
// its family, which proves that the machine is reached there. The zero Addr is for
// the VM console and the agent's unix socket, whose user is never locked out.
func (c *Changer) Confirm(_ context.Context, id string, over netip.Addr) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.find(id); err != nil {
		return err
	}
	if !c.now.Applied {
		return fault.New(fault.Precondition, "the change is not in force yet").WithHint("try again in some seconds")
	}
	if !proves(c.now.New, over) {
		return fault.New(fault.Precondition, "the change can be confirmed only at the new address").
			WithHint("open the console at %s", strings.Join(named(c.now.New), " or "))
	}
	next := *c.now
	next.Confirmed = true
	return c.store(&next)
}

// Revert takes a change back now.
func (c *Changer) Revert(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.find(id); err != nil {
		return err
	}
	next := *c.now
	next.Reverting = "it was taken back"
	return c.store(&next)
}

// find is for a change that can still be decided on.
func (c *Changer) find(id string) error {
	if err := c.load(); err != nil {
		return err
	}
	if c.now == nil || c.now.ID != id {
		return fault.New(fault.NotFound, "there is no such change of the network; it may have been taken back already")
	}
	if c.now.Confirmed || c.now.Reverting != "" || c.now.Applied && !c.now.deadline.IsZero() && !time.Now().Before(c.now.deadline) {
		return fault.New(fault.Conflict, "it has been decided already")
	}
	return nil
}

// proves reports whether reaching the machine at an address shows that new settings
// work. An address of a family for which they name none is DHCP's or a router's.
func proves(n setting.Network, over netip.Addr) bool {
	if !over.IsValid() {
		return true
	}
	over = over.Unmap().WithZone("")
	if over.IsLoopback() {
		return false // a tunnel, which may end with the old address
	}
	for _, want := range []string{n.IP4, n.IP6} {
		if p, err := netip.ParsePrefix(want); err == nil && p.Addr().Is4() == over.Is4() {
			return p.Addr() == over
		}
	}
	return !n.Static() || over.Is6() && !over.IsLinkLocalUnicast()
}

// named are the addresses that settings name.
func named(n setting.Network) []string {
	var list []string
	for _, want := range []string{n.IP4, n.IP6} {
		if p, err := netip.ParsePrefix(want); err == nil {
			list = append(list, p.Addr().String())
		}
	}
	if list == nil {
		return []string{"the address that DHCP has given"}
	}
	return list
}

func (c *Changer) boot() string {
	if c.Boot != "" {
		return c.Boot
	}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // without /proc nothing else works either
	}
	return strings.TrimSpace(string(b))
}

func (c *Changer) file() string { return filepath.Join(c.Dir, "network-change.json") }

// load reads the file once. One that cannot be read is set aside: nobody can
// confirm it any more, and the settings file still has the old settings.
func (c *Changer) load() error {
	if c.wake == nil {
		c.wake = make(chan struct{}, 1)
	}
	if c.read {
		return nil
	}
	b, err := os.ReadFile(c.file())
	if errors.Is(err, fs.ErrNotExist) {
		c.read = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the pending change of the network: %w", err)
	}
	var found change
	if err := json.Unmarshal(b, &found); err != nil || found.ID == "" {
		if err := os.Rename(c.file(), c.file()+".broken"); err != nil {
			return fmt.Errorf("cannot set a broken change of the network aside: %w", err)
		}
		c.Log.Error("the pending change of the network cannot be read, and was set aside", "file", c.file()+".broken")
		c.read = true
		return nil
	}
	if found.Applied {
		// The agent was away. The clock may have been set meanwhile: never longer
		// than the whole time.
		found.deadline = time.Now().Add(min(time.Until(found.Until), found.Wait))
	}
	c.now, c.read = &found, true
	return nil
}

// store keeps a change durably, and tells Run.
func (c *Changer) store(next *change) error {
	b, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("cannot keep the change of the network: %w", err)
	}
	if err := durable.WriteFile(c.file(), b, 0o600); err != nil {
		return err
	}
	c.now = next
	select {
	case c.wake <- struct{}{}:
	default: // it is told already
	}
	return nil
}

// end forgets a change.
func (c *Changer) end(how Outcome) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Remove(c.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot end the change of the network: %w", err)
	}
	how.At = time.Now().UTC()
	c.now, c.last = nil, how
	return durable.SyncDir(c.Dir)
}
