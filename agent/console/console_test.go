package console_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/agent/api"
	"berth/agent/console"
	"berth/agent/session"
	"berth/agent/trail"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/firstboot"
)

// appliance stands where the agent is: what it answers is up to the test, and
// answers of the setup go through the first boot's own check.
type appliance struct {
	mu        sync.Mutex
	status    api.Status
	setup     api.Setup
	services  []api.Service
	disks     api.Disks
	times     func(server string) ([]api.TimeAnswer, error)
	installed bool
	silent    error // of what is not the status
	applied   []api.Answers
	did       []string
	bundles   []api.Bundle
}

func (a *appliance) About(context.Context) (api.About, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return api.About{Product: "Berth", Phase: a.setup.Phase, Code: a.setup.Phase != api.Ready && !a.installed}, nil
}
func (a *appliance) Status(context.Context) (api.Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, nil
}
func (a *appliance) Services(context.Context) ([]api.Service, error) { return a.services, a.silent }
func (a *appliance) Disks(context.Context) (api.Disks, error)        { return a.disks, a.silent }
func (a *appliance) Certificates(context.Context) (api.Certificates, error) {
	return api.Certificates{Server: api.Certificate{Names: []string{"registry.example.com"}, Issuer: "CN=Berth CA", Fingerprint: a.status.Fingerprint, Until: time.Date(2027, 12, 1, 0, 0, 0, 0, time.UTC)}, CA: &api.Certificate{}}, a.silent
}
func (a *appliance) CA(context.Context) ([]byte, error) {
	return []byte("-----BEGIN CERTIFICATE-----\n"), nil
}
func (a *appliance) TestTime(_ context.Context, server string) ([]api.TimeAnswer, error) {
	return a.times(server)
}
func (a *appliance) Setup(context.Context) (api.Setup, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.setup, nil
}
func (a *appliance) CheckSetup(_ context.Context, in api.Answers) error {
	answers, err := firstboot.FromProperties(in.Values)
	all := []error{err, answers.Check()}
	for _, name := range answers.Missing() {
		all = append(all, fault.New(fault.Invalid, "it is missing").On(name))
	}
	var flat []error
	for _, f := range firstboot.Faults(errors.Join(all...)) {
		flat = append(flat, fault.New(fault.Invalid, "%s", f.Text).On(f.Field).WithHint("%s", f.Hint))
	}
	return errors.Join(flat...)
}
func (a *appliance) ApplySetup(ctx context.Context, in api.Answers) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.installed {
		return fault.New(fault.Conflict, "the appliance is set up already")
	}
	a.applied = append(a.applied, in)
	a.setup.Phase = api.Running
	return nil
}
func (a *appliance) SetupRequest(_ context.Context, names []string) ([]byte, error) {
	return []byte("-----BEGIN CERTIFICATE REQUEST-----\n" + strings.Join(names, " ") + "\n-----END CERTIFICATE REQUEST-----\n"), nil
}
func (a *appliance) Act(_ context.Context, service, action string) (api.Service, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.did = append(a.did, action+" "+service)
	return api.Service{}, nil
}

func (a *appliance) Power(_ context.Context, action string, p api.Power) (api.PowerState, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status.Power != nil {
		return *a.status.Power, fault.New(fault.Conflict, "a %s is planned", a.status.Power.Action).WithHint("cancel it first")
	}
	a.did = append(a.did, action+" "+p.Reason)
	return api.PowerState{Action: action}, nil
}
func (a *appliance) CancelPower(context.Context) error {
	a.status.Power = nil
	return nil
}
func (a *appliance) Bundles(context.Context) ([]api.Bundle, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.bundles), a.silent
}
func (a *appliance) CreateBundle(context.Context) (api.Bundle, error) {
	a.bundles = append(a.bundles, api.Bundle{ID: "b1", State: "running", Doing: "logs/journal", Begun: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)})
	return a.bundles[0], nil
}
func (a *appliance) DownloadBundle(_ context.Context, id string) (io.ReadCloser, error) {
	if id != "b1" {
		return nil, fault.New(fault.NotFound, "there is no such bundle")
	}
	return io.NopCloser(strings.NewReader("tar and gzip")), nil
}
func (a *appliance) DeleteBundle(context.Context, string) error {
	a.bundles = nil
	return nil
}

