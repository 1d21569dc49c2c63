// Package systemd looks at systemd's units and changes their state, for the
// console and for the first boot. A change is waited for, and when it fails,
// the fault says why in the unit's own last words.
//
// It speaks with systemd over its private socket, /run/systemd/private, which
// is root's alone and works from the first moment of a boot, before there is a
// D-Bus daemon. What a unit says of itself to systemd is package unit.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"berth/appliance/fault"
)

// answerTime is how long systemd may take to answer a question that somebody waits for.
const answerTime = 10 * time.Second

// Conn is a connection to systemd that is made again when it was lost, as after
// systemctl daemon-reexec. It is safe for concurrent use.
type Conn struct {
	patience time.Duration

	mu   sync.Mutex
	bus  *dbus.Conn
	done context.CancelFunc // ends bus
}

// New gives a connection that is made when it is needed. Patience is how long systemd
// may take to answer a question: on a host that starts hundreds of machines at once
// that can be many seconds, and a boot must wait for them.
func New(patience time.Duration) *Conn { return &Conn{patience: patience} }

// Open connects to systemd, for questions that somebody waits for: an answer has ten
// seconds. Where systemd does not run, the fault is Unavailable.
func Open(ctx context.Context) (*Conn, error) {
	c := New(answerTime)
	if _, err := c.connect(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bus != nil {
		c.bus.Close()
		c.done()
		c.bus = nil
	}
}

// connect gives the connection, a new one if there is none that lives.
func (c *Conn) connect(ctx context.Context) (*dbus.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bus != nil && c.bus.Connected() {
		return c.bus, nil
	}
	if c.bus != nil {
		c.bus.Close()
		c.done()
	}
	// The connection lives as long as its context: the caller's is for the
	// connecting alone.
	life, done := context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	stop := context.AfterFunc(ctx, done)
	bus, err := dbus.NewSystemdConnectionContext(life)
	if !stop() && err == nil {
		bus.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		done()
		c.bus = nil
		return nil, fault.Wrap(fault.Unavailable, err, "cannot speak with systemd").
			WithHint("this works on a machine that systemd has booted, and for root alone")
	}
	c.bus, c.done = bus, done
	return bus, nil
}

// A Unit is what the console shows of a unit of systemd.
type Unit struct {
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Load        string    `json:"load"`                  // loaded, not-found, masked …
	File        string    `json:"file"`                  // enabled, disabled, static …; "" if it has no file
	Active      string    `json:"active"`                // active, activating, deactivating, inactive, failed
	Sub         string    `json:"sub"`                   // running, exited, dead, listening …
	Since       time.Time `json:"since,omitzero"`        // of Active; zero if it has never changed
	MemoryBytes uint64    `json:"memory_bytes"`          // 0 if systemd does not know
	MainPID     uint32    `json:"main_pid,omitempty"`    // of a service that runs
	Result      string    `json:"result,omitempty"`      // success, exit-code, signal, watchdog, oom-kill, timeout …
	Restarts    uint32    `json:"restarts"`              // by systemd itself, since it was started by somebody
	StatusText  string    `json:"status_text,omitempty"` // what the service says that it is doing
}

// Units gives the units whose names match one of the patterns (as path.Match),
// in the order of their names. A name without a pattern is found although
// nothing has loaded it yet; if there is no such unit, its Load is not-found.
func (c *Conn) Units(ctx context.Context, patterns ...string) ([]Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	bus, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	var names, globs []string
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fault.New(fault.Invalid, "%q is not a pattern of unit names", p)
		}
		if strings.ContainsAny(p, `*?[\`) {
			globs = append(globs, p)
		} else if err := checkName(p); err != nil {
			return nil, err
		} else {
			names = append(names, p)
		}
	}
	var found []dbus.UnitStatus
	if len(globs) > 0 {
		if found, err = bus.ListUnitsByPatternsContext(ctx, nil, globs); err != nil {
			return nil, asFault(err, "cannot list the units")
		}
	}
	if len(names) > 0 {
		more, err := bus.ListUnitsByNamesContext(ctx, names)
		if err != nil {
			return nil, asFault(err, "cannot list the units")
		}
		found = append(found, more...)
	}
	slices.SortFunc(found, func(a, b dbus.UnitStatus) int { return strings.Compare(a.Name, b.Name) })
	found = slices.CompactFunc(found, func(a, b dbus.UnitStatus) bool { return a.Name == b.Name })
	units := make([]Unit, 0, len(found))
	for _, s := range found {
		u, err := unitOf(ctx, bus, s)
		if err != nil {
			if e, ok := errors.AsType[godbus.Error](err); ok && e.Name == noSuchUnit {
				continue // it went away meanwhile
			}
			return nil, asFault(err, "cannot ask for the state of "+s.Name)
		}
		units = append(units, u)
	}
	return units, nil
}

// unitOf asks for what a list of units does not have, property by property: all of
// them at once are some 300, and the VM's screen asks every two seconds.
func unitOf(ctx context.Context, bus *dbus.Conn, s dbus.UnitStatus) (Unit, error) {
	u := Unit{Name: s.Name, Description: s.Description, Load: s.LoadState, Active: s.ActiveState, Sub: s.SubState}
	var since uint64 // in microseconds
	type property struct {
		name string
		into any
	}
	get := func(kind string, list ...property) error {
		for _, p := range list {
			have, err := bus.GetUnitTypePropertyContext(ctx, s.Name, kind, p.name)
			if err != nil {
				return err
			}
			if err := have.Value.Store(p.into); err != nil {
				return fmt.Errorf("the property %s: %w", p.name, err)
			}
		}
		return nil
	}
	err := get("Unit", property{"UnitFileState", &u.File}, property{"StateChangeTimestamp", &since})
	if err == nil && strings.HasSuffix(s.Name, ".service") && s.LoadState == "loaded" {
		err = get("Service", property{"MemoryCurrent", &u.MemoryBytes}, property{"MainPID", &u.MainPID}, property{"Result", &u.Result},
			property{"NRestarts", &u.Restarts}, property{"StatusText", &u.StatusText})
	}
	if since > 0 {
		u.Since = time.UnixMicro(int64(since)).UTC()
	}
	if u.MemoryBytes == ^uint64(0) {
		u.MemoryBytes = 0
	}
	return u, err
}

// State is what systemd says of the whole system: starting, running, degraded
// (a unit has failed), stopping …
func (c *Conn) State(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	bus, err := c.connect(ctx)
	if err != nil {
		return "", err
	}
	p, err := bus.SystemStateContext(ctx)
	if err != nil {
		return "", asFault(err, "cannot ask for the state of the system")
	}
	state, _ := p.Value.Value().(string)
	return state, nil
}

// longestName is systemd's UNIT_NAME_MAX without its final zero.
const longestName = 255

// checkName accepts the name of a unit: what systemd allows, with a suffix. The
// check keeps nonsense out of faults and out of journalctl's arguments.
func checkName(name string) error {
	stem, kind, ok := cutLast(name, ".")
	if ok && stem != "" && stem[0] != '-' && len(name) <= longestName && slices.Contains(kinds, kind) && !strings.ContainsFunc(stem, strange) {
		return nil
	}
	return fault.New(fault.Invalid, "%q is not the name of a unit", name).On("name").WithHint("such as berth-core.service")
}

var kinds = []string{"service", "socket", "target", "timer", "mount", "path", "slice", "scope", "device", "swap", "automount"}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// strange is true of characters that no unit's name has (systemd.unit(5)).
func strange(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(`:-_.\@`, r)
}

const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

// asFault puts an error of systemd's into words.
func asFault(err error, what string) error {
	if e, ok := errors.AsType[godbus.Error](err); ok {
		text := e.Name
		if len(e.Body) > 0 {
			if s, ok := e.Body[0].(string); ok {
				text = s
			}
		}
		switch e.Name {
		case noSuchUnit, "org.freedesktop.systemd1.LoadFailed":
			return fault.Wrap(fault.NotFound, err, "%s: there is no such unit", what)
		case "org.freedesktop.systemd1.UnitMasked":
			return fault.Wrap(fault.Precondition, err, "%s: it is masked", what).WithHint("systemctl unmask")
		case "org.freedesktop.systemd1.TransactionIsDestructive":
			return fault.Wrap(fault.Precondition, err, "%s: the machine is about to stop or to restart", what)
		}
		return fault.Wrap(fault.Unavailable, err, "%s: %s", what, text)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.Wrap(fault.Unavailable, err, "%s: systemd does not answer", what)
	}
	return fault.Wrap(fault.Unavailable, err, "%s", what)
}
