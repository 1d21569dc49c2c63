// Package boot boots the appliance's tree for tests: systemd, the packet filter, the units, all of it but the kernel and
// the boot loader, in seconds. A machine has its own network with a DHCP server, blank disks, an OVF environment, and
// a power cable that can be pulled: what was not on its disks then is lost.
//
//	m := boot.Start(t, boot.Options{Environment: map[string]string{"network.hostname": "berth.example.com", ...}})
//	m.Serving(t)
//	m.Command(t, "systemctl", "restart", "berth-core")
//	m.Kill(t)
//	m.On(t)
//
// It needs root, systemd-nspawn and the tree (make rootfs, or $BERTH_ROOTFS); without these the test is skipped by name.
// The programs are those of the source as it is, whatever the tree has. Several machines can run at once. Nothing outside
// the test's directory is changed, and whatever happens nothing is left: each machine is a family of processes with
// namespaces of its own that ends with the test.
package boot

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/appliance/diskrole"
	"berth/tests/berthtest"
)

//go:embed keeper.sh
var keeper string

//go:embed rpctool.sh
var rpctool string

// systemSize is how much of the tree can change, in bytes. The file is sparse.
const systemSize = 4 << 30

// DiskSize is the size of each of the disks, unless Options says otherwise, in bytes. The files are sparse.
const DiskSize = 2 << 30

// Options of a machine. The zero value is what a deployed OVA is: three blank, marked disks, DHCP, no OVF properties.
type Options struct {
	// Environment are OVF properties by class.key; nil: there is no OVF environment.
	Environment map[string]string
	// Document is the OVF environment as it is, instead.
	Document string
	// Disks are their sizes in bytes; nil: each role but system, DiskSize. An empty map: no disks.
	Disks map[diskrole.Role]int64
	// Unmarked disks are blank, and somebody has to say what they are for.
	Unmarked bool
	// NoDHCP leaves the network without a DHCP server and without a router's advertisements.
	NoDHCP bool
	// NoTools leaves out the stand-in for VMware's tool, by which the OVF environment comes.
	NoTools bool
	// Files are put over the tree before the first start, by path.
	Files map[string]string
}

// A Machine is one appliance.
type Machine struct {
	Name string

	dir   string
	o     Options
	disks []diskrole.Role // those that are attached
	third int             // of the IPv4 network's bytes
	site  string          // the IPv6 network, without ::
	mac   string
	power *supply
}

// Start makes a machine and switches it on. It is switched off, and gone, when the test ends; if the test has failed, its
// console and the end of its journal are shown.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	m := New(t, o)
	m.On(t)
	return m
}

// New makes a machine that is off.
func New(t testing.TB, o Options) *Machine {
	t.Helper()
	need(t)
	if _, err := layer(); err != nil { // now, and not in the time that it takes to start
		t.Fatal(err)
	}
	id := make([]byte, 3)
	rand.Read(id)
	m := &Machine{Name: "berth-boot-" + hex.EncodeToString(id), o: o, third: mathrand.IntN(256), site: "fd00:be:" + hex.EncodeToString(id[:2]) + ":1"}
	m.mac = fmt.Sprintf("52:54:00:%02x:%02x:%02x", id[0], id[1], id[2])
	var err error
	if m.dir, err = os.MkdirTemp("", m.Name+"-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.remove(t) })
	if err := os.Chmod(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := m.prepare(t); err != nil {
		t.Fatal(err)
	}
	return m
}

// need skips the test, by name, where no machine can run.
func need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("machines are booted by root alone")
	}
	for _, p := range []string{"systemd-nspawn", "unshare", "nsenter", "losetup", "mkfs.ext4", "dnsmasq", "ip"} {
		berthtest.Program(t, p)
	}
	if _, err := os.Stat(filepath.Join(tree(), "usr/lib/systemd/systemd")); err != nil {
		t.Skip("the appliance's tree is not there (make rootfs)")
	}
	if b, _ := os.ReadFile("/proc/filesystems"); !bytes.Contains(b, []byte("\toverlay\n")) {
		t.Skip("this machine has no overlay file system")
	}
}

func tree() string {
	if dir := os.Getenv("BERTH_ROOTFS"); dir != "" {
		return dir
	}
	root, _ := berthtest.Root()
	return filepath.Join(root, "dist", "rootfs")
}

