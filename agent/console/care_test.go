package console_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"berth/agent/api"
	"berth/agent/session"
	"berth/appliance/fault"
)

// ready is an appliance that is set up, and its administrator at the summary.
func ready(t testing.TB) (*appliance, *browser) {
	t.Helper()
	a := waiting()
	a.setup.Phase, a.installed = api.Ready, true
	a.services = []api.Service{{Name: "berth-registry", Title: "Registry and front door", State: "active", Actions: []string{"start", "stop", "restart"}},
		{Name: "berth-jobs", Title: "Background jobs", State: "failed", Detail: "exit-code", Actions: []string{"start", "stop", "restart"}},
		{Name: "ssh", Title: "SSH", State: "inactive", Actions: []string{}}}
	b := open(t, a)
	b.get("/").post("/login", "user", "admin", "password", "Console pass 1").is(200, "/")
	return a, b
}

// The summary follows by itself, says what is planned and what would be taken back,
// and keeps nobody logged in who is not there.
func TestSummaryFollows(t *testing.T) {
	a, b := ready(t)
	b.get("/").is(200, "/", `data-source="/?part=1"`, "Everything is well.")
	a.status.Problems = []api.Problem{{Text: "the data disk is nearly full", State: "degraded"}}
	a.status.Warnings = []string{"there is no disk for the log: it is on the system disk"}
	a.status.Pending = &api.Pending{Until: time.Date(2026, 11, 21, 20, 2, 0, 0, time.UTC), Addresses: []string{"192.0.2.77"}}
	a.status.Power = &api.PowerState{Action: "reboot", At: time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC), Reason: "new kernel"}
	b.get("/?part=1").is(200, "/", "The data disk is nearly full.", "There is no disk for the log", "taken back at 20:02:00 UTC", "192.0.2.77", "The appliance restarts at 2026-11-21 22:00:00 UTC", "New kernel.").
		hides("<html", "Everything is well")
	b.post("/power/reboot").is(409, "/power/reboot", "A reboot is planned.", "Cancel it first.")
	b.get("/").post("/power/cancel").is(200, "/").hides("restarts at")
	if got := b.get("/login?ended").at; got != "/" {
		t.Errorf("who is logged in is at %s", got)
	}
}

