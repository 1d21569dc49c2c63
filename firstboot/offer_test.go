package firstboot_test

import (
	"reflect"
	"testing"

	"berth/appliance/setting"
	"berth/firstboot"
)

// What has changed in vCenter goes over the present settings, and nothing else does.
func TestOffer(t *testing.T) {
	t.Parallel()
	present := setting.Appliance()
	present.Network = setting.Network{Mode: "static", IP4: "192.0.2.2/24", Gateway4: "192.0.2.1", Hostname: "mine.example.com"}
	present.TrashDays = 3
	for name, test := range map[string]struct {
		offered map[string]string
		change  func(*setting.Settings)
		wrong   bool
	}{
		"address": {map[string]string{"network.ip4": "192.0.2.9", "network.prefix_or_mask": "255.255.255.128"}, func(s *setting.Settings) { s.Network.IP4 = "192.0.2.9/25" }, false},
		"mode":    {map[string]string{"network.mode": "dhcp"}, func(s *setting.Settings) { s.Network = setting.Network{Mode: "dhcp", Hostname: "mine.example.com"} }, false},
		"names": {map[string]string{"registry.external_fqdn": "r.example.com", "network.dns": "192.0.2.5"}, func(s *setting.Settings) {
			s.Hostnames, s.Network.DNS = []string{"r.example.com"}, []string{"192.0.2.5"}
		}, false},
		"a fault": {map[string]string{"network.gateway4": "198.51.100.1"}, func(*setting.Settings) {}, true},
	} {
		want := present
		test.change(&want)
		got, err := firstboot.State{Offered: test.offered}.Offer(present)
		if test.wrong != (err != nil) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v:\n%+v\n%+v", name, err, got, want)
		}
	}
}