func (a *appliance) phase(p string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setup.Phase = p
}

const print1 = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99"

// waiting is an appliance before its setup.
func waiting() *appliance {
	return &appliance{
		setup: api.Setup{Phase: api.Waiting, Network: api.NetworkNow{Interface: "eth0", Up: true, Addresses: []string{"192.0.2.10/24"}, Gateway4: "192.0.2.1", DNS: []string{"192.0.2.53"}, Source4: "dhcp"},
			Disks: []api.SetupDisk{{Device: "/dev/sda", Bytes: 8 << 30, Role: "system", State: "system"}, {Device: "/dev/sdb", Bytes: 100 << 30, Role: "data", State: "marked"},
				{Device: "/dev/sdc", Bytes: 20 << 30, State: "blank"}, {Device: "/dev/sdd", Bytes: 1 << 40, State: "foreign"}}},
		status: api.Status{Product: "Berth", Version: "0.3.0", Hostname: "registry.example.com", Registry: []string{"https://registry.example.com/"}, Console: []string{"https://registry.example.com:5480/"},
			Addresses: []string{"192.0.2.10"}, Fingerprint: print1, Phase: api.Ready},
	}
}

// browser is somebody at the console.
type browser struct {
	t      testing.TB
	http   *http.Client
	url    string
	code   string
	status int
	body   string
	at     string
	store  *session.Store
}

func open(t testing.TB, a console.Agent) *browser {
	t.Helper()
	dir := t.TempDir()
	code := session.NewCode(filepath.Join(dir, "setup-code"))
	if err := code.Ensure(); err != nil {
		t.Fatal(err)
	}
	c, err := code.Read()
	if err != nil {
		t.Fatal(err)
	}
	store := session.New(session.Options{File: filepath.Join(dir, "sessions"), Code: code, Verify: func(_ context.Context, user string, p secret.Text) (bool, error) {
		return user == "admin" && p.Reveal() == "Console pass 1", nil
	}})
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	h, err := console.Handler(console.Options{Agent: a, Sessions: store, Trail: trail.New(filepath.Join(dir, "audit"), log), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	client := srv.Client()
	client.Jar, _ = cookiejar.New(nil)
	return &browser{t: t, http: client, url: srv.URL, code: c.Reveal(), store: store}
}

func (b *browser) do(r *http.Request, err error) *browser {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.status, b.body, b.at = resp.StatusCode, string(text), resp.Request.URL.Path
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") && !strings.HasPrefix(b.at, "/static/") {
		b.t.Errorf("%s has the policy %q", b.at, csp)
	}
	return b
}

func (b *browser) get(path string) *browser {
	b.t.Helper()
	return b.do(http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url+path, nil))
}

// post sends a form with the token of the page before.
func (b *browser) post(path string, fields ...string) *browser {
	b.t.Helper()
	form := url.Values{"csrf": {b.token()}}
	if m := answersMark.FindStringSubmatch(b.body); m != nil {
		form.Set("answers", m[1])
	}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+path, strings.NewReader(form.Encode()))
	if err == nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return b.do(r, err)
}

// answersMark says which answers a review has shown.
var answersMark = regexp.MustCompile(`name="answers" value="([0-9a-f]+)"`)

var token = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

func (b *browser) token() string {
	if m := token.FindStringSubmatch(b.body); m != nil {
		return m[1]
	}
	return ""
}

func (b *browser) is(status int, at string, shows ...string) *browser {
	b.t.Helper()
	if b.status != status || b.at != at {
		b.t.Fatalf("at %s with %d, want %s with %d:\n%s", b.at, b.status, at, status, b.body)
	}
	for _, s := range shows {
		if !strings.Contains(b.body, s) {
			b.t.Errorf("%s does not show %q:\n%s", b.at, s, b.body)
		}
	}
	return b
}

func (b *browser) hides(texts ...string) *browser {
	b.t.Helper()
	for _, s := range texts {
		if strings.Contains(b.body, s) {
			b.t.Errorf("%s shows %q", b.at, s)
		}
	}
	return b
}

// enter begins the setup with the code.
func (b *browser) enter() *browser {
	b.t.Helper()
	return b.get("/").is(200, "/login", "Setup code").post("/login", "code", strings.ToLower(b.code)).is(200, "/setup/network")
}

