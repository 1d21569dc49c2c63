package firstboot_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/appliance/cert"
	"berth/appliance/diskrole"
	"berth/appliance/property"
	"berth/appliance/setting"
	"berth/firstboot"
)

// minimal are the properties that suffice.
func minimal(more ...string) map[string]string {
	values := map[string]string{
		"appliance.root_password": "Root-Passw0rd", "appliance.console_password": "Console-Passw0rd", "registry.admin_password": "Registry-Passw0rd",
	}
	for i := 0; i < len(more); i += 2 {
		values[more[i]] = more[i+1]
	}
	return values
}

func fields(err error) []string {
	var names []string
	for _, f := range firstboot.Faults(err) {
		names = append(names, f.Field)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func from(t *testing.T, values map[string]string) firstboot.Answers {
	t.Helper()
	a, err := firstboot.FromProperties(values)
	if err == nil {
		err = a.Check()
	}
	if err != nil {
		t.Fatalf("%v: %v", values, err)
	}
	return a
}

// What vCenter fills in by itself and three passwords are enough.
func TestDefaultsAndPasswordsSuffice(t *testing.T) {
	t.Parallel()
	values := minimal()
	for _, p := range property.All() {
		if values[p.Name()] == "" {
			values[p.Name()] = p.Default
		}
		if values[p.Name()] == "" {
			values[p.Name()] = " " // Terraform
		}
	}
	a := from(t, values)
	if missing := a.Missing(); missing != nil {
		t.Errorf("missing: %v", missing)
	}
	empty := firstboot.NewAnswers()
	if want := []string{"appliance.root_password", "appliance.console_password", "registry.admin_password"}; !slices.Equal(empty.Missing(), want) {
		t.Errorf("missing are %v, want %v", empty.Missing(), want)
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	const print = "aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899"
	static := func(more ...string) map[string]string { return minimal(append(more, "network.mode", "Static")...) }
	for _, test := range []struct {
		values map[string]string
		get    func(firstboot.Answers) any
		want   any
	}{
		{static("network.ip4", "192.0.2.10/24"), func(a firstboot.Answers) any { return a.Settings.Network.IP4 }, "192.0.2.10/24"},
		{static("network.ip4", " 192.0.2.10 ", "network.prefix_or_mask", "24"), func(a firstboot.Answers) any { return a.Settings.Network.IP4 }, "192.0.2.10/24"},
		{static("network.ip4", "192.0.2.10", "network.prefix_or_mask", "/23"), func(a firstboot.Answers) any { return a.Settings.Network.IP4 }, "192.0.2.10/23"},
		{static("network.ip4", "192.0.2.10", "network.prefix_or_mask", "255.255.255.192"), func(a firstboot.Answers) any { return a.Settings.Network.IP4 }, "192.0.2.10/26"},
		{static("network.ip4", "192.0.2.10/24", "network.prefix_or_mask", "24 (255.255.255.0)"), func(a firstboot.Answers) any { return a.Settings.Network.IP4 }, "192.0.2.10/24"},
		{minimal("network.dns", "192.0.2.1,192.0.2.2; 2001:db8::1\n192.0.2.3"), func(a firstboot.Answers) any { return a.Settings.Network.DNS }, []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3"}},
		{minimal("network.hostname", "Registry.Example.COM."), func(a firstboot.Answers) any { return a.Settings.Network.Hostname }, "registry.example.com"},
		{minimal("appliance.ssh_enabled", "True"), func(a firstboot.Answers) any { return a.Settings.SSH.Enabled }, true},
		{minimal("appliance.ssh_enabled", "true"), func(a firstboot.Answers) any { return a.Settings.SSH.Enabled }, true},
		{minimal("appliance.ssh_enabled", "FALSE"), func(a firstboot.Answers) any { return a.Settings.SSH.Enabled }, false},
		{minimal("registry.auth_mode", "LDAP_auth"), func(a firstboot.Answers) any { return a.AuthMode }, "ldap_auth"},
		{minimal("registry.external_fqdn", "r.example.com", "network.hostname", "b.example.com"), func(a firstboot.Answers) any { return a.Settings.Hostnames }, []string{"r.example.com"}},
		{minimal("vcenter.address", "https://vc.example.com/", "vcenter.thumbprint", "sha256 Fingerprint="+print), func(a firstboot.Answers) any {
			return a.Settings.VCenter.Address + " " + strings.ToLower(strings.ReplaceAll(a.Settings.VCenter.Thumbprint, ":", ""))
		}, "vc.example.com " + print},
		{minimal("syslog.targets", "udp://a:514; tls://b,tcp://c", "syslog.ca", strings.ReplaceAll(pair(t).certificate, "\n", " ")), func(a firstboot.Answers) any {
			var to []string
			for _, f := range a.Settings.Logs.Forward {
				to = append(to, f.Name+" "+f.To+" "+f.CA)
			}
			return to
		}, []string{"syslog1 udp://a:514 ", "syslog2 tls://b " + firstboot.SyslogCAFile, "syslog3 tcp://c "}},
	} {
		if got := test.get(from(t, test.values)); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.values, got, test.want)
		}
	}
}

// Every fault comes at once, on the name that stands in the form, and no secret is
// repeated.
func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"network.mode": "static", "network.hostname": "a b", "network.ip4": "192.0.2.300", "network.prefix_or_mask": "255.0.255.0",
		"network.gateway4": "x", "network.dns": "dns.example.com", "network.ntp": "a b@c", "network.ip6": "2001:db8::1",
		"appliance.root_password": "s3cret!", "appliance.console_password": "s3cret! lower case", "registry.admin_password": "S3cret\nline",
		"appliance.ssh_enabled": "maybe", "appliance.ssh_authorized_keys": "ssh-rsa nonsense", "appliance.timezone": "Middle/Earth",
		"registry.external_fqdn": "-x-", "registry.auth_mode": "s3cret!", "tls.private_key": "s3cret!", "tls.key_passphrase": "a\nb",
		"proxy.http": "proxy:3128", "proxy.https": "http://u:s3cret!@p:1", "proxy.proxy_password": "s3cret!", "syslog.targets": "loghost", "syslog.ca": "x",
		"vcenter.vcenter_password": "s3cret!", "vcenter.thumbprint": "ab", "vcenter.register": "true",
		"install.config_b64": "!!", "install.restore_url": "sftp://b", "install.restore_secret": "s3cret!",
	}
	a, err := firstboot.FromProperties(values)
	all := append(firstboot.Faults(err), firstboot.Faults(a.Check())...)
	b, _ := json.Marshal(all)
	if strings.Contains(string(b), "s3cret") {
		t.Errorf("a secret is repeated: %s", b)
	}
	named := map[string]bool{}
	for _, f := range all {
		named[f.Field] = true
	}
	delete(values, "network.mode")     // right
	delete(values, "tls.private_key")  // its certificate is missing
	delete(values, "vcenter.register") // vcenter.address is
	values["tls.certificate"], values["vcenter.address"] = "", ""
	for name := range values {
		if !named[name] {
			t.Errorf("no fault names %s", name)
		}
	}
}

