package core_test

import (
	"fmt"
	"strings"
	"testing"
)

// Garbage collection and audit purge by the API, without anybody who does them.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, kind := range []string{"gc", "purgeaudit"} {
		base := "/api/v2.0/system/" + kind
		params := `{"audit_retention_hour":24,"include_event_types":"create_user","dry_run":true}`
		a := b.want(b.do("POST", base+"/schedule", root, `{"schedule":{"type":"Manual"},"parameters":`+params+`}`), 201)
		at := a.header.Get("Location")
		if !strings.HasPrefix(at, base+"/") {
			t.Fatalf("Location %q", at)
		}
		if got := b.want(b.do("GET", at, root, ""), 200).body; !strings.Contains(got, `"job_status":"Running"`) || !strings.Contains(got, `dry_run\":true`) {
			t.Errorf("%s", got)
		}
		b.want(b.do("GET", at+"/log", root, ""), 200)
		b.want(b.do("PUT", at, root, ""), 200)
		if got := b.want(b.do("GET", at, root, ""), 200).body; !strings.Contains(got, `"job_status":"Stopped"`) {
			t.Errorf("%s", got)
		}
		other := map[string]string{"gc": "purgeaudit", "purgeaudit": "gc"}[kind]
		b.want(b.do("GET", strings.Replace(at, kind, other, 1), root, ""), 404)
		b.want(b.do("GET", base+"/4711", root, ""), 404)
		b.want(b.do("PUT", base+"/4711", root, ""), 404)
		b.want(b.do("GET", base+"/4711/log", root, ""), 404)
		b.want(b.do("PUT", base+"/schedule", root, `{"schedule":{"type":"Weekly"},"parameters":`+params+`}`), 200)
		if got := b.want(b.do("GET", base+"/schedule", root, ""), 200).body; !strings.Contains(got, `"cron":"0 0 0 * * 0"`) || !strings.Contains(got, `"type":"Weekly"`) {
			t.Errorf("%s", got)
		}
		b.want(b.do("PUT", base+"/schedule", root, `{"schedule":{"type":"Yearly"},"parameters":`+params+`}`), 400)
		b.want(b.do("PUT", base+"/schedule", root, `{}`), 400)
		b.want(b.do("PUT", base+"/schedule", root, `{"schedule":{"type":"None"}}`), 200)
		if got := b.want(b.do("GET", base+"/schedule", root, ""), 200).body; got != "" {
			t.Errorf("%s", got)
		}
	}
}

func TestJobservice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const base = "/api/v2.0/jobservice"
	b.want(b.do("POST", "/api/v2.0/system/gc/schedule", root, `{"schedule":{"type":"Manual"},"parameters":{}}`), 201)
	queue := func() string {
		all := b.want(b.do("GET", base+"/queues", root, ""), 200).body
		_, rest, _ := strings.Cut(all, `"job_type":"GARBAGE_COLLECTION"`)
		before, _, _ := strings.Cut(rest, "}")
		return fmt.Sprint(strings.Count(all, "job_type"), strings.Contains(all, `"count":1`), before[strings.Index(before, `"paused"`):])
	}
	if got := queue(); got != `13 true"paused":false` {
		t.Error(got)
	}
	b.want(b.do("PUT", base+"/queues/GARBAGE_COLLECTION", root, `{"action":"pause"}`), 200)
	if got := queue(); got != `13 true"paused":true` {
		t.Error(got)
	}
	b.want(b.do("PUT", base+"/queues/GARBAGE_COLLECTION", root, `{"action":"resume"}`), 200)
	b.want(b.do("PUT", base+"/queues/GARBAGE_COLLECTION", root, `{"action":"stop"}`), 200)
	if got := queue(); got != `13 false"paused":false` {
		t.Error(got)
	}
	b.want(b.do("PUT", base+"/queues/GARBAGE_COLLECTION", root, `{"action":"dance"}`), 400)
	b.want(b.do("PUT", base+"/queues/NOPE", root, `{"action":"pause"}`), 404)
	b.want(b.do("GET", base+"/pools/nope/workers", root, ""), 404)
	b.want(b.do("GET", base+"/pools/all/workers", root, ""), 200)
	b.want(b.do("GET", base+"/jobs/1/log", root, ""), 200)
	b.want(b.do("GET", base+"/jobs/x/log", root, ""), 404)
	b.want(b.do("PUT", base+"/jobs/1", root, ""), 200)
	b.want(b.do("PUT", base+"/jobs/99", root, ""), 404)
	b.want(b.do("PUT", base+"/jobs/all", root, ""), 200)

	paused := "/api/v2.0/schedules/all/paused"
	if got := b.want(b.do("GET", paused, root, ""), 200).body; got != "{\"paused\":false}\n" {
		t.Error(got)
	}
	b.want(b.do("PUT", base+"/queues/all", root, `{"action":"pause"}`), 200)
	if got := b.want(b.do("GET", paused, root, ""), 200).body; got != "{\"paused\":true}\n" {
		t.Error(got)
	}
	b.want(b.do("GET", "/api/v2.0/schedules/gc/paused", root, ""), 400)
	if got := b.want(b.do("GET", "/api/v2.0/schedules", root, ""), 200); got.header.Get("X-Total-Count") != "1" || !strings.Contains(got.body, `"vendor_type":"PURGE_AUDIT_LOG"`) {
		t.Errorf("%v", got)
	}
}
