package firstboot_test

import (
	"encoding/base64"
	"maps"
	"reflect"
	"testing"

	"berth/firstboot"
)

// What a wizard shows and sends back are the same answers.
func TestValuesAreTheAnswers(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]string{
		"nothing": {},
		"much": {
			"network.mode": "static", "network.hostname": "registry.example.com", "network.ip4": "192.0.2.10/24", "network.gateway4": "192.0.2.1",
			"network.dns": "192.0.2.53 2001:db8::53", "network.ntp": "ntp.example.com", "appliance.timezone": "Europe/Berlin", "appliance.ssh_enabled": "true",
			"appliance.root_password": "Root-Pass-1 &<>\"'$%\\", "registry.external_fqdn": "images.example.com", "proxy.http": "http://proxy.example.com:3128",
			"proxy.no_proxy": ".example.com,10.0.0.0/8", "syslog.targets": "tls://log.example.com udp://192.0.2.9", "syslog.ca": "x", "vcenter.address": "vc.example.com",
			"vcenter.register": "True", "install.unattended": "TRUE",
		},
		"whole": {
			"install.config_b64":       base64.StdEncoding.EncodeToString([]byte("trash_days: 3\nhostnames: [a.example.com, b.example.com]\nlogs:\n  days: 4\n  forward:\n    - {name: siem, to: 'tcp://192.0.2.9', level: error}\n")),
			"registry.admin_password":  "Registry-1",
			"appliance.root_password":  "Root-Pass-1",
			"tls.private_key":          "key",
			"network.search":           "example.com",
			"vcenter.vcenter_password": "p ä ss",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, err := firstboot.FromProperties(values)
			if err != nil {
				t.Fatal(err)
			}
			again, err := firstboot.FromProperties(first.Values())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(first, again) {
				t.Errorf("%+v\nbecame\n%+v\nby %v", first, again, maps.Collect(maps.All(first.Values())))
			}
		})
	}
}
