package core_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/health"
	"berth/services/artifact"
	"berth/services/core"
	"berth/services/reference"
)

type object = map[string]any

// id takes the id from an answer's Location.
func (b *bundle) id(a answer) int64 {
	b.t.Helper()
	location := b.want(a, 201).header.Get("Location")
	id, err := strconv.ParseInt(location[strings.LastIndexByte(location, '/')+1:], 10, 64)
	if err != nil {
		b.t.Fatalf("Location %q", location)
	}
	return id
}

// A user sees and changes himself and nobody else, and never becomes more.
func TestUserJourney(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.user("anna")
	me := decode[object](b.want(b.do("GET", "/api/v2.0/users/current", anna, ""), 200), t)
	own := fmt.Sprintf("/api/v2.0/users/%v", me["user_id"])
	b.want(b.do("PUT", own, anna, `{"email":"a@example.com","realname":"A","comment":""}`), 200)
	b.want(b.do("PUT", "/api/v2.0/users/1", anna, `{"email":"x@example.com","realname":"A"}`), 403)
	b.want(b.do("PUT", own+"/sysadmin", anna, `{"sysadmin_flag":true}`), 403)
	b.want(b.do("DELETE", own, anna, ""), 403)
	b.want(b.do("PUT", own+"/password", anna, `{"old_password":"`+password+`","new_password":"Changed12345"}`), 200)
	b.want(b.do("GET", "/api/v2.0/users/current", anna, ""), 401)
	b.want(b.do("PUT", own+"/password", root, `{"new_password":"`+password+`"}`), 200)
	b.want(b.do("GET", "/api/v2.0/users/current", anna, ""), 200)
	b.want(b.do("PUT", own+"/sysadmin", root, `{"sysadmin_flag":true}`), 200)
	if me := decode[object](b.do("GET", "/api/v2.0/users/current", anna, ""), t); me["sysadmin_flag"] != true {
		t.Errorf("not a system administrator at once: %v", me)
	}
	b.want(b.do("DELETE", "/api/v2.0/users/1", root, ""), 403) // oneself
	b.want(b.do("PUT", "/api/v2.0/users/1/sysadmin", anna, `{"sysadmin_flag":false}`), 200)
	b.want(b.do("PUT", own+"/sysadmin", anna, `{"sysadmin_flag":false}`), 412) // the last one
}

func TestSelfRegistration(t *testing.T) {
	t.Parallel()
	b := setup(t)
	body := `{"username":"new","email":"new@example.com","realname":"N","password":"Harbor12345"}`
	b.want(b.do("POST", "/api/v2.0/users", "", body), 401)
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"self_registration":true,"project_creation_restriction":"adminonly"}`), 200)
	b.id(b.do("POST", "/api/v2.0/users", "", body))
	b.want(b.do("POST", "/api/v2.0/projects", "new:"+password, `{"project_name":"mine"}`), 403)
}

func TestConfigurations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type items map[string]struct {
		Value    any
		Editable bool
	}
	got := decode[items](b.want(b.do("GET", "/api/v2.0/configurations", root, ""), 200), t)
	if len(got) < 55 || got["auth_mode"].Value != "db_auth" || !got["auth_mode"].Editable || got["token_expiration"].Value != 30.0 {
		t.Errorf("%d settings: %v", len(got), got)
	}
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"read_only":"yes"}`), 422)
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"token_expiration":0,"ldap_scope":1}`), 400)
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"ldap_search_password":"hush-hush","ldap_scope":1}`), 200)
	user := b.user("someone")
	a := b.want(b.do("GET", "/api/v2.0/configurations", root, ""), 200)
	if got := decode[items](a, t); got["auth_mode"].Editable || got["ldap_scope"].Value != 1.0 || strings.Contains(a.body, "hush-hush") {
		t.Errorf("after a change: %s", a.body)
	}
	b.want(b.do("GET", "/api/v2.0/configurations", user, ""), 403)
	b.want(b.do("PUT", "/api/v2.0/configurations", user, `{}`), 403)
	b.want(b.do("GET", "/api/v2.0/internalconfig", root, ""), 401)
}

