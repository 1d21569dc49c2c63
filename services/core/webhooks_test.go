package core_test

import (
	"fmt"
	"strings"
	"testing"
)

// A webhook policy's life by the API: what it keeps, what it never shows, who may.
func TestWebhookPolicies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, p := range []string{"p", "q"} {
		b.want(b.do("POST", "/api/v2.0/projects", root, fmt.Sprintf(`{"project_name":%q}`, p)), 201)
	}
	const base = "/api/v2.0/projects/p/webhook"
	body := func(change string) string {
		return `{"name":"h","enabled":true,"event_types":["PUSH_ARTIFACT","PULL_ARTIFACT"],"targets":[{"type":"http","address":"https://hooks.example.com/x","auth_header":"Bearer t","skip_cert_verify":false` + change + `}]}`
	}
	at := b.want(b.do("POST", base+"/policies", root, body(`,"hmac_secret":"s3cret"`)), 201).header.Get("Location")
	if !strings.HasPrefix(at, base+"/policies/") {
		t.Fatalf("Location %q", at)
	}
	got := b.want(b.do("GET", at, root, ""), 200).body
	if strings.Contains(got, "s3cret") || strings.Contains(got, "hmac") || !strings.Contains(got, `"auth_header":"Bearer t"`) || !strings.Contains(got, `"payload_format":"Default"`) {
		t.Errorf("%s", got)
	}
	b.want(b.do("POST", base+"/policies", root, body("")), 409)
	b.want(b.do("PUT", at, root, body(`,"payload_format":"CloudEvents"`)), 200)
	if got := b.want(b.do("GET", at, root, ""), 200).body; !strings.Contains(got, `"payload_format":"CloudEvents"`) {
		t.Errorf("%s", got)
	}
	for what, bad := range map[string]string{
		"name":       strings.Replace(body(""), `"h"`, `""`, 1),
		"event":      strings.Replace(body(""), "PULL_ARTIFACT", "PUSH_CHART", 1),
		"no events":  `{"name":"h","targets":[{"type":"http","address":"https://h"}]}`,
		"no targets": `{"name":"h","event_types":["PUSH_ARTIFACT"]}`,
		"address":    strings.Replace(body(""), "https://hooks", "gopher://hooks", 1),
		"type":       strings.Replace(body(""), `"http"`, `"teams"`, 1),
		"format":     body(`,"payload_format":"YAML"`),
		"header":     strings.Replace(body(""), "Bearer t", `a\r\nb: c`, 1),
	} {
		if a := b.do("POST", base+"/policies", root, bad); a.status != 400 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}

	// A policy belongs to its project, and its executions to it.
	other := strings.Replace(at, "/p/", "/q/", 1)
	for _, path := range []string{other, other + "/executions", other + "/executions/1/tasks", other + "/executions/1/tasks/1/log", at + "/executions/99/tasks", at + "/executions/99/tasks/1/log"} {
		b.want(b.do("GET", path, root, ""), 404)
	}
	b.want(b.do("PUT", other, root, body("")), 404)
	b.want(b.do("DELETE", other, root, ""), 404)

	test := b.want(b.do("POST", strings.Replace(at, "/api/v2.0", "/api/berth/v1", 1)+"/test", root, ""), 201).header.Get("Location")
	if got := b.want(b.do("GET", test, root, ""), 200); got.header.Get("X-Total-Count") != "1" || !strings.Contains(got.body, `"status":"Pending"`) {
		t.Errorf("%s: %v", test, got)
	}
	if got := b.want(b.do("GET", at+"/executions", root, ""), 200).body; !strings.Contains(got, `"vendor_type":"WEBHOOK"`) || !strings.Contains(got, `"pending_task_count":1`) || !strings.Contains(got, `"end_time":"0001-01-01T00:00:00Z"`) {
		t.Errorf("%s", got)
	}
	_, id, _ := strings.Cut(at, "policies/")
	if got := b.want(b.do("GET", base+"/jobs?policy_id="+id, root, ""), 200).body; !strings.Contains(got, `"event_type":"PUSH_ARTIFACT"`) {
		t.Errorf("%s", got)
	}
	if got := b.want(b.do("GET", base+"/lasttrigger", root, ""), 200).body; strings.Count(got, "policy_name") != 2 {
		t.Errorf("%s", got)
	}

	// Maintainers read, developers do not, and nobody but an administrator writes.
	maintainer, developer := b.user("maintainer"), b.user("developer")
	b.want(b.do("POST", "/api/v2.0/projects/p/members", root, `{"role_id":4,"member_user":{"username":"maintainer"}}`), 201)
	b.want(b.do("POST", "/api/v2.0/projects/p/members", root, `{"role_id":2,"member_user":{"username":"developer"}}`), 201)
	b.want(b.do("GET", at, maintainer, ""), 200)
	b.want(b.do("PUT", at, maintainer, body("")), 403)
	b.want(b.do("GET", at, developer, ""), 403)

	b.want(b.do("DELETE", at, root, ""), 200)
	b.want(b.do("GET", at, root, ""), 404)
}