func TestPeekKeepsNobody(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	code := session.NewCode(t.TempDir() + "/code")
	if err := code.Ensure(); err != nil {
		t.Fatal(err)
	}
	c, err := code.Read()
	if err != nil {
		t.Fatal(err)
	}
	s := session.New(session.Options{Code: code, Now: func() time.Time { return now }})
	made, err := s.LoginByCode(t.Context(), c, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(&http.Cookie{Name: session.Cookie, Value: made.ID.Reveal()})
	now = now.Add(20 * time.Minute)
	if _, ok := s.Peek(r); !ok {
		t.Fatal("the session has ended early")
	}
	now = now.Add(20 * time.Minute)
	if _, ok := s.Peek(r); ok {
		t.Error("a page that follows by itself has kept the session")
	}
}

func TestRestartOfAService(t *testing.T) {
	a, b := ready(t)
	b.get("/").is(200, "/", `href="/services/berth-registry/restart"`, `href="/services/berth-jobs/start"`).hides("/services/ssh")
	b.get("/services/ssh/restart").is(404, "/services/ssh/restart")
	b.get("/services/berth-registry/stop").is(404, "/services/berth-registry/stop")
	b.get("/services/berth-registry/restart").is(200, "/services/berth-registry/restart", "Registry and front door is stopped in order", "Cancel")
	if len(a.did) > 0 {
		t.Fatalf("asking has done %q", a.did)
	}
	b.post("/services/berth-registry/restart").is(200, "/")
	if !slices.Equal(a.did, []string{"restart berth-registry"}) {
		t.Errorf("did %q", a.did)
	}
	b.get("/").post("/services/berth-agent/restart").is(202, "/services/berth-agent/restart", "The console is restarted.")
	b.body = ""
	b.post("/services/berth-registry/restart").is(403, "/services/berth-registry/restart", "The form is an old one")
}

func TestPower(t *testing.T) {
	a, b := ready(t)
	b.get("/").is(200, "/", `href="/power/reboot"`, `href="/power/shutdown"`)
	b.get("/power/explode").is(404, "/power/explode")
	b.get("/power/reboot").is(200, "/power/reboot", "Clients cannot push or pull for about a minute", "Restart now")
	b.post("/power/reboot").is(202, "/power/reboot", "The appliance restarts now.")
	b.get("/power/shutdown").is(200, "/power/shutdown", "Shut down now").post("/power/shutdown").is(202, "/power/shutdown", "switched on again in the vSphere Client")
	if !slices.Equal(a.did, []string{"reboot from the console", "shutdown from the console"}) {
		t.Errorf("did %q", a.did)
	}
	b.body = ""
	b.post("/power/reboot").is(403, "/power/reboot")
}

func TestSupportBundle(t *testing.T) {
	a, b := ready(t)
	b.get("/support").is(200, "/support", "There is none yet.").hides(`http-equiv="refresh"`)
	b.post("/support").is(200, "/support", "collecting", "logs/journal", `http-equiv="refresh"`).hides("Download")
	a.bundles[0].State, a.bundles[0].Bytes = "done", 3<<20
	b.get("/support?part=1").is(200, "/support", "3 MiB", `href="/support/b1"`).hides("<html")
	b.get("/support").get("/support/b1").is(200, "/support/b1", "tar and gzip")
	b.get("/support/b2").is(404, "/support/b2", "There is no such bundle.")
	a.bundles[0] = api.Bundle{ID: "b1", State: "failed", Fault: &api.Fault{Text: "no room is left", Hint: "delete something"}}
	b.get("/support").is(200, "/support", "No room is left. Delete something.").post("/support/b1/delete").is(200, "/support", "There is none yet.")
	a.silent = fault.New(fault.Unavailable, "the disk does not answer")
	b.get("/support").is(503, "/support", "The disk does not answer.")
}

// Whoever only has the setup's code may do none of this.
func TestCareIsTheAdministrators(t *testing.T) {
	a := waiting()
	b := open(t, a)
	for _, path := range []string{"/power/reboot", "/support", "/services/berth-registry/restart", "/support/b1"} {
		b.get(path).is(200, "/login")
	}
	b.enter()
	csrf := b.body
	for _, path := range []string{"/power/reboot", "/support", "/services/berth-registry/restart", "/support/b1"} {
		b.get(path).is(403, path, "The setup&#39;s code does not open this page.")
		b.body = csrf
		if b.post(path); b.status != 403 && b.status != 404 {
			t.Errorf("POST %s: %d", path, b.status)
		}
	}
	if len(a.did) > 0 {
		t.Errorf("did %q", a.did)
	}
}

// Docker takes a name without a dot for a folder of Docker Hub.
func TestLoginNeedsADot(t *testing.T) {
	a, b := ready(t)
	a.status.Registry = []string{"https://berth", "https://192.0.2.10", "https://[2001:db8::10]"}
	b.get("/").is(200, "/", "docker login 192.0.2.10")
	a.status.Registry = []string{"https://[2001:db8::10]:8443"}
	b.get("/").is(200, "/", "docker login [2001:db8::10]:8443")
	a.status.Registry = []string{"https://berth"}
	b.get("/").is(200, "/", "docker login berth")
	a.status.Registry = nil
	b.get("/").is(200, "/").hides("docker login")
}

// A session that has ended says so, on pages and on forms.
func TestEndedSession(t *testing.T) {
	a, b := ready(t)
	b.get("/").hides("has ended")
	b.store.EndAll("admin", nil)
	b.post("/power/reboot").is(200, "/login", "Your session has ended.", "Log in again.")
	b.get("/").is(200, "/login", "Your session has ended.")
	if len(a.did) > 0 {
		t.Errorf("did %q", a.did)
	}
}

// Going to another page loses nothing that was typed, and does not check it yet.
func TestNavigationKeepsAnswers(t *testing.T) {
	b := open(t, waiting())
	b.enter().is(200, "/setup/network", `value="to:names"`)
	b.post("/setup/network", "network.mode", "static", "network.ip4", "192.0.2.300/24", "do", "to:names").is(200, "/setup/names", `value="to:network">Back`)
	b.post("/setup/names", "network.hostname", "registry.example.com", "do", "to:network").is(200, "/setup/network", "192.0.2.300/24").hides("missing or wrong")
	b.post("/setup/network", "network.mode", "static", "network.ip4", "192.0.2.300/24", "do", "to:review").is(200, "/setup/review", "registry.example.com", "is not an IPv4 address")
	b.get("/setup/network").post("/setup/network", "network.mode", "dhcp", "do", "to://evil.example.com").is(200, "/setup/review")
}

// What is applied is what was looked at: not what another window has made of it, nor
// what is left after the agent was restarted.
func TestAppliesWhatWasReviewed(t *testing.T) {
	a := waiting()
	a.setup.Disks, a.setup.Secrets = nil, []string{"appliance.root_password", "appliance.console_password", "registry.admin_password"}
	a.setup.Answers = api.Answers{Values: map[string]string{}}
	for _, name := range a.setup.Secrets {
		a.setup.Answers.Values[name] = "Known secret 1"
	}
	b := open(t, a)
	b.enter().post("/setup/network", "network.mode", "dhcp").post("/setup/names", "network.hostname", "one.example.com").is(200, "/setup/time")
	looked := b.get("/setup/review").is(200, "/setup/review", "Nothing is missing", "one.example.com").body
	b.get("/setup/names").post("/setup/names", "network.hostname", "two.example.com").is(200, "/setup/time")
	b.body = looked
	b.post("/setup/apply").is(422, "/setup/apply", "These are not the answers that you have looked at.", "two.example.com")
	if len(a.applied) > 0 {
		t.Fatal("what nobody has looked at was applied")
	}
	b.post("/setup/apply").is(200, "/setup/progress")
	if len(a.applied) != 1 || a.applied[0].Values["network.hostname"] != "two.example.com" {
		t.Errorf("applied %v", a.applied)
	}
}

// Who wants a certificate from elsewhere does not get one of the appliance's own
// because the field was left empty.
func TestCertificateThatIsMissing(t *testing.T) {
	a := waiting()
	b := open(t, a)
	b.enter().get("/setup/certificate")
	b.post("/setup/certificate", "certificate", "upload").is(422, "/setup/certificate", "There is no certificate yet.", "Paste it or choose its file")
	b.get("/setup/certificate").post("/setup/certificate", "certificate", "request", "do", "request").is(200, "/setup/certificate", "BEGIN CERTIFICATE REQUEST")
	b.post("/setup/certificate", "certificate", "request").is(422, "/setup/certificate", "There is no certificate yet.", "request yours later")
	b.get("/setup/review").is(200, "/setup/review", "there is no certificate yet", "disabled").post("/setup/apply").is(422, "/setup/apply", "there is no certificate yet")
	if len(a.applied) > 0 {
		t.Error("it was applied without the certificate")
	}
	b.get("/setup/certificate").post("/setup/certificate", "certificate", "own").is(200, "/setup/passwords")
}
