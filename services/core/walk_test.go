package core_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// operation is what the OpenAPI document says of one route: the walk goes over
// what is published, and so over every row of the table.
type operation struct {
	method, path string
	Description  string `json:"description"`
	Body         any    `json:"requestBody"`
	Parameters   []struct {
		Name   string `json:"name"`
		In     string `json:"in"`
		Schema struct {
			Type string `json:"type"`
		} `json:"schema"`
	} `json:"parameters"`
}

func operations(t *testing.T, b *bundle) (all []operation) {
	t.Helper()
	doc := decode[struct {
		Paths map[string]map[string]operation `json:"paths"`
	}](b.want(b.do("GET", "/api/v2.0/openapi.json", "", ""), 200), t)
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			all = append(all, op)
		}
	}
	if len(all) < 65 {
		t.Fatalf("only %d operations", len(all))
	}
	return all
}

var wildcard = regexp.MustCompile(`\{[a-z_]+\}`)

// fill puts things into a path: an existing private project, and ids.
func fill(path string) string {
	return wildcard.ReplaceAllStringFunc(path, func(name string) string {
		switch name {
		case "{project_name}", "{project_name_or_id}":
			return "vault"
		case "{user_id}":
			return "1"
		case "{robot_id}", "{mid}", "{group_id}", "{token_id}", "{id}", "{immutable_rule_id}", "{label_id}", "{eid}", "{tid}":
			return "1"
		case "{execution_id}", "{job_id}", "{webhook_policy_id}", "{task_id}":
			return "4711"
		case "{job_type}", "{pool_id}":
			return "all"
		case "{repository_name}":
			return "app"
		case "{reference}":
			return "v1"
		}
		return "x"
	})
}

// hostile is what a route is called with to see that it lets nobody in.
func hostile(op operation) (path, body string) {
	path = fill(op.path)
	var query []string
	for _, p := range op.Parameters {
		if p.In == "query" && (p.Name == "username" || p.Name == "project_name" || p.Name == "from" || p.Name == "groupname" || p.Name == "q" && strings.HasSuffix(path, "v2.0/search")) {
			query = append(query, p.Name+"=vault/app:v1")
		}
		if p.In == "query" && p.Name == "scope" && strings.HasSuffix(path, "/labels") {
			query = append(query, "scope=g")
		}
	}
	if query != nil {
		path += "?" + strings.Join(query, "&")
	}
	if op.Body != nil {
		body = `{}`
	}
	return path, body
}

