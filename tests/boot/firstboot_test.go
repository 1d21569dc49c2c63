package boot_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/cert"
	"berth/appliance/login"
	"berth/appliance/ovfenv"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/firstboot"
	"berth/tests/boot"
)

// odd has all that shells, XML, YAML and JSON have trouble with.
const odd = "&<>\"'$%\\;`(){}[]*?!~#|^:@=+ äß€"

// passwords are the properties that suffice.
func passwords(more ...string) map[string]string {
	values := map[string]string{"appliance.root_password": "Root1" + odd, "appliance.console_password": "Console1" + odd, "registry.admin_password": "Registry1" + odd}
	for i := 0; i < len(more); i += 2 {
		values[more[i]] = more[i+1]
	}
	return values
}

func stateOf(m *boot.Machine) firstboot.State {
	var s firstboot.State
	_ = json.Unmarshal([]byte(m.File(filepath.Join(setting.StateDir, "state.json"))), &s) // none yet: the zero value
	return s
}

// phase waits until the engine of this boot has come to its end, and that in a phase.
func phase(t *testing.T, m *boot.Machine, want string) firstboot.State {
	t.Helper()
	m.Wait(t, "the first boot is "+want, 2*time.Minute, func() error {
		s := stateOf(m)
		id := strings.TrimSpace(m.File("/proc/sys/kernel/random/boot_id"))
		unit, err := m.Try("systemctl", "show", "--value", "--property=ActiveState", "berth-firstboot.service")
		if unit = strings.TrimSpace(unit); err != nil || unit != "active" && unit != "failed" {
			return fmt.Errorf("the unit is %s: %w", unit, errors.Join(err, errors.New("it has not ended")))
		}
		if s.Phase != want {
			return fmt.Errorf("it is %s at boot %s of %s: %s (%s)", s.Phase, s.Boot, id, s.Text, s.Hint)
		}
		return nil
	})
	return stateOf(m)
}

// admin asks the registry who is logged in.
func admin(t *testing.T, m *boot.Machine, password string) {
	t.Helper()
	client := m.Client(nil)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+m.Address().String()+"/api/v2.0/users/current", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("admin cannot log in: %s", res.Status)
	}
}

// keptNoSecrets fails if a password is left where it does not belong.
func keptNoSecrets(t *testing.T, m *boot.Machine) {
	t.Helper()
	if out := m.Command(t, "ls", setting.StateDir); strings.Contains(out, "answers") || strings.Contains(out, "properties") {
		t.Errorf("the answers are still there: %s", out)
	}
	for name, text := range map[string]string{"guestinfo": m.GuestInfo("guestinfo.ovfEnv"), "the state": m.File(setting.StateDir + "/state.json"), "the settings": m.File(setting.File),
		"the journal": m.Command(t, "journalctl", "-b", "--no-pager")} {
		for _, p := range []string{"Root1", "Console1", "Registry1", "Proxy1", "VCenter1"} {
			if strings.Contains(text, p) {
				t.Errorf("a password is in %s", name)
			}
		}
	}
}

