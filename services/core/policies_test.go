package core_test

import (
	"fmt"
	"strings"
	"testing"
)

const rule = `{"template":"immutable_template","action":"immutable","tag_selectors":[{"kind":"doublestar","decoration":"matches","pattern":%q}],
	"scope_selectors":{"repository":[{"kind":"doublestar","decoration":"repoMatches","pattern":"**"}]}}`

// Labels of the system and of a project: who may do what, and how artifacts
// are found by them.
func TestLabels(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"p"}`), 201)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"q"}`), 201)
	project := decode[object](b.do("GET", "/api/v2.0/projects/p", root, ""), t)["project_id"]
	b.push("p/app", "v1", "one")
	b.push("p/app", "v2", "two")
	guest, developer := b.user("guest"), b.user("dev")
	b.want(b.do("POST", "/api/v2.0/projects/p/members", root, `{"role_id":3,"member_user":{"username":"guest"}}`), 201)
	b.want(b.do("POST", "/api/v2.0/projects/p/members", root, `{"role_id":2,"member_user":{"username":"dev"}}`), 201)

	b.want(b.do("POST", "/api/v2.0/labels", developer, `{"name":"x","scope":"g"}`), 403)
	b.want(b.do("POST", "/api/v2.0/labels", root, `{"name":"x","scope":"z"}`), 400)
	b.want(b.do("POST", "/api/v2.0/labels", root, `{"name":"x","scope":"p"}`), 400)
	b.want(b.do("POST", "/api/v2.0/labels", root, `{"name":"x","scope":"g","color":"url(x)"}`), 400)
	b.want(b.do("POST", "/api/v2.0/labels", root, `{"name":"","scope":"g"}`), 400)
	global := b.want(b.do("POST", "/api/v2.0/labels", root, `{"name":"good","scope":"g","color":"#0f0"}`), 201).header.Get("Location")
	own := b.want(b.do("POST", "/api/v2.0/labels", root, fmt.Sprintf(`{"name":"good","scope":"p","project_id":%v}`, project)), 201).header.Get("Location")
	b.want(b.do("POST", "/api/v2.0/labels", root, fmt.Sprintf(`{"name":"good","scope":"p","project_id":%v}`, project)), 409)
	id := func(location string) string { return location[strings.LastIndexByte(location, '/')+1:] }

	b.want(b.do("GET", global, developer, ""), 200)
	b.want(b.do("GET", own, guest, ""), 200)
	b.want(b.do("GET", own, b.user("stranger"), ""), 403)
	b.want(b.do("GET", fmt.Sprintf("/api/v2.0/labels?scope=p&project_id=%v", project), "stranger:"+password, ""), 403)
	b.want(b.do("PUT", own, developer, `{"name":"better"}`), 403)
	b.want(b.do("PUT", own, root, `{"name":"better","description":"d"}`), 200)

	const app = "/api/v2.0/projects/p/repositories/app/artifacts"
	b.want(b.do("POST", app+"/v1/labels", guest, `{"id":`+id(own)+`}`), 403)
	b.want(b.do("POST", app+"/v1/labels", developer, `{"id":`+id(own)+`}`), 200)
	b.want(b.do("POST", app+"/v1/labels", developer, `{"id":`+id(own)+`}`), 409)
	b.want(b.do("POST", app+"/v1/labels", developer, `{"id":`+id(global)+`}`), 200)
	b.want(b.do("POST", app+"/v2/labels", developer, `{"id":`+id(global)+`}`), 200)
	b.want(b.do("POST", app+"/v1/labels", developer, `{"id":99}`), 404)
	b.push("q/app", "v1", "one")
	b.want(b.do("POST", "/api/v2.0/projects/q/repositories/app/artifacts/v1/labels", root, `{"id":`+id(own)+`}`), 400)
	for q, want := range map[string]int{"": 2, "labels=" + id(global): 2, "labels=(" + id(global) + " " + id(own) + ")": 1, "labels={" + id(global) + " " + id(own) + "}": 2, "labels=99": 0} {
		a := b.want(b.do("GET", app+"?with_label=true&q="+strings.NewReplacer(" ", "%20", "{", "%7B", "}", "%7D").Replace(q), guest, ""), 200)
		if got := decode[[]object](a, t); len(got) != want {
			t.Errorf("%q finds %d artifacts, want %d", q, len(got), want)
		}
	}
	b.want(b.do("GET", app+"?q=labels=x", guest, ""), 400)
	shown := decode[struct {
		Labels []struct{ Name, Scope, Description string }
	}](b.do("GET", app+"/v1?with_label=true", guest, ""), t)
	if fmt.Sprint(shown.Labels) != "[{better p d} {good g }]" {
		t.Errorf("labels %v", shown.Labels)
	}
	b.want(b.do("DELETE", app+"/v1/labels/"+id(own), developer, ""), 200)
	b.want(b.do("DELETE", app+"/v1/labels/"+id(own), developer, ""), 404)
	b.want(b.do("DELETE", global, root, ""), 200)
	if a := b.do("GET", app+"/v1?with_label=true", guest, ""); !strings.Contains(a.body, `"labels":null`) {
		t.Errorf("a deleted label stays: %s", a.body)
	}
}