// Every route that is not open refuses strangers with 401, and what needs a
// right refuses a user without it with 403, whether the thing exists or not.
func TestWalkAccess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"vault"}`), 201)
	b.push("vault/app", "v1", "x")
	stranger := b.user("stranger")
	_, robot := b.robot("vault", "r", `[{"resource":"repository","action":"pull"}]`)
	for _, op := range operations(t, b) {
		path, body := hostile(op)
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			for _, missing := range []bool{false, true} {
				if missing {
					path = strings.ReplaceAll(path, "/vault", "/nosuch")
				}
				anonymous, user := b.do(op.method, path, "", body), b.do(op.method, path, stranger, body)
				switch {
				case strings.HasPrefix(op.Description, "Anyone"):
					if anonymous.status >= 500 {
						t.Errorf("anonymous: %d %s", anonymous.status, anonymous.body)
					}
				case strings.HasPrefix(op.Description, "Whoever"):
					if anonymous.status != 401 {
						t.Errorf("anonymous: %d %s", anonymous.status, anonymous.body)
					}
				case strings.HasPrefix(op.Description, "Needs"), strings.HasPrefix(op.Description, "The user itself"), strings.HasPrefix(op.Description, "System administrators"):
					if anonymous.status != 401 || user.status != 403 {
						t.Errorf("anonymous %d, user %d: %s", anonymous.status, user.status, user.body)
					}
					// A robot has what it was given, and no more.
					if a := b.do(op.method, path, robot, body); a.status != 403 {
						t.Errorf("robot %d: %s", a.status, a.body)
					}
				default:
					t.Errorf("nobody may call it: %s", op.Description)
				}
				if strings.Contains(user.body+anonymous.body, "vault") && user.status < 300 {
					t.Errorf("shows a private project: %s", user.body)
				}
			}
		})
	}
}

func (b *bundle) robot(project, name, access string) (id int64, credentials string) {
	b.t.Helper()
	a := b.want(b.do("POST", "/api/v2.0/robots", root, fmt.Sprintf(
		`{"name":%q,"level":"project","duration":-1,"permissions":[{"kind":"project","namespace":%q,"access":%s}]}`, name, project, access)), 201)
	made := decode[struct {
		ID           int64
		Name, Secret string
	}](a, b.t)
	return made.ID, made.Name + ":" + made.Secret
}

// Whatever an administrator sends, a route answers with a client error in
// Harbor's form, and never with a 500.
func TestWalkNonsense(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"vault"}`), 201)
	b.push("vault/app", "v1", "x")
	b.exec(`INSERT INTO retention_policies (project_id, policy) SELECT id, '{"rules": []}' FROM projects WHERE name = 'vault'`)
	b.want(b.do("POST", "/api/v2.0/retentions/1/executions", root, `{"dry_run":true}`), 201)
	for _, op := range operations(t, b) {
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			path, _ := hostile(op)
			joint := "?"
			if strings.Contains(path, "?") {
				joint = "&"
			}
			try := func(path, body string, want int) {
				t.Helper()
				a := b.do(op.method, path, root, body)
				if a.status >= 500 || want != 0 && a.status != want {
					t.Errorf("%s %.60q: %d %s, want %d", path, body, a.status, a.body, want)
				}
				if a.status >= 400 && op.method != "HEAD" {
					var e struct {
						Errors []struct{ Code, Message string }
					}
					if json.Unmarshal([]byte(a.body), &e) != nil || len(e.Errors) != 1 || e.Errors[0].Code == "" || e.Errors[0].Message == "" {
						t.Errorf("%s: not Harbor's error: %s", path, a.body)
					}
				}
			}
			if op.Body != nil {
				for _, body := range []string{"{bad", "[", "[1]", `"x"`, "{} {}", `{"a":` + strings.Repeat("[", 20000)} {
					try(path, body, 422)
				}
				try(path, `{"description":"`+strings.Repeat("x", 2<<20)+`"}`, 413)
				if required, _ := op.Body.(map[string]any)["required"].(bool); required {
					try(path, "", 422)
				}
				try(path, "null", 0)
				try(path, "{}", 0)
			}
			for _, p := range op.Parameters {
				if p.Schema.Type == "integer" && p.In == "path" {
					try(strings.Replace(fill(strings.Replace(op.path, "{"+p.Name+"}", "abc", 1)), "?", "", 1), "{}", 422)
					try(fill(strings.Replace(op.path, "{"+p.Name+"}", "99999999999999999999", 1)), "{}", 422)
				}
				if p.Schema.Type == "integer" && p.In == "query" {
					try(path+joint+p.Name+"=x", "{}", 422)
					try(path+joint+p.Name+"=9223372036854775807", "{}", 0)
				}
				if p.Schema.Type == "boolean" && p.In == "query" {
					try(path+joint+p.Name+"=maybe", "{}", 422)
				}
				if p.Name == "page_size" {
					try(path+joint+"page_size=101", "", 422)
					ok := 200
					if strings.Contains(path, "4711") || strings.HasSuffix(path, "/webhook/jobs") {
						ok = 0 // a list of something that is not there
					}
					try(path+joint+"page=9223372036854775807&page_size=100", "", ok)
					try(path+joint+"page_size=-1", "", ok)
				}
				if p.In == "path" && p.Schema.Type == "string" {
					try(fill(strings.Replace(op.path, "{"+p.Name+"}", "%00", 1)), "{}", 0)
					try(fill(strings.Replace(op.path, "{"+p.Name+"}", "%25ff%27%3B--", 1)), "{}", 0)
				}
			}
		})
	}
}

