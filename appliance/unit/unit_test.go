package unit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/unit"
)

// TestMain lets the test's own binary play the service that systemd starts.
func TestMain(m *testing.M) {
	if os.Getenv("BERTH_UNIT_SERVICE") != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		if err := service(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// service answers one connection on each of its sockets with the socket's name.
func service() error {
	for _, name := range []string{"web", "api", "web"} {
		l, err := unit.Listen(context.Background(), name, "unix", "/nowhere/at/all", 0o600)
		if err != nil {
			return err
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(c, name)
		c.Close()
		l.Close()
	}
	if _, err := unit.Listen(context.Background(), "web", "unix", "/nowhere/at/all", 0o600); err == nil {
		return errors.New("there was a fourth socket")
	}
	return nil
}

// TestSocketActivation passes sockets as systemd does: as descriptors from 3 on.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	names := []string{"web", "web", "api"}
	var addresses []string
	for range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		addresses = append(addresses, l.Addr().String())
	}
	cmd.Env = append(os.Environ(), "BERTH_UNIT_SERVICE=1", "LISTEN_FDS=3", "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2, 1} { // in the order in which the service asks
		c, err := net.Dial("tcp", addresses[i])
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(c)
		if string(b) != names[i] {
			t.Errorf("socket %d answers %q, want %q", i, b, names[i])
		}
		c.Close()
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := unit.Listen(t.Context(), "s", "unix", path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := unit.Listen(t.Context(), "s", "unix", path, 0o660); !fault.Is(err, fault.Conflict) {
		t.Errorf("a socket in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if killed
	l.Close()
	l, err = unit.Listen(t.Context(), "s", "unix", path, 0o660)
	if err != nil {
		t.Fatalf("a socket that nobody uses: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unit.Listen(t.Context(), "s", "unix", path, 0o660); !fault.Is(err, fault.Conflict) {
		t.Errorf("a file in the way: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file was removed")
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := unit.Listen(t.Context(), "web", "tcp", "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := unit.Listen(t.Context(), "web", "tcp", l.Addr().String(), 0); !fault.Is(err, fault.Conflict) {
		t.Errorf("a port in use: %v", err)
	}
}

// systemd listens where a service sends its notices.
func systemd(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		b := make([]byte, 4096)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotices(t *testing.T) {
	next := systemd(t)
	unit.Ready("serving\neverything")
	unit.Status("busy")
	unit.Stopping()
	for _, want := range []string{"READY=1\nSTATUS=serving everything", "STATUS=busy", "STOPPING=1"} {
		if got := next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestWatchdog starves systemd while the service is not healthy.
func TestWatchdog(t *testing.T) {
	next := systemd(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(60_000))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, 5)
	for _, err := range []error{nil, fault.New(fault.Unavailable, "the database is away"), errors.New("secret detail"), nil, nil} {
		answers <- err
	}
	ended := make(chan error)
	go func() {
		ended <- unit.Watchdog(ctx, func(ctx context.Context) error {
			select {
			case err := <-answers:
				return err
			case <-ctx.Done(): // hangs
				return ctx.Err()
			}
		})
	}()
	for _, want := range []string{"WATCHDOG=1", "STATUS=not healthy: the database is away", "STATUS=not healthy: internal error",
		"WATCHDOG=1", "STATUS=healthy again", "WATCHDOG=1", "STATUS=not healthy: internal error"} {
		if got := next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	unit.Ready("x")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := unit.Watchdog(ctx, func(context.Context) error { t.Error("asked"); return nil }); err != nil {
		t.Error(err)
	}
}