type keyPair struct{ certificate, key string }

// pair is a certificate with its key.
func pair(t testing.TB) keyPair {
	t.Helper()
	dir := t.TempDir()
	if _, err := cert.Ensure(dir, []string{"r.example.com"}); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return keyPair{read(cert.ServerFile), read(cert.KeyFile)}
}

// Certificates are mended as far as can be, and what does not fit is told of on its
// field before anything is done.
func TestCertificates(t *testing.T) {
	t.Parallel()
	good, other := pair(t), pair(t)
	oneLine := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	for _, v := range []keyPair{
		good, {oneLine(good.certificate), oneLine(good.key)}, {base64.StdEncoding.EncodeToString([]byte(good.certificate)), base64.StdEncoding.EncodeToString([]byte(good.key))},
		{good.certificate + good.key, ""}, {strings.ReplaceAll(good.certificate, "\n", "\r\n"), strings.ReplaceAll(good.key, "\n", `\n`)},
	} {
		from(t, minimal("tls.certificate", v.certificate, "tls.private_key", v.key))
	}
	for field, v := range map[string]keyPair{
		"tls.private_key": {good.certificate, ""}, "tls.certificate": {"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", good.key},
	} {
		a, err := firstboot.FromProperties(minimal("tls.certificate", v.certificate, "tls.private_key", v.key))
		if err != nil || !slices.Contains(fields(a.Check()), field) {
			t.Errorf("%s: %v, %v", field, err, a.Check())
		}
	}
	a, err := firstboot.FromProperties(minimal("tls.certificate", good.certificate, "tls.private_key", other.key))
	if err != nil || a.Check() == nil {
		t.Errorf("another certificate's key: %v, %v", err, a.Check())
	}
}

func TestDependencies(t *testing.T) {
	t.Parallel()
	for want, values := range map[string]map[string]string{
		"network.ip4":            minimal("network.ip4", "192.0.2.10/24"), // dhcp
		"network.prefix_or_mask": minimal("network.mode", "static", "network.ip4", "192.0.2.10/24", "network.prefix_or_mask", "25"),
		"network.gateway4":       minimal("network.mode", "static", "network.ip4", "192.0.2.10/24", "network.gateway4", "192.0.3.1"),
		"tls.private_key":        minimal("tls.certificate", "x"),
		"install.config_b64":     minimal("install.config_b64", base64.StdEncoding.EncodeToString([]byte("data: /elsewhere\n"))),
	} {
		a, err := firstboot.FromProperties(values)
		if err == nil {
			err = a.Check()
		}
		if got := fields(err); !slices.Contains(got, want) {
			t.Errorf("%v: faults are on %v, want %s", values, got, want)
		}
	}
}

