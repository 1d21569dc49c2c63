package boot_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strconv"
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

// hidden are the fields of a form that nobody fills in: the session's token, and on the review what it has shown.
var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]+)"`)

// open loads a page, or sends it a form with the hidden fields of the page before.
func (v *visitor) open(path string, form ...string) error {
	method, body := http.MethodGet, ""
	if form != nil {
		values := url.Values{}
		for _, found := range hidden.FindAllStringSubmatch(v.body, -1) {
			values.Set(found[1], found[2])
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
	showsOnScreen(t, m, "waiting to be set up", "https://"+m.Address().String()+":5480", strings.Join(strings.Split(code, ""), " "), servedPrint(t, m)[:11])

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
	ca := v.certify()
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
	for _, want := range []string{"docker login wizard.berth.test", "fingerprint"} {
		if !strings.Contains(v.body, want) {
			t.Errorf("the result does not show %q:\n%s", want, v.body)
		}
	}
	m.Serving(t, time.Minute)
	for _, port := range []string{"", ":5480"} {
		trusting := m.Client(ca)
		m.Wait(t, "the certificate that was brought is served at "+port, 30*time.Second, func() error {
			res, err := trusting.Get("https://" + m.Address().String() + port + "/")
			if err == nil {
				res.Body.Close()
			}
			return err
		})
		trusting.CloseIdleConnections()
	}
	admin(t, m, registry)
	keptNoSecrets(t, m)
	if s := stateOf(m); s.Disks["data"].UUID == "" || s.Disks["log"].UUID != "" {
		t.Errorf("the disks are %+v", s.Disks)
	}
	afterWizard(t, m, code, console)
}

// certify lets the appliance make a key and a request, signs that, and brings the certificate back. It gives the
// authority, in PEM.
func (v *visitor) certify() []byte {
	t := v.t
	t.Helper()
	v.at("/setup/certificate", "BEGIN CERTIFICATE REQUEST", "/setup/certificate", "do", "request")
	block, _ := pem.Decode([]byte(html.UnescapeString(v.body[strings.Index(v.body, "-----BEGIN CERTIFICATE REQUEST"):])))
	if block == nil {
		t.Fatal("the request is no PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || request.CheckSignature() != nil {
		t.Fatalf("the request: %v, %v", err, request.CheckSignature())
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "An authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: request.Subject, DNSNames: request.DNSNames, IPAddresses: request.IPAddresses, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	var texts [2]string
	for i, c := range []struct {
		of  *x509.Certificate
		pub any
	}{{ca, &key.PublicKey}, {leaf, request.PublicKey}} {
		der, err := x509.CreateCertificate(rand.Reader, c.of, ca, c.pub, key)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	v.at("/setup/passwords", "Password of root", "/setup/certificate", "certificate", "request", "tls.certificate", texts[1], "tls.ca_chain", texts[0])
	return []byte(texts[0])
}

// servedPrint is the SHA-256 fingerprint of what the console shows, as people compare it.
func servedPrint(t *testing.T, m *boot.Machine) string {
	t.Helper()
	conn, err := m.Dial(t.Context(), "tcp", m.Address().String()+":5480")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].Raw)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(pairs, ":")
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
	for _, want := range []string{"docker login wizard.berth.test", "Registry and front door", "CN=An authority"} {
		if !strings.Contains(v.body, want) {
			t.Errorf("the summary does not show %q:\n%s", want, v.body)
		}
	}
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

// The same on the VM's console, by its keys: the passwords are all that has to be typed.
func TestWizardOnScreen(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{})
	phase(t, m, firstboot.Waiting)
	const (
		f2, enter, tab, down = "\x1bOQ", "\r", "\t", "\x1b[B"
		password             = "Console & 'pass' 1"
	)
	keys := []string{f2, down, down, down, down, enter} // Passwords
	for range 6 {
		keys = append(keys, password, tab)
	}
	keys = append(keys, tab, tab, enter) // Keep
	for range 9 {
		keys = append(keys, down) // to Apply
	}
	keys = append(keys, enter)
	out := typed(m, keys, 8*time.Second)
	if s := phase(t, m, firstboot.Ready); !s.Done() {
		t.Fatalf("the state is %+v\n%q", s, out)
	}
	m.Serving(t, time.Minute)
	admin(t, m, password)
	keptNoSecrets(t, m)
	if strings.Contains(out, password) {
		t.Error("the screen shows a password")
	}
	v := visit(t, m)
	v.at("/login", "Password", "/")
	v.at("/", "Everything is well", "/login", "user", "admin", "password", password)
	lostPassword(t, m, password)
}

// lostPassword sets the console's password anew, for whoever can edit the virtual machine.
func lostPassword(t *testing.T, m *boot.Machine, old string) {
	t.Helper()
	const next = "Found again 1"
	done := make(chan string)
	go func() {
		// The code's page waits for vCenter; then its first item is the console's password.
		keys := slices.Concat([]string{"\x1bOQ", "\t", "\x1b[C", "\r"}, make([]string, 50), []string{"\r", next, "\t", next, "\t", "\r"})
		done <- typed(m, keys, 3*time.Second)
	}()
	m.Wait(t, "the screen has a code for vCenter", 30*time.Second, func() error {
		var k struct{ Code string }
		if err := json.Unmarshal([]byte(m.File("/var/lib/berth-agent/reset.json")), &k); err != nil {
			return err
		}
		_, err := m.Try("vmware-rpctool", "info-set guestinfo.berth.reset "+k.Code)
		return err
	})
	out := <-done
	if got := m.GuestInfo("guestinfo.berth.reset"); got != "" {
		t.Errorf("the code is still in guestinfo: %q", got)
	}
	v := visit(t, m)
	v.at("/login", "Password", "/")
	if err := v.open("/login", "user", "admin", "password", old); err == nil {
		t.Errorf("the old password still opens the console:\n%q", out)
	}
	v.at("/", "Summary", "/login", "user", "admin", "password", next)
}

// typed runs the text screen and presses keys, an empty one being a pause. The result is what the terminal got.
func typed(m *boot.Machine, keys []string, after time.Duration) string {
	var script strings.Builder
	script.WriteString("sleep 4\n")
	for _, k := range keys {
		fmt.Fprintf(&script, "printf %%b %s\nsleep 0.3\n", quoted(k))
	}
	fmt.Fprintf(&script, "sleep %g\n", after.Seconds())
	out, _ := m.Try("sh", "-c", "{ "+script.String()+"} | timeout "+strconv.Itoa(6+len(keys)/3+int(after.Seconds()))+" env TERM=linux script --quiet --return --command 'stty rows 25 cols 80; exec berth-agent screen' /dev/null") // ended by force
	return out
}

// quoted is an argument for sh and for printf's %b.
func quoted(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "\\0%03o", c)
	}
	return "'" + b.String() + "'"
}