func TestCode(t *testing.T) {
	b := open(t, waiting())
	for _, path := range []string{"/setup/network", "/setup/review", "/setup/progress", "/setup/result"} {
		b.get(path).is(200, "/login")
	}
	b.get("/login").hides(`name="password"`)
	b.post("/login", "code", "AAAA-BBBB-CCCC").is(401, "/login", "The code is wrong")
	b.post("/login", "code", "").is(401, "/login")
	b.post("/setup/passwords", "appliance.root_password", "x").is(200, "/login")
	b.enter()
	b.post("/logout").is(200, "/login")
	b.get("/setup/network").is(200, "/login")
}

func TestWrongCodesSlowDown(t *testing.T) {
	b := open(t, waiting())
	for range 40 {
		if b.get("/login").post("/login", "code", "AAAA-BBBB-CCCC"); b.status == http.StatusTooManyRequests {
			b.is(429, "/login", "Too many wrong", "Try again in")
			return
		}
	}
	t.Error("forty wrong codes, and no end")
}

func TestForgery(t *testing.T) {
	a := waiting()
	b := open(t, a)
	b.enter()
	b.body = ""
	b.post("/setup/names", "network.hostname", "evil.example.com").is(403, "/setup/names", "The form is an old one")
	b.body = ""
	b.post("/setup/apply").is(403, "/setup/apply")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/login", strings.NewReader("code="+b.code))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	b.do(r, err)
	if b.status != 403 {
		t.Errorf("a login from another site: %d", b.status)
	}
	if len(a.applied) > 0 {
		t.Error("something was applied")
	}
	b.get("/setup/names").hides("evil.example.com")
}

