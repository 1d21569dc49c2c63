package core_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
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

// capture is a request to a Harbor 2.16 and its answer, as curl showed them.
type capture struct {
	name                     string
	method, path, user, body string
	headers                  []string
	status                   int
	header                   map[string]string
	answer                   string
	cookies                  bool // it was sent with the browser's
}

func readCapture(t *testing.T, file string) capture {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	command, rest, _ := strings.Cut(string(text), "\n")
	head, body, _ := strings.Cut(rest, "\n\n")
	c := capture{name: filepath.Base(file), method: "GET", header: map[string]string{}, answer: strings.TrimSpace(body)}
	lines := strings.Split(head, "\n")
	c.status, _ = strconv.Atoi(strings.Fields(lines[0])[1])
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, ": "); ok {
			c.header[name] = strings.TrimSpace(value)
		}
	}
	command = strings.TrimPrefix(command, "# curl ")
	if before, data, ok := strings.Cut(command, " -d "); ok {
		command, c.body = before, data
		if i := strings.LastIndex(data, " /"); i >= 0 { // a form; the path comes last
			command, c.body = before+data[i:], data[:i]
			c.headers = append(c.headers, "Content-Type", "application/x-www-form-urlencoded")
		}
	}
	words := strings.Fields(command)
	for i := 0; i < len(words); i++ {
		switch word := words[i]; word {
		case "-u":
			i++
			c.user = words[i]
		case "-X":
			i++
			c.method = words[i]
		case "-b":
			i++
			c.cookies = true
		case "-c":
			i++
		case "-I":
			c.method = "HEAD"
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ":")
			if value == "" { // "-H Name: value" has lost its quotes
				i++
				value = words[i]
			}
			c.headers = append(c.headers, name, value)
		default:
			c.path = word
		}
	}
	return c
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
		c := readCapture(t, file)
		t.Run(c.name, func(t *testing.T) {
			prepare(b, c.name)
			a := b.do(c.method, translate(ours, c.path), c.user, c.body, web.headers(c.headers, c.cookies)...)
			web.keep(a)
			compare(t, c, a)
			if there, here := c.header["Location"], a.header.Get("Location"); there != "" && here != "" {
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
	case "150-auditext.txt":
		for range 2 {
			if _, err := b.pool.Exec(b.t.Context(), `INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username) VALUES (now(), gen_random_uuid(), 'create', 'artifact', 'x', 'admin')`); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

func translate(ours map[string]string, path string) string {
	for there, here := range ours {
		if rest, ok := strings.CutPrefix(path, there); ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
			path = here + rest
		}
		id := func(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }
		if strings.HasPrefix(there, "/api/v2.0/projects/") {
			path = strings.ReplaceAll(path, url.QueryEscape("ProjectID="+id(there)), url.QueryEscape("ProjectID="+id(here)))
			path = strings.ReplaceAll(path, "reference_id="+id(there), "reference_id="+id(here))
			if path == "/api/v2.0/quotas/"+id(there) { // a project's quota has the project's id
				path = "/api/v2.0/quotas/" + id(here)
			}
		}
	}
	return path
}

func compare(t *testing.T, c capture, a answer) {
	excused := differences[c.name]
	differ := func(what, format string, args ...any) {
		t.Helper()
		if excused[what] == "" {
			t.Errorf("%s: %s\n%s %s\nHarbor: %.600s\nBerth:  %.600s", what, fmt.Sprintf(format, args...), c.method, c.path, c.answer, a.body)
		}
	}
	if a.status != c.status {
		differ("status", "%d, Harbor %d", a.status, c.status)
		return
	}
	if c.header["Content-Type"] != a.header.Get("Content-Type") {
		differ("header Content-Type", "%q, Harbor %q", a.header.Get("Content-Type"), c.header["Content-Type"])
	}
	for _, name := range []string{"X-Harbor-Csrf-Token", "Vary", "Set-Cookie", "X-Request-Id", "X-Total-Count", "Link", "Location", "Www-Authenticate", "Retry-After"} {
		if (c.header[name] != "") != (a.header.Get(name) != "") {
			differ("header "+name, "%q, Harbor %q", a.header.Get(name), c.header[name])
		}
	}
	if c.method == "HEAD" {
		return
	}
	var there, here any
	if json.Unmarshal([]byte(c.answer), &there) != nil {
		if strings.TrimSpace(a.body) != c.answer {
			differ("body", "not the same text")
		}
		return
	}
	if err := json.Unmarshal([]byte(a.body), &here); err != nil {
		differ("body", "%v", err)
		return
	}
	if errorCode(there) != errorCode(here) {
		differ("code", "%s, Harbor %s", errorCode(here), errorCode(there))
	}
	compareJSON(there, here, "", differ)
}

func errorCode(v any) string {
	object, _ := v.(map[string]any)
	list, _ := object["errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	entry, _ := list[0].(map[string]any)
	code, _ := entry["code"].(string)
	return code
}

var harborTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$`)

// compareJSON compares shapes: which fields there are, of what type, null or
// not, and how times are written.
func compareJSON(there, here any, path string, differ func(what, format string, args ...any)) {
	if kind(there) != kind(here) {
		differ(path, "%s, Harbor %s", kind(here), kind(there))
		return
	}
	switch there := there.(type) {
	case map[string]any:
		here := here.(map[string]any)
		for _, name := range slices.Sorted(mapKeys(there, here)) {
			theirs, has := there[name]
			mine, ok := here[name]
			switch {
			case has && !ok:
				differ(path+"."+name, "missing")
			case ok && !has:
				differ(path+"."+name, "Harbor has no such field")
			default:
				compareJSON(theirs, mine, path+"."+name, differ)
			}
		}
	case []any:
		here := here.([]any)
		if (len(there) == 0) != (len(here) == 0) {
			differ(path, "%d elements, Harbor %d", len(here), len(there))
		} else if len(there) > 0 {
			compareJSON(there[0], here[0], path+"[]", differ)
		}
	case string:
		if harborTime.MatchString(there) && (!harborTime.MatchString(here.(string)) || strings.HasPrefix(there, "0001") != strings.HasPrefix(here.(string), "0001")) {
			differ(path, "time %q, Harbor %q", here, there)
		}
	}
}

func mapKeys(maps ...map[string]any) func(func(string) bool) {
	return func(yield func(string) bool) {
		seen := map[string]bool{}
		for _, m := range maps {
			for k := range m {
				if !seen[k] && !yield(k) {
					return
				}
				seen[k] = true
			}
		}
	}
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return fmt.Sprintf("%T", v)
}
