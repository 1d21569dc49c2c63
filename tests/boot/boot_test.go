package boot_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/tests/boot"
)

// A machine starts with its packet filter and an address, again after a reboot, and again after a power cut, which loses
// what was not yet on the disk and nothing else.
func TestPower(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{Files: map[string]string{"etc/berth/mark": "here"}})
	m.Active(t, "berth-firewall.service", time.Minute)
	m.Active(t, "berth-agent.service", time.Minute)
	if rules := m.Command(t, "nft", "list", "ruleset"); !strings.Contains(rules, "policy drop") {
		t.Errorf("the packet filter has %s", rules)
	}
	for _, want := range []string{m.Address().String(), m.Address6().String()} {
		m.Wait(t, "it has the address "+want, 30*time.Second, func() error {
			_, err := m.Try("sh", "-c", "ip -br addr | grep -F "+want)
			return err
		})
	}
	for _, a := range []netip.Addr{m.Address(), m.Address6()} {
		m.Wait(t, "the console answers at "+a.String(), 30*time.Second, func() error {
			conn, err := m.Dial(t.Context(), "tcp", netip.AddrPortFrom(a, 5480).String())
			if err == nil {
				conn.Close()
			}
			return err
		})
	}
	if out := m.Command(t, "sh", "-c", "ls /etc/ssh; systemctl is-active ssh.service ssh.socket || true"); strings.Contains(out, "ssh_host_") || strings.Contains(out, "\nactive") {
		t.Errorf("nobody has asked for SSH: %s", out)
	}
	closed, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if conn, err := m.Dial(closed, "tcp", netip.AddrPortFrom(m.Address(), 22).String()); err == nil {
		conn.Close()
		t.Error("port 22 is open")
	}
	if got := m.File("/etc/berth/mark"); got != "here" {
		t.Errorf("the file that was put there has %q", got)
	}
	m.Reboot(t)
	m.Command(t, "mkfs.ext4", "-q", "-F", m.Device(t, diskrole.Data))
	m.Command(t, "mount", m.Device(t, diskrole.Data), "/storage/data")
	m.Command(t, "sh", "-c", "echo synced >/storage/data/a; sync /storage/data/a; echo lost >/storage/data/b")
	m.Kill(t)
	m.On(t)
	m.Command(t, "mount", m.Device(t, diskrole.Data), "/storage/data")
	if a, b := m.File("/storage/data/a"), m.File("/storage/data/b"); a != "synced\n" || b != "" {
		t.Errorf("after the power cut the synced file has %q, and the other %q", a, b)
	}
	m.PowerOff(t)
}
