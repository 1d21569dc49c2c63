package command

import (
	"testing"

	"berth/appliance/setting"
)

func TestPublicURL(t *testing.T) {
	for _, c := range []struct {
		s    setting.Settings
		want string
	}{
		{setting.Settings{HTTPS: "127.0.0.1:8443"}, "https://localhost:8443"},
		{setting.Settings{HTTPS: ":443"}, "https://localhost"},
		{setting.Settings{HTTPS: "192.0.2.7:443"}, "https://192.0.2.7"},
		{setting.Settings{HTTPS: "[2001:db8::7]:443"}, "https://[2001:db8::7]"},
		{setting.Settings{HTTPS: ":443", Network: setting.Network{Hostname: "berth.example.com"}}, "https://berth.example.com"},
		{setting.Settings{HTTPS: ":443", Hostnames: []string{"registry.example.com"}, Network: setting.Network{Hostname: "berth.example.com"}}, "https://registry.example.com"},
		{setting.Settings{HTTP: "127.0.0.1:80"}, "http://localhost"},
	} {
		if got := publicURL(c.s); got != c.want {
			t.Errorf("%+v: %s, want %s", c.s, got, c.want)
		}
	}
}
