package setting_test

import (
	"strings"
	"testing"

	"berth/appliance/setting"
)

// All faults of a file come at once, each with its field.
func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := setting.Decode(strings.NewReader(`
data: ""
https: nonsense
http: "127.0.0.1:99999"
hostnames: ["ok.example", "-bad-"]
certificate: /x.pem
grace_hours: -5
trash_days: -2
trusted_proxies: [everyone]
allow_targets: [127.0.0.1/99]
log_level: loud
storage: ftp://x
`))
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, field := range []string{"data:", "https:", "http:", "hostnames:", "certificate:", "grace_hours:", "trash_days:", "trusted_proxies:", "allow_targets:", "log_level:", "storage:"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("no fault names %s in:\n%v", field, err)
		}
	}
}

func TestUnknownKeyIsRefused(t *testing.T) {
	t.Parallel()
	_, err := setting.Decode(strings.NewReader("data: /x\nhtpps: 1.2.3.4:1\ngrace_hours: many\n"))
	if err == nil || !strings.Contains(err.Error(), "htpps") || !strings.Contains(err.Error(), "many") {
		t.Errorf("got %v, want both the unknown key and the wrong type", err)
	}
}

func TestKeysInStorageURLAreRefused(t *testing.T) {
	t.Parallel()
	_, err := setting.Decode(strings.NewReader("storage: s3://key:secret@bucket/x\n"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want a refusal without the secret", err)
	}
}

func TestEmptyFileIsTheDefaults(t *testing.T) {
	t.Parallel()
	got, err := setting.Decode(strings.NewReader(""))
	if err != nil || got.HTTPS != "127.0.0.1:8443" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("data: /x\nhttps: :443\n")
	f.Add("storage: s3://b/p?settings=/etc/s3\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := setting.Decode(strings.NewReader(text))
		if err == nil && s.Check() != nil {
			t.Error("accepted what Check refuses")
		}
	})
}
