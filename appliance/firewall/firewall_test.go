package firewall_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/firewall"
	"berth/appliance/setting"
)

func TestRender(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		f    setting.Firewall
		ssh  bool
		want []string
	}{
		"everybody":     {setting.Firewall{}, false, []string{"tcp dport { 80, 443 } accept", "tcp dport { 5480 } accept"}},
		"and SSH":       {setting.Firewall{}, true, []string{"tcp dport { 80, 443 } accept", "tcp dport { 5480 } accept", "tcp dport { 22 } accept"}},
		"SSH off":       {setting.Firewall{SSH: []string{"192.0.2.1"}}, false, []string{"tcp dport { 80, 443 } accept", "tcp dport { 5480 } accept"}},
		"IPv4 alone":    {setting.Firewall{Console: []string{"192.0.2.7/24"}}, false, []string{"tcp dport { 80, 443 } accept", "ip saddr { 192.0.2.0/24 } tcp dport { 5480 } accept"}},
		"both families": {setting.Firewall{Console: []string{"2001:db8::/32", "192.0.2.1"}, Registry: []string{"::1"}}, false, []string{"ip6 saddr { ::1/128 } tcp dport { 80, 443 } accept", "ip saddr { 192.0.2.1/32 } tcp dport { 5480 } accept", "ip6 saddr { 2001:db8::/32 } tcp dport { 5480 } accept"}},
		"overlapping":   {setting.Firewall{Registry: []string{"10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "11.0.0.1", "10.0.0.0/8", "::ffff:10.9.0.0/112"}}, false, []string{"ip saddr { 10.0.0.0/8, 11.0.0.1/32 } tcp dport { 80, 443 } accept", "tcp dport { 5480 } accept"}},
		"all by name":   {setting.Firewall{Console: []string{"0.0.0.0/0", "::/0"}}, false, []string{"tcp dport { 80, 443 } accept", "ip saddr { 0.0.0.0/0 } tcp dport { 5480 } accept", "ip6 saddr { ::/0 } tcp dport { 5480 } accept"}},
	} {
		text, err := firewall.Render(c.f, c.ssh)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "\t\t") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	for _, bad := range []string{"", "all", "192.0.2.0/33", "192.0.2.1 } accept; #", "fe80::1%eth0", "192.0.2.1-192.0.2.9"} {
		if _, err := firewall.Render(setting.Firewall{Console: []string{bad}}, false); !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "firewall.console" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAllows(t *testing.T) {
	t.Parallel()
	for a, want := range map[string]bool{"192.0.2.9": true, "::ffff:192.0.2.9": true, "198.51.100.1": false, "2001:db8::1": false} {
		if got := firewall.Allows([]string{"192.0.2.0/24"}, netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
		if !firewall.Allows(nil, netip.MustParseAddr(a)) {
			t.Errorf("%s is shut out by no list", a)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add("192.0.2.0/24", "2001:db8::1")
	f.Add("::ffff:10.0.0.0/100", "0.0.0.0/0")
	f.Fuzz(func(t *testing.T, a, b string) {
		text, err := firewall.Render(setting.Firewall{Registry: []string{a, b}}, true)
		if err == nil && (strings.Count(text, "\n") > 12 || strings.Count(text, "{") != strings.Count(text, "}")) {
			t.Errorf("%q and %q became\n%s", a, b, text)
		}
	})
}

// The image's own base, as the rules must fit it.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	base, err := os.ReadFile("../rootfs/usr/lib/berth/nftables.conf")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "usr/lib/berth/nftables.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, base, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// neighbour is another machine: a process in a network namespace.
type neighbour struct{ pid int }

// inNamespace runs the rest of a test in a process with a network of its own, and a
// neighbour that has two IPv4 addresses and two IPv6 ones.
func inNamespace(t *testing.T) (*neighbour, bool) {
	t.Helper()
	if os.Getenv("BERTH_OWN_NETWORK") == "" {
		if os.Getuid() != 0 {
			t.Skip("skipped: a network namespace takes root")
		}
		for _, p := range []string{"nft", "ip", "nsenter", "unshare"} {
			if _, err := exec.LookPath(p); err != nil {
				t.Skipf("skipped: %s is not installed", p)
			}
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "BERTH_OWN_NETWORK=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return nil, false
	}
	runtime.LockOSThread() // the neighbour dies with the thread that has started it
	cmd := exec.Command("unshare", "--net", "sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	n := &neighbour{cmd.Process.Pid}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		a, _ := os.Readlink("/proc/self/ns/net")
		b, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", n.pid))
		if b != "" && a != b {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the neighbour does not come up")
		}
	}
	run(t, "ip", "link add eth0 type veth peer name far0 netns "+fmt.Sprint(n.pid))
	run(t, "ip", "link set lo up")
	run(t, "ip", "link set eth0 up")
	far := "-t " + fmt.Sprint(n.pid) + " -n ip "
	run(t, "nsenter", far+"link set far0 up")
	for _, a := range []string{"192.0.2.%d/24", "198.51.100.%d/24"} {
		run(t, "ip", "address add "+fmt.Sprintf(a, 10)+" dev eth0")
		run(t, "nsenter", far+"address add "+fmt.Sprintf(a, 1)+" dev far0")
	}
	for _, a := range []string{"2001:db8:1::%d/64", "2001:db8:2::%d/64"} {
		run(t, "ip", "address add "+fmt.Sprintf(a, 10)+" dev eth0 nodad")
		run(t, "nsenter", far+"address add "+fmt.Sprintf(a, 1)+" dev far0 nodad")
	}
	return n, true
}

func run(t *testing.T, program, args string) {
	t.Helper()
	if out, err := exec.Command(program, strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", program, args, err, out)
	}
}

// dial connects from the neighbour, with one of its addresses. What is not expected
// to be open is waited for only shortly: its packets are dropped.
func (n *neighbour) dial(t *testing.T, from, to string, port int, open bool) (net.Conn, error) {
	t.Helper()
	limit := 200 * time.Millisecond
	if open {
		limit = 10 * time.Second
	}
	var c net.Conn
	err := n.there(func() (err error) {
		d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err = d.DialContext(context.Background(), "tcp", net.JoinHostPort(to, fmt.Sprint(port)))
		return err
	})
	return c, err
}

// there does something with the neighbour's network.
func (n *neighbour) there(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", n.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// TestPackets lets the kernel decide, for each service, address and family.
func TestPackets(t *testing.T) {
	t.Parallel()
	n, ok := inNamespace(t)
	if !ok {
		return
	}
	for _, port := range []int{22, 80, 443, 5480, 5432} {
		for _, address := range []string{"0.0.0.0", "::"} {
			network := map[string]string{"0.0.0.0": "tcp4", "::": "tcp6"}[address]
			l, err := net.Listen(network, net.JoinHostPort(address, fmt.Sprint(port)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go io.Copy(c, c)
				}
			}()
		}
	}
	root := tree(t)
	home := map[string]string{"192.0.2.1": "192.0.2.10", "198.51.100.1": "198.51.100.10", "2001:db8:1::1": "2001:db8:1::10", "2001:db8:2::1": "2001:db8:2::10"}
	for _, c := range []struct {
		f    setting.Firewall
		ssh  bool
		open map[string][]int // the ports by who asks; 0 stands for all of them
	}{
		{setting.Firewall{}, false, map[string][]int{"192.0.2.1": {80, 443, 5480}, "198.51.100.1": {80, 443, 5480}, "2001:db8:1::1": {80, 443, 5480}, "2001:db8:2::1": {80, 443, 5480}}},
		{setting.Firewall{Console: []string{"192.0.2.0/24", "192.0.2.1", "2001:db8:1::/48"}, SSH: []string{"2001:db8:2::1"}}, true, map[string][]int{
			"192.0.2.1": {80, 443, 5480}, "198.51.100.1": {80, 443}, "2001:db8:1::1": {80, 443, 5480}, "2001:db8:2::1": {80, 443, 22}}},
		{setting.Firewall{Registry: []string{"198.51.100.1"}}, true, map[string][]int{
			"192.0.2.1": {5480, 22}, "198.51.100.1": {80, 443, 5480, 22}, "2001:db8:1::1": {5480, 22}, "2001:db8:2::1": {5480, 22}}},
	} {
		if err := firewall.ApplyIn(t.Context(), root, c.f, c.ssh); err != nil {
			t.Fatal(err)
		}
		for from, to := range home {
			for _, port := range []int{22, 80, 443, 5480, 5432} {
				want := slices.Contains(c.open[from], port)
				conn, err := n.dial(t, from, to, port, want)
				if (err == nil) != want {
					t.Errorf("%+v: %s to port %d: %v, want open %v", c.f, from, port, err, want)
				}
				if conn != nil {
					conn.Close()
				}
			}
		}
	}
	// What is open stays open although nobody new may come.
	open, err := n.dial(t, "198.51.100.1", "198.51.100.10", 443, true)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := firewall.ApplyIn(t.Context(), root, setting.Firewall{Registry: []string{"192.0.2.1"}}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := n.dial(t, "198.51.100.1", "198.51.100.10", 443, false); err == nil {
		t.Error("the new rules are not in force")
	}
	echo := []byte("still there?")
	if err := open.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Write(echo); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(open, echo); err != nil {
		t.Errorf("a connection that was open: %v", err)
	}
	ping(t, n)
}

// ping asks the machine from its neighbour, by ICMP: a few questions are all answered,
// of a flood most are not.
func ping(t *testing.T, n *neighbour) {
	t.Helper()
	for _, c := range []struct {
		network, from, to string
		question          []byte // type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
		answer            byte
	}{
		{"ip4:icmp", "192.0.2.1", "192.0.2.10", []byte{8, 0, 0xf7, 0xfc, 0, 1, 0, 2}, 0},
		{"ip6:ipv6-icmp", "2001:db8:1::1", "2001:db8:1::10", []byte{128, 0, 0, 0, 0, 1, 0, 2}, 129},
	} {
		few, err := n.ask(c.network, c.from, c.to, c.question, c.answer, 3, 10*time.Second)
		if err != nil || few != 3 {
			t.Errorf("%s: %d of 3 questions were answered, %v", c.to, few, err)
		}
		begun := time.Now()
		many, err := n.ask(c.network, c.from, c.to, c.question, c.answer, 500, 3*time.Millisecond)
		allowed := 100 + int(60*time.Since(begun).Seconds()) // 50 at once, 50 a second, and some more
		if err != nil || many == 0 || many > allowed {
			t.Errorf("%s: %d of 500 questions were answered, not 1 to %d, %v", c.to, many, allowed, err)
		}
	}
}

// ask sends a question so many times, waits for the answer to each no longer than the
// limit, and counts the answers.
func (n *neighbour) ask(network, from, to string, question []byte, answer byte, count int, limit time.Duration) (answered int, err error) {
	err = n.there(func() error {
		socket, err := net.ListenPacket(network, from)
		if err != nil {
			return err
		}
		defer socket.Close()
		b := make([]byte, 128)
		for range count {
			if _, err := socket.WriteTo(question, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
				return err
			}
			if err := socket.SetReadDeadline(time.Now().Add(limit)); err != nil {
				return err
			}
			for { // neighbour discovery comes here, too
				k, _, err := socket.ReadFrom(b)
				if err != nil {
					break
				}
				if k > 0 && b[0] == answer {
					answered++
					break
				}
			}
		}
		return nil
	})
	return answered, err
}

// TestRefusedRules changes nothing.
func TestRefusedRules(t *testing.T) {
	t.Parallel()
	if _, ok := inNamespace(t); !ok {
		return
	}
	root := tree(t)
	if err := firewall.ApplyIn(t.Context(), root, setting.Firewall{}, false); err != nil {
		t.Fatal(err)
	}
	rules := func() string {
		out, err := exec.Command("nft", "list", "ruleset").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	file := func() string {
		b, err := os.ReadFile(filepath.Join(root, "etc/berth/nftables.d/allow.nft"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before, kept := rules(), file()
	// A file of somebody else's beside ours that nft does not take.
	if err := os.WriteFile(filepath.Join(root, "etc/berth/nftables.d/own.nft"), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := firewall.ApplyIn(t.Context(), root, setting.Firewall{}, true); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if rules() != before || file() != kept {
		t.Error("rules that were refused have changed something")
	}
	if err := firewall.ApplyIn(t.Context(), root, setting.Firewall{SSH: []string{"x"}}, true); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// TestMachineFirewall loads rules over the image's own, in a container, and again as
// a boot does.
func TestMachineFirewall(t *testing.T) {
	if os.Getenv("BERTH_TEST_MACHINE") == "" {
		t.Skip("skipped: it changes the machine's packet filter; tests/boot runs it in a container")
	}
	const rule = "ip saddr 192.0.2.0/24 tcp dport 5480 accept"
	if err := firewall.Apply(t.Context(), setting.Firewall{Console: []string{"192.0.2.0/24"}}, true); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"applied", "restarted"} {
		if step == "restarted" {
			run(t, "systemctl", "restart berth-firewall.service")
		}
		out, err := exec.Command("nft", "list", "chain", "inet", "berth", "allow").Output()
		if err != nil || !strings.Contains(strings.NewReplacer("{ ", "", " }", "").Replace(string(out)), rule) || !strings.Contains(string(out), "22") {
			t.Errorf("%s: %v, %s", step, err, out)
		}
	}
	if err := firewall.Apply(t.Context(), setting.Firewall{}, false); err != nil {
		t.Fatal(err)
	}
}
