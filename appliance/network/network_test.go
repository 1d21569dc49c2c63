package network_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/appliance/network"
	"berth/appliance/setting"
)

func TestParseIPv4(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"192.0.2.10/24", "", "192.0.2.10/24"}, {"192.0.2.10", "24", "192.0.2.10/24"}, {" 192.0.2.10 ", " /24 ", "192.0.2.10/24"},
		{"192.0.2.10", "255.255.255.0", "192.0.2.10/24"}, {"192.0.2.10/255.255.254.0", "", "192.0.2.10/23"},
		{"192.0.2.10/23", "255.255.254.0", "192.0.2.10/23"}, {"10.0.0.1", "255.0.0.0", "10.0.0.1/8"}, {"10.0.0.1", "8", "10.0.0.1/8"},
		{"192.0.2.10", "32", "192.0.2.10/32"}, {"192.0.2.10", "255.255.255.255", "192.0.2.10/32"}, {"192.0.2.10", "1", "192.0.2.10/1"},
	} {
		if p, err := network.ParseIPv4(c[0], c[1]); err != nil || p.String() != c[2] {
			t.Errorf("%q with %q: %v, %v", c[0], c[1], p, err)
		}
	}
	for _, c := range [][3]string{ // and the field at fault
		{"", "", "ip4"}, {"192.0.2.10", "", "prefix_or_mask"}, {"192.0.2.10/", "", "ip4"}, {"192.0.2.10", "33", "prefix_or_mask"}, {"192.0.2.10", "0", "prefix_or_mask"},
		{"192.0.2.10", "024", "prefix_or_mask"}, {"192.0.2.10", "255.0.255.0", "prefix_or_mask"}, {"192.0.2.10", "0.0.0.255", "prefix_or_mask"},
		{"192.0.2.10", "0.0.0.0", "prefix_or_mask"}, {"192.0.2.10/24", "16", "prefix_or_mask"}, {"192.0.2.10/24", "255.255.0.0", "prefix_or_mask"},
		{"192.0.2.300", "24", "ip4"}, {"192.0.2", "24", "ip4"}, {"2001:db8::1", "64", "ip4"}, {"registry", "24", "ip4"}, {"192.0.2.10/24/8", "", "ip4"},
		{"192.0.2.10", "-1", "prefix_or_mask"}, {"192.0.2.10", "2 4", "prefix_or_mask"}, {"192.0.2.010", "24", "ip4"}, {"192.0.2.10", "/", "prefix_or_mask"},
	} {
		if p, err := network.ParseIPv4(c[0], c[1]); fault.Of(err) == nil || fault.Of(err).Field != c[2] || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("%q with %q: %v, %v, want a fault on %s", c[0], c[1], p, err, c[2])
		}
	}
}