// layer is a directory with the programs under test, which lies over the tree; made once.
var layer = sync.OnceValues(func() (string, error) {
	sweep()
	berth, err := berthtest.Binary()
	if err != nil {
		return "", err
	}
	agent, err := berthtest.AgentBinary()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(berth), "layer")
	for from, to := range map[string]string{berth: "berth", agent: "berth-agent"} {
		if err := install(from, filepath.Join(dir, "usr/bin", to)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// install copies a program under another name and then renames it: other packages' tests do the same now.
func install(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, b) {
		return nil
	}
	temp := fmt.Sprintf("%s.%d", to, os.Getpid())
	if err := os.WriteFile(temp, b, 0o755); err != nil {
		return err
	}
	return os.Rename(temp, to)
}

// prepare makes the disks and puts files over the tree.
func (m *Machine) prepare(t testing.TB) error {
	for name, text := range map[string]string{"keeper.sh": keeper} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	if err := os.Mkdir(m.guestinfo(""), 0o755); err != nil {
		return err
	}
	if m.o.Document == "" && m.o.Environment != nil {
		m.o.Document = Document(m.o.Environment)
	}
	if err := m.SetDocument(m.o.Document); err != nil {
		return err
	}
	files := map[string]string{}
	if !m.o.NoTools {
		files["usr/bin/vmware-rpctool"] = rpctool
	}
	for path, text := range m.o.Files {
		files[path] = text
	}
	upper := filepath.Join(m.dir, "upper")
	for path, text := range files {
		path = filepath.Join(upper, "upper", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(upper, 0o755); err != nil {
		return err
	}
	if err := format(m.image(diskrole.System), systemSize, upper); err != nil {
		return err
	}
	return m.makeDisks()
}

// format makes a sparse file with ext4 that has what is in from.
func format(path string, size int64, from string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", "-d", from, path).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w\n%s", err, out)
	}
	return nil
}

func (m *Machine) makeDisks() error {
	sizes := m.o.Disks
	if sizes == nil {
		sizes = map[diskrole.Role]int64{diskrole.Data: DiskSize, diskrole.Database: DiskSize, diskrole.Log: DiskSize}
	}
	for _, role := range diskrole.All() {
		size, ok := sizes[role]
		if !ok {
			continue
		}
		f, err := os.Create(m.image(role))
		if err != nil {
			return err
		}
		if !m.o.Unmarked {
			_, err = f.Write(role.Mark())
		}
		if err := errors.Join(err, f.Truncate(size), f.Close()); err != nil {
			return err
		}
		m.disks = append(m.disks, role)
	}
	return nil
}

// image is the file of a disk.
func (m *Machine) image(role diskrole.Role) string { return filepath.Join(m.dir, string(role)+".img") }

func (m *Machine) guestinfo(key string) string { return filepath.Join(m.dir, "guestinfo", key) }

// Document is an OVF environment with these properties, as vSphere writes it (DSP0243 section 11).
func Document(properties map[string]string) string {
	var b strings.Builder
	b.WriteString(xml.Header + `<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" ` +
		`xmlns:ve="http://www.vmware.com/schema/ovfenv" oe:id="" ve:vCenterId="vm-42"><PropertySection>`)
	keys := make([]string, 0, len(properties))
	for k := range properties {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b.WriteString(`<Property oe:key="` + escape(k) + `" oe:value="` + escape(properties[k]) + `"/>`)
	}
	return b.String() + "</PropertySection></Environment>\n"
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

// SetDocument replaces the OVF environment, as vCenter does when the machine is switched on; "" = there is none.
func (m *Machine) SetDocument(text string) error {
	if text == "" {
		err := os.Remove(m.guestinfo("guestinfo.ovfEnv"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.WriteFile(m.guestinfo("guestinfo.ovfEnv"), []byte(text), 0o644)
}

// GuestInfo is what the machine has published under a key; "" = nothing.
func (m *Machine) GuestInfo(key string) string {
	b, _ := os.ReadFile(m.guestinfo(key))
	return string(b)
}

// Address and Address6 are the machine's, by DHCP and by the router's advertisement.
func (m *Machine) Address() netip.Addr { return m.Net(10) }

// Address6 is made of the prefix and the network card's own number (RFC 4291 appendix A).
func (m *Machine) Address6() netip.Addr {
	var b [6]byte
	fmt.Sscanf(m.mac, "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5])
	return netip.MustParseAddr(fmt.Sprintf("%s:%02x%02x:%02xff:fe%02x:%02x%02x", m.site, b[0]^2, b[1], b[2], b[3], b[4], b[5]))
}

// Net is an address of the machine's IPv4 network, a /24; 1 is where clients and the router are.
func (m *Machine) Net(host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(m.third), host})
}

// Net6 is an address of its IPv6 network, a /64.
func (m *Machine) Net6(host uint16) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("%s::%x", m.site, host))
}