func (b *bundle) exec(sql string) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatal(err)
	}
}

// Too many wrong passwords are answered with how long to wait, to that source alone.
func TestBackoff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var last answer
	for i := range 6 {
		last = b.do("GET", "/api/v2.0/users/current", fmt.Sprintf("admin:Guess%d", i), "", "X-Forwarded-For", "10.9.9.9, 10.0.0.1")
	}
	b.want(last, 429)
	if wait, err := strconv.Atoi(last.header.Get("Retry-After")); err != nil || wait < 1 || wait > 30 {
		t.Errorf("Retry-After %q", last.header.Get("Retry-After"))
	}
	b.want(b.do("GET", "/api/v2.0/users/current", root, "", "X-Forwarded-For", "10.0.0.2"), 200)
}

// A project that does not exist and one that the caller may not see look alike.
func TestProjectsAreHidden(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.id(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"vault"}`))
	anna := b.user("anna")
	for _, name := range []string{"vault", "nosuch", "2", "99"} {
		b.want(b.do("GET", "/api/v2.0/projects/"+name, "", ""), 401)
		b.want(b.do("GET", "/api/v2.0/projects/"+name, anna, ""), 403)
	}
	b.want(b.do("GET", "/api/v2.0/projects/nosuch", root, ""), 404)
	b.want(b.do("GET", "/api/v2.0/projects/2", root, ""), 200)
	b.want(b.do("GET", "/api/v2.0/projects/2", root, "", "X-Is-Resource-Name", "true"), 404)
	b.want(b.do("HEAD", "/api/v2.0/projects?project_name=vault", anna, ""), 200)
}

// What a member may do follows the role, at once.
func TestMemberJourney(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.id(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"p"}`))
	b.push("p/app", "v1", "x")
	anna := b.user("anna")
	b.want(b.do("GET", "/api/v2.0/projects/p/repositories", anna, ""), 403)
	mid := b.id(b.do("POST", "/api/v2.0/projects/p/members", root, `{"role_id":5,"member_user":{"username":"anna"}}`))
	b.want(b.do("GET", "/api/v2.0/projects/p/repositories", anna, ""), 200)
	b.want(b.do("GET", "/api/v2.0/projects/p/members", anna, ""), 403)
	member := fmt.Sprintf("/api/v2.0/projects/p/members/%d", mid)
	b.want(b.do("PUT", member, root, `{"role_id":2}`), 200)
	if m := decode[object](b.do("GET", member, anna, ""), t); m["role_name"] != "developer" || m["entity_name"] != "anna" {
		t.Errorf("%v", m)
	}
	tags := "/api/v2.0/projects/p/repositories/app/artifacts/v1/tags"
	b.want(b.do("POST", tags, anna, `{"name":"v2"}`), 201)
	b.want(b.do("POST", tags, anna, `{"name":"-bad"}`), 400)
	b.want(b.do("DELETE", tags+"/v2", anna, ""), 403)
	b.want(b.do("DELETE", tags+"/v2", root, ""), 200)
	b.want(b.do("DELETE", tags+"/v2", root, ""), 404)
	b.want(b.do("DELETE", member, root, ""), 200)
	b.want(b.do("GET", "/api/v2.0/projects/p/repositories", anna, ""), 403)
}

