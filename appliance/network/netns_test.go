package network_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/network"
)

// far is a machine at the other end of the cable: a process in a network namespace.
type far struct{ pid int }

// ownNetwork runs the rest of a test in a process that has network, mounts and
// /sys of its own, with a card eth0 whose cable leads to far. It reports whether
// this is that process.
func ownNetwork(t *testing.T) (*far, bool) {
	t.Helper()
	if os.Getenv("BERTH_OWN_NETWORK") == "" {
		if os.Getuid() != 0 {
			t.Skip("skipped: a network namespace takes root")
		}
		for _, p := range []string{"ip", "nsenter", "unshare"} {
			if _, err := exec.LookPath(p); err != nil {
				t.Skipf("skipped: %s is not installed", p)
			}
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "BERTH_OWN_NETWORK=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return nil, false
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{{"", "/", "", unix.MS_REC | unix.MS_PRIVATE}, {"sysfs", "/sys", "sysfs", unix.MS_RDONLY}} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // the far machine dies with the thread that has started it
	cmd := exec.Command("unshare", "--net", "sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	f := &far{cmd.Process.Pid}
	waitFor(t, "the other namespace", func() bool {
		a, _ := os.Readlink("/proc/self/ns/net")
		b, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", f.pid))
		return b != "" && a != b
	})
	ip(t, "link add eth0 type veth peer name far0 netns "+fmt.Sprint(f.pid))
	ip(t, "link set lo up")
	ip(t, "link set eth0 up")
	f.ip(t, "link set lo up")
	f.ip(t, "link set far0 up")
	return f, true
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begun := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func (f *far) ip(t *testing.T, args string) {
	t.Helper()
	all := append([]string{"-t", fmt.Sprint(f.pid), "-n", "ip"}, strings.Fields(args)...)
	if out, err := exec.Command("nsenter", all...).CombinedOutput(); err != nil {
		t.Fatalf("far: ip %s: %v: %s", args, err, out)
	}
}

// TestCurrent looks at a card as it gets its addresses.
func TestCurrent(t *testing.T) {
	t.Parallel()
	f, ok := ownNetwork(t)
	if !ok {
		return
	}
	s, err := network.Current(t.Context())
	if err != nil || s.Interface != "eth0" || s.MAC == "" || !s.Up || len(s.Addresses) > 0 || s.Source4 != "" || s.Address().IsValid() {
		t.Errorf("without an address: %+v, %v", s, err)
	}
	ip(t, "address add 192.0.2.10/24 dev eth0")
	ip(t, "address add 2001:db8::10/64 dev eth0 nodad")
	ip(t, "route add default via 192.0.2.1")
	ip(t, "-6 route add default via 2001:db8::1 dev eth0")
	s, err = network.Current(t.Context())
	if err != nil || s.Gateway4 != "192.0.2.1" || s.Gateway6 != "2001:db8::1" || s.Source4 != "static" || s.Address().String() != "192.0.2.10" || len(s.Addresses) != 2 {
		t.Errorf("static: %+v, %v", s, err)
	}
	ip(t, "address del 192.0.2.10/24 dev eth0")
	ip(t, "address add 192.0.2.11/24 dev eth0 valid_lft 3600 preferred_lft 3600")
	if s, err := network.Current(t.Context()); err != nil || s.Source4 != "dhcp" {
		t.Errorf("with a lease: %+v, %v", s, err)
	}
	// The same IPv6 address on both sides: the kernel finds out.
	f.ip(t, "address add 2001:db8::77/64 dev far0 nodad")
	ip(t, "address add 2001:db8::77/64 dev eth0")
	waitFor(t, "duplicate address detection", func() bool {
		s, err := network.Current(t.Context())
		return err == nil && slices.Contains(s.Duplicates, netip.MustParsePrefix("2001:db8::77/64"))
	})
	f.ip(t, "link set far0 down")
	waitFor(t, "the cable's end", func() bool { s, err := network.Current(t.Context()); return err == nil && !s.Up })
	ip(t, "link del eth0")
	if _, err := network.Current(t.Context()); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a card: %v", err)
	}
}

func TestInUseAndGateway(t *testing.T) {
	t.Parallel()
	f, ok := ownNetwork(t)
	if !ok {
		return
	}
	f.ip(t, "address add 192.0.2.1/24 dev far0")
	f.ip(t, "address add 2001:db8::1/64 dev far0 nodad")
	ctx := t.Context()
	// Before the machine has any address.
	if mac, err := network.InUse(ctx, "eth0", netip.MustParseAddr("192.0.2.1")); err != nil || mac == nil {
		t.Errorf("an address in use: %v, %v", mac, err)
	}
	if mac, err := network.InUse(ctx, "eth0", netip.MustParseAddr("192.0.2.50")); err != nil || mac != nil {
		t.Errorf("a free address: %v, %v", mac, err)
	}
	if err := network.TestGateway(ctx, netip.MustParseAddr("192.0.2.1")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without an address of one's own: %v", err)
	}
	ip(t, "address add 192.0.2.10/24 dev eth0")
	ip(t, "address add 2001:db8::10/64 dev eth0 nodad")
	for range 2 { // and once more, when the kernel knows it
		for _, gw := range []string{"192.0.2.1", "2001:db8::1"} {
			if err := network.TestGateway(ctx, netip.MustParseAddr(gw)); err != nil {
				t.Errorf("%s: %v", gw, err)
			}
		}
	}
	for gw, why := range map[string]string{"192.0.2.99": "does not answer", "2001:db8::99": "does not answer", "198.51.100.1": "no way"} {
		if err := network.TestGateway(ctx, netip.MustParseAddr(gw)); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", gw, err)
		}
	}
	f.ip(t, "link set far0 down")
	f.ip(t, "link set far0 address 02:00:00:00:00:99")
	if err := network.TestGateway(ctx, netip.MustParseAddr("192.0.2.1")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one that is gone: %v", err)
	}
}

// nameServer answers every question for an A record: 192.0.2.7 for names that begin
// with "known", and that there is no such name for others.
func nameServer(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDP(b)
			if err != nil {
				return
			}
			q := b[:n]
			end := 12 + strings.IndexByte(string(q[12:]), 0) + 5 // the question (RFC 1035, section 4.1.2)
			answer := append([]byte(nil), q[:end]...)
			known := strings.HasPrefix(string(q[13:]), "known")
			isA := binary.BigEndian.Uint16(q[end-4:]) == 1
			copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
			if !known {
				answer[3] = 0x83
			} else if isA {
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
			}
			c.WriteToUDP(answer, from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestTestDNS(t *testing.T) {
	t.Parallel()
	server := nameServer(t)
	if a, err := network.TestDNSAt(t.Context(), server, "known.example.com"); err != nil || !slices.Equal(a.Addresses, []string{"192.0.2.7"}) {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := network.TestDNSAt(t.Context(), server, "strange.example.com"); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "knows no strange.example.com") {
		t.Error(err)
	}
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	if _, err := network.TestDNSAt(t.Context(), closed, "known.example.com"); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := network.TestDNSAt(t.Context(), silent.LocalAddr().(*net.UDPAddr).AddrPort(), "known.example.com"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "does not answer") {
		t.Error(err)
	}
}