// The properties suffice: from blank disks to a registry, and every value arrives as it was typed. Later boots need
// neither the environment nor much time, and say what has changed in it.
func TestFirstBootUnattended(t *testing.T) {
	t.Parallel()
	environment := passwords("network.hostname", "berth.berth.test", "install.unattended", "True", "appliance.timezone", "Europe/Berlin", "registry.external_fqdn", "Registry.Example.COM",
		"proxy.http", "http://192.0.2.1:3128", "proxy.proxy_username", "u$er", "proxy.proxy_password", "Proxy1"+odd, "proxy.no_proxy", ".berth.test; 198.18.0.0/16",
		"vcenter.address", "vc.berth.test", "vcenter.vcenter_username", `VSPHERE\ad&min`, "vcenter.vcenter_password", "VCenter1"+odd, "other.property", odd)
	m := boot.Start(t, boot.Options{Environment: environment})
	begun := time.Now()
	m.Serving(t, time.Minute)
	t.Logf("from systemd's first answer to the registry's answer: %v", time.Since(begun).Round(10*time.Millisecond))
	s := phase(t, m, firstboot.Ready)
	for _, step := range s.Steps {
		t.Logf("%v: %s: %s", step.Ended.Sub(step.Begun).Round(time.Millisecond), step.Title, step.Text)
	}
	if !s.Done() || s.Source != "guestinfo" || len(s.Disks) != 3 || !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "other.property") }) {
		t.Errorf("the state is %+v", s)
	}
	admin(t, m, environment["registry.admin_password"])
	if _, err := m.Input(environment["appliance.root_password"]+"\x00", "unix_chkpwd", "root", "nonull"); err != nil {
		t.Errorf("root's password: %v", err)
	}
	hash := filepath.Join(t.TempDir(), "hash")
	if err := os.WriteFile(hash, []byte(m.File(setting.SecretFile(setting.ConsolePassword))), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := login.VerifyPassword(hash, secret.Text(environment["appliance.console_password"])); !ok || err != nil {
		t.Errorf("the console's password: %v, %v", ok, err)
	}
	for name, want := range map[string]string{setting.ProxyPassword: environment["proxy.proxy_password"], setting.VCenterPassword: environment["vcenter.vcenter_password"]} {
		if got := m.File(setting.SecretFile(name)); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	e, err := ovfenv.Parse([]byte(m.GuestInfo("guestinfo.ovfEnv")))
	if err != nil || e.Properties["other.property"] != odd || e.Properties["vcenter.vcenter_username"] != `VSPHERE\ad&min` {
		t.Errorf("the environment is %q, %v", e.Properties, err)
	}
	keptNoSecrets(t, m)
	settings, err := setting.DecodeOver(setting.Appliance(), strings.NewReader(m.File(setting.File)))
	if err != nil || settings.Hostnames[0] != "registry.example.com" || settings.VCenter.Username != `VSPHERE\ad&min` || settings.Proxy.Username != "u$er" || len(settings.Proxy.NoProxy) != 2 {
		t.Errorf("the settings are %+v, %v", settings, err)
	}
	laterBoots(t, m, environment)
}

// laterBoots are those of design section 9: the environment as it was, changed, broken, gone.
func laterBoots(t *testing.T, m *boot.Machine, environment map[string]string) {
	before := stateOf(m)
	changed := passwords("network.hostname", "other.berth.test", "appliance.root_password", "Other-Passw0rd")
	for _, test := range []struct {
		name, document string
		changed        []string
		warning        string
	}{
		{"as it was", boot.Document(environment), nil, ""},
		{"changed", boot.Document(changed), []string{"network.hostname"}, ""},
		{"broken", "<Environment", nil, "too early"},
		{"gone", "", nil, ""},
	} {
		if err := m.SetDocument(test.document); err != nil {
			t.Fatal(err)
		}
		m.Reboot(t)
		m.Serving(t, time.Minute)
		s := phase(t, m, firstboot.Ready)
		if !slices.Equal(s.Changed, test.changed) || test.warning != "" && !strings.Contains(strings.Join(s.Warnings, "\n"), test.warning) {
			t.Errorf("%s: changed %v, warnings %q", test.name, s.Changed, s.Warnings)
		}
		if test.changed != nil { // the offer can be taken
			if out := m.Command(t, "sh", "-c", "berth-agent firstboot offered | berth-agent config validate -"); !strings.Contains(out, "other.berth.test") {
				t.Errorf("%s: the offer would %s", test.name, out)
			}
		}
		if !s.Installed.Equal(before.Installed) || fmt.Sprint(s.Disks) != fmt.Sprint(before.Disks) {
			t.Errorf("%s: the state is %+v, and was %+v", test.name, s, before)
		}
		var took time.Duration
		for _, step := range s.Steps {
			if step.Ended.After(before.Steps[0].Ended) && step.Begun.After(before.Installed) {
				took += step.Ended.Sub(step.Begun)
			}
		}
		t.Logf("%s: the engine's steps took %v", test.name, took.Round(time.Millisecond))
		admin(t, m, environment["registry.admin_password"])
		keptNoSecrets(t, m)
	}
}

// The power is cut as each step begins. The next boot goes on, and ends as if nothing had been.
func TestFirstBootCut(t *testing.T) {
	t.Parallel()
	for _, cut := range []struct {
		step  string
		after time.Duration
	}{
		{"credentials", 0}, {"disks", 0}, {"disks", 60 * time.Millisecond}, {"settings", 0}, {"network", 0}, {"certificate", 0}, {"database", 0},
		{"database", 500 * time.Millisecond}, {"database", time.Second}, {"services", 0}, {"services", 400 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%s %v", cut.step, cut.after), func(t *testing.T) {
			step := cut.step
			t.Parallel()
			environment := passwords("network.hostname", "berth.berth.test", "install.unattended", "true")
			m := boot.Start(t, boot.Options{Environment: environment})
			cutAt := begun(t, m, step)
			time.Sleep(cut.after)
			m.Kill(t)
			t.Logf("cut off when %s was %s", step, cutAt)
			m.On(t)
			m.Serving(t, time.Minute)
			s := phase(t, m, firstboot.Ready)
			if len(s.Disks) != 3 {
				t.Errorf("the disks are %+v, warnings %q", s.Disks, s.Warnings)
			}
			for role, d := range s.Disks {
				if d.UUID == "" {
					t.Errorf("%s is on the system disk", role)
				}
			}
			admin(t, m, environment["registry.admin_password"])
			keptNoSecrets(t, m)
		})
	}
}

