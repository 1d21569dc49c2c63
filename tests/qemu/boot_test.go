package qemu_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/tests/berthtest"
	"berth/tests/qemu"
)

const (
	rootPassword  = `Root-pass & <w0rd> "q" 'x' $HOME %d \n`
	adminPassword = `Admin-pass1&<>"'$%\`
	console       = "https://" + qemu.Address + ":5480/"
	registry      = "https://" + qemu.Address + "/v2/"
)

// properties are what an administrator fills in for an unattended first boot with a fixed address.
func properties(ssh *qemu.SSH) map[string]string {
	return map[string]string{
		"network.mode": "static", "network.hostname": "registry.example.com", "network.ip4": qemu.Address + qemu.Prefix,
		"network.gateway4": qemu.Host, "network.dns": qemu.Host,
		"appliance.root_password": rootPassword, "appliance.console_password": adminPassword,
		"appliance.ssh_enabled": "True", "appliance.ssh_authorized_keys": ssh.Public,
		"registry.admin_password": adminPassword, "install.unattended": "True",
	}
}

// With no OVF environment at all the machine comes up, by both firmwares, and waits for somebody at its console.
func TestBootsWithoutAnEnvironment(t *testing.T) {
	for name, uefi := range map[string]bool{"BIOS": false, "UEFI": true} {
		t.Run(name, func(t *testing.T) {
			m := qemu.New(t, qemu.Options{UEFI: uefi})
			m.Start(t)
			m.Wait(t, "login prompt on the serial line", 12*time.Minute, m.Says("login:"))
			m.Wait(t, "the screen on tty1", time.Minute, m.Shows)
			m.Picture(t, "waiting")
			m.Shutdown(t)
		})
	}
}

// The boot menu lets nobody change what is booted: whoever sees the console must not be root by that.
func TestBootMenuIsLocked(t *testing.T) {
	m := qemu.New(t, qemu.Options{})
	m.Start(t)
	// The menu is there for a second. Whoever missed it, because the machine is busy, resets and tries again.
	tries := 0
	m.Wait(t, "a question for the user's name, none of which is right", 10*time.Minute, func(ctx context.Context) error {
		if tries++; tries%60 == 0 {
			m.Do(t, "system_reset", nil)
		}
		for range 10 {
			m.Keys(t, "e")
			time.Sleep(100 * time.Millisecond)
		}
		return m.Says("Enter username:")(ctx)
	})
	m.Picture(t, "menu")
}

// The whole way: power on, first boot by the properties on the CD, docker login, push and pull; then the CD is gone and
// the power is cut; then a disk grows.
func TestFromPowerOnToPush(t *testing.T) {
	m := qemu.New(t, qemu.Options{})
	c, ssh := newClient(t, m), m.NewSSH(t)
	m.SetEnvironment(properties(ssh))
	began := time.Now()
	m.Start(t)
	m.Wait(t, "the console at :5480", 12*time.Minute, m.Answers(console, "200", "303"))
	m.Picture(t, "first-boot")
	m.Wait(t, "the registry", 12*time.Minute, m.Answers(registry, "401"))
	t.Logf("%6.1fs  from power-on to the registry", time.Since(began).Seconds())
	m.Picture(t, "ready")
	c.login(t)
	image := c.push(t, "library/first:1")
	t.Logf("%6.1fs  from power-on to a pushed image", time.Since(began).Seconds())

	t.Run("inside", func(t *testing.T) { inside(t, m, ssh) })

	// Power cut, and vCenter has forgotten the environment: an HA restart. Nothing that was pushed is lost.
	// Meanwhile somebody has made the system's disk larger, too.
	m.Kill(t)
	m.SetEnvironment(nil)
	if err := os.Truncate(m.Disk(diskrole.System), 20<<30); err != nil {
		t.Fatal(err)
	}
	m.Start(t)
	m.Wait(t, "the registry after a power cut, without the CD", 12*time.Minute, m.Answers(registry, "401"))
	m.Picture(t, "after-power-cut")
	c.pull(t, image)
	c.push(t, "library/second:1")

	// A hard reset, as by vSphere's button.
	m.Do(t, "system_reset", nil)
	time.Sleep(2 * time.Second)
	m.Wait(t, "the registry after a reset", 12*time.Minute, m.Answers(registry, "401"))
	c.pull(t, image)

	t.Run("disks grow", func(t *testing.T) { grow(t, m, ssh) })
	m.Picture(t, "end")
	m.Shutdown(t)
}

// inside looks at what only the machine itself can tell.
func inside(t *testing.T, m *qemu.Machine, ssh *qemu.SSH) {
	m.Wait(t, "SSH, which the properties ask for", 2*time.Minute, func(ctx context.Context) error {
		_, err := ssh.Try(ctx, "true")
		return err
	})
	if failed := ssh.Run(t, "systemctl list-units --failed --plain --no-legend"); failed != "" {
		t.Errorf("units have failed:\n%s", failed)
	}
	drivers := ssh.Run(t, "basename -a $(readlink -f /sys/class/net/e*/device/driver /sys/class/scsi_host/host*/device/../driver); lsblk -rno NAME,LABEL,MOUNTPOINT")
	for _, want := range []string{"vmxnet3", "vmw_pvscsi", "berth-system /", "berth-data /storage/data", "berth-db /storage/database", "berth-log /storage/log"} {
		if !strings.Contains(drivers, want) {
			t.Errorf("%q is not in:\n%s", want, drivers)
		}
	}
	if got := atoi(ssh.Run(t, "df --output=size -m / | tail -1")); got < 15000 {
		t.Errorf("the system's file system has %d MiB: it has not grown to its disk", got)
	}
	t.Logf("memory and time:\n%s", ssh.Run(t, `free -m; systemd-analyze; systemd-analyze blame | head -12
		for p in /proc/[0-9]*; do
			case $(cat $p/comm) in berth*|postgres) echo "$(cat $p/comm) $(awk '/^Pss:/ {print $2}' $p/smaps_rollup)" ;; esac
		done | awk '{kb[$1] += $2; all += $2} END {for (n in kb) print n, kb[n] " KB PSS"; print "all of Berth and PostgreSQL", all " KB PSS"}'`))
	t.Logf("status:\n%s", ssh.Run(t, "berth-agent status"))
}

func atoi(s string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(s))
	return n
}

// grow makes the data disk larger while the machine runs; the system's has grown while it was off.
func grow(t *testing.T, m *qemu.Machine, ssh *qemu.SSH) {
	if got := atoi(ssh.Run(t, "df --output=size -m / | tail -1")); got < 19000 {
		t.Errorf("the system's file system has %d MiB on a disk of 20 GiB", got)
	}
	before := atoi(ssh.Run(t, "df --output=size -m /storage/data | tail -1"))
	m.Do(t, "block_resize", map[string]any{"device": string(diskrole.Data), "size": int64(120 << 30)})
	ssh.Run(t, "berth-agent disks grow data")
	m.Wait(t, "the data disk's new size", time.Minute, func(ctx context.Context) error {
		out, err := ssh.Try(ctx, "df --output=size -m /storage/data | tail -1")
		if err == nil && atoi(out) < before+15000 {
			err = fmt.Errorf("it has %s MiB, and had %d", out, before)
		}
		return err
	})
}

// A client is docker with a daemon in the VM's network.
type client struct {
	m      *qemu.Machine
	sh     *berthtest.Shell
	digest map[string]string
}

// newClient starts the daemon; the VM need not be there yet.
func newClient(t *testing.T, m *qemu.Machine) *client {
	t.Helper()
	berthtest.Program(t, "docker")
	d, err := berthtest.StartDocker("nsenter", "--net=/run/netns/"+m.Namespace) // not ip-netns exec, whose own /sys has no cgroups
	if err != nil {
		t.Fatalf("dockerd: %v", err)
	}
	t.Cleanup(d.Stop)
	sh := berthtest.NewShell(t, d.Host())
	sh.Env = append(sh.Env, "DOCKER_CONFIG="+sh.Dir)
	return &client{m: m, sh: sh, digest: map[string]string{}}
}

// login fetches the CA and logs in.
func (c *client) login(t *testing.T) {
	t.Helper()
	m, sh := c.m, c.sh
	// The CA, from the page that everybody may read, where Docker's manual wants it.
	ca := ""
	m.Wait(t, "the CA", 2*time.Minute, func(ctx context.Context) (err error) {
		ca, err = m.Read(ctx, console+"ca.crt")
		return err
	})
	dir := filepath.Join("/etc/docker/certs.d", qemu.Address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte(ca), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(sh.Dir, "ca.crt")
	if err := os.WriteFile(file, []byte(ca), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Wait(t, "the registry, with the CA", 2*time.Minute, func(ctx context.Context) error {
		status, err := m.Get(ctx, registry, file)
		if err == nil && status != "401" {
			err = fmt.Errorf("it answers %s", status)
		}
		return err
	})
	sh.Input(t, adminPassword, "docker", "login", qemu.Address, "--username", "admin", "--password-stdin")
}

// push makes an image with 4 MiB of its own and pushes it.
func (c *client) push(t *testing.T, name string) string {
	t.Helper()
	layer := filepath.Join(c.sh.Dir, "layer")
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+layer, "bs=1M", "count=4", "status=none").CombinedOutput(); err != nil {
		t.Fatalf("dd: %v: %s", err, out)
	}
	archive := filepath.Join(c.sh.Dir, "layer.tar")
	c.sh.Run(t, "tar", "-C", c.sh.Dir, "-cf", archive, "layer")
	name = qemu.Address + "/" + name
	c.sh.Run(t, "docker", "import", archive, name)
	c.sh.Run(t, "docker", "push", name)
	c.digest[name] = strings.TrimSpace(c.sh.Run(t, "docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", name))
	return name
}

// pull removes an image here and pulls it; it must be what was pushed.
func (c *client) pull(t *testing.T, name string) {
	t.Helper()
	c.sh.Run(t, "docker", "image", "rm", name)
	c.sh.Run(t, "docker", "pull", name)
	if got := strings.TrimSpace(c.sh.Run(t, "docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", name)); got != c.digest[name] {
		t.Errorf("%s is %s and was %s", name, got, c.digest[name])
	}
}

// What is in the OVA's disk: nothing that two machines must not share.
func TestDiskHoldsNothingToShare(t *testing.T) {
	m := qemu.New(t, qemu.Options{})
	tree := t.TempDir()
	if err := m.Dump("/", tree); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/bin/berth-agent")); err != nil {
		t.Fatal(err)
	}
	for _, fault := range berthtest.TreeFaults(tree) {
		t.Error(fault)
	}
}
