package step

import (
	"context"
	"errors"
	"fmt"
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
	if err := m.Systemd.Start(ctx, "berth.target"); err != nil {
		return "", err
	}
	n, err := m.settled(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d services run", n), nil
}

// settled waits until no service of the target is on its way, and gives the faults
// of those that have failed.
func (m Machine) settled(ctx context.Context) (running int, err error) {
	for {
		units, err := m.Systemd.Units(ctx, "berth-*.service")
		if err != nil {
			return 0, err
		}
		var busy []string
		var failed []error
		running = 0
		for _, u := range units {
			switch {
			case !service(u.Name):
			case u.Active == "active":
				running++
			case u.Active == "activating" || u.Active == "reloading" || u.Active == "deactivating":
				busy = append(busy, u.Name)
			case u.Active == "failed":
				failed = append(failed, why(ctx, u))
			}
		}
		if len(busy) == 0 {
			return running, errors.Join(failed...)
		}
		select {
		case <-ctx.Done():
			return 0, fault.Wrap(fault.Unavailable, ctx.Err(), "not ready yet: %s", strings.Join(busy, ", ")).WithHint("journalctl -u %s says more", busy[0])
		case <-time.After(100 * time.Millisecond):
		}
	}
}

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