func TestParseIPv6(t *testing.T) {
	t.Parallel()
	if p, err := network.ParseIPv6(" 2001:DB8:0::10/64 "); err != nil || p.String() != "2001:db8::10/64" {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{"", "2001:db8::10", "2001:db8::10/129", "192.0.2.10/24", "::ffff:192.0.2.10/96", "fe80::1%eth0/64", "x/64"} {
		if p, err := network.ParseIPv6(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", bad, p, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("192.0.2.10/24", "255.255.255.0")
	f.Add("192.0.2.10", "/24")
	f.Fuzz(func(t *testing.T, address, mask string) {
		if p, err := network.ParseIPv4(address, mask); err == nil {
			if again, err := network.ParseIPv4(p.String(), ""); err != nil || again != p || !p.Addr().Is4() || p.Bits() < 1 {
				t.Errorf("%q with %q: %v, then %v, %v", address, mask, p, again, err)
			}
		}
		if p, err := network.ParseIPv6(address); err == nil && (!p.IsValid() || p.Addr().Is4()) {
			t.Errorf("%q: %v", address, p)
		}
	})
}

// written gives the lines of a section of the file for networkd, joined.
func written(t *testing.T, root, section string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "etc/systemd/network/10-berth.network"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "["+section+"]\n")
	if !ok {
		t.Fatalf("there is no section %s in\n%s", section, b)
	}
	rest, _, _ = strings.Cut(rest, "\n\n")
	return strings.ReplaceAll(strings.TrimSpace(rest), "\n", " ")
}

func TestWrite(t *testing.T) {
	t.Parallel()
	const always = " IPv6PrivacyExtensions=no LLMNR=no MulticastDNS=no"
	for name, c := range map[string]struct {
		n                  setting.Network
		network, dhcp4, ra string
	}{
		"everything from the network": {setting.Network{}, "DHCP=yes LinkLocalAddressing=ipv6 IPv6AcceptRA=yes" + always,
			"ClientIdentifier=mac UseHostname=yes UseDNS=yes UseDomains=yes", "UseDNS=yes UseDomains=yes"},
		"static IPv4": {setting.Network{Hostname: "r.example.com", Mode: "static", IP4: "192.0.2.10/24", Gateway4: "192.0.2.1", DNS: []string{"192.0.2.2", "2001:db8::2"}, Search: []string{"a.example", "b.example"}},
			"DHCP=ipv6 LinkLocalAddressing=ipv6 IPv6AcceptRA=yes" + always + " Address=192.0.2.10/24 Gateway=192.0.2.1 DNS=192.0.2.2 DNS=2001:db8::2 Domains=a.example b.example",
			"ClientIdentifier=mac UseHostname=no UseDNS=no UseDomains=no", "UseDNS=no UseDomains=no"},
		"both static": {setting.Network{Mode: "static", IP4: "192.0.2.10/24", Gateway4: "192.0.2.1", IP6: "2001:db8::10/64", Gateway6: "fe80::1"},
			"DHCP=no LinkLocalAddressing=ipv6 IPv6AcceptRA=no" + always + " Address=192.0.2.10/24 Gateway=192.0.2.1 Address=2001:db8::10/64 Gateway=fe80::1",
			"ClientIdentifier=mac UseHostname=yes UseDNS=yes UseDomains=yes", "UseAutonomousPrefix=no DHCPv6Client=no UseDNS=yes UseDomains=yes"},
		"DHCP and a static IPv6 address": {setting.Network{Mode: "dhcp", IP6: "2001:db8::10/64"},
			"DHCP=ipv4 LinkLocalAddressing=ipv6 IPv6AcceptRA=yes" + always + " Address=2001:db8::10/64",
			"ClientIdentifier=mac UseHostname=yes UseDNS=yes UseDomains=yes", "UseAutonomousPrefix=no DHCPv6Client=no UseDNS=yes UseDomains=yes"},
	} {
		root := t.TempDir()
		if changed, err := network.Write(root, c.n); err != nil || !changed {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
		for section, want := range map[string]string{"Match": "Type=ether", "Network": c.network, "DHCPv4": c.dhcp4, "IPv6AcceptRA": c.ra} {
			if got := written(t, root, section); got != want {
				t.Errorf("%s, [%s]:\n got %s\nwant %s", name, section, got, want)
			}
		}
		if changed, err := network.Write(root, c.n); err != nil || changed {
			t.Errorf("%s, again: %v, %v", name, changed, err)
		}
	}
}

func TestWriteNames(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if _, err := network.Write(root, setting.Network{Hostname: "registry.example.com"}); err != nil {
		t.Fatal(err)
	}
	if got := file("etc/hostname"); got != "registry.example.com\n" {
		t.Errorf("hostname %q", got)
	}
	if got := file("etc/hosts"); !strings.Contains(got, "\n127.0.1.1\tregistry.example.com registry\n") || !strings.Contains(got, "\n::1\tlocalhost ") {
		t.Errorf("hosts %q", got)
	}
	if changed, err := network.Write(root, setting.Network{}); err != nil || !changed {
		t.Errorf("%v, %v", changed, err)
	}
	if got := file("etc/hostname"); !strings.Contains(got, "no such file") {
		t.Errorf("hostname %q: DHCP could not give another", got)
	}
	for _, n := range []setting.Network{{Hostname: "a\nb"}, {DNS: []string{"192.0.2.1\n[Match]"}}, {IP4: "192.0.2.1/24 "}, {Search: []string{"a b"}}} {
		if _, err := network.Write(root, n); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", n, err)
		}
	}
}