// begun waits until a step has begun, and gives its state.
func begun(t *testing.T, m *boot.Machine, step string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, s := range stateOf(m).Steps {
			if s.Name == step && s.Status != firstboot.StepPending {
				return s.Status
			}
		}
	}
	t.Fatalf("the step %s has not begun", step)
	return ""
}

// A systemd that is slow, longer than anybody would wait at a console, is waited for.
func TestSlowSystemd(t *testing.T) {
	t.Parallel()
	environment := passwords("network.hostname", "berth.berth.test", "install.unattended", "true")
	m := boot.Start(t, boot.Options{Environment: environment})
	begun(t, m, "credentials")
	m.Freeze(t, 15*time.Second)
	m.Serving(t, time.Minute)
	phase(t, m, firstboot.Ready)
	admin(t, m, environment["registry.admin_password"])
}

// The engine is killed, as when the machine has no memory left: it goes on by itself.
func TestFirstBootKilled(t *testing.T) {
	t.Parallel()
	environment := passwords("network.hostname", "berth.berth.test", "install.unattended", "true")
	m := boot.Start(t, boot.Options{Environment: environment})
	for _, step := range []string{"disks", "database"} {
		begun(t, m, step)
		m.Command(t, "systemctl", "kill", "--signal=KILL", "berth-firstboot.service")
	}
	m.Serving(t, time.Minute)
	phase(t, m, firstboot.Ready)
	admin(t, m, environment["registry.admin_password"])
}

// Without a wizard a lack is a failure with its reason; with the properties corrected the next boot succeeds.
func TestUnattendedWithoutPasswords(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{Environment: map[string]string{"install.unattended": "True", "appliance.root_password": "Root1" + odd, "network.dns": "dns"}})
	s := phase(t, m, firstboot.Failed)
	for _, word := range []string{"appliance.console_password", "registry.admin_password", "network.dns"} {
		if !strings.Contains(s.Text, word) {
			t.Errorf("the reason does not name %s: %s", word, s.Text)
		}
	}
	environment := passwords("install.unattended", "True")
	if err := m.SetDocument(boot.Document(environment)); err != nil {
		t.Fatal(err)
	}
	m.Reboot(t)
	m.Serving(t, time.Minute)
	phase(t, m, firstboot.Ready)
	admin(t, m, environment["registry.admin_password"])
}

