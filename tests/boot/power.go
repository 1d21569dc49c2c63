package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/diskrole"
)

// supply is one time of power: from On until it is gone.
type supply struct {
	pid  int
	done chan struct{}
	err  error
}

// On switches the machine on. It returns when systemd takes commands, which is before first boot has done its work.
func (m *Machine) On(t testing.TB) {
	t.Helper()
	if m.power != nil {
		t.Fatal("the machine is on")
	}
	over, err := layer()
	if err != nil {
		t.Fatal(err)
	}
	dhcp := "yes"
	if m.o.NoDHCP {
		dhcp = "no"
	}
	args := []string{"--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "bash", filepath.Join(m.dir, "keeper.sh"), m.dir, tree(), over,
		m.Name, fmt.Sprintf("198.18.%d", m.third), m.site, m.mac, dhcp}
	for _, role := range m.disks {
		m.settle(t, role)
		args = append(args, m.image(role)+":"+string(role))
	}
	m.settle(t, diskrole.System)
	if m.power, err = switchOn(filepath.Join(m.dir, "console"), args); err != nil {
		t.Fatal(err)
	}
	m.Wait(t, "systemd takes commands", time.Minute, func() error {
		_, err := m.Try("systemctl", "show", "--property=Version")
		return err
	})
}

// switchOn starts the keeper. It dies with this process: the parent-death signal is the kernel's promise, and needs a
// thread that lives as long.
func switchOn(console string, args []string) (*supply, error) {
	out, err := os.OpenFile(console, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("unshare", args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &supply{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// settle waits until the kernel has let go of a disk of the time before.
func (m *Machine) settle(t testing.TB, role diskrole.Role) {
	t.Helper()
	var left string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command("losetup", "-j", m.image(role)).Output()
		if left = strings.TrimSpace(string(out)); err == nil && left == "" {
			return
		}
	}
	t.Fatalf("the disk %s is still attached: %s", role, left)
}

// off waits for the end of the power.
func (m *Machine) off(t testing.TB, limit time.Duration) {
	t.Helper()
	select {
	case <-m.power.done:
		m.power = nil
	case <-time.After(limit):
		t.Fatalf("the machine does not go off within %v", limit)
	}
}

// PowerOff shuts the machine down properly.
func (m *Machine) PowerOff(t testing.TB) {
	t.Helper()
	_, _ = m.Try("systemctl", "poweroff", "--no-block") // the answer may not get out any more
	m.off(t, 2*time.Minute)
}

// Reboot restarts the machine properly, and returns when systemd takes commands again.
func (m *Machine) Reboot(t testing.TB) {
	t.Helper()
	before := m.boot()
	_, _ = m.Try("systemctl", "reboot", "--no-block")
	m.Wait(t, "it starts again", 2*time.Minute, func() error {
		if now := m.boot(); now == 0 || now == before {
			return errors.New("it has not started again")
		}
		_, err := m.Try("systemctl", "show", "--property=Version")
		return err
	})
}

// Kill pulls the power cable. What the machine's file systems have not yet written to their disks is lost.
func (m *Machine) Kill(t testing.TB) {
	t.Helper()
	for _, dir := range m.mounts() {
		if err := cut(dir); err != nil {
			t.Errorf("cannot cut off %s: %v", dir, err)
		}
	}
	_ = syscall.Kill(-m.power.pid, syscall.SIGKILL)
	m.off(t, time.Minute)
}

// Freeze lets systemd answer nobody for a while, as on a host that starts hundreds of machines at once.
func (m *Machine) Freeze(t testing.TB, long time.Duration) {
	t.Helper()
	pid, err := m.pid()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(long)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Detach takes a disk out of a machine that is off, Attach puts it back.
func (m *Machine) Detach(role diskrole.Role) {
	m.disks = slices.DeleteFunc(m.disks, func(r diskrole.Role) bool { return r == role })
}

// Attach puts a disk into a machine that is off.
func (m *Machine) Attach(role diskrole.Role) {
	m.Detach(role)
	m.disks = append(m.disks, role)
}

// Lose puts a blank disk, without a mark, in place of one of a machine that is off.
func (m *Machine) Lose(t testing.TB, role diskrole.Role) {
	t.Helper()
	if err := errors.Join(os.Truncate(m.image(role), 0), os.Truncate(m.image(role), DiskSize)); err != nil {
		t.Fatal(err)
	}
}

// Grow makes a disk larger while the machine runs, as vSphere does.
func (m *Machine) Grow(t testing.TB, role diskrole.Role, size int64) {
	t.Helper()
	if err := os.Truncate(m.image(role), size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("losetup", "-c", m.Device(t, role)).CombinedOutput(); err != nil {
		t.Fatalf("losetup -c: %v\n%s", err, out)
	}
}

// Device is the path of a disk's device in the machine.
func (m *Machine) Device(t testing.TB, role diskrole.Role) string {
	t.Helper()
	b, err := os.ReadFile(m.image(role) + ".device")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// remove ends the machine and shows what there is to see if the test has failed.
func (m *Machine) remove(t testing.TB) {
	if t.Failed() {
		if m.power != nil {
			if out, err := m.Try("journalctl", "-b", "-n", "150", "--no-pager", "-o", "short-monotonic"); err == nil {
				t.Logf("journal of %s:\n%s", m.Name, out)
			}
		}
		t.Logf("console of %s:\n%s", m.Name, m.Console())
	}
	if m.power != nil {
		_ = syscall.Kill(-m.power.pid, syscall.SIGKILL)
		m.off(t, time.Minute)
	}
	for _, role := range append([]diskrole.Role{diskrole.System}, m.disks...) {
		m.settle(t, role)
	}
	for _, h := range hierarchies {
		removeGroup(h + m.Name)
	}
	if err := os.RemoveAll(m.dir); err != nil {
		t.Errorf("cannot remove the machine's files: %v", err)
	}
}

// hierarchies are where control groups can be, by their version.
var hierarchies = []string{"/sys/fs/cgroup/systemd/", "/sys/fs/cgroup/unified/", "/sys/fs/cgroup/"}

// sweep removes files and control groups of machines whose test was killed hours ago: of those no more is left.
func sweep() {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), "berth-boot-*"))
	for _, h := range hierarchies {
		groups, _ := filepath.Glob(h + "berth-boot-*")
		old = append(old, groups...)
	}
	for _, dir := range old {
		info, err := os.Stat(dir)
		switch {
		case err != nil || time.Since(info.ModTime()) < 3*time.Hour:
		case strings.HasPrefix(dir, "/sys/"):
			removeGroup(dir)
		default:
			_ = os.RemoveAll(dir)
		}
	}
}

// removeGroup removes a control group with those below it, which are empty by now.
func removeGroup(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeGroup(filepath.Join(dir, e.Name()))
		}
	}
	_ = syscall.Rmdir(dir)
}

// Console is what the machine has said on its console since it was made, the last 64 KiB.
func (m *Machine) Console() string {
	f, err := os.Open(filepath.Join(m.dir, "console"))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 64<<10 {
		_, _ = f.Seek(-64<<10, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	return string(b)
}