func TestPaging(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{"a", "b", "c"} {
		b.id(b.do("POST", "/api/v2.0/projects", root, fmt.Sprintf(`{"project_name":%q}`, name)))
	}
	for query, want := range map[string]string{
		"page_size=2":                `</api/v2.0/projects?page=2&page_size=2>; rel="next"`,
		"page_size=2&page=2":         `</api/v2.0/projects?page=1&page_size=2>; rel="prev"`,
		"page_size=1&page=2&q=a%3Db": `</api/v2.0/projects?page=1&page_size=1&q=a=b>; rel="prev" , </api/v2.0/projects?page=3&page_size=1&q=a=b>; rel="next"`,
		"page_size=0":                "",
		"":                           "",
		"page_size=1&name=%3E%0D%0A": "", // nothing found
	} {
		a := b.want(b.do("GET", "/api/v2.0/projects?"+query, root, ""), 200)
		if got := a.header.Get("Link"); got != want {
			t.Errorf("%q: Link %q, want %q", query, got, want)
		}
	}
	// What could end the header or the reference stays escaped.
	a := b.do("GET", "/api/v2.0/projects?page_size=1&x=%3E%0D%0ASet-Cookie:1", root, "")
	if got := a.header.Get("Link"); strings.ContainsAny(got, "\r\n") || !strings.Contains(got, "%3E%0D%0A") {
		t.Errorf("Link %q", got)
	}
	if got := a.header.Get("X-Total-Count"); got != "4" {
		t.Errorf("X-Total-Count %q", got)
	}
}

// A list shows what is tagged or stands alone; parts of an index and what
// refers to another artifact are shown with it.
func TestArtifactList(t *testing.T) {
	t.Parallel()
	b := setup(t)
	repo := "library/deep/app"
	child := b.push(repo, "", "child")
	lone := b.push(repo, "", "lone")
	index := b.put(repo, "multi", artifact.TypeOCIIndex, fmt.Sprintf(
		`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"}}]}`,
		artifact.TypeOCIIndex, artifact.TypeDockerManifest, child, b.size(repo, child)))
	empty := b.blob(repo, []byte("{}"))
	signature := b.put(repo, "", artifact.TypeOCIManifest, fmt.Sprintf(
		`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.cncf.notary.signature","config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":%q},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		artifact.TypeOCIManifest, empty, artifact.TypeOCIIndex, index, b.size(repo, index)))
	artifacts := "/api/v2.0/projects/library/repositories/deep%252Fapp/artifacts"
	for query, want := range map[string][]string{
		"":                                 {index, lone},
		"?q=tags%3D*":                      {index},
		"?q=tags%3Dnil":                    {lone},
		"?q=tags%3D~ULT":                   {index},
		"?q=tags%3Dmulti":                  {index},
		"?q=base%3D*":                      {signature, index, lone, child},
		"?q=type%3DIMAGE":                  {index, lone},
		"?q=digest%3D" + lone:              {lone},
		"?q=labels%3D(1%202)":              {},
		"?q=base%3D*&sort=pushtime":        {child, lone, index, signature},
		"?q=base%3D*&sort=-id&page_size=1": {signature},
	} {
		var got []string
		for _, a := range decode[[]struct{ Digest string }](b.want(b.do("GET", artifacts+query, root, ""), 200), t) {
			got = append(got, a.Digest)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
	type shown struct {
		References  []struct{ Platform map[string]string }
		Accessories []struct{ Digest, Type string }
		Tags        []struct{ Name string }
		Type        string
	}
	one := decode[shown](b.want(b.do("GET", artifacts+"/multi?with_accessory=true", root, ""), 200), t)
	if len(one.References) != 1 || one.References[0].Platform["architecture"] != "amd64" || len(one.Accessories) != 1 ||
		one.Accessories[0].Type != "signature.notation" || len(one.Tags) != 1 || one.Type != "IMAGE" {
		t.Errorf("%+v", one)
	}
	if all := decode[[]object](b.want(b.do("GET", artifacts+"/multi/accessories", "", ""), 200), t); len(all) != 1 || all[0]["digest"] != signature {
		t.Errorf("%v", all)
	}
	b.want(b.do("GET", artifacts+"/multi/additions/build_history", root, ""), 400)
	b.want(b.do("GET", artifacts+"/"+lone+"/additions/build_history", root, ""), 200)
	if latest := decode[[]object](b.do("GET", "/api/v2.0/projects/library/artifacts?latest_in_repository=true&q=base%3D*", root, ""), t); len(latest) != 1 {
		t.Errorf("%d latest artifacts", len(latest))
	}
	if repos := decode[[]object](b.do("GET", "/api/v2.0/repositories", "", ""), t); len(repos) != 1 || repos[0]["artifact_count"] != 2.0 {
		t.Errorf("%v", repos)
	}
}

func (b *bundle) size(repo, digest string) int {
	b.t.Helper()
	d, err := reference.ParseDigest(digest)
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := b.artifacts.Manifest(b.t.Context(), repo, d)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(m.Payload)
}

// What is deleted can be brought back.
func TestTrash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("library/app", "v1", "x")
	one := "/api/v2.0/projects/library/repositories/app/artifacts/v1"
	b.want(b.do("DELETE", one, root, ""), 200)
	b.want(b.do("GET", one, root, ""), 404)
	b.want(b.do("GET", "/api/v2.0/projects/library/repositories/app", root, ""), 404)
	bin := decode[[]artifact.Deleted](b.want(b.do("GET", "/api/berth/v1/projects/library/trash", root, ""), 200), t)
	if len(bin) != 1 || bin[0].Kind != "artifact" || bin[0].Repository != "library/app" {
		t.Fatalf("%+v", bin)
	}
	b.want(b.do("POST", "/api/berth/v1/projects/library/trash/restore", root, fmt.Sprintf(`{"id":%d,"kind":"artifact"}`, bin[0].ID)), 200)
	b.want(b.do("GET", one, root, ""), 200)
}

// Copying needs to read there and to write here.
func TestCopy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.id(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"vault"}`))
	b.push("vault/app", "v1", "x")
	anna := b.user("anna")
	b.id(b.do("POST", "/api/v2.0/projects", anna, `{"project_name":"mine"}`))
	copied := "/api/v2.0/projects/mine/repositories/app/artifacts?from="
	b.want(b.do("POST", copied+"vault/app:v1", anna, ""), 403)
	b.want(b.do("POST", "/api/v2.0/projects/library/repositories/app/artifacts?from=vault/app:v1", anna, ""), 403)
	b.want(b.do("POST", copied+"vault/app:nosuch", root, ""), 404)
	b.want(b.do("POST", copied+"nonsense", root, ""), 404)
	b.want(b.do("POST", copied+"vault/app:v1", root, ""), 201)
	b.want(b.do("GET", "/api/v2.0/projects/mine/repositories/app/artifacts/v1", anna, ""), 200)
}

