// Package unit is a service's side of systemd: sockets that systemd holds
// open for it, news of its state, and the watchdog. Without systemd all of it
// does nothing, or what a program does for itself.
//
// That systemd holds the sockets means that no connection attempt is refused
// while a service restarts, and that a service can have port 443 without any
// right of its own.
package unit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// Ready tells systemd that the service can be used now, and in a few words
// what it is doing (systemctl status shows them).
func Ready(status string) { notify(daemon.SdNotifyReady, status) }

// Status tells what the service is doing.
func Status(status string) { notify("", status) }

// Stopping tells that the service has begun to end.
func Stopping() { notify(daemon.SdNotifyStopping, "") }

// notify sends one message. That it may fail changes nothing for the service:
// if systemd does not hear of READY, it says so itself.
func notify(state, status string) {
	lines := make([]string, 0, 2)
	if state != "" {
		lines = append(lines, state)
	}
	if status != "" {
		lines = append(lines, "STATUS="+strings.ReplaceAll(status, "\n", " "))
	}
	_, _ = daemon.SdNotify(false, strings.Join(lines, "\n"))
}

// Watchdog tells systemd until ctx ends that the service is alive, three times
// in the time after which systemd would kill and restart it, each time only if
// health says so. health is to ask what the service cannot do without, within
// its context's time.
func Watchdog(ctx context.Context, health func(context.Context) error) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("cannot feed systemd's watchdog: %w", err)
	}
	if limit == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	sick := false
	for {
		if err := ask(ctx, limit/3, health); err == nil {
			notify(daemon.SdNotifyWatchdog, "")
			if sick {
				Status("healthy again")
			}
			sick = false
		} else if ctx.Err() == nil {
			sick = true
			Status("not healthy: " + fault.Of(err).Text)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, limit time.Duration, health func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return health(ctx)
}

// Listen gives the socket that systemd holds under that name (the socket
// unit's FileDescriptorName), or else opens network ("unix", "tcp") at address
// itself. mode is for a unix socket that is opened here. A socket unit with
// several addresses has several sockets of one name: each call gives the next.
//
// A unix socket that a dead process has left is removed; one that answers is a
// fault.Conflict.
func Listen(ctx context.Context, name, network, address string, mode os.FileMode) (net.Listener, error) {
	if l, err := passed(name); l != nil || err != nil {
		return l, err
	}
	if network == "unix" {
		if err := removeStale(ctx, address); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fault.Wrap(fault.Conflict, err, "another program uses %s", address).
			WithHint("stop it, or choose another address (ss -ltnp shows who it is)")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	// Before this, the usual umask lets nobody else write, that is, connect.
	if network == "unix" {
		if err := os.Chmod(address, mode); err != nil {
			l.Close()
			return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
		}
	}
	return l, nil
}

// firstSocket is the descriptor of the first socket that systemd passes
// (SD_LISTEN_FDS_START).
const firstSocket = 3

// passed takes the next of systemd's sockets with that name; nil if there is
// none. It is not go-systemd's activation.Files because that makes files of all
// sockets at once, which close those that nobody has asked for yet when they
// are collected.
func passed(name string) (net.Listener, error) {
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil
	}
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return nil, nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range min(count, len(names)) {
		fd := uintptr(firstSocket + i)
		if names[i] != name || !untouched(fd) {
			continue
		}
		f := os.NewFile(fd, name)
		l, err := net.FileListener(f) // a copy, closed at exec
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot use the socket %s that systemd passed: %w", name, err)
		}
		return l, nil
	}
	return nil, nil
}

// untouched reports whether a descriptor is still as systemd passed it. Such a
// one stays open at exec; whatever Go opens, perhaps under the number of a
// socket that was taken and closed, does not.
func untouched(fd uintptr) bool {
	flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// removeStale removes a unix socket on which nobody listens.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fault.New(fault.Conflict, "%s is in the way: it is not a socket", path).WithHint("move it away")
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
		return fault.New(fault.Conflict, "another program answers on %s", path).WithHint("stop it first")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether %s is in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove a socket that nobody uses: %w", err)
	}
	return nil
}
