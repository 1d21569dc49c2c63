package core_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/services/access"
	"berth/services/blob"
	"berth/services/event"
	"berth/services/jobs"
)

// jobs runs a jobs service on the bundle's database until the test ends.
func (b *bundle) jobs() {
	b.t.Helper()
	blobs, err := blob.OpenLocal(b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	far := 24 * time.Hour
	svc, err := jobs.New(jobs.Options{Pool: b.pool, Artifacts: b.artifacts, Blobs: blobs, Tasks: b.options.Tasks, Log: slog.New(slog.DiscardHandler),
		Every: jobs.Intervals{Collect: far, Sweep: far, Scrub: far, Verify: far, Upkeep: far}})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("jobs: %v", err)
		}
		blobs.Close()
	})
}

// Everything that Harbor's audit trail knows of is in ours when it happens, and a
// login that failed is there as a failure.
func TestEveryEventIsRecorded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.jobs()
	jane := b.user("jane")
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"p"}`), 201)
	b.want(b.do("PUT", "/api/v2.0/projects/p", root, `{"metadata":{"public":"true"}}`), 200)
	a := b.want(b.do("POST", "/api/v2.0/projects/p/members", root, `{"role_id":2,"member_user":{"username":"jane"}}`), 201)
	member := a.header.Get("Location")
	b.want(b.do("PUT", member, root, `{"role_id":3}`), 200)
	b.want(b.do("DELETE", member, root, ""), 200)
	id, _ := b.robot("p", "r", `[{"resource":"repository","action":"pull"}]`)
	b.want(b.do("DELETE", "/api/v2.0/robots/"+strconv.FormatInt(id, 10), root, ""), 200)
	b.push("p/app", "v1", "x")
	b.want(b.do("DELETE", "/api/v2.0/projects/p/repositories/app/artifacts/v1", root, ""), 200)
	b.push("p/app", "v2", "y")
	b.want(b.do("DELETE", "/api/v2.0/projects/p/repositories/app", root, ""), 200)
	b.want(b.do("DELETE", "/api/v2.0/projects/p", root, ""), 200)
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"read_only":false,"session_timeout":61}`), 200)
	var user struct {
		ID int64 `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(b.want(b.do("GET", "/api/v2.0/users/current", jane, ""), 200).body), &user); err != nil {
		t.Fatal(err)
	}
	b.want(b.do("PUT", "/api/v2.0/users/"+strconv.FormatInt(user.ID, 10), root, `{"email":"j@example.com","realname":"J","comment":"c"}`), 200)
	session, err := b.options.Sessions.Begin(t.Context(), access.Principal{Kind: access.User, ID: user.ID, Name: "jane"}, time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.options.Sessions.End(t.Context(), session.Reveal()); err != nil {
		t.Fatal(err)
	}
	if err := b.options.Sessions.Failed(t.Context(), "jane"); err != nil {
		t.Fatal(err)
	}
	b.want(b.do("DELETE", "/api/v2.0/users/"+strconv.FormatInt(user.ID, 10), root, ""), 200)

	wanted := map[string]bool{}
	for _, kind := range event.Types() {
		wanted[kind] = true
	}
	delete(wanted, "pull_artifact") // the registry's, and tested with it
	wanted["failed login_user"] = true
	for deadline := time.Now().Add(20 * time.Second); len(wanted) > 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		entries := decode[[]struct {
			Operation    string `json:"operation"`
			ResourceType string `json:"resource_type"`
			Result       bool   `json:"operation_result"`
		}](b.want(b.do("GET", "/api/v2.0/auditlog-exts?page_size=100", root, ""), 200), t)
		for _, e := range entries {
			kind := e.Operation + "_" + e.ResourceType
			if !e.Result {
				kind = "failed " + kind
			}
			delete(wanted, kind)
		}
	}
	for kind := range wanted {
		t.Errorf("%s is not recorded", kind)
	}
}

// Whoever follows the links sees every entry once, also while others come.
func TestTrailLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	insert := func(n int) {
		if _, err := b.pool.Exec(t.Context(), `INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username)
			SELECT now(), gen_random_uuid(), 'create', 'artifact', 'x', 'admin' FROM generate_series(1, $1)`, n); err != nil {
			t.Fatal(err)
		}
	}
	insert(25)
	seen := map[int64]bool{}
	next := "/api/v2.0/auditlog-exts?page_size=10&q=operation%3Dcreate"
	pages := 0
	for ; next != "" && pages < 10; pages++ {
		a := b.want(b.do("GET", next, root, ""), 200)
		for _, e := range decode[[]struct{ ID int64 }](a, t) {
			if seen[e.ID] {
				t.Errorf("entry %d comes twice", e.ID)
			}
			seen[e.ID] = true
		}
		insert(3)
		next = ""
		for link := range strings.SplitSeq(a.header.Get("Link"), " , ") {
			if target, ok := strings.CutSuffix(link, `>; rel="next"`); ok {
				next = strings.TrimPrefix(target, "<")
			}
		}
	}
	if len(seen) != 25 {
		t.Errorf("%d entries on %d pages", len(seen), pages)
	}
	b.want(b.do("GET", "/api/v2.0/auditlog-exts?after=x", root, ""), 400)
}