// A project's administrator manages its robots; a robot makes only lesser ones.
func TestRobotJourney(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna, bert := b.user("anna"), b.user("bert")
	id := b.id(b.do("POST", "/api/v2.0/projects", anna, `{"project_name":"p"}`))
	body := `{"name":%q,"level":"project","duration":-1,"permissions":[{"kind":"project","namespace":"p","access":[{"resource":"repository","action":%q},{"resource":"robot","action":"create"},{"resource":"robot","action":"list"}]}]}`
	b.want(b.do("POST", "/api/v2.0/robots", bert, fmt.Sprintf(body, "r1", "pull")), 403)
	made := b.want(b.do("POST", "/api/v2.0/robots", anna, fmt.Sprintf(body, "r1", "pull")), 201)
	r1 := decode[struct{ Name, Secret string }](made, t)
	robot := r1.Name + ":" + r1.Secret
	b.want(b.do("POST", "/api/v2.0/robots", robot, fmt.Sprintf(body, "r2", "push")), 403)
	b.want(b.do("POST", "/api/v2.0/robots", robot, fmt.Sprintf(body, "r2", "pull")), 201)
	list := fmt.Sprintf("/api/v2.0/robots?q=Level%%3Dproject,ProjectID%%3D%d", id)
	for user, want := range map[string]int{anna: 200, robot: 200, bert: 403, root: 200, "": 401} {
		b.want(b.do("GET", list, user, ""), want)
	}
	b.want(b.do("GET", "/api/v2.0/robots", anna, ""), 403)
	b.want(b.do("GET", "/api/v2.0/robots?q=Level%3Dproject", anna, ""), 400)
	b.want(b.do("GET", "/api/v2.0/users/current", robot, ""), 412)
	one := made.header.Get("Location")
	b.want(b.do("GET", one, bert, ""), 403)
	b.want(b.do("PUT", one, anna, `{"name":"robot$p+r1","level":"project","duration":7,"disable":true,"permissions":[{"kind":"project","namespace":"p","access":[{"resource":"repository","action":"pull"}]}]}`), 200)
	b.want(b.do("PUT", one, anna, `{"name":"other","level":"project","duration":7}`), 400)
	b.want(b.do("GET", list, robot, ""), 401) // disabled
	b.want(b.do("DELETE", one, anna, ""), 200)
	b.want(b.do("GET", one, root, ""), 404)
	b.want(b.do("GET", one, bert, ""), 403)
}

