// Package qemu boots the appliance in QEMU as vSphere would make the VM from the OVA: its disks at a PVSCSI controller,
// vmxnet3, an IDE CD with the OVF environment, BIOS or UEFI. No KVM, whatever the machine offers: nested it often fails.
//
// The VM is at the other end of a tap device in a network namespace of the test's, with addresses of RFC 5737 and no way
// out: clients reach it by its own name and address, and it reaches no internet.
package qemu

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/ova"
	"berth/tests/berthtest"
)

// Where the VM is, and who asks.
const (
	Address = "198.51.100.10"
	Host    = "198.51.100.1"
	Prefix  = "/24"
)

// Options say what a VM is like.
type Options struct {
	Environment map[string]string // OVF properties (class.key), on a CD; nil: no CD
	UEFI        bool
	Memory      int // MiB; 0 means 2048
}

// A Machine is a VM. Its disks last as long as the test, whatever happens to QEMU's process.
type Machine struct {
	Namespace string
	dir       string // disks, sockets
	out       string // what is kept: the serial line, pictures
	disks     map[diskrole.Role]string
	options   Options
	boots     int
	process   *exec.Cmd
	exited    chan struct{}
	qmp       *qmp
}

// New takes the OVA's disks apart and makes a network, but starts nothing. OVA is what BERTH_OVA names; without it the test is skipped.
func New(t *testing.T, o Options) *Machine {
	t.Helper()
	file := os.Getenv("BERTH_OVA")
	if file == "" {
		t.Skip("BERTH_OVA names no OVA (make test-ova)")
	}
	for _, p := range []string{"qemu-system-x86_64", "qemu-img", "xorriso", "ip"} {
		berthtest.Program(t, p)
	}
	if os.Geteuid() != 0 {
		t.Skip("a tap device needs root")
	}
	dir, err := os.MkdirTemp("", "berth-qemu-") // the names of sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &Machine{dir: dir, options: o, disks: map[diskrole.Role]string{}, Namespace: fmt.Sprintf("berth-qemu-%d", os.Getpid())}
	m.out = filepath.Join(os.Getenv("BERTH_OVA_OUT"), strings.ReplaceAll(t.Name(), "/", "-"))
	if os.Getenv("BERTH_OVA_OUT") == "" {
		m.out = dir
	}
	if err := os.MkdirAll(m.out, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, role := range diskrole.All() {
		m.disks[role] = filepath.Join(dir, string(role)+".raw")
		if _, err := ova.Extract(t.Context(), file, string(role), m.disks[role]); err != nil {
			t.Fatal(err)
		}
	}
	m.network(t)
	return m
}

func (m *Machine) network(t *testing.T) {
	t.Helper()
	ns := m.Namespace
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	for _, args := range [][]string{
		{"ip", "netns", "add", ns},
		{"ip", "-n", ns, "link", "set", "lo", "up"},
		{"ip", "-n", ns, "tuntap", "add", "tap0", "mode", "tap"},
		{"ip", "-n", ns, "addr", "add", Host + Prefix, "dev", "tap0"},
		{"ip", "-n", ns, "link", "set", "tap0", "up"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("there are no tap devices in network namespaces here: %s: %s", strings.Join(args, " "), out)
		}
	}
}

// SetEnvironment changes what is on the CD at the next start; nil takes it away.
func (m *Machine) SetEnvironment(properties map[string]string) { m.options.Environment = properties }

// Start powers the VM on.
func (m *Machine) Start(t *testing.T) {
	t.Helper()
	m.boots++
	o := m.options
	memory := o.Memory
	if memory == 0 {
		memory = 2048
	}
	args := []string{"netns", "exec", m.Namespace, "qemu-system-x86_64",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(memory),
		"-display", "none", "-vga", "std", "-nodefaults", "-no-user-config",
		"-serial", "file:" + m.Serial(),
		"-qmp", "unix:" + filepath.Join(m.dir, "qmp") + ",server=on,wait=off",
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "vmxnet3,netdev=n0,mac=00:50:56:00:00:01",
		"-device", "pvscsi,id=scsi0"}
	for i, role := range diskrole.All() {
		device := fmt.Sprintf("scsi-hd,bus=scsi0.0,scsi-id=%d,drive=%s", i, role)
		if o.UEFI && role == diskrole.System { // Debian's OVMF has no driver for PVSCSI, which VMware's firmware has
			device = "virtio-blk-pci,drive=" + string(role)
		}
		args = append(args, "-drive", fmt.Sprintf("file=%s,if=none,id=%s,format=raw,cache=writeback,discard=unmap", m.disks[role], role), "-device", device)
	}
	if o.Environment != nil {
		args = append(args, "-drive", "file="+m.compactDisc(t)+",if=none,id=cd,media=cdrom,format=raw,readonly=on",
			"-device", "ide-cd,id=cdrom,drive=cd,bus=ide.1")
	}
	if o.UEFI {
		args = append(args, m.uefi(t)...)
	}
	os.Remove(filepath.Join(m.dir, "qmp"))
	m.process, m.exited = exec.Command("ip", args...), make(chan struct{})
	var said bytes.Buffer
	m.process.Stdout, m.process.Stderr = &said, &said
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill(t) })
	go func(c *exec.Cmd, exited chan struct{}) {
		c.Wait()
		close(exited)
	}(m.process, m.exited)
	var err error
	if m.qmp, err = dial(t.Context(), filepath.Join(m.dir, "qmp"), m.exited); err != nil {
		m.Kill(t)
		t.Fatalf("QEMU: %v: %s", err, said.String())
	}
}

