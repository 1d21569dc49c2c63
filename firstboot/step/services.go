package step

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/systemd"
	"berth/firstboot"
)

// services starts everything and waits until it runs; at every boot.
func (m Machine) services(ctx context.Context, w *firstboot.Work) (string, error) {
	if internal(w.Answers.Settings) {
		if err := writeMemory(); err != nil {
			return "", err
		}
	}
	// The target wants its services: it is reached whether they come up or not.
	if err := m.start(ctx, "berth.target"); err != nil {
		return "", err
	}
	n, err := m.settled(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d services run", n), nil
}

// start starts a unit, however long that takes: systemd knows when it has been too
// long, and PostgreSQL may have a crash's journal to read first.
func (m Machine) start(ctx context.Context, unit string) error {
	for {
		err := m.Systemd.Start(ctx, unit)
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// restartTime is how long a service may end and be started again before it counts
// as one that does not work. It does so while PostgreSQL is not there yet.
const restartTime = 30 * time.Second

// settled waits until no service of the target is on its way, and gives the faults
// of those that have failed.
func (m Machine) settled(ctx context.Context) (running int, err error) {
	begun := time.Now()
	for {
		units, err := m.Systemd.Units(ctx, "berth-*.service")
		if err != nil {
			return 0, err
		}
		units = slices.DeleteFunc(units, func(u systemd.Unit) bool { return !service(u.Name) })
		var busy []string
		var failed []error
		if slices.ContainsFunc(units, func(u systemd.Unit) bool { return u.Name == database && u.Active == "activating" }) {
			begun = time.Now()
		}
		running = 0
		for _, u := range units {
			switch {
			case u.Active == "failed" || u.Sub == "auto-restart" && time.Since(begun) > restartTime:
				failed = append(failed, why(ctx, u))
			case u.Active == "active":
				running++
			case u.Active != "inactive":
				busy = append(busy, u.Name)
			}
		}
		if failed != nil || len(busy) == 0 {
			return running, errors.Join(failed...)
		}
		select {
		case <-ctx.Done():
			return 0, fault.Wrap(fault.Unavailable, ctx.Err(), "not ready yet: %s", strings.Join(busy, ", ")).WithHint("journalctl -u %s says more", busy[0])
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// database is PostgreSQL's unit.
const database = "berth-postgres.service"

// service reports whether a unit is one of those that the target starts.
func service(name string) bool {
	switch strings.TrimSuffix(strings.TrimPrefix(name, "berth-"), ".service") {
	case "postgres", "logs", "token", "core", "jobs", "registry":
		return true
	}
	return false
}

func why(ctx context.Context, u systemd.Unit) error {
	f := fault.New(fault.Unavailable, "%s has failed (%s)", u.Name, u.Result).WithHint("journalctl -u %s says more", u.Name)
	if lines, err := systemd.Lines(ctx, u.Name, 3, time.Time{}); err == nil && len(lines) > 0 {
		f = f.WithHint("its last words: %s", strings.Join(lines, " / "))
	}
	return f
}