// Immutable tags are refused in Harbor's words and shown as such.
func TestImmutableRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("library/app", "v1", "one")
	b.push("library/app", "dev", "two")
	const rules, app = "/api/v2.0/projects/library/immutabletagrules", "/api/v2.0/projects/library/repositories/app"
	for _, bad := range []string{`{}`, `{"action":"retain"}`, fmt.Sprintf(rule, ""), fmt.Sprintf(rule, "[a"), strings.Replace(fmt.Sprintf(rule, "v*"), "repoMatches", "matches", 1)} {
		b.want(b.do("POST", rules, root, bad), 400)
	}
	at := b.want(b.do("POST", rules, root, fmt.Sprintf(rule, "v*")), 201).header.Get("Location")
	a := b.want(b.do("DELETE", app+"/artifacts/v1/tags/v1", root, ""), 412)
	if !strings.Contains(a.body, "PRECONDITION") || !strings.Contains(a.body, "immutable") {
		t.Error(a.body)
	}
	b.want(b.do("DELETE", app, root, ""), 412)
	for ref, want := range map[string]bool{"v1": true, "dev": false} {
		got := decode[struct{ Tags []struct{ Immutable bool } }](b.do("GET", app+"/artifacts/"+ref, root, ""), t)
		if len(got.Tags) != 1 || got.Tags[0].Immutable != want {
			t.Errorf("%s: %v", ref, got)
		}
		if tags := decode[[]struct{ Immutable bool }](b.do("GET", app+"/artifacts/"+ref+"/tags", root, ""), t); len(tags) != 1 || tags[0].Immutable != want {
			t.Errorf("%s: %v", ref, tags)
		}
	}
	b.want(b.do("PUT", at, root, `{"disabled":true}`), 200)
	if got := decode[[]object](b.do("GET", rules, root, ""), t); len(got) != 1 || got[0]["disabled"] != true || got[0]["tag_selectors"] == nil {
		t.Errorf("a disabled rule: %v", got)
	}
	b.want(b.do("DELETE", app+"/artifacts/v1", root, ""), 200)
	b.want(b.do("PUT", rules+"/99", root, fmt.Sprintf(rule, "x")), 404)
	b.want(b.do("DELETE", rules+"/99", root, ""), 404)
}