// A robot that manages users makes no administrators and does not become one.
func TestRobotOfTheSystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("anna")
	made := b.want(b.do("POST", "/api/v2.0/robots", root, `{"name":"hr","level":"system","duration":1,"permissions":[{"kind":"system","namespace":"/","access":[{"resource":"user","action":"list"},{"resource":"user","action":"read"},{"resource":"user","action":"update"}]}]}`), 201)
	r := decode[struct{ Name, Secret string }](made, t)
	robot := r.Name + ":" + r.Secret
	b.want(b.do("GET", "/api/v2.0/users", robot, ""), 200)
	b.want(b.do("PUT", "/api/v2.0/users/2/password", robot, `{"new_password":"Changed12345"}`), 200)
	b.want(b.do("PUT", "/api/v2.0/users/1/password", robot, `{"new_password":"Changed12345"}`), 403)
	b.want(b.do("PUT", "/api/v2.0/users/9/password", robot, `{"new_password":"Changed12345"}`), 404)
	b.want(b.do("PUT", "/api/v2.0/users/2/sysadmin", robot, `{"sysadmin_flag":true}`), 403)
	b.want(b.do("DELETE", "/api/v2.0/users/2", robot, ""), 403)
}

// The trail shows everything to system administrators, and to others what
// happened in the projects that they administer.
func TestAuditScope(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.user("anna")
	id := b.id(b.do("POST", "/api/v2.0/projects", anna, `{"project_name":"p"}`))
	b.exec(fmt.Sprintf(`INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username, project_id)
		VALUES (now(), gen_random_uuid(), 'create', 'artifact', 'here', 'anna', %d), (now(), gen_random_uuid(), 'create', 'artifact', 'there', 'admin', 1)`, id))
	for _, path := range []string{"/auditlog-exts", "/audit-logs"} {
		for user, want := range map[string]string{root: "2", anna: "1", b.user(fmt.Sprint("x", len(path))): "0"} {
			if got := b.want(b.do("GET", "/api/v2.0"+path, user, ""), 200).header.Get("X-Total-Count"); got != want {
				t.Errorf("%s for %s: %s entries, want %s", path, user, got, want)
			}
		}
	}
	for _, path := range []string{"/auditlog-exts", "/logs"} {
		b.want(b.do("GET", "/api/v2.0/projects/p"+path, anna, ""), 200)
		b.want(b.do("GET", "/api/v2.0/projects/library"+path, anna, ""), 403)
	}
	if events := decode[[]object](b.do("GET", "/api/v2.0/auditlog-exts/events", anna, ""), t); len(events) != 18 {
		t.Errorf("%d types of events", len(events))
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.user("anna")
	info := decode[object](b.do("GET", "/api/v2.0/systeminfo", anna, ""), t)
	if info["registry_url"] != "registry.example.com" || !strings.HasPrefix(fmt.Sprint(info["harbor_version"]), "v2.16.0") {
		t.Errorf("%v", info)
	}
	b.want(b.do("GET", "/api/v2.0/systeminfo/volumes", anna, ""), 403)
	if got := b.do("GET", "/api/v2.0/systeminfo/volumes", root, "").body; got != `{"storage":[{"total":100,"free":40}]}`+"\n" {
		t.Errorf("volumes %s", got)
	}
	if s := decode[object](b.do("GET", "/api/v2.0/statistics", anna, ""), t); s["total_project_count"] != nil || s["public_project_count"] != 1.0 {
		t.Errorf("statistics %v", s)
	}
	if h := decode[object](b.do("GET", "/api/v2.0/health", "", ""), t); h["status"] != "healthy" {
		t.Errorf("health %v", h)
	}
	if p := decode[[]object](b.do("GET", "/api/v2.0/users/current/permissions", root, ""), t); len(p) != 70 {
		t.Errorf("%d permissions on the system", len(p))
	}
	if p := decode[[]object](b.do("GET", "/api/v2.0/users/current/permissions?scope=/project/1", anna, ""), t); len(p) == 0 || p[0]["resource"] != "/project/1" {
		t.Errorf("permissions %v", p)
	}
}

// A component that fails or hangs is told apart, and does not hang the answer. What
// is only its consequence says so. Strangers see nothing of the inside.
func TestHealth(t *testing.T) {
	t.Parallel()
	b := setup(t)
	options := b.options
	options.Checks = []health.Check{
		{Name: "core"},
		{Name: "registry", DependsOn: []string{"token"}, Hint: "look at it", Probe: func(context.Context) error { return errors.New("a detail for the log") }},
		{Name: "storage", Hint: "make room", Probe: func(context.Context) error { return health.Warning(errors.New("a detail of the storage")) }},
		{Name: "token", Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{Name: "database", Probe: b.pool.Ping},
	}
	api, err := core.New(options)
	if err != nil {
		t.Fatal(err)
	}
	b.handler = http.Handler(api)
	began := time.Now()
	a := b.want(b.do("GET", "/api/v2.0/health", "", ""), 200)
	type components struct {
		Status     string
		Components []struct{ Name, Status, Error, Hint string }
	}
	h := decode[components](a, t)
	if time.Since(began) > 10*time.Second || strings.Contains(a.body, "detail") || strings.Contains(a.body, "hint") || strings.Contains(a.body, "causes") ||
		fmt.Sprint(h) != "{unhealthy [{core healthy  } {registry unhealthy it does not answer } {storage healthy  } {token unhealthy it does not answer in time } {database healthy  }]}" {
		t.Errorf("%s", a.body)
	}
	if b.want(b.do("GET", "/api/v2.0/health", b.user("anna"), ""), 200).body != a.body {
		t.Error("anna sees more than a stranger")
	}
	a = b.want(b.do("GET", "/api/v2.0/health", root, ""), 200)
	if h := decode[components](a, t); h.Components[2].Hint != "make room" || !strings.Contains(a.body, `"causes":["token"]`) || !strings.Contains(a.body, "a detail of the storage") {
		t.Errorf("an administrator sees %s", a.body)
	}
}

func BenchmarkGetProject(bm *testing.B) {
	b := setup(bm)
	bm.ReportAllocs()
	for bm.Loop() {
		b.do("GET", "/api/v2.0/projects/library", root, "")
	}
}

// Events know who made the request, from where, and under which id.
func TestEventOrigin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.id(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"p"}`, "X-Request-Id", "request-1", "X-Forwarded-For", "10.0.0.7"))
	var got string
	err := b.pool.QueryRow(t.Context(), `
		SELECT concat_ws(' ', args->>'operation', args->>'resource_type', args->>'resource', args->>'user', args->>'source', args->>'request_id')
		FROM river_job ORDER BY id DESC LIMIT 1`).Scan(&got)
	if want := "create project p admin 10.0.0.7 request-1"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}
