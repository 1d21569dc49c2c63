package console_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/agent/api"
)

// A tab is a page in a real Chromium, which is driven over a pair of pipes by the
// DevTools protocol: a message is JSON with a zero byte behind it.
type tab struct {
	t       testing.TB
	out     io.Writer
	in      *bufio.Reader
	id      int
	session string
	trouble []string // what the browser has complained of
	pages   int
}

// chromium starts one, or skips the test by name.
func chromium(t testing.TB) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (make test-deps)")
	}
	toR, toW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromR, fromW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--ignore-certificate-errors",
		"--user-data-dir="+profile, "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage", "about:blank")
	cmd.ExtraFiles = []*os.File{toR, fromW}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toR.Close()
	fromW.Close()
	t.Cleanup(func() {
		_, _ = io.WriteString(toW, `{"id":999999,"method":"Browser.close"}`+"\x00")
		toW.Close()
		done := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, fromR); _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		fromR.Close()
		// Its children may still write for a moment.
		for range 50 {
			if os.RemoveAll(profile) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%s is left", profile)
	})
	b := &tab{t: t, out: toW, in: bufio.NewReaderSize(fromR, 1<<20)}
	var target struct{ TargetID string }
	b.call(&target, "Target.createTarget", map[string]any{"url": "about:blank"})
	var attached struct{ SessionID string }
	b.call(&attached, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true})
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.call(nil, domain+".enable", nil)
	}
	return b
}

type devtools struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// read gives the next message, and notes complaints.
func (b *tab) read() devtools {
	b.t.Helper()
	raw, err := b.in.ReadBytes(0)
	if err != nil {
		b.t.Fatalf("the browser is gone: %v", err)
	}
	var m devtools
	if err := json.Unmarshal(raw[:len(raw)-1], &m); err != nil {
		b.t.Fatal(err)
	}
	if m.Method == "Runtime.exceptionThrown" || m.Method == "Log.entryAdded" && strings.Contains(string(m.Params), `"level":"error"`) && !strings.Contains(string(m.Params), "the server responded with a status of 4") {
		b.trouble = append(b.trouble, string(m.Params))
	}
	if m.Method == "Page.loadEventFired" {
		b.pages++
	}
	return m
}

