package core_test

import (
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/services/wiretest"
)

// differences are the captures where we answer otherwise than Harbor, and why.
// An entry says what differs: status, or a path in the body.
var differences = map[string]map[string]string{
	"155-csrf-get.txt": {
		"status": "405 with the methods that there are, as for every path of the API; Harbor has an HTML page",
	},
	"157-c-login.txt": {
		"header Set-Cookie": "a session's id is made at login; Harbor keeps the one that the browser came with",
	},
	"160-c-logout.txt": {
		"header Set-Cookie": "the browser is told to forget the session's id",
	},
	"145-volumes.txt": {
		".storage[].free":  "the captured Harbor could not tell how much room there is",
		".storage[].total": "the captured Harbor could not tell how much room there is",
	},
	"164-nomethod.txt": {
		"header Allow": "RFC 9110 §15.5.6 asks for it",
	},
	"047-member-add-badrole.txt": {
		"status": "400: a role that does not exist is the caller's mistake, not a conflict",
	},
	"033-proj-list-pgszneg.txt": {
		"header Link": "a list without pages has no next page",
	},
	"060-robot-api-projects.txt": {
		"[].metadata.auto_scan": "a key of the metadata that is set is kept; Harbor forgets it unless it was added first",
	},
}

// TestWire plays Harbor's part of the captures: the same requests in the same
// order must get the same status, headers and shape of JSON. Ids that we give
// out differ; they are followed through the Location headers.
func TestWire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("library/hello", "v1", "one")
	b.push("library/hello", "v2", "two")
	files, err := filepath.Glob("testdata/wire/*.txt")
	if err != nil || len(files) < 70 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	ours := map[string]string{} // Harbor's path of a thing → ours
	web := browser{cookies: map[string]string{}}
	for _, file := range files {
		c := wiretest.Read(t, file)
		t.Run(c.Name, func(t *testing.T) {
			prepare(b, c.Name)
			a := b.do(c.Method, translate(ours, c.Path), c.User, c.Body, web.headers(c.Headers, c.Cookies)...)
			web.keep(a)
			wiretest.Compare(t, c, wiretest.Answer{Status: a.status, Header: a.header, Body: a.body}, differences[c.Name])
			if there, here := c.Answer.Header.Get("Location"), a.header.Get("Location"); there != "" && here != "" {
				ours[there] = here
			}
		})
	}
}

// prepare does what Harbor had behind it between two captures.
func prepare(b *bundle, name string) {
	switch name {
	case "029-proj-list.txt": // its second page is a project that the caller is no member of
		b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"zz"}`), 201)
		b.want(b.do("POST", "/api/v2.0/projects", "gu9171:Harbor12345", `{"project_name":"zy"}`), 201)
	case "060-robot-api-projects.txt": // its secret was set by 056 and then replaced by 057
		b.want(b.do("PATCH", "/api/v2.0/robots/1", root, `{"secret":"Harbor12345x"}`), 200)
	case "080-art-get.txt": // it was pulled
		for _, sql := range []string{`UPDATE tags SET pulled_at = now() WHERE name = 'v1'`, `UPDATE manifests SET pulled_at = now() FROM tags t WHERE t.manifest_id = manifests.id AND t.name = 'v1'`} {
			if _, err := b.pool.Exec(b.t.Context(), sql); err != nil {
				b.t.Fatal(err)
			}
		}
	case "133-gc-hist.txt": // garbage was collected before
		b.want(b.do("POST", "/api/v2.0/system/gc/schedule", root, `{"schedule":{"type":"Manual"},"parameters":{}}`), 201)
	case "148-pools.txt": // a process runs jobs
		if _, err := b.pool.Exec(b.t.Context(), `INSERT INTO job_pools (id, host, pid, concurrency) VALUES ('p', 'h', 1, 10)`); err != nil {
			b.t.Fatal(err)
		}
	case "101-imm-tag-del.txt":
		b.push("library/hello", "imm1", "three")
	case "126-quota-list.txt":
		b.push("gp2497/app", "v1", "four")
	case "201-ret-create.txt": // in the project whose id the body has
		b.exec(`INSERT INTO projects (id, name, owner_id) VALUES (55, 'hp23600', 1)`)
		b.push("hp23600/a", "v1", "five")
		b.push("hp23600/a", "v2", "six")
	case "206-ret-tasks.txt": // they have been done
		b.exec(`UPDATE tasks SET status = 'Success', started_at = now(), ended_at = now(), extra = extra || '{"total": 2, "retained": 1}' WHERE vendor = 'RETENTION'`)
	case "208-ret-left.txt":
		b.want(b.do("DELETE", "/api/v2.0/projects/hp23600/repositories/a/artifacts/v1", root, ""), 200)
	case "150-auditext.txt":
		for range 2 {
			if _, err := b.pool.Exec(b.t.Context(), `INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username) VALUES (now(), gen_random_uuid(), 'create', 'artifact', 'x', 'admin')`); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

func translate(ours map[string]string, path string) string {
	// The longest first: a policy's run before the policy.
	for _, there := range slices.SortedFunc(maps.Keys(ours), func(a, b string) int { return len(b) - len(a) }) {
		here := ours[there]
		if rest, ok := strings.CutPrefix(path, there); ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
			path = here + rest
		}
		id := func(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }
		if name, ok := strings.CutPrefix(there, "/api/v2.0/projects/"); ok && !strings.Contains(name, "/") {
			path = strings.ReplaceAll(path, url.QueryEscape("ProjectID="+id(there)), url.QueryEscape("ProjectID="+id(here)))
			path = strings.ReplaceAll(path, "reference_id="+id(there), "reference_id="+id(here))
			if path == "/api/v2.0/quotas/"+id(there) { // a project's quota has the project's id
				path = "/api/v2.0/quotas/" + id(here)
			}
		}
	}
	return path
}