// What changes something and is known by a cookie needs the token of a page of
// ours, on every route; with another session's, or none, nothing happens.
func TestWalkCSRF(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w, other := b.browser(), b.browser()
	b.want(w.do("POST", "/c/login", form), 200)
	for _, op := range operations(t, b) {
		if op.method == "GET" || op.method == "HEAD" {
			continue
		}
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			path, body := hostile(op)
			for _, token := range []string{"", "x", other.token} {
				a := b.do(op.method, path, "", body, w.headers([]string{"X-Harbor-CSRF-Token", token}, true)...)
				if a.status != 403 || !strings.Contains(a.body, "CSRF token") || a.header.Get("X-Harbor-Csrf-Token") == "" {
					t.Errorf("token %q: %d %s", token, a.status, a.body)
				}
			}
		})
	}
}

// The document is the table's: a change of the API is a change of this file.
// UPDATE=1 go test writes it.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.want(b.do("GET", "/api/v2.0/openapi.json", "", ""), 200).body
	golden := filepath.Join("testdata", "openapi.json")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != got {
		t.Errorf("the API differs from %s (%v); if that is meant, run the test with UPDATE=1", golden, err)
	}
	for _, op := range operations(t, b) {
		if op.Description == "" {
			t.Errorf("%s %s does not say who may call it", op.method, op.path)
		}
	}
}

// The page loads nothing that it does not bring along.
func TestDocsPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page := b.want(b.do("GET", "/api/docs", "", ""), 200)
	if !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || !strings.Contains(page.header.Get("Content-Security-Policy"), "script-src 'self';") {
		t.Errorf("%v", page.header)
	}
	files := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.body, -1)
	if len(files) < 5 {
		t.Errorf("only %d files: %s", len(files), page.body)
	}
	for _, f := range files {
		if !strings.HasPrefix(f[1], "data:") {
			b.want(b.do("GET", f[1], "", ""), 200)
		}
	}
	b.want(b.do("GET", "/api/docs/nosuch.js", "", ""), 404)
	if a := b.want(b.do("GET", "/", "", "", "Accept", "text/html,*/*"), http.StatusFound); a.header.Get("Location") != "/api/docs" {
		t.Errorf("a browser is sent to %q", a.header.Get("Location"))
	}
	b.want(b.do("POST", "/api/docs", "", ""), http.StatusMethodNotAllowed)
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.want(b.do("PATCH", "/api/v2.0/projects", root, ""), http.StatusMethodNotAllowed)
	if got := a.header.Get("Allow"); got != "GET, HEAD, POST" {
		t.Errorf("Allow %q", got)
	}
	b.want(b.do("GET", "/api/v2.0/nopath", "", ""), 404)
	b.want(b.do("GET", "/", "", ""), 404)
	b.want(b.do("GET", "/api/v2.0//ping/", "", ""), 200)
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if got := b.do("GET", "/api/v2.0/ping", "", "", "X-Request-Id", "abc").header.Get("X-Request-Id"); got != "abc" {
		t.Errorf("not echoed: %q", got)
	}
	if got := b.do("GET", "/api/v2.0/nopath", "", "", "X-Request-Id", strings.Repeat("x", 1000)).header.Get("X-Request-Id"); len(got) != 36 {
		t.Errorf("not made: %q", got)
	}
}

func FuzzRequest(f *testing.F) {
	for _, q := range []string{"", "q=name=~lib", "q=a", "page=2&page_size=1", "page=-1", "page_size=101", "sort=-name,x", "q=name%3D%257E%27", "public=true", "q=\x00", "q=%ff"} {
		f.Add(q, "Basic YWRtaW46SGFyYm9yMTIzNDU=")
	}
	for _, auth := range []string{"", "Basic", "Basic !!!", "Bearer x", "Basic Og==", "basic YWRtaW46", "Basic YTpiAGM="} {
		f.Add("", auth)
	}
	b := setup(f)
	f.Fuzz(func(t *testing.T, query, authorization string) {
		if strings.ContainsAny(query, "# \t\r\n\x7f") || strings.ContainsFunc(query, func(r rune) bool { return r < ' ' }) {
			return // no HTTP server lets these through
		}
		b := *b
		b.t = t
		a := b.do("GET", "/api/v2.0/projects?"+query, "", "", "Authorization", authorization)
		if a.status >= 500 {
			t.Errorf("%q %q: %d %s", query, authorization, a.status, a.body)
		}
		if link := a.header.Get("Link"); strings.ContainsAny(link, "\r\n") {
			t.Errorf("%q: Link %q", query, link)
		}
	})
}
