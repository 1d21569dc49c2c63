package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/systemd"
)

// operation is what the API's document says of a route: the walk goes over what is
// published, and so over every row of the table.
type operation struct {
	method, path string
	Description  string `json:"description"`
	Body         *struct {
		Required bool
		Content  map[string]any
	} `json:"requestBody"`
	Parameters []struct {
		Name, In string
		Schema   struct{ Type any }
	}
}

func operations(t *testing.T, b *rig) (all []operation) {
	t.Helper()
	resp, body := b.https("GET", "/api/v1/openapi.json", "", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]operation
	}
	if err := json.Unmarshal([]byte(body), &doc); resp.StatusCode != 200 || err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%d %v %.200s", resp.StatusCode, err, body)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			all = append(all, op)
		}
	}
	if len(all) < 55 {
		t.Fatalf("only %d operations", len(all))
	}
	return all
}

var wildcard = regexp.MustCompile(`\{[a-z]+\}`)

func fill(path string) string {
	return wildcard.ReplaceAllStringFunc(path, func(name string) string {
		switch name {
		case "{name}":
			return "berth-core"
		case "{action}":
			return map[bool]string{true: "reboot", false: "restart"}[strings.Contains(path, "/power/")]
		case "{account}":
			return "console"
		case "{role}":
			return "data"
		}
		return "20260101-000000-aaaaaa"
	})
}