func (b *tab) call(out any, method string, params map[string]any) {
	b.t.Helper()
	b.id++
	msg := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" {
		msg["sessionId"] = b.session
	}
	raw, err := json.Marshal(msg)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.out.Write(append(raw, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		m := b.read()
		if m.ID != b.id {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if out != nil {
			if err := json.Unmarshal(m.Result, out); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// run evaluates a script in the page and gives its value as text.
func (b *tab) run(script string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call(&r, "Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true})
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, r.ExceptionDetails)
	}
	return fmt.Sprint(r.Result.Value)
}

// load does something that leads to another page, and waits for it.
func (b *tab) load(do func()) {
	b.t.Helper()
	before := b.pages
	do()
	for b.pages == before {
		b.read()
	}
}

func (b *tab) open(url string) {
	b.t.Helper()
	b.load(func() { b.call(nil, "Page.navigate", map[string]any{"url": url}) })
}

// fill types into fields by their ids and presses the page's main button.
func (b *tab) fill(fields ...string) {
	b.t.Helper()
	b.load(func() {
		for i := 0; i+1 < len(fields); i += 2 {
			b.run(fmt.Sprintf(`(() => { const e = document.getElementById(%q) ?? document.querySelector(%q); if (!e) throw new Error("no " + %q);
				if (e.type === "radio" || e.type === "checkbox") { e.click(); } else { e.value = %q; } })()`, fields[i], fields[i], fields[i], fields[i+1]))
		}
		b.run(`document.querySelector("button.main").click()`)
	})
}

func (b *tab) wants(text string) {
	b.t.Helper()
	if got := b.run("document.body.innerText"); !strings.Contains(got, text) {
		b.t.Errorf("%s does not show %q:\n%s", b.run("location.pathname"), text, got)
	}
}

// look checks what holds for every page, at the width of a phone and of a desk:
// nothing sticks out, every field has a name, nothing was blocked. With
// BERTH_SCREENSHOTS=FOLDER it takes pictures.
func (b *tab) look(name string) {
	b.t.Helper()
	for _, width := range []int{400, 1280} {
		b.call(nil, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false})
		if got := b.run(`String(document.documentElement.scrollWidth - document.documentElement.clientWidth)`); got != "0" && !strings.HasPrefix(got, "-") {
			b.t.Errorf("%s sticks out by %s px at %d px", name, got, width)
		}
		for _, scheme := range []string{"light", "dark"} {
			b.call(nil, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
			b.picture(fmt.Sprintf("%s-%d-%s", name, width, scheme))
		}
	}
	unnamed := b.run(`[...document.querySelectorAll("input:not([type=hidden]), textarea")].filter((e) => !e.labels?.length).map((e) => e.name).join(" ")`)
	if unnamed != "" {
		b.t.Errorf("%s has fields without a label: %s", name, unnamed)
	}
	for _, x := range b.trouble {
		b.t.Errorf("%s: %s", name, x)
	}
	b.trouble = nil
}

func (b *tab) picture(name string) {
	dir := os.Getenv("BERTH_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.call(&shot, "Page.captureScreenshot", map[string]any{"captureBeyondViewport": true})
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// A browser goes all the way from the code to docker login.
func TestWizardInABrowser(t *testing.T) {
	a := waiting()
	a.times = func(server string) ([]api.TimeAnswer, error) {
		return []api.TimeAnswer{{Server: server, OffsetMillis: 12.4, RTTMillis: 3, Stratum: 2}}, nil
	}
	site := open(t, a)
	b := chromium(t)
	b.open(site.url)
	b.look("01-code")
	b.fill("code", "AAAA-BBBB-CCCC")
	b.wants("The code is wrong")
	b.look("02-wrong-code")
	b.fill("code", site.code)
	b.wants("At present: 192.0.2.10/24")
	if got := b.run(`String(document.querySelector('[data-name="network.ip4"]').hidden)`); got != "true" {
		t.Error("the static address is asked for with DHCP")
	}
	b.fill(`input[value="static"]`, "", "network-ip4", "192.0.2.300/24")
	b.wants("is not an IPv4 address")
	b.look("03-network")
	b.fill("network-ip4", "192.0.2.20/24", "network-gateway4", "192.0.2.1")
	b.look("04-names")
	b.run(`document.getElementById("network-hostname").value = "registry.example.com"; document.getElementById("network-hostname").focus()`)
	b.enter() // the same as Next, though other buttons come before it
	if got := b.run("location.pathname"); got != "/setup/time" {
		t.Errorf("Enter leads to %s", got)
	}
	b.load(func() {
		b.run(`document.getElementById("network-ntp").value = "ntp.example.com"; document.querySelector("button[value=test-time]").click()`)
	})
	b.wants("offset 12 ms")
	b.look("05-time")
	b.fill()
	b.look("06-certificate")
	b.load(func() {
		b.run(`document.querySelector("input[value=request]").click(); document.querySelector("button[value=request]").click()`)
	})
	b.look("07-request")
	b.fill("input[value=own]", "")
	b.load(func() { b.run(`document.querySelector('nav button[value="to:review"]').click()`) })
	b.wants("5 answers are missing or wrong")
	b.look("08-review-faults")
	b.load(func() { b.run(`document.querySelector(".faults a").click()`) })
	if got := b.run("location.hash"); got != "#appliance-root_password" {
		t.Errorf("the first fault leads to %s", got)
	}
	b.fill("appliance-root_password", "Root secret 1", "appliance-root_password-again", "Root secret 1", "appliance-console_password", "short", "appliance-console_password-again", "short",
		"registry-admin_password", "Registry secret 1", "registry-admin_password-again", "Registry secret 1")
	b.look("09-passwords")
	b.fill("appliance-console_password", "Console pass 1", "appliance-console_password-again", "Console pass 1")
	b.look("10-storage")
	b.fill(`input[name="disk.database"][value="/dev/sdc"]`, "", `input[name="disk.log"][value="system"]`, "", "input[name=erase]", "")
	b.look("11-users")
	b.fill()
	b.look("12-vcenter")
	b.fill()
	b.look("13-proxy")
	b.fill()
	b.look("14-syslog")
	b.fill()
	b.wants("Nothing is missing and nothing is wrong.")
	b.look("15-review")
	a.mu.Lock()
	a.setup.Steps = []api.Step{{Title: "Passwords", Status: "done"}, {Title: "Disks", Status: "done", Text: "formatted /dev/sdc for the database"}, {Title: "Network", Status: "running", Text: "waiting for an address"}, {Title: "Certificate", Status: "pending"}, {Title: "Database", Status: "pending"}, {Title: "Services", Status: "pending"}}
	a.mu.Unlock()
	b.fill()
	b.wants("2 of 6 steps")
	b.look("16-progress")
	// An address that is gone does not even refuse.
	b.run(`AbortSignal.timeout = () => { const c = new AbortController(); setTimeout(() => c.abort(), 10); return c.signal; };
		window.fetch = (url, how) => new Promise((_, no) => how.signal.addEventListener("abort", () => no(new Error("gone"))))`)
	b.until(`!document.getElementById("lost").hidden`)
	b.wants("It has moved: open https://192.0.2.20:5480/.")
	b.look("16b-lost")
	b.open(site.url + "/setup/progress")
	a.mu.Lock()
	a.setup.Phase = api.Failed
	a.setup.Steps[2] = api.Step{Title: "Network", Status: "failed", Text: "no address has come within 60 s", Hint: "see whether the network adapter is in the right port group"}
	a.mu.Unlock()
	b.until(`document.body.innerText.includes("Try again")`)
	b.look("17-failed")
	b.fill()
	a.mu.Lock()
	a.setup = api.Setup{Phase: api.Running, Steps: a.setup.Steps}
	a.mu.Unlock()
	b.open(site.url + "/setup/progress")
	b.load(func() {
		a.mu.Lock()
		a.setup = api.Setup{Phase: api.Ready, Registry: a.status.Registry, Console: a.status.Console, Fingerprint: print1}
		a.mu.Unlock()
	})
	b.wants("docker login registry.example.com --username admin")
	b.look("18-result")
	a.services = []api.Service{{Name: "berth-registry", Title: "Registry and front door", State: "active", MemoryBytes: 70 << 20, Since: time.Now()}, {Name: "berth-jobs", Title: "Background jobs", State: "failed", Detail: "exit-code"}}
	a.disks = api.Disks{Disks: []api.Disk{{Role: "data", Device: "/dev/sdb", Bytes: 100 << 30, Percent: 81, State: "warning", Text: "it is nearly full"}, {Role: "database", Device: "/dev/sdc", Bytes: 20 << 30, Percent: 4, State: "ok"}, {Role: "log", Bytes: 8 << 30, Percent: 30, State: "ok"}}}
	a.status.Problems = []api.Problem{{Text: "the background jobs do not run", Hint: "look at the service's log", State: "unhealthy", Explains: []string{"garbage collection"}}}
	a.status.Machine = api.Machine{Processors: 2, MemoryBytes: 4 << 30, System: "Debian GNU/Linux 12 (bookworm)"}
	b.load(func() { b.run(`document.querySelector("header form button").click()`) })
	b.look("19-login")
	b.fill("user", "admin", "password", "Console pass 1")
	b.wants("The background jobs do not run.")
	b.look("20-summary")
	set := func(change func()) {
		a.mu.Lock()
		defer a.mu.Unlock()
		change()
	}
	set(func() { a.status.Problems = nil })
	b.until(`document.body.innerText.includes("Everything is well.")`)
	set(func() { a.status = crowded(a.status) })
	b.open(site.url)
	b.wants("Twelfth")
	b.look("20b-crowded")
	b.load(func() { b.run(`document.querySelector('a[href="/support"]').click()`) })
	b.fill()
	b.wants("logs/journal")
	set(func() { a.bundles[0].State, a.bundles[0].Bytes = "done", 3<<20 })
	b.until(`document.querySelector('a[href="/support/b1"]') !== null`)
	b.look("22-support")
	set(func() { a.status.Power = nil })
	b.open(site.url + "/power/reboot")
	b.look("23-restart")
	b.fill()
	b.wants("The appliance restarts now.")
	b.look("24-restarting")
	b.open(site.url + "/nowhere")
	b.look("21-nowhere")
}

// crowded is a status of everything that a page may have to bear.
func crowded(s api.Status) api.Status {
	s.Hostname = strings.Repeat("sehr-langer-name.", 12) + "müller-straße.example"
	s.Registry = []string{"https://" + s.Hostname, "https://[2001:db8:1111:2222:3333:4444:5555:6666]"}
	s.Addresses = nil
	for i := range 14 {
		s.Addresses = append(s.Addresses, fmt.Sprintf("2001:db8:1111:2222:3333:4444:5555:%x", 0x6660+i))
	}
	for i := range 11 {
		s.Problems = append(s.Problems, api.Problem{State: "degraded", Text: fmt.Sprintf("problem %d: %s", i, strings.Repeat("x", 200)), Hint: "grüße " + strings.Repeat("what to do ", 20)})
	}
	s.Problems = append(s.Problems, api.Problem{State: "unhealthy", Text: "Twelfth"})
	s.Warnings = []string{"there is no disk for the log: it is on the system disk"}
	s.ReadOnly = "the data disk is full"
	s.Pending = &api.Pending{Until: time.Now(), Addresses: []string{"2001:db8:1111:2222:3333:4444:5555:7777"}}
	s.Power = &api.PowerState{Action: "shutdown", At: time.Now(), Reason: strings.Repeat("because ", 20)}
	return s
}

// enter presses the key.
func (b *tab) enter() {
	b.t.Helper()
	b.load(func() {
		for _, kind := range []string{"keyDown", "keyUp"} {
			b.call(nil, "Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"})
		}
	})
}

// until waits for a condition in the page.
func (b *tab) until(condition string) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for b.run("String("+condition+")") != "true" {
		if time.Now().After(deadline) {
			b.t.Fatalf("never: %s\n%s", condition, b.run("document.body.innerText"))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