// The whole way: faults at their fields, values kept, secrets never shown, the
// review with all faults at once, progress and result.
func TestWizard(t *testing.T) {
	a := waiting()
	a.times = func(server string) ([]api.TimeAnswer, error) {
		if server == "dead.example.com" {
			return nil, fault.New(fault.Unavailable, "dead.example.com does not answer").WithHint("see whether UDP port 123 is open")
		}
		return []api.TimeAnswer{{Server: server, OffsetMillis: 12.4, Stratum: 2}}, nil
	}
	b := open(t, a)
	b.enter().is(200, "/setup/network", "192.0.2.10/24", "from DHCP", `name="network.mode" value="dhcp" checked`)
	b.post("/setup/network", "network.mode", "static", "network.ip4", "192.0.2.300/24", "network.gateway4", "192.0.2.1").
		is(422, "/setup/network", `aria-describedby="network-ip4-help network-ip4-faults" aria-invalid="true"`, "192.0.2.300/24", "is not an IPv4 address")
	b.post("/setup/network", "network.mode", "static", "network.ip4", "192.0.2.20/24", "network.gateway4", "192.0.2.1", "network.dns", "192.0.2.53; 192.0.2.54").
		is(200, "/setup/names")
	b.post("/setup/names", "network.hostname", "registry.example.com").is(200, "/setup/time")
	b.post("/setup/time", "appliance.timezone", "Europe/Berlin", "network.ntp", "ntp.example.com dead.example.com", "do", "test-time").
		is(200, "/setup/time", "offset 12 ms", "does not answer", "UDP port 123", `value="Europe/Berlin"`)
	b.post("/setup/time", "appliance.timezone", "Europe/Berlin", "network.ntp", "ntp.example.com").is(200, "/setup/certificate")
	b.post("/setup/certificate", "certificate", "own").is(200, "/setup/passwords")
	b.get("/setup/review").is(200, "/setup/review", "5 answers are missing or wrong", "/setup/passwords#appliance-root_password", `href="/setup/network"`, "disabled")
	b.get("/setup/passwords")
	b.post("/setup/passwords", "appliance.root_password", "Root secret 1", "appliance.root_password.again", "Root secret 2").
		is(422, "/setup/passwords", "The two are not the same").hides("Root secret")
	b.post("/setup/passwords", "appliance.root_password", "Root & <secret> \"1\"", "appliance.root_password.again", "Root & <secret> \"1\"",
		"appliance.console_password", "Console secret 1", "appliance.console_password.again", "Console secret 1",
		"registry.admin_password", "Registry secret 1", "registry.admin_password.again", "Registry secret 1").is(200, "/setup/storage", "/dev/sdb", "marked for this")
	b.get("/setup/passwords").is(200, "/setup/passwords", "is set; leave empty to keep it").hides("secret&gt;", "Console secret", "Registry secret")
	b.post("/setup/passwords", "appliance.ssh_enabled", "true").is(200, "/setup/storage")
	b.post("/setup/storage", "disk.database", "/dev/sdc").is(422, "/setup/storage", "formatting /dev/sdc is not confirmed"[1:])
	b.post("/setup/storage", "disk.database", "/dev/sdd", "erase", "yes").is(422, "/setup/storage", "This is not a blank disk")
	b.post("/setup/storage", "disk.database", "/dev/sdc", "erase", "yes").is(422, "/setup/storage", "No disk is chosen for log.", `id="disks-log"`)
	b.post("/setup/storage", "disk.database", "/dev/sdc", "disk.log", "/dev/sdc", "erase", "yes").is(422, "/setup/storage", "is chosen for another role already")
	b.get("/setup/storage").post("/setup/storage", "disk.database", "/dev/sdc", "disk.log", "system", "erase", "yes").is(200, "/setup/directory")
	b.post("/setup/directory", "registry.auth_mode", "ldap_auth").is(200, "/setup/vcenter")
	b.post("/setup/vcenter", "vcenter.address", "vc.example.com", "vcenter.vcenter_username", "berth@vsphere.local", "vcenter.vcenter_password", "VC secret").is(200, "/setup/proxy").hides("VC secret")
	b.post("/setup/proxy").is(200, "/setup/syslog")
	b.post("/setup/syslog").is(200, "/setup/review", "Nothing is missing", "LDAP or Active Directory", "is set", "https://192.0.2.20:5480/").hides("VC secret", "Console secret")
	b.post("/setup/apply").is(200, "/setup/progress", "https://192.0.2.20:5480/")
	if len(a.applied) != 1 {
		t.Fatalf("applied %d times", len(a.applied))
	}
	got := a.applied[0]
	for name, want := range map[string]string{"network.ip4": "192.0.2.20/24", "appliance.root_password": "Root & <secret> \"1\"", "appliance.ssh_enabled": "true",
		"registry.auth_mode": "ldap_auth", "vcenter.vcenter_password": "VC secret", "network.ntp": "ntp.example.com"} {
		if got.Values[name] != want {
			t.Errorf("%s is %q, want %q", name, got.Values[name], want)
		}
	}
	if len(got.Disks) != 2 || got.Disks["log"] != "system" || got.Disks["database"] != "/dev/sdc" {
		t.Errorf("disks: %v", got.Disks)
	}
	b.get("/setup/network").is(200, "/setup/progress")
}

func TestProgressFailureRetryResult(t *testing.T) {
	a := waiting()
	b := open(t, a)
	b.enter()
	a.mu.Lock()
	a.setup.Phase = api.Running
	a.setup.Steps = []api.Step{{Title: "Passwords", Status: "done"}, {Title: "Disks", Status: "running", Text: "formatting /dev/sdc"}, {Title: "Network", Status: "pending"}}
	a.mu.Unlock()
	b.get("/").is(200, "/setup/progress", "1 of 3 steps", "formatting /dev/sdc", `http-equiv="refresh"`)
	b.get("/setup/progress?part=1").is(200, "/setup/progress", `data-phase="running"`).hides("<html")
	a.mu.Lock()
	a.setup.Phase, a.setup.Text = api.Failed, "the disks could not be made ready"
	a.setup.Steps[1] = api.Step{Title: "Disks", Status: "failed", Text: "mkfs.ext4 has failed: <I/O error>", Hint: "look at the virtual disk"}
	a.mu.Unlock()
	b.get("/setup/progress").is(200, "/setup/progress", "The disks could not be made ready.", "&lt;I/O error&gt;", "What to do: Look at the virtual disk.", "Try again", "Change the answers").hides("refresh")
	b.post("/setup/retry").is(200, "/setup/progress")
	if len(a.applied) != 1 || len(a.applied[0].Values) != 0 {
		t.Errorf("applied %v: the answers should stay as they are known", a.applied)
	}
	a.phase(api.Failed)
	b.get("/setup/network").is(200, "/setup/network")
	// At a later boot there are no answers any more.
	a.installed = true
	b.get("/setup/progress").hides("Change the answers").post("/setup/retry").is(200, "/setup/progress")
	if !slices.Equal(a.did, []string{"restart berth-firstboot"}) {
		t.Errorf("did %q", a.did)
	}
	a.mu.Lock()
	a.setup = api.Setup{Phase: api.Ready, Registry: a.status.Registry, Console: a.status.Console, Fingerprint: print1}
	a.mu.Unlock()
	b.get("/setup/progress").is(200, "/setup/result", "docker login registry.example.com --username admin", "/etc/docker/certs.d/registry.example.com/ca.crt", "AA:BB:CC:DD")
	b.get("/").is(200, "/setup/result")
	b.get("/ca.crt").is(200, "/ca.crt", "BEGIN CERTIFICATE")
	b.get("/setup/review").is(200, "/setup/result")
}