// Addresses from the properties, IPv4 and IPv6, in a network where nobody gives any away; and before that, while
// something is missing, the wizard can be reached at them.
func TestStaticAddresses(t *testing.T) {
	t.Parallel()
	m := boot.New(t, boot.Options{NoDHCP: true})
	environment := passwords("network.mode", "static", "network.hostname", "berth.berth.test", "network.ip4", m.Net(77).String(), "network.prefix_or_mask", "255.255.255.0",
		"network.gateway4", m.Net(1).String(), "network.ip6", m.Net6(0x77).String()+"/64", "network.gateway6", m.Net6(1).String(), "network.dns", m.Net(1).String()+" , "+m.Net6(1).String())
	given := t.TempDir()
	if _, err := cert.Ensure(given, []string{"berth.berth.test", m.Net(77).String()}); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"tls.certificate": cert.ServerFile, "tls.private_key": cert.KeyFile, "tls.ca_chain": cert.CAFile, "syslog.ca": cert.CAFile} {
		b, err := os.ReadFile(filepath.Join(given, file))
		if err != nil {
			t.Fatal(err)
		}
		environment[name] = strings.ReplaceAll(string(b), "\n", " ") // as vSphere's form leaves it
	}
	environment["registry.auth_mode"], environment["syslog.targets"] = "ldap_auth", "tls://"+m.Net(1).String()
	environment["appliance.ssh_enabled"], environment["appliance.ssh_authorized_keys"] = "TRUE", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKlUuQ1Kcjkfq8sJxNc2sbhJv/VURWDTwNUkLMk2JmEo eve"
	password := environment["registry.admin_password"]
	environment["registry.admin_password"] = ""
	if err := m.SetDocument(boot.Document(environment)); err != nil {
		t.Fatal(err)
	}
	m.On(t)
	phase(t, m, firstboot.Waiting)
	reach := func(port uint16) {
		t.Helper()
		for _, a := range []netip.Addr{m.Net(77), m.Net6(0x77)} {
			m.Wait(t, fmt.Sprintf("it answers at %s, port %d", a, port), time.Minute, func() error {
				conn, err := m.Dial(t.Context(), "tcp", netip.AddrPortFrom(a, port).String())
				if err == nil {
					conn.Close()
				}
				return err
			})
		}
	}
	reach(setting.ConsolePort)
	environment["registry.admin_password"] = password
	if err := m.SetDocument(boot.Document(environment)); err != nil {
		t.Fatal(err)
	}
	m.Reboot(t)
	s := phase(t, m, firstboot.Ready)
	reach(443)
	for _, w := range s.Warnings {
		if !strings.Contains(w, "certificate") { // a CA of ours for a test counts as one that nobody knows
			t.Errorf("warning: %s", w)
		}
	}
	ca, err := os.ReadFile(filepath.Join(given, cert.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	client := m.Client(ca)
	defer client.CloseIdleConnections()
	if res, err := client.Get("https://" + m.Net(77).String() + "/v2/"); err != nil {
		t.Errorf("with the certificate that was given: %v", err)
	} else {
		res.Body.Close()
	}
	if mode := m.Command(t, "berth", "configuration", "list", "auth_mode"); !strings.Contains(mode, "ldap_auth") {
		t.Errorf("the mode is %s", mode)
	}
	m.Command(t, "systemctl", "is-active", "ssh.service")
	reach(22)
	if keys := m.File("/root/.ssh/authorized_keys"); !strings.Contains(keys, "eve") {
		t.Errorf("root's keys are %q", keys)
	}
	m.Reboot(t)
	phase(t, m, firstboot.Ready)
	reach(443)
}

// A service that does not come up is a failure with its name, although systemd starts it again and again; once it can, the
// engine goes on there.
func TestServiceThatDoesNotStart(t *testing.T) {
	t.Parallel()
	const dropIn = "etc/systemd/system/berth-core.service.d/broken.conf"
	m := boot.Start(t, boot.Options{Environment: passwords("network.hostname", "berth.berth.test"), Files: map[string]string{dropIn: "[Service]\nExecStart=\nExecStart=/bin/false\n"}})
	s := phase(t, m, firstboot.Failed)
	if f, ok := s.Failure(); !ok || f.Name != "services" || !strings.Contains(f.Text, "berth-core") || f.Hint == "" {
		t.Errorf("the state is %+v", s)
	}
	m.Command(t, "rm", "/"+dropIn)
	m.Command(t, "systemctl", "daemon-reload")
	m.Command(t, "systemctl", "restart", "berth-firstboot.service")
	if s = phase(t, m, firstboot.Ready); !s.Done() {
		t.Errorf("the state is %+v", s)
	}
	keptNoSecrets(t, m)
}
