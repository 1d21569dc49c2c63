// Package network gives the machine its addresses, its name and its DNS servers,
// looks at what it has, and changes it in a way that nobody locks himself out.
//
// systemd-networkd does the work, from one file that Write makes out of the
// settings; systemd-resolved gets its servers from networkd. Who runs before this
// machine had settings finds the image's own file, which asks DHCP and routers.
package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// The files that Write keeps, below the root directory.
const (
	unitFile     = "etc/systemd/network/10-berth.network"
	hostnameFile = "etc/hostname"
	hostsFile    = "etc/hosts"
)

// defaultName is the machine's name while nobody has given it one.
const defaultName = "berth"

// Write writes what the settings say into the system's files below root ("" or "/"
// for this machine's), and reports whether any of them has changed. Nothing is in
// force before Apply, or the next boot. The settings must have passed their check.
func Write(root string, n setting.Network) (changed bool, err error) {
	for _, v := range append(append([]string{n.Hostname, n.IP4, n.Gateway4, n.IP6, n.Gateway6}, n.DNS...), n.Search...) {
		if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f }) { // it would be a line of its own
			return false, fault.New(fault.Invalid, "the network's settings have a space or a line break in them").On("network")
		}
	}
	root = filepath.Clean("/" + root)
	device := ""
	if root == "/" {
		if list, err := devices(); err == nil && len(list) > 1 {
			device = list[0]
		}
	}
	files := map[string]string{unitFile: unit(n, device), hostsFile: hosts(n.Hostname)}
	if n.Hostname != "" {
		files[hostnameFile] = n.Hostname + "\n"
	} else if err := os.Remove(filepath.Join(root, hostnameFile)); err == nil {
		changed = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot remove the host name: %w", err)
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return changed, fmt.Errorf("cannot write the network's settings: %w", err)
		}
		if err := durable.WriteFile(path, []byte(text), 0o644); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// unit is the file for networkd (systemd.network(5)). It matches every ethernet
// card, whatever it is called, unless there are several: then device, the first.
func unit(n setting.Network, device string) string {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + "=" + value + "\n") }
	section := func(name string) { b.WriteString("\n[" + name + "]\n") }
	b.WriteString("# Written by Berth from the settings; changes here are lost.\n[Match]\nType=ether\n")
	if device != "" {
		line("Name", device)
	}
	section("Network")
	static4, static6 := n.Static(), n.IP6 != ""
	line("DHCP", map[[2]bool]string{{false, false}: "yes", {false, true}: "ipv4", {true, false}: "ipv6", {true, true}: "no"}[[2]bool{static4, static6}])
	line("LinkLocalAddressing", "ipv6")
	// With an address of ours, routers are asked for the default route alone, and
	// not even that if there is a gateway.
	line("IPv6AcceptRA", yes(!static6 || n.Gateway6 == ""))
	line("IPv6PrivacyExtensions", "no")
	line("LLMNR", "no")
	line("MulticastDNS", "no")
	for _, v := range []struct{ key, value string }{{"Address", n.IP4}, {"Gateway", n.Gateway4}, {"Address", n.IP6}, {"Gateway", n.Gateway6}} {
		if v.value != "" {
			line(v.key, v.value)
		}
	}
	for _, d := range n.DNS {
		line("DNS", d)
	}
	if len(n.Search) > 0 {
		line("Domains", strings.Join(n.Search, " "))
	}
	given := func() {
		line("UseDNS", yes(len(n.DNS) == 0))
		line("UseDomains", yes(len(n.Search) == 0))
	}
	section("DHCPv4")
	// By the card's address, as reservations are made, not by the machine's id.
	line("ClientIdentifier", "mac")
	line("UseHostname", yes(n.Hostname == ""))
	given()
	section("DHCPv6")
	line("UseHostname", "no")
	given()
	section("IPv6AcceptRA")
	if static6 {
		line("UseAutonomousPrefix", "no")
		line("DHCPv6Client", "no")
	}
	given()
	return b.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// hosts is /etc/hosts: the machine finds its own name without DNS, by Debian's
// way, in which the name is not localhost's.
func hosts(name string) string {
	text := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	if name == "" {
		name = defaultName
	}
	if short, _, long := strings.Cut(name, "."); long {
		name += " " + short
	}
	return "# Written by Berth from the settings; changes here are lost.\n" + text + "127.0.1.1\t" + name + "\n"
}

// devices are the ethernet cards in the order in which the kernel found them, without
// what is built of others (bridges, bonds, VLANs …). A container's ends of cables
// count. They are asked of the kernel, for /sys in a container may be its host's.
func devices() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("cannot list the network cards: %w", err)
	}
	slices.SortFunc(links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	var names []string
	for _, l := range links {
		if l.Attrs().EncapType == "ether" && slices.Contains([]string{"device", "veth", "macvlan"}, l.Type()) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}
