package setting_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"berth/appliance/setting"
)

// What is written is read again, and what is a default is not written.
func TestWrite(t *testing.T) {
	t.Parallel()
	s := setting.Appliance()
	s.Hostnames = []string{"registry.example.com"}
	s.Network = setting.Network{Hostname: "berth.example.com", Mode: "static", IP4: "192.0.2.10/24", Gateway4: "192.0.2.1", IP6: "2001:db8::10/64", Gateway6: "fe80::1", DNS: []string{"192.0.2.53"}, Search: []string{"example.com"}}
	s.Time = setting.Time{Zone: "Europe/Berlin", NTP: []string{"ntp.example.com", "2001:db8::123"}}
	s.SSH = setting.SSH{Enabled: true, Until: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.Firewall = setting.Firewall{Console: []string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7"}}
	s.Proxy = setting.Proxy{HTTP: "http://proxy.example.com:3128", NoProxy: []string{".example.com", "10.0.0.0/8"}, Username: "us%er"}
	s.VCenter = setting.VCenter{Address: "vc.example.com:8443", Username: `a"b\c@vsphere.local`, Thumbprint: strings.Repeat("AB:", 31) + "cd", Register: true}
	s.Disks = setting.Disks{WarnPercent: 70, ReadOnlyPercent: 90}
	s.Logs.Forward = []setting.Forward{{Name: "a", To: "tls://log.example.com"}}
	path := filepath.Join(t.TempDir(), "appliance.yaml")
	if err := setting.Write(path, s); err != nil {
		t.Fatal(err)
	}
	got, err := setting.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, s) {
		t.Errorf("read %+v\nwrote %+v", got, s)
	}
	b, err := setting.Encode(setting.Appliance())
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{"network", "trash_days", "until", "[]", "{}", `""`} {
		if strings.Contains(string(b), absent) {
			t.Errorf("%s is written although it is a default:\n%s", absent, b)
		}
	}
}

func TestMachineFaults(t *testing.T) {
	t.Parallel()
	for field, text := range map[string][]string{
		"network.hostname":        {"network: {hostname: 192.0.2.1}", "network: {hostname: a_b}", "network: {hostname: a.1}", "network: {hostname: '*.example.com'}"},
		"network.mode":            {"network: {mode: auto}"},
		"network.ip4":             {"network: {mode: static}", "network: {ip4: 192.0.2.1/24}", "network: {mode: static, ip4: 192.0.2.1}", "network: {mode: static, ip4: 192.0.2.0/24}", "network: {mode: static, ip4: 192.0.2.255/24}", "network: {mode: static, ip4: 127.0.0.1/8}", "network: {mode: static, ip4: '2001:db8::1/64'}"},
		"network.gateway4":        {"network: {mode: static, ip4: 192.0.2.10/24, gateway4: 192.0.3.1}", "network: {mode: static, ip4: 192.0.2.10/24, gateway4: 192.0.2.10}", "network: {gateway4: 192.0.2.1}", "network: {mode: static, ip4: 192.0.2.10/24, gateway4: x}"},
		"network.ip6":             {"network: {ip6: '2001:db8::1'}", "network: {ip6: 'fe80::1/64'}", "network: {ip6: 192.0.2.1/24}"},
		"network.gateway6":        {"network: {ip6: '2001:db8::1/64', gateway6: '2001:db9::1'}", "network: {gateway6: 192.0.2.1}"},
		"network.dns":             {"network: {dns: [dns.example.com]}"},
		"network.search":          {"network: {search: ['a b']}"},
		"time.zone":               {"time: {zone: Mars/Olympus}", "time: {zone: Local}", "time: {zone: ../../etc/passwd}"},
		"time.ntp":                {"time: {ntp: ['a b']}"},
		"firewall.console":        {"firewall: {console: [everyone]}"},
		"proxy.http":              {"proxy: {http: 'proxy:3128'}", "proxy: {http: 'http://u:p@proxy:3128'}"},
		"proxy.no_proxy":          {"proxy: {no_proxy: ['a b']}"},
		"proxy.username":          {"proxy: {username: me}", "proxy: {http: 'http://p:1', username: 'a:b'}"},
		"vcenter.address":         {"vcenter: {address: 'https://vc'}", "vcenter: {username: me}", "vcenter: {address: 'vc:99999'}"},
		"vcenter.thumbprint":      {"vcenter: {address: vc, thumbprint: 'AB:CD'}"},
		"disks.warn_percent":      {"disks: {warn_percent: 96}", "disks: {warn_percent: 5}"},
		"disks.read_only_percent": {"disks: {read_only_percent: 100}"},
	} {
		for _, yaml := range text {
			if _, err := setting.Decode(strings.NewReader(yaml)); err == nil || !strings.Contains(err.Error(), field+":") {
				t.Errorf("%s: got %v, want a fault of %s", yaml, err, field)
			}
		}
	}
	for _, yaml := range []string{
		"network: {mode: static, ip4: 192.0.2.0/31, gateway4: 192.0.2.1}", "network: {mode: static, ip4: 192.0.2.7/32, gateway4: 169.254.1.1}",
		"network: {hostname: berth, ip6: '2001:db8::5/64', gateway6: 'fe80::1'}", "time: {zone: UTC}", "vcenter: {address: '[2001:db8::1]:443'}",
	} {
		if _, err := setting.Decode(strings.NewReader(yaml)); err != nil {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}
