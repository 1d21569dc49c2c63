package command

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/agent/api"
	"berth/agent/client"
	"berth/appliance/cli"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/version"
)

// rig is a daemon that runs over a temporary root.
type rig struct {
	t      testing.TB
	root   string
	socket string
	base   string // https://127.0.0.1:port
	client *client.Client
	system *recorded
}

const consolePassword = "Console-1-Password"

// setup starts a daemon on a machine whose files are below a temporary directory.
func setup(t testing.TB, prepare ...func(*rig)) *rig {
	t.Helper()
	root, err := os.MkdirTemp("", "agent") // short: a unix socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	b := &rig{t: t, root: root, socket: filepath.Join(root, "agent.sock"), system: newRecorded()}
	for _, f := range prepare {
		f(b)
	}
	b.write(setting.SecretFile(setting.ConsolePassword), secret.Hash(consolePassword))
	ctx, cancel := context.WithCancel(context.Background())
	listening := make(chan string, 1)
	ended := make(chan error, 1)
	a := &app{stdout: io.Discard, stderr: io.Discard, socket: b.socket}
	go func() {
		ended <- a.serve(ctx, daemon{root: root, socket: b.socket, listen: "127.0.0.1:0", system: b.system, listening: func(at string) { listening <- at }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	})
	select {
	case at := <-listening:
		b.base = "https://" + at
	case err := <-ended:
		ended <- err
		t.Fatalf("the daemon did not start: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the daemon does not listen")
	}
	b.client = client.New(b.socket)
	return b
}

func (b *rig) write(path, content string) {
	b.t.Helper()
	path = filepath.Join(b.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// run runs one command of berth-agent.
func (b *rig) run(args ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	code = Main(append(args, "--socket", b.socket), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// https asks the console. authorization is user:password, or empty.
func (b *rig) https(method, path, authorization, body string, header ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequest(method, b.base+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if user, password, ok := strings.Cut(authorization, ":"); ok {
		r.SetBasicAuth(user, password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	// Who the console is, is another test's question.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(got)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, err := b.client.Status(t.Context())
	if err != nil || s.Version != version.Version || s.Phase != api.Running || s.Machine.Processors < 1 || s.Machine.MemoryBytes == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	code, out, _ := b.run("status")
	if code != cli.Failed || !strings.Contains(out, "first boot   running") {
		t.Errorf("exit status %d: %s", code, out)
	}
	if code, out, _ = b.run("status", "--json"); code != cli.Failed || json.Unmarshal([]byte(out), &s) != nil {
		t.Errorf("exit status %d: %s", code, out)
	}
}

func TestConsoleNeedsPassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		authorization string
		want          int
	}{{"", 401}, {"admin:wrong", 401}, {"nobody:" + consolePassword, 401}, {"admin:" + consolePassword, 200}} {
		if resp, body := b.https("GET", "/api/v1/status", c.authorization, ""); resp.StatusCode != c.want {
			t.Errorf("%q: %d %s", c.authorization, resp.StatusCode, body)
		}
	}
	resp, body := b.https("GET", "/api/v1/about", "", "")
	if resp.StatusCode != 200 || strings.Contains(body, version.Version) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"} {
		if got := resp.Header.Get(header); !strings.Contains(got, want) {
			t.Errorf("%s: %q", header, got)
		}
	}
	if info, err := os.Stat(b.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
}

// A browser's session changes nothing without its token, and nothing for another
// site's page.
func TestBrowserSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	resp, body := b.https("POST", "/api/v1/sessions", "", `{"username":"admin","password":"`+consolePassword+`"}`)
	var s api.Session
	if resp.StatusCode != 201 || json.Unmarshal([]byte(body), &s) != nil || s.CSRF == "" {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	if resp, body = b.https("GET", "/api/v1/status", "", "", "Cookie", cookie); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, 403},
		{[]string{api.CSRFHeader, "x"}, 403},
		{[]string{api.CSRFHeader, s.CSRF, "Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{api.CSRFHeader, s.CSRF, "Sec-Fetch-Site", "same-origin"}, 204},
	} {
		if resp, body = b.https("DELETE", "/api/v1/sessions/current", "", "", append(c.header, "Cookie", cookie)...); resp.StatusCode != c.want {
			t.Errorf("%v: %d %s", c.header, resp.StatusCode, body)
		}
	}
	if resp, _ = b.https("GET", "/api/v1/status", "", "", "Cookie", cookie); resp.StatusCode != 401 {
		t.Errorf("after the logout: %d", resp.StatusCode)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, cli.OK, version.Version},
		{[]string{"--help"}, cli.OK, "berth-agent looks after"},
		{[]string{"completion", "bash"}, cli.OK, "bash completion"},
		{[]string{"nosuch"}, cli.Usage, `there is no command "nosuch"`},
		{[]string{"status", "x"}, cli.Usage, "unknown command"},
		{[]string{"status", "--nosuch"}, cli.Usage, "unknown flag"},
		{[]string{"status", "--socket", "/nonexistent/agent.sock"}, cli.Failed, "the agent does not answer"},
	} {
		var out bytes.Buffer
		if code := Main(c.args, strings.NewReader(""), &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: exit status %d: %s", c.args, code, out.String())
		}
	}
}