// The whole file comes first, and what somebody has typed into the form goes over
// it; what the form has by itself does not.
func TestWholeConfiguration(t *testing.T) {
	t.Parallel()
	file := "network: {mode: static, ip4: 192.0.2.7/24, hostname: file.example.com}\ntime: {zone: Europe/Berlin}\nssh: {enabled: true}\ntrash_days: 3\nhostnames: [file.example.com]\n"
	for _, encoded := range []string{
		base64.StdEncoding.EncodeToString([]byte(file)), base64.RawURLEncoding.EncodeToString([]byte(file)),
		" " + base64.StdEncoding.EncodeToString([]byte(file))[:40] + "\n" + base64.StdEncoding.EncodeToString([]byte(file))[40:],
	} {
		a := from(t, minimal("install.config_b64", encoded, "network.mode", "dhcp", "appliance.timezone", "UTC", "appliance.ssh_enabled", "False",
			"network.hostname", "form.example.com", "registry.external_fqdn", "lb.example.com"))
		s := a.Settings
		if s.Network.Mode != "static" || s.Time.Zone != "Europe/Berlin" || !s.SSH.Enabled || s.TrashDays != 3 || s.Network.Hostname != "form.example.com" ||
			!slices.Equal(s.Hostnames, []string{"lb.example.com", "file.example.com"}) || s.Data != setting.DataMount {
			t.Errorf("got %+v", s)
		}
	}
}

func TestSSHKeys(t *testing.T) {
	t.Parallel()
	const one = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKlUuQ1Kcjkfq8sJxNc2sbhJv/VURWDTwNUkLMk2JmEo"
	for text, want := range map[string][]string{
		one + " a b\n" + one + " c":                               {one + " a b", one + " c"},
		one + ";" + one:                                           {one, one},
		one + " a b " + one + " " + one:                           {one + " a b", one, one},
		"# mine\r\n" + one + "\r\n":                               {one},
		`from="10.0.0.0/8",command="echo hi there" ` + one + " x": {`from="10.0.0.0/8",command="echo hi there" ` + one + " x"},
	} {
		if got := from(t, minimal("appliance.ssh_authorized_keys", text)).SSHKeys; !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// All that can be typed arrives as it was typed, through the answers' file too.
func TestSpecialCharactersArriveUnchanged(t *testing.T) {
	t.Parallel()
	const nasty = `Aa1&<>"'$%\;` + "`(){}[]*?!~#|^ äß€\U0001f512 "
	values := minimal("appliance.root_password", nasty, "appliance.console_password", nasty, "registry.admin_password", nasty,
		"proxy.http", "http://p:3128", "proxy.proxy_username", "u$&", "proxy.proxy_password", nasty,
		"vcenter.address", "vc", "vcenter.vcenter_username", `dom\user&<>"'`, "vcenter.vcenter_password", nasty,
		"tls.certificate", strings.Repeat("A&<\n", 16000), "tls.private_key", strings.Repeat("B'\"\n", 16000), "tls.key_passphrase", nasty)
	a, err := firstboot.FromProperties(values)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := firstboot.SaveAnswers(dir, a); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "answers.json")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	back, found, err := firstboot.LoadAnswers(dir)
	if err != nil || !found || !reflect.DeepEqual(a, back) {
		t.Fatalf("found %v, %v:\n%+v\n%+v", found, err, a, back)
	}
	for _, got := range []string{back.RootPassword.Reveal(), back.ConsolePassword.Reveal(), back.RegistryPassword.Reveal(), back.ProxyPassword.Reveal(), back.VCenterPassword.Reveal(), back.KeyPassphrase.Reveal()} {
		if got != nasty {
			t.Errorf("got %q", got)
		}
	}
	b, err := json.Marshal(back)
	if err != nil || strings.Contains(string(b), `Aa1`) || !strings.Contains(string(b), "redacted") {
		t.Errorf("the answers marshal with secrets: %v", err)
	}
}

func FuzzFromProperties(f *testing.F) {
	f.Add("network.ip4", "192.0.2.1", "network.prefix_or_mask", "24")
	f.Add("appliance.ssh_authorized_keys", "ssh-rsa AAAA x ssh-rsa AAAA", "syslog.targets", "tls://x,udp://y")
	f.Add("install.config_b64", "bmV0d29yazoge21vZGU6IHN0YXRpY30=", "vcenter.thumbprint", "=ab:cd")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		a, err := firstboot.FromProperties(minimal(k1, v1, k2, v2))
		if err != nil || a.Check() != nil {
			return
		}
		b, err := setting.Encode(a.Settings)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := setting.DecodeOver(setting.Appliance(), strings.NewReader(string(b))); err != nil {
			t.Errorf("settings that were accepted cannot be read back: %v\n%s", err, b)
		}
		for role := range a.UseDisks {
			if role == diskrole.System {
				t.Error("the system disk was chosen")
			}
		}
	})
}
