package boot_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/firstboot"
	"berth/tests/boot"
)

// visitor is a browser without scripts at the console of a machine.
type visitor struct {
	t    *testing.T
	http *http.Client
	base string
	path string
	body string
}

func visit(t *testing.T, m *boot.Machine) *visitor {
	t.Helper()
	client := m.Client(nil)
	client.Jar, _ = cookiejar.New(nil) // never fails
	t.Cleanup(client.CloseIdleConnections)
	return &visitor{t: t, http: client, base: "https://" + m.Address().String() + ":5480"}
}

var formToken = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// open loads a page, or sends it a form with the token of the page before.
func (v *visitor) open(path string, form ...string) error {
	method, body := http.MethodGet, ""
	if form != nil {
		values := url.Values{}
		if found := formToken.FindStringSubmatch(v.body); found != nil {
			values.Set("csrf", found[1])
		}
		for i := 0; i+1 < len(form); i += 2 {
			values.Set(form[i], form[i+1])
		}
		method, body = http.MethodPost, values.Encode()
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.base+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	v.body, v.path = string(b), res.Request.URL.Path
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	return err
}

// at opens and expects to come to a path, whose page shows a text.
func (v *visitor) at(path, text string, open string, form ...string) {
	v.t.Helper()
	if err := v.open(open, form...); err != nil || v.path != path || !strings.Contains(v.body, text) {
		v.t.Fatalf("%s led to %s, %v; want %s with %q:\n%s", open, v.path, err, path, text, v.body)
	}
}

// Nobody has filled in anything: the code from the VM's console, the pages of the wizard, and a registry at the end.
// Whoever has not the code gets nowhere, and afterwards it is worth nothing.
func TestWizard(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{Unmarked: true})
	phase(t, m, firstboot.Waiting)
	const codeFile = "/run/berth-agent/setup-code"
	m.Wait(t, "there is a setup code", 30*time.Second, func() error {
		if m.File(codeFile) == "" {
			return errors.New("there is none")
		}
		return nil
	})
	code := strings.TrimSpace(m.File(codeFile))
	showsOnScreen(t, m, "waiting to be set up", "https://"+m.Address().String()+":5480", strings.Join(strings.Split(code, ""), " "))

	v := visit(t, m)
	v.at("/login", "Setup code", "/")
	if err := v.open("/login", "code", "AAAA-BBBB-CCCC"); err == nil {
		t.Fatal("a wrong code opens the wizard")
	}
	v.at("/setup/network", m.Address().String(), "/login", "code", strings.ToLower(code))
	v.at("/setup/names", "Host name", "/setup/network", "network.mode", "dhcp")
	v.at("/setup/time", "NTP", "/setup/names", "network.hostname", "wizard.berth.test")
	v.at("/setup/time", "Answers of the time servers", "/setup/time", "appliance.timezone", "UTC", "network.ntp", m.Net(1).String(), "do", "test-time")
	v.at("/setup/certificate", "own authority", "/setup/time", "appliance.timezone", "Europe/Berlin")
	v.at("/setup/passwords", "Password of root", "/setup/certificate", "certificate", "own")
	v.at("/setup/review", "answers are missing or wrong", "/setup/review")
	v.at("/setup/passwords", "Password of root", "/setup/passwords")
	root, console, registry := "Root1"+odd, "Console1"+odd, "Registry1"+odd
	v.at("/setup/storage", "/dev/", "/setup/passwords", "appliance.root_password", root, "appliance.root_password.again", root,
		"appliance.console_password", console, "appliance.console_password.again", console, "registry.admin_password", registry, "registry.admin_password.again", registry)
	device := m.Device(t, "data")
	v.at("/setup/directory", "Users", "/setup/storage", "disk.data", device, "disk.database", "system", "disk.log", "system", "erase", "yes")
	v.at("/setup/review", "Nothing is missing", "/setup/review")
	for _, p := range []string{"Root1", "Console1", "Registry1"} {
		if strings.Contains(v.body, p) {
			t.Errorf("a page shows the password %s…", p)
		}
	}
	v.at("/setup/progress", "Setting up", "/setup/apply", "do", "apply")
	m.Wait(t, "the wizard shows its result", 2*time.Minute, func() error {
		if err := v.open("/setup/progress"); err != nil || v.path != "/setup/result" {
			return fmt.Errorf("it is at %s: %w", v.path, errors.Join(err, errors.New("not ready")))
		}
		return nil
	})
	for _, want := range []string{"docker login wizard.berth.test", "/ca.crt", "fingerprint"} {
		if !strings.Contains(v.body, want) {
			t.Errorf("the result does not show %q:\n%s", want, v.body)
		}
	}
	m.Serving(t, time.Minute)
	admin(t, m, registry)
	keptNoSecrets(t, m)
	if s := stateOf(m); s.Disks["data"].UUID == "" || s.Disks["log"].UUID != "" {
		t.Errorf("the disks are %+v", s.Disks)
	}
	afterWizard(t, m, code, console)
}

// afterWizard is the console of an appliance that is set up.
func afterWizard(t *testing.T, m *boot.Machine, code, password string) {
	t.Helper()
	m.Wait(t, "the setup code is gone", 30*time.Second, func() error {
		if m.File("/run/berth-agent/setup-code") != "" {
			return errors.New("it is still there")
		}
		return nil
	})
	v := visit(t, m)
	v.at("/login", "Password", "/")
	if strings.Contains(v.body, "Setup code") {
		t.Error("the login asks for a setup code")
	}
	if err := v.open("/login", "code", code); err == nil {
		t.Error("the setup code still opens the console")
	}
	if err := v.open("/login", "user", "admin", "password", "wrong"); err == nil {
		t.Error("a wrong password opens the console")
	}
	v.at("/", "wizard.berth.test", "/login", "user", "admin", "password", password)
	for _, want := range []string{"docker login wizard.berth.test", "Registry and front door", "Download the CA"} {
		if !strings.Contains(v.body, want) {
			t.Errorf("the summary does not show %q:\n%s", want, v.body)
		}
	}
	v.at("/ca.crt", "BEGIN CERTIFICATE", "/ca.crt")
	showsOnScreen(t, m, "wizard.berth.test", "https://wizard.berth.test:5480", "Customize")
}

// showsOnScreen runs the text screen on a terminal of its own for a moment.
func showsOnScreen(t *testing.T, m *boot.Machine, texts ...string) {
	t.Helper()
	m.Wait(t, "the screen shows what it should", 30*time.Second, func() error {
		out, _ := m.Try("timeout", "3", "env", "TERM=linux", "script", "--quiet", "--return", "--command", "stty rows 25 cols 80; exec berth-agent screen", "/dev/null") // ended by force
		for _, want := range texts {
			if !strings.Contains(out, want) {
				return fmt.Errorf("%q is not in %q", want, out)
			}
		}
		return nil
	})
}
