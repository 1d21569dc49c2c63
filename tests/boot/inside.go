package boot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// commandTime is how long one command in the machine may take.
const commandTime = 2 * time.Minute

// Command runs a program in the machine as root; it must succeed. The result is what it wrote to standard output.
func (m *Machine) Command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := m.Try(name, args...)
	if err != nil {
		t.Fatalf("in the machine: %s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

// Try is Command for what may fail: the error has what it wrote to standard error.
func (m *Machine) Try(name string, args ...string) (string, error) { return m.Input("", name, args...) }

// Input is Try for a program that reads standard input.
func (m *Machine) Input(input, name string, args ...string) (string, error) {
	pid, err := m.pid()
	if err != nil {
		return "", err
	}
	enter := []string{"-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb", name}
	return run(input, "nsenter", append(enter, args...)...)
}

// Outside runs a program of this computer in the machine's network, where clients are; it must succeed.
func (m *Machine) Outside(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := m.TryOutside("", name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

// TryOutside is Outside for what may fail, and for what reads standard input.
func (m *Machine) TryOutside(input, name string, args ...string) (string, error) {
	return run(input, "nsenter", append([]string{"--net=" + m.Network(), "--", name}, args...)...)
}

func run(input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = strings.NewReader(input), &out, &errs, time.Second
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()+out.String()))
	}
	return out.String(), err
}

// File is the content of a file in the machine; "" if there is none.
func (m *Machine) File(path string) string {
	pid, err := m.pid()
	if err != nil {
		return ""
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/root/%s", pid, path))
	return string(b)
}

// Wait asks until there is no error, for at most limit.
func (m *Machine) Wait(t testing.TB, what string, limit time.Duration, ask func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
		select {
		case <-m.power.done:
			t.Fatalf("waiting that %s: the machine is off (%v)", what, m.power.err)
		default:
		}
	}
	t.Fatalf("not within %v: %s: %v", limit, what, err)
}

// Active waits until a unit is active.
func (m *Machine) Active(t testing.TB, unit string, limit time.Duration) {
	t.Helper()
	m.Wait(t, unit+" is active", limit, func() error {
		_, err := m.Try("systemctl", "is-active", unit)
		return err
	})
}

// Serving waits until the registry answers at the machine's address.
func (m *Machine) Serving(t testing.TB, limit time.Duration) {
	t.Helper()
	m.ServingAt(t, m.Address(), limit)
}

// ServingAt is Serving for another of its addresses.
func (m *Machine) ServingAt(t testing.TB, at netip.Addr, limit time.Duration) {
	t.Helper()
	client := m.Client(nil)
	defer client.CloseIdleConnections()
	m.Wait(t, "the registry answers", limit, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+netip.AddrPortFrom(at, 443).String()+"/v2/", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", res.Status)
		}
		return nil
	})
}

// Client is an HTTP client in the machine's network. It trusts the certificate authorities in ca, PEM, and anybody if ca
// is nil.
func (m *Machine) Client(ca []byte) *http.Client {
	config := &tls.Config{InsecureSkipVerify: ca == nil}
	if ca != nil {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(ca)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DialContext: m.Dial}}
}

// Dial connects from the machine's network to an address that is no name.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return within(m.Network(), func() (net.Conn, error) {
		d := net.Dialer{FallbackDelay: -1} // one address, and so on this thread
		return d.DialContext(ctx, network, address)
	})
}

// Listen listens in the machine's network, where clients are: on an address of theirs, Net(1).
func (m *Machine) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return within(m.Network(), func() (net.Listener, error) {
		var c net.ListenConfig
		return c.Listen(ctx, network, address)
	})
}

// within makes a socket in a network namespace. It stays there.
func within[T any](namespace string, open func() (T, error)) (T, error) {
	type answer struct {
		socket T
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		// The thread is in the other network from here on, so it is not given back: it ends with the goroutine.
		runtime.LockOSThread()
		var a answer
		f, err := os.Open(namespace)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if a.err = err; err == nil {
			a.socket, a.err = open()
		}
		done <- a
	}()
	a := <-done
	return a.socket, a.err
}

// Network is the path of the network namespace where the machine's clients are, until the machine is switched off.
func (m *Machine) Network() string {
	if m.power == nil {
		return "/nonexistent"
	}
	return fmt.Sprintf("/proc/%d/ns/net", m.power.pid)
}

// pid finds the machine's systemd: the child of systemd-nspawn.
func (m *Machine) pid() (int, error) {
	if m.power == nil {
		return 0, errors.New("the machine is off")
	}
	queue := []int{m.power.pid}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		inside := name(pid) == "systemd-nspawn"
		for _, child := range children(pid) {
			if inside && name(child) == "systemd" {
				return child, nil
			}
			queue = append(queue, child)
		}
	}
	return 0, errors.New("systemd has not started")
}

func name(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}

func children(pid int) (list []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for s := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// boot tells one time that systemd runs from another; 0 = it does not.
func (m *Machine) boot() int {
	pid, err := m.pid()
	if err != nil {
		return 0
	}
	return pid
}

// mounts are the machine's file systems on its disks, as directories that can be opened from here.
func (m *Machine) mounts() (list []string) {
	for _, pid := range append([]int{m.boot()}, children(m.power.pid)...) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		seen := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			before, after, ok := strings.Cut(line, " - ")
			f, g := strings.Fields(before), strings.Fields(after)
			if ok && len(f) > 4 && len(g) > 1 && g[0] == "ext4" && strings.HasPrefix(g[1], "/dev/loop") && !seen[g[1]] {
				seen[g[1]] = true
				list = append(list, fmt.Sprintf("/proc/%d/root%s", pid, f[4]))
			}
		}
	}
	return list
}

// shutdownNow is the ioctl by which ext4 stops at once, and what it is told: not even its journal's open transaction is
// written (EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH). It is what a power cut looks like to the disk.
const (
	shutdownNow = 0x8004587d // _IOR('X', 125, __u32)
	noFlush     = 2
)

func cut(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdownNow, noFlush)
}

// Memory is what our programs and PostgreSQL take in the machine, in bytes of proportional set size, by program.
func (m *Machine) Memory() map[string]int64 {
	sum := map[string]int64{}
	queue := []int{m.boot()}
	for len(queue) > 0 {
		pid := queue[0]
		queue = append(queue[1:], children(pid)...)
		what := name(pid)
		switch what {
		case "berth", "berth-agent":
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if args := strings.Split(string(b), "\x00"); len(args) > 1 {
				what += " " + args[1]
			}
		case "postgres", "journalctl":
		default:
			continue
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				sum[what] += n << 10
			}
		}
	}
	return sum
}