// compactDisc makes the CD as vSphere does: ISO 9660 with ovf-env.xml.
func (m *Machine) compactDisc(t *testing.T) string {
	t.Helper()
	content := filepath.Join(m.dir, "cd")
	if err := os.MkdirAll(content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(content, "ovf-env.xml"), Environment(m.options.Environment), 0o644); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(m.dir, "ovf-env.iso")
	os.Remove(iso)
	if out, err := exec.Command("xorriso", "-as", "genisoimage", "-quiet", "-V", "OVF ENV", "-J", "-r", "-o", iso, content).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v: %s", err, out)
	}
	return iso
}

// Environment is the OVF environment document (DSP0243, 11.1) as vCenter writes it.
func Environment(properties map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" xmlns:ve="http://www.vmware.com/schema/ovfenv" oe:id="" ve:vCenterId="vm-42">
  <PlatformSection><Kind>VMware ESXi</Kind><Version>8.0.3</Version><Vendor>VMware, Inc.</Vendor><Locale>en</Locale></PlatformSection>
  <PropertySection>
`)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		b.WriteString(`    <Property oe:key="`)
		xml.EscapeText(&b, []byte(key))
		b.WriteString(`" oe:value="`)
		xml.EscapeText(&b, []byte(properties[key]))
		b.WriteString("\"/>\n")
	}
	b.WriteString("  </PropertySection>\n</Environment>\n")
	return b.Bytes()
}

func (m *Machine) uefi(t *testing.T) []string {
	t.Helper()
	const code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	vars := filepath.Join(m.dir, "uefi-vars.fd")
	if _, err := os.Stat(vars); err != nil {
		b, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
		if err != nil {
			t.Skip("UEFI is not installed (make image-deps)")
		}
		if err := os.WriteFile(vars, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + code, "-drive", "if=pflash,format=raw,unit=1,file=" + vars}
}

// Serial is the file with what has come over the serial line since this start.
func (m *Machine) Serial() string {
	return filepath.Join(m.out, fmt.Sprintf("serial-%d.log", m.boots))
}

// Disk is the raw file of a disk.
func (m *Machine) Disk(role diskrole.Role) string { return m.disks[role] }

// Kill ends QEMU at once: the power is cut.
func (m *Machine) Kill(t *testing.T) {
	t.Helper()
	if m.process == nil {
		return
	}
	m.process.Process.Kill()
	<-m.exited
	m.process = nil
	if m.qmp != nil {
		m.qmp.Close()
	}
}

// Shutdown presses the power button and waits until the VM has gone.
func (m *Machine) Shutdown(t *testing.T) {
	t.Helper()
	m.Do(t, "system_powerdown", nil)
	select {
	case <-m.exited:
		m.Kill(t)
	case <-time.After(3 * time.Minute):
		m.Picture(t, "no-shutdown")
		t.Fatalf("the VM does not shut down\n%s", berthtest.LastLines(m.Serial()))
	}
}

// Dump copies a directory of the root file system of a VM that is off.
func (m *Machine) Dump(path, into string) error {
	// It begins after the BIOS boot partition and the ESP (packer/debian/disk.sh).
	disk := m.Disk(diskrole.System) + "?offset=" + strconv.Itoa(66<<20)
	if out, err := exec.Command("debugfs", "-R", "rdump "+path+" "+into, disk).CombinedOutput(); err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, out)
	}
	return nil
}

// journal cuts the power and gives what Berth's units have said since the last start, as far as it has reached the disk.
func (m *Machine) journal(t *testing.T) string {
	t.Helper()
	m.Kill(t)
	dir := t.TempDir()
	if err := m.Dump("/var/log/journal", dir); err != nil {
		return "no journal: " + err.Error()
	}
	out, err := exec.Command("journalctl", "--directory", filepath.Join(dir, "journal"), "--boot", "--unit=berth-*", "--lines=60", "--output=short-monotonic", "--no-pager", "--quiet").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("no journal: %v: %s", err, out)
	}
	return string(out)
}

// Wait asks every second until the answer is nil, and fails with the last answer, a picture and the serial line's end.
func (m *Machine) Wait(t *testing.T, what string, limit time.Duration, ask func(context.Context) error) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			t.Logf("%6.1fs  %s", time.Since(began).Seconds(), what)
			return time.Since(began)
		}
		select {
		case <-m.exited:
			t.Fatalf("%s: QEMU has ended\n%s", what, berthtest.LastLines(m.Serial()))
		case <-ctx.Done():
			m.Picture(t, "failed")
			t.Fatalf("%s: not within %v: %v\n%s\n%s", what, limit, err, berthtest.LastLines(m.Serial()), m.journal(t))
		case <-time.After(time.Second):
		}
	}
}