// While the system is read-only nothing changes but that, and people log in.
func TestReadOnlySystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("library/app", "v1", "one")
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"read_only":true}`), 200)
	for _, r := range [][3]string{{"POST", "/api/v2.0/projects", `{"project_name":"x"}`}, {"DELETE", "/api/v2.0/projects/library/repositories/app", ""},
		{"PUT", "/api/v2.0/quotas/1", `{"hard":{"storage":5}}`}} {
		if a := b.want(b.do(r[0], r[1], root, r[2]), 403); !strings.Contains(a.body, "DENIED") {
			t.Error(a.body)
		}
	}
	b.want(b.do("GET", "/api/v2.0/projects", root, ""), 200)
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"read_only":false}`), 200)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"x"}`), 201)
}

// A project's read-only mark is part of its metadata, and its name can change.
func TestProjectRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("library/app", "v1", "one")
	b.want(b.do("PUT", "/api/v2.0/projects/library", root, `{"metadata":{"read_only":"true"}}`), 200)
	if a := b.do("GET", "/api/v2.0/projects/library", root, ""); !strings.Contains(a.body, `"read_only":"true"`) {
		t.Error(a.body)
	}
	a := b.want(b.do("DELETE", "/api/v2.0/projects/library/repositories/app/artifacts/v1", root, ""), 403)
	if !strings.Contains(a.body, "DENIED") {
		t.Error(a.body)
	}
	b.want(b.do("DELETE", "/api/v2.0/projects/library/metadatas/read_only", root, ""), 200)
	b.want(b.do("PUT", "/api/berth/v1/projects/library/name", root, `{"name":"Bad Name"}`), 400)
	b.want(b.do("PUT", "/api/berth/v1/projects/library/name", b.user("anna"), `{"name":"mine"}`), 403)
	b.want(b.do("PUT", "/api/berth/v1/projects/library/name", root, `{"name":"shelf"}`), 200)
	b.want(b.do("GET", "/api/v2.0/projects/library", root, ""), 404)
	b.want(b.do("DELETE", "/api/v2.0/projects/shelf/repositories/app/artifacts/v1", root, ""), 200)

	b.want(b.do("PUT", "/api/v2.0/system/CVEAllowlist", root, `{"items":[{"cve_id":"CVE-2026-1"},{"cve_id":"CVE-2026-1"}]}`), 400)
	b.want(b.do("PUT", "/api/v2.0/system/CVEAllowlist", root, `{"items":[{"cve_id":"CVE-2026-1"}],"expires_at":1800000000}`), 200)
	if a := b.do("GET", "/api/v2.0/system/CVEAllowlist", root, ""); !strings.Contains(a.body, "CVE-2026-1") || strings.Contains(a.body, "0001-") {
		t.Error(a.body)
	}
}

// A robot that is limited to repositories and tags keeps to them in the REST API.
func TestLimitedRobot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"p"}`), 201)
	b.push("p/team-a/app", "v1", "one")
	b.push("p/team-a/app", "latest", "two")
	b.push("p/other", "v1", "three")
	const permissions = `"permissions":[{"kind":"project","namespace":"p","repositories":["team-a/**"],"tags":["v*"],"access":[
		{"resource":"repository","action":"pull"},{"resource":"repository","action":"read"},{"resource":"artifact","action":"read"},{"resource":"artifact","action":"list"},
		{"resource":"artifact","action":"create"},{"resource":"artifact","action":"delete"},{"resource":"tag","action":"create"},{"resource":"tag","action":"delete"},{"resource":"tag","action":"list"}]}]`
	b.want(b.do("POST", "/api/v2.0/robots", root, `{"name":"bad","level":"project",`+strings.Replace(permissions, `"artifact","action":"list"`, `"member","action":"list"`, 1)+`}`), 400)
	made := decode[struct {
		ID           int64
		Name, Secret string
		ExpiresAt    int64 `json:"expires_at"`
	}](b.want(b.do("POST", "/api/v2.0/robots", root, `{"name":"ci","level":"project",`+permissions+`}`), 201), t)
	if made.ExpiresAt <= 0 {
		t.Errorf("a robot without a duration expires at %d, and the setting is 30 days", made.ExpiresAt)
	}
	if a := b.want(b.do("GET", fmt.Sprint("/api/v2.0/robots/", made.ID), root, ""), 200); !strings.Contains(a.body, `"repositories":["team-a/**"],"tags":["v*"]`) {
		t.Error(a.body)
	}
	robot := made.Name + ":" + made.Secret
	const repos = "/api/v2.0/projects/p/repositories"
	const app = repos + "/team-a%252Fapp"
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", app, "", 200}, {"GET", repos + "/other", "", 403}, {"GET", repos, "", 403}, {"GET", "/api/v2.0/projects/p/artifacts", "", 403},
		{"GET", app + "/artifacts", "", 200}, {"GET", repos + "/other/artifacts", "", 403},
		{"GET", app + "/artifacts/v1", "", 200}, {"GET", app + "/artifacts/latest", "", 403},
		{"POST", app + "/artifacts/v1/tags", `{"name":"v2"}`, 201}, {"POST", app + "/artifacts/v1/tags", `{"name":"stable"}`, 403},
		{"DELETE", app + "/artifacts/v1/tags/v2", "", 200}, {"DELETE", app + "/artifacts/latest/tags/latest", "", 403},
		{"DELETE", app + "/artifacts/v1", "", 403}, // it goes with all its tags
		{"POST", app + "/artifacts?from=p/other:v1", "", 403},
		{"POST", repos + "/other/artifacts?from=p/team-a/app:v1", "", 403},
		{"POST", repos + "/team-a%252Fcopy/artifacts?from=p/team-a/app:v1", "", 201},
		{"POST", repos + "/team-a%252Fcopy/artifacts?from=p/team-a/app:latest", "", 403},
	} {
		if a := b.do(c.method, c.path, robot, c.body); a.status != c.want {
			t.Errorf("%s %s %s: %d, want %d: %s", c.method, c.path, c.body, a.status, c.want, a.body)
		}
	}
	if a := b.do("GET", "/api/v2.0/repositories", robot, ""); strings.Contains(a.body, "p/other") {
		t.Errorf("a list of all repositories shows what the robot may not see: %s", a.body)
	}
}