// The answers were refused when they were used: the page says so and leads back.
func TestRefusedAnswers(t *testing.T) {
	a := waiting()
	b := open(t, a)
	b.enter()
	a.setup.Faults = []api.Fault{{Field: "tls.certificate", Text: "it has ended", Hint: "get a new one"}}
	b.get("/setup/progress").is(200, "/setup/progress", "the answers were refused", "It has ended.", "/setup/review").hides(`http-equiv="refresh"`)
}

func TestCertificateWays(t *testing.T) {
	a := waiting()
	a.setup.Answers = api.Answers{Values: map[string]string{"network.hostname": "registry.example.com"}}
	b := open(t, a)
	b.enter()
	b.get("/setup/certificate")
	b.post("/setup/certificate", "certificate", "upload", "tls.certificate", "-----BEGIN CERTIFICATE-----\r\nx").is(422, "/setup/certificate", "private key is missing", "BEGIN CERTIFICATE")
	b.post("/setup/certificate", "certificate", "own", "tls.certificate", "left standing").is(200, "/setup/passwords")
	b.get("/setup/certificate").post("/setup/certificate", "do", "request").is(200, "/setup/certificate", "BEGIN CERTIFICATE REQUEST", "registry.example.com 192.0.2.10", `value="request" checked`)

	// A key comes as a file, and is not shown again.
	var form strings.Builder
	w := multipart.NewWriter(&form)
	for name, value := range map[string]string{"csrf": b.token(), "certificate": "upload", "tls.certificate": "CERT"} {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.CreateFormFile("tls.private_key.file", "server.key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "-----BEGIN PRIVATE KEY-----\nsecretkey\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/setup/certificate", strings.NewReader(form.String()))
	r.Header.Set("Content-Type", w.FormDataContentType())
	b.do(r, err).hides("secretkey")
	b.get("/setup/certificate").is(200, "/setup/certificate", "is set; leave empty to keep it").hides("secretkey")
	b.get("/setup/review").hides("secretkey")
}

// What came with the OVF environment is filled in; its secrets stay with the agent.
func TestBeginsWithWhatIsKnown(t *testing.T) {
	a := waiting()
	a.setup.Answers = api.Answers{Values: map[string]string{"network.hostname": "known.example.com", "registry.auth_mode": "LDAP_auth"}}
	a.setup.Secrets = []string{"appliance.root_password"}
	b := open(t, a)
	b.enter()
	b.get("/setup/names").is(200, "/setup/names", `value="known.example.com"`)
	b.get("/setup/directory").is(200, "/setup/directory", `value="ldap_auth" checked`)
	b.get("/setup/passwords").is(200, "/setup/passwords", "is set; leave empty to keep it")
}

func TestNastyValues(t *testing.T) {
	a := waiting()
	b := open(t, a)
	b.enter()
	nasty := `"><script>alert(1)</script><img src=x onerror=alert(1)>'` + "\u202e"
	for _, page := range []struct{ name, field string }{{"names", "network.hostname"}, {"network", "network.dns"}, {"vcenter", "vcenter.address"}, {"syslog", "syslog.targets"},
		{"proxy", "proxy.http"}, {"time", "appliance.timezone"}, {"passwords", "appliance.ssh_authorized_keys"}, {"certificate", "tls.certificate"}} {
		b.get("/setup/"+page.name).post("/setup/"+page.name, page.field, nasty, "certificate", "upload").hides("<script>alert", "<img src=x")
		b.get("/setup/"+page.name).hides("<script>alert", "<img src=x")
	}
	b.get("/setup/review").is(200, "/setup/review").hides("<script>alert", "<img src=x")
	b.get("/setup/" + url.PathEscape(nasty)).hides("<script>alert")
	b.get("/setup/names").post("/setup/names", "network.hostname", strings.Repeat("x", 2<<20)).is(400, "/setup/names", "larger than 1 MiB")
	stranger := open(t, a)
	stranger.get("/login").post("/login", "password", strings.Repeat("x", 20000)).is(400, "/login", "larger than 16 KiB")
	stranger.get("/login").post("/setup/names", "network.hostname", strings.Repeat("x", 2<<20)).is(200, "/login")
	b.get("/setup/names").post("/setup/names", "network.hostname", strings.Repeat("x", 70000)).is(422, "/setup/names", "longer than")
	b.get("/setup/names").post("/setup/names", "network.hostname", "a\x00b").is(422, "/setup/names", "It is not text")
	b.get("/setup/progress?to=javascript:alert(1)").hides("javascript:alert")
	if len(a.applied) > 0 {
		t.Error("something was applied")
	}
}

func TestAdministrator(t *testing.T) {
	a := waiting()
	a.setup.Phase = api.Ready
	a.services = []api.Service{{Name: "berth-registry", Title: "Registry", State: "active", MemoryBytes: 70 << 20}, {Name: "berth-jobs", Title: "Jobs", State: "failed", Detail: "exit-code"}}
	a.disks = api.Disks{Disks: []api.Disk{{Role: "data", Device: "/dev/sdb", Bytes: 100 << 30, Percent: 81, State: "warning", Text: "it is nearly full"}}}
	a.status.Problems = []api.Problem{{Text: "the data disk is nearly full", Hint: "give it more room", State: "degraded", Explains: []string{"registry"}}}
	b := open(t, a)
	b.get("/").is(200, "/login", "Password").hides("Setup code")
	b.post("/login", "user", "admin", "password", "wrong").is(401, "/login", "The name or the password is wrong").hides("wrong\"")
	b.post("/login", "user", `"><script>`, "password", "x").is(401, "/login").hides("<script>\"")
	b.post("/login", "user", "admin", "password", "Console pass 1").is(200, "/", "The data disk is nearly full.", "Give it more room.", "Because of it: registry.", "docker login registry.example.com", "AA:BB:CC:DD", "81 %", "Jobs")
	a.silent = fault.New(fault.Unavailable, "systemd does not answer")
	b.get("/").is(200, "/", "Services: systemd does not answer.")
	b.get("/nowhere").is(404, "/nowhere", "There is no page")
	b.get("/setup/network").is(200, "/")
	b.post("/logout")
	b.get("/").is(200, "/login")
}

// What the phase says decides, and a failed first boot can be mended by either.
func TestFailedBootShowsItsReason(t *testing.T) {
	a := waiting()
	a.setup.Phase, a.status.Phase = api.Failed, api.Failed
	a.status.Steps = []api.Step{{Title: "Disks", Status: "failed", Text: "the database disk is missing", Hint: "attach it again"}}
	b := open(t, a)
	b.get("/").is(200, "/login", "Setup code", "The setup could not be finished", `name="password"`)
	b.post("/login", "user", "admin", "password", "Console pass 1").is(200, "/", "The database disk is missing.", "Attach it again.", "Try again")
}

func TestFilesOfThePages(t *testing.T) {
	b := open(t, waiting())
	for _, name := range []string{"console.css", "console.js", "berth.svg"} {
		b.get("/static/"+name).is(200, "/static/"+name)
		if m := regexp.MustCompile(`https?://`).FindAllString(strings.ReplaceAll(b.body, "http://www.w3.org/2000/svg", ""), -1); m != nil {
			t.Errorf("%s loads from elsewhere: %q", name, m)
		}
	}
	b.get("/static/")
	if b.status == 200 {
		t.Error("the folder is listed")
	}
}
