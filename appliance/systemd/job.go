package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"berth/appliance/fault"
)

// jobTime is how long a change of a unit's state is waited for, if the caller's
// context does not end before. Our units have shorter limits of their own.
const jobTime = 2 * time.Minute

// A verb is one of systemd's ways to change a unit.
type verb struct {
	name string // for "cannot NAME"
	call func(c *dbus.Conn, ctx context.Context, unit, mode string, result chan<- string) (int, error)
}

// Start starts a unit and waits until it runs, or has failed.
func (c *Conn) Start(ctx context.Context, unit string) error {
	return c.change(ctx, unit, verb{"start", (*dbus.Conn).StartUnitContext})
}

// Stop stops a unit and waits until it has ended.
func (c *Conn) Stop(ctx context.Context, unit string) error {
	return c.change(ctx, unit, verb{"stop", (*dbus.Conn).StopUnitContext})
}

// Restart stops a unit if it runs, and starts it.
func (c *Conn) Restart(ctx context.Context, unit string) error {
	return c.change(ctx, unit, verb{"restart", (*dbus.Conn).RestartUnitContext})
}

// Reload lets a unit read its settings again; one that cannot is restarted.
func (c *Conn) Reload(ctx context.Context, unit string) error {
	return c.change(ctx, unit, verb{"reload", (*dbus.Conn).ReloadOrRestartUnitContext})
}

// change asks for a job and waits for its result. A fault of a unit that failed
// has its last words in its hint.
func (c *Conn) change(ctx context.Context, unit string, v verb) error {
	if err := checkName(unit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	bus, err := c.connect(ctx)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("cannot %s %s", v.name, unit)
	begun := time.Now()
	result := make(chan string, 1)
	if _, err := v.call(bus, ctx, unit, "replace", result); err != nil {
		return asFault(err, what)
	}
	select {
	case r := <-result:
		return c.explain(ctx, unit, what, r, begun)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return fault.Wrap(fault.Unavailable, ctx.Err(), "%s: it is still under way after %s", what, time.Since(begun).Round(time.Second)).
			WithHint("systemd goes on with it; look at its state and its log in a while")
	}
}

// explain gives a job's result in words; nil for a good one. The results are
// those of JobRemoved in org.freedesktop.systemd1(5).
func (c *Conn) explain(ctx context.Context, unit, what, result string, begun time.Time) error {
	var why string
	switch result {
	case "done":
		return nil
	case "skipped":
		why = "a condition of the unit is not met, or it does not apply here"
	case "canceled":
		why = "somebody else has asked for the opposite meanwhile"
	case "dependency":
		why = "something that it needs could not be started"
	case "timeout":
		why = "it took too long"
	default: // failed
		why = "it failed"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.patience)
	defer cancel()
	if units, err := c.Units(ctx, unit); err == nil && len(units) == 1 {
		why += units[0].because()
	}
	f := fault.New(fault.Unavailable, "%s: %s", what, why)
	if lines, err := Lines(ctx, unit, 5, begun); err == nil && len(lines) > 0 {
		return f.WithHint("its last words: %s", strings.Join(lines, " / "))
	}
	return f.WithHint("its log may say more: journalctl -u %s", unit)
}

// because adds what systemd knows of a unit's end.
func (u Unit) because() string {
	if u.Load != "loaded" && u.Load != "" {
		return fmt.Sprintf(" (the unit is %s)", u.Load)
	}
	switch u.Result {
	case "", "success":
		return ""
	case "exit-code":
		return " (it ended with an error)"
	case "signal", "core-dump":
		return " (it was ended by a signal)"
	case "watchdog":
		return " (it hung)"
	case "timeout":
		return " (it did not get ready in time)"
	case "oom-kill":
		return " (the machine had no memory left)"
	case "start-limit-hit":
		return " (it has failed too often in a short time)"
	}
	return fmt.Sprintf(" (%s)", u.Result)
}

// Lines gives the last lines that a unit has written since a time, at most n; with
// the zero time, since ever.
func Lines(ctx context.Context, unit string, n int, since time.Time) ([]string, error) {
	if err := checkName(unit); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	args := []string{"--unit=" + unit, "--lines=" + strconv.Itoa(n), "--output=cat", "--no-pager", "--quiet"}
	if !since.IsZero() {
		args = append(args, "--since=@"+strconv.FormatInt(since.Add(-time.Second).Unix(), 10))
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal of %s: %w", unit, err)
	}
	var lines []string
	for line := range bytes.Lines(out) {
		if text := strings.TrimSpace(strings.ToValidUTF8(string(line), "\ufffd")); text != "" {
			lines = append(lines, text)
		}
	}
	return lines, nil
}

// Enable lets units start at every boot, by the [Install] sections of their files.
func (c *Conn) Enable(ctx context.Context, units ...string) error {
	return c.files(ctx, "enable", units, func(ctx context.Context, bus *dbus.Conn) error {
		_, _, err := bus.EnableUnitFilesContext(ctx, units, false, true)
		return err
	})
}

// Disable undoes Enable. A unit that runs goes on running.
func (c *Conn) Disable(ctx context.Context, units ...string) error {
	return c.files(ctx, "disable", units, func(ctx context.Context, bus *dbus.Conn) error {
		_, err := bus.DisableUnitFilesContext(ctx, units, false)
		return err
	})
}

// Load makes systemd read all unit files again (daemon-reload).
func (c *Conn) Load(ctx context.Context) error {
	return c.files(ctx, "read", nil, func(context.Context, *dbus.Conn) error { return nil })
}

// files changes something about unit files, and lets systemd read them again.
func (c *Conn) files(ctx context.Context, what string, units []string, change func(context.Context, *dbus.Conn) error) error {
	for _, u := range units {
		if err := checkName(u); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	bus, err := c.connect(ctx)
	if err != nil {
		return err
	}
	if err := change(ctx, bus); err != nil {
		return asFault(err, fmt.Sprintf("cannot %s %s", what, strings.Join(units, ", ")))
	}
	if err := bus.ReloadContext(ctx); err != nil {
		return asFault(err, "cannot let systemd read the unit files again")
	}
	return nil
}

// PowerOff shuts the machine down: services are stopped, disks unmounted. It
// returns as soon as systemd has begun.
func (c *Conn) PowerOff(ctx context.Context) error { return c.end(ctx, "poweroff.target", "shut down") }

// Reboot is PowerOff, and a new start.
func (c *Conn) Reboot(ctx context.Context) error { return c.end(ctx, "reboot.target", "restart") }

// end starts a target that ends all others. It is what systemctl does without
// logind; like there, nothing can be started any more after it.
func (c *Conn) end(ctx context.Context, target, what string) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	bus, err := c.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := bus.StartUnitContext(ctx, target, "replace-irreversibly", nil); err != nil {
		return asFault(err, fmt.Sprintf("cannot %s the machine", what))
	}
	return nil
}