// Strangers are let into no route that is not open; the setup's session into none
// that is not the setup's; a method that a path has not is told so.
func TestWalkAccess(t *testing.T) {
	t.Parallel()
	b := setup(t, waiting)
	code := b.code()
	resp, body := b.https("POST", "/api/v1/sessions", "", `{"code":"`+code+`"}`)
	var s api.Session
	if resp.StatusCode != 201 || json.Unmarshal([]byte(body), &s) != nil {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	for _, op := range operations(t, b) {
		path := fill(op.path)
		stranger, strangerBody := b.https(op.method, path, "", "{}")
		if op.path == "/api/v1/sessions/current" && op.method == "DELETE" {
			continue // it would end the session of this test
		}
		bySetup, setupBody := b.https(op.method, path, "", "{}", "Cookie", cookie, api.CSRFHeader, s.CSRF)
		switch op.Description {
		case "Anyone, logged in or not.":
			if stranger.StatusCode >= 500 || stranger.StatusCode == 401 && op.path != "/api/v1/sessions" {
				t.Errorf("%s %s: stranger %d %s", op.method, op.path, stranger.StatusCode, strangerBody)
			}
		case "Whoever has the setup code, and administrators.":
			if stranger.StatusCode != 401 || bySetup.StatusCode == 401 || bySetup.StatusCode == 403 {
				t.Errorf("%s %s: stranger %d, setup %d %s", op.method, op.path, stranger.StatusCode, bySetup.StatusCode, setupBody)
			}
		case "Administrators.":
			if stranger.StatusCode != 401 || bySetup.StatusCode != 403 {
				t.Errorf("%s %s: stranger %d, setup %d %s", op.method, op.path, stranger.StatusCode, bySetup.StatusCode, setupBody)
			}
		default:
			t.Errorf("%s %s does not say who may call it: %q", op.method, op.path, op.Description)
		}
		if resp, body := b.https("PATCH", path, "admin:"+consolePassword, "{}"); resp.StatusCode != 405 || resp.Header.Get("Allow") == "" {
			t.Errorf("PATCH %s: %d %s", path, resp.StatusCode, body)
		}
	}
	if calls := strings.Join(b.system.all(), ", "); strings.Contains(calls, "reboot") || strings.Contains(calls, "password") || strings.Contains(calls, "restart berth-core") {
		t.Errorf("a stranger has done something: %s", calls)
	}
	if resp, body := b.https("GET", "/api/v1/nosuch", "", ""); resp.StatusCode != 404 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// Whatever an administrator sends, a route answers with a client's error in the
// API's form, and never with a 500.
func TestWalkNonsense(t *testing.T) {
	t.Parallel()
	b := setup(t, waiting)
	const admin = "admin:" + consolePassword
	for _, op := range operations(t, b) {
		if op.path == "/api/v1/sessions" {
			continue // wrong logins slow this test down
		}
		try := func(path, body string, want int) {
			t.Helper()
			resp, got := b.https(op.method, path, admin, body)
			if resp.StatusCode == 500 || want != 0 && resp.StatusCode != want {
				t.Errorf("%s %s %.60q: %d %s, want %d", op.method, path, body, resp.StatusCode, got, want)
			}
			var e api.Errors
			if resp.StatusCode >= 400 && (json.Unmarshal([]byte(got), &e) != nil || len(e.Errors) == 0 || e.Errors[0].Text == "" || e.Errors[0].Kind == "") {
				t.Errorf("%s %s: not an error of ours: %s", op.method, path, got)
			}
		}
		path := fill(op.path)
		try(path+"?nosuch=1", "{}", 422)
		if op.Body != nil {
			_, isJSON := op.Body.Content["application/json"]
			for _, body := range []string{"{bad", "[", `"x"`, "{} {}", "\xff\xfe", `{"nosuch":1}`, `{"a":` + strings.Repeat("[", 20000)} {
				if isJSON {
					try(path, body, 422)
				} else {
					try(path, body, 0)
				}
			}
			try(path, `{"a":"`+strings.Repeat("x", 2<<20)+`"}`, 413)
			if op.Body.Required {
				try(path, "", 422)
			}
			if !strings.Contains(path, "/power/") && !strings.Contains(path, "/network/confirm") {
				try(path, "null", 0)
			}
		}
		for _, p := range op.Parameters {
			if p.In == "path" {
				for _, odd := range []string{"x", "%00", "..%2f..%2fetc", strings.Repeat("x", 300)} {
					try(strings.Replace(fill(strings.Replace(op.path, "{"+p.Name+"}", "ODD", 1)), "ODD", odd, 1), "{}", 0)
				}
			}
			if p.In == "query" && p.Schema.Type == "integer" {
				try(path+"?"+p.Name+"=x", "{}", 422)
				try(path+"?"+p.Name+"=9223372036854775807", "{}", 0)
				try(path+"?"+p.Name+"=-1", "{}", 0)
			}
		}
	}
}

// What changes something and is known by a cookie needs the session's token.
func TestWalkCSRF(t *testing.T) {
	t.Parallel()
	b := setup(t)
	resp, _ := b.https("POST", "/api/v1/sessions", "", `{"username":"admin","password":"`+consolePassword+`"}`)
	cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	for _, op := range operations(t, b) {
		if op.method == "GET" || op.path == "/api/v1/sessions" {
			continue
		}
		for _, token := range []string{"", "x"} {
			resp, body := b.https(op.method, fill(op.path), "", "{}", "Cookie", cookie, api.CSRFHeader, token)
			if resp.StatusCode != 403 || !strings.Contains(body, api.CSRFHeader) {
				t.Errorf("%s %s with the token %q: %d %s", op.method, op.path, token, resp.StatusCode, body)
			}
		}
		resp, body := b.https(op.method, fill(op.path), "admin:"+consolePassword, "{}", "Sec-Fetch-Site", "cross-site")
		if resp.StatusCode != 403 {
			t.Errorf("%s %s from another site: %d %s", op.method, op.path, resp.StatusCode, body)
		}
	}
}

// The document is the table's: a change of the API is a change of this file.
// UPDATE=1 go test writes it.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, got := b.https("GET", "/api/v1/openapi.json", "", "")
	golden := filepath.Join("testdata", "openapi.json")
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != got {
		t.Errorf("the API differs from %s (%v); if that is meant, run the test with UPDATE=1", golden, err)
	}
}

// The page loads nothing that it does not bring along.
func TestDocsPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	resp, page := b.https("GET", "/api/docs/", "", "")
	if resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "script-src 'self';") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	files := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(files) < 5 {
		t.Errorf("only %d files: %s", len(files), page)
	}
	for _, f := range files {
		if strings.HasPrefix(f[1], "data:") {
			continue
		}
		if resp, _ := b.https("GET", f[1], "", ""); resp.StatusCode != 200 {
			t.Errorf("%s: %d", f[1], resp.StatusCode)
		}
	}
}

// waiting is a machine whose first boot waits for answers.
func waiting(b *rig) {
	b.state(`{"phase":"waiting","missing":["appliance.root_password"],"steps":[]}`)
	b.system.units = []systemd.Unit{{Name: "berth-core.service", Load: "loaded", Active: "active", Sub: "running"}}
	b.system.fail["reboot"] = fault.New(fault.Unavailable, "not here")
}

func (b *rig) state(text string) {
	b.t.Helper()
	b.write("/var/lib/berth-agent/state.json", text)
}

// code waits for the code of the setup.
func (b *rig) code() string {
	b.t.Helper()
	var code string
	b.wait("a code", func() bool {
		s, err := b.client.Status(b.t.Context())
		code = s.Code
		return err == nil && code != ""
	})
	return code
}

// wait waits until something is so.
func (b *rig) wait(what string, so func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("there is no %s", what)
		}
	}
}
