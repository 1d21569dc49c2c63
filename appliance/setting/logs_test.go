package setting_test

import (
	"strings"
	"testing"

	"berth/appliance/setting"
)

// Every fault of the log service's settings names its field, and its collector.
func TestFaultsOfLogs(t *testing.T) {
	t.Parallel()
	_, err := setting.Decode(strings.NewReader(`
metrics: 0.0.0.0:9180
traces: ftp://x
logs:
  size_mb: 3
  days: -1
  rate: 2000000
  listen: 192.0.2.1:514
  journal: maybe
  forward:
    - {name: "a b", to: "http://x", format: xml, level: loud, certificate: /c.pem, queue_mb: -1}
    - {name: twice, to: "udp://x", ca: /ca.pem}
    - {name: twice, to: "tls://user:secret@x"}
    - {name: port, to: "tcp://x:99999"}
`))
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, field := range []string{"metrics:", "traces:", "logs.size_mb:", "logs.days:", "logs.rate:", "logs.listen:", "logs.journal:",
		"logs.forward[0].name:", "logs.forward[0].to:", "logs.forward[0].format:", "logs.forward[0].level:", "logs.forward[0].certificate:", "logs.forward[0].queue_mb:",
		"logs.forward[1].to:", "logs.forward[2].to:", "logs.forward[2].name:", "logs.forward[3].to:"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("no fault names %s in:\n%v", field, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a password is shown: %v", err)
	}
	s, err := setting.Decode(strings.NewReader(`
metrics: "off"
traces: https://otel.example.org:4318
logs: {listen: "[::1]:1514", forward: [{name: a, to: "tls://[2001:db8::1]", ca: /ca.pem}, {name: b, to: "tcp://x"}, {name: c, to: "udp://x:5514"}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"tls [2001:db8::1]:6514", "tcp x:601", "udp x:5514"} {
		scheme, address, err := s.Logs.Forward[i].Target()
		if got := scheme + " " + address; err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", s.Logs.Forward[i].To, got, err, want)
		}
	}
	if s.Logs.Size() != 2<<30 || s.Logs.Age().Hours() != 720 || s.Logs.PerSecond() != 10_000 || s.Logs.Forward[0].Queue() != 1<<30 {
		t.Errorf("defaults are %d, %v, %d, %d", s.Logs.Size(), s.Logs.Age(), s.Logs.PerSecond(), s.Logs.Forward[0].Queue())
	}
}
