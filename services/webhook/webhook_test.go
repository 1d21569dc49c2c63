package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/secret"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/configuration"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/jobs"
	"berth/services/outbound"
	"berth/services/project"
	"berth/services/query"
	"berth/services/task"
	"berth/services/webhook"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bundle is a database with the project library (id 1), and a jobs service.
type bundle struct {
	testing.TB
	pool     *pgxpool.Pool
	outbox   *event.Outbox
	tasks    *task.Store
	settings *configuration.Store
	hooks    *webhook.Store
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// setup starts everything; deliveries may go to allow alone.
func setup(t testing.TB, allow ...string) *bundle {
	t.Helper()
	b := &bundle{TB: t, pool: dbtest.New(t)}
	var err error
	b.outbox, err = event.NewOutbox(b.pool)
	check(t, err)
	check(t, project.New(b.pool, b.outbox).EnsureLibrary(t.Context()))
	b.tasks, err = task.NewStore(b.pool)
	check(t, err)
	key := secret.NewKey(make([]byte, 32))
	b.settings = configuration.New(b.pool, key, b.outbox)
	dialer := &outbound.Dialer{}
	for _, a := range allow {
		dialer.Allow = append(dialer.Allow, netip.MustParsePrefix(a))
	}
	b.hooks = webhook.New(webhook.Options{Pool: b.pool, Key: key, Tasks: b.tasks, Configuration: b.settings, Dialer: dialer, Host: "reg.example.com",
		Backoff: func(int) time.Duration { return 0 }, Timeout: time.Second})
	return b
}

const loopback = "127.0.0.1/32"

func (b *bundle) run() *bundle {
	b.Helper()
	blobs, err := blob.OpenLocal(b.TempDir())
	check(b, err)
	artifacts, err := artifact.New(artifact.Options{Pool: b.pool, Outbox: b.outbox})
	check(b, err)
	kinds, err := b.hooks.Kinds()
	check(b, err)
	far := 24 * time.Hour
	svc, err := jobs.New(jobs.Options{Pool: b.pool, Artifacts: artifacts, Blobs: blobs, Tasks: b.tasks, Log: slog.New(slog.DiscardHandler),
		Every: jobs.Intervals{Collect: far, Sweep: far, Scrub: far, Verify: far, Upkeep: far}, Kinds: kinds, Consumers: []jobs.Consumer{b.hooks.Consume}})
	check(b, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("jobs: %v", err)
		}
		blobs.Close()
	})
	return b
}

func (b *bundle) policy(targets []webhook.Target, types ...string) int64 {
	b.Helper()
	id, err := b.hooks.Create(b.Context(), webhook.Policy{ProjectID: 1, Name: uuid.NewString(), EventTypes: types, Targets: targets, Enabled: true})
	check(b, err)
	return id
}

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func push() event.Event {
	return event.Event{ID: uuid.New(), Time: time.Unix(1700000000, 0).UTC(), Operation: "create", ResourceType: "artifact", Success: true, User: "jane", RequestID: "req-1",
		Resource: "library/app:1.0", ProjectID: 1, Repository: "library/app", Digest: digest, Tag: "1.0"}
}

func (b *bundle) happen(events ...event.Event) {
	b.Helper()
	check(b, pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error { return b.outbox.Add(b.Context(), tx, events...) }))
}

// received is what a target has got.
type received struct {
	header http.Header
	body   string
}

// target is a server that answers with status codes, one after the other; the
// last one stays.
func target(t testing.TB, secure bool, statuses ...int) (url string, got chan received) {
	t.Helper()
	got = make(chan received, 1000)
	var n atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != "POST" {
			t.Errorf("%s %v", r.Method, err)
		}
		w.WriteHeader(statuses[min(int(n.Add(1)), len(statuses))-1])
		io.WriteString(w, "said the target")
		got <- received{r.Header, string(body)}
	})
	s := httptest.NewUnstartedServer(h)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(s.Close)
	return s.URL + "/hook/s3cret", got
}

func wait[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}

// ends waits for the end of a policy's newest execution.
func (b *bundle) ends(policy int64, status task.Status) (task.Execution, []task.Task, string) {
	b.Helper()
	var e task.Execution
	for deadline := time.Now().Add(25 * time.Second); !e.Status.Final(); time.Sleep(10 * time.Millisecond) {
		page, err := b.tasks.Executions(b.Context(), task.Of{Vendor: task.Webhook, VendorID: policy}, query.Query{})
		check(b, err)
		if len(page.Items) > 0 {
			e = page.Items[0]
		}
		if time.Now().After(deadline) {
			b.Fatalf("not at its end: %+v", e)
		}
	}
	page, err := b.tasks.Tasks(b.Context(), e.ID, query.Query{})
	check(b, err)
	log, err := b.tasks.LogOf(b.Context(), e.ID)
	check(b, err)
	if e.Status != status {
		b.Errorf("%s, want %s: %+v\n%s", e.Status, status, page.Items, log)
	}
	return e, page.Items, log
}

// The three forms of a delivery, to the field.
func TestFormats(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	url, got := target(t, true, 200)
	all := map[string]webhook.Target{
		"default": {Type: "http", Address: url, AuthHeader: "Bearer t0ken", SkipCertVerify: true, Secret: "k"},
		"cloud":   {Type: "http", Address: url, PayloadFormat: "CloudEvents", SkipCertVerify: true},
		"slack":   {Type: "slack", Address: url, SkipCertVerify: true},
	}
	e := push()
	const data = `{"resources":[{"digest":"` + digest + `","tag":"1.0","resource_url":"reg.example.com/library/app:1.0"}],` +
		`"repository":{"name":"app","namespace":"library","repo_full_name":"library/app","repo_type":"public"}}`
	for name, target := range all {
		id := b.policy([]webhook.Target{target}, "PUSH_ARTIFACT")
		e.ID = uuid.New()
		b.happen(e)
		r := wait(t, got)
		b.ends(id, task.Success)
		check(t, b.hooks.Delete(t.Context(), 1, id))
		switch name {
		case "default":
			mac := hmac.New(sha256.New, []byte("k"))
			io.WriteString(mac, r.body)
			if want := `{"type":"PUSH_ARTIFACT","occur_at":1700000000,"operator":"jane","event_data":` + data + `}`; r.body != want {
				t.Errorf("got  %s\nwant %s", r.body, want)
			}
			if r.header.Get("Authorization") != "Bearer t0ken" || r.header.Get("Content-Type") != "application/json" ||
				r.header.Get("X-Berth-Signature-256") != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
				t.Errorf("%v", r.header)
			}
		case "cloud":
			want := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/projects/1/webhook/policies/%d","type":"harbor.artifact.pushed","datacontenttype":"application/json",`+
				`"time":"2023-11-14T22:13:20Z","data":%s,"operator":"jane","requestid":"req-1"}`, e.ID, id, data)
			if r.body != want || r.header.Get("Content-Type") != "application/cloudevents+json" || r.header.Get("X-Berth-Signature-256") != "" {
				t.Errorf("got  %s\nwant %s\n%v", r.body, want, r.header)
			}
		case "slack":
			var m struct {
				Blocks []struct{ Text struct{ Text string } }
			}
			if err := json.Unmarshal([]byte(r.body), &m); err != nil || len(m.Blocks) != 4 || !strings.Contains(m.Blocks[3].Text.Text, "library/app:1.0") {
				t.Errorf("%s, %v", r.body, err)
			}
		}
	}
}

// Each policy hears of what it names, of its project, while it is enabled; and
// once, though the event comes twice.
func TestWhoIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	url, got := target(t, false, 204)
	here := []webhook.Target{{Type: "http", Address: url, AuthHeader: "a"}}
	both := b.policy(append(here, webhook.Target{Type: "http", Address: url, AuthHeader: "b"}), "PUSH_ARTIFACT", "DELETE_ARTIFACT")
	b.policy(here, "PULL_ARTIFACT")
	off := b.policy(here, "PUSH_ARTIFACT")
	p, err := b.hooks.Get(t.Context(), 1, off)
	check(t, err)
	p.Enabled = false
	check(t, b.hooks.Update(t.Context(), p, nil))

	e := push()
	other := push()
	other.ProjectID = 99
	failed := push()
	failed.Success = false
	b.happen(e, e, other, failed)
	if a, b := wait(t, got), wait(t, got); a.header.Get("Authorization") == b.header.Get("Authorization") {
		t.Errorf("twice to one target")
	}
	execution, tasks, _ := b.ends(both, task.Success)
	if len(tasks) != 2 || execution.Trigger != task.Event {
		t.Errorf("%+v", tasks)
	}
	gone := push()
	gone.Operation, gone.ResourceType, gone.Digest, gone.Tag = "delete", "repository", "", ""
	gone.Artifacts = []event.Artifact{{Digest: digest, Tag: "1"}, {Digest: digest}}
	b.happen(gone)
	r := wait(t, got)
	if !strings.Contains(r.body, `"tag":"1","resource_url":"reg.example.com/library/app:1"}`) || !strings.Contains(r.body, `"tag":"`+digest+`","resource_url":"reg.example.com/library/app@`+digest) {
		t.Errorf("%s", r.body)
	}
	wait(t, got)
	triggers, err := b.hooks.Triggers(t.Context(), 1)
	if err != nil || len(triggers) != 4 || !triggers[0].Last.IsZero() || triggers[2].Last.IsZero() || triggers[2].Type != "PUSH_ARTIFACT" {
		t.Errorf("%+v, %v", triggers, err)
	}
	if n := len(got); n != 0 {
		t.Errorf("%d more", n)
	}
}

// Notices of others carry their own data, and do not enter the audit trail.
func TestNotices(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	url, got := target(t, false, 200)
	b.policy([]webhook.Target{{Type: "http", Address: url}}, "QUOTA_WARNING", "QUOTA_EXCEED", "TAG_RETENTION")
	b.happen(event.Event{ID: uuid.New(), Operation: event.QuotaWarning, ResourceType: "quota", ProjectID: 1, Repository: "library/app", Resource: "library",
		Description: "quota usage reach 85%"})
	if r := wait(t, got); !strings.Contains(r.body, `"type":"QUOTA_WARNING"`) || !strings.Contains(r.body, `"custom_attributes":{"Details":"quota usage reach 85%"}`) || !strings.Contains(r.body, `"repo_full_name":"library/app"`) {
		t.Errorf("%s", r.body)
	}
	b.happen(event.Event{ID: uuid.New(), Operation: event.Retained, ResourceType: "tag_retention", ProjectID: 1, Notice: json.RawMessage(`{"retention":{"total":3}}`)})
	if r := wait(t, got); !strings.Contains(r.body, `"type":"TAG_RETENTION"`) || !strings.Contains(r.body, `"event_data":{"retention":{"total":3}}`) {
		t.Errorf("%s", r.body)
	}
	var n int
	check(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_events WHERE resource_type = 'tag_retention'`).Scan(&n))
	if n != 0 {
		t.Errorf("%d notices are in the audit trail", n)
	}
}

// A target that fails is tried again, three times in all; the log says what was
// sent and answered, and no secret.
func TestTries(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	url, got := target(t, false, 500, 404, 200)
	twice := b.policy([]webhook.Target{{Type: "http", Address: url, AuthHeader: "Basic c2VjcmV0"}}, "PUSH_ARTIFACT")
	b.happen(push())
	for range 3 {
		wait(t, got)
	}
	_, tasks, log := b.ends(twice, task.Success)
	if tasks[0].Attempts != 3 || !strings.Contains(log, "500 Internal Server Error") || !strings.Contains(log, "404 Not Found") || !strings.Contains(log, "said the target") || !strings.Contains(log, "Authorization=redacted") {
		t.Errorf("%+v\n%s", tasks[0], log)
	}
	if strings.Contains(log, "c2VjcmV0") || strings.Contains(log, "s3cret") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
	check(t, b.hooks.Delete(t.Context(), 1, twice))

	down, _ := target(t, false, 503)
	id := b.policy([]webhook.Target{{Type: "http", Address: down}}, "PUSH_ARTIFACT")
	b.happen(push())
	if _, tasks, _ := b.ends(id, task.Error); tasks[0].Attempts != 3 || tasks[0].Message != "the target answered 503 Service Unavailable" {
		t.Errorf("%+v", tasks[0])
	}
}

// A target that hangs costs a bounded time, and holds nobody else up.
func TestHangs(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	release := make(chan struct{})
	var stuck sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stuck.Add(1)
		defer stuck.Done()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); stuck.Wait(); s.Close() })
	hangs := b.policy([]webhook.Target{{Type: "http", Address: s.URL}}, "PUSH_ARTIFACT")
	url, got := target(t, false, 200)
	b.policy([]webhook.Target{{Type: "http", Address: url}}, "PUSH_ARTIFACT")
	b.happen(push())
	wait(t, got)
	if _, tasks, _ := b.ends(hangs, task.Error); tasks[0].Message != "the target did not answer within 1s" {
		t.Errorf("%+v", tasks[0])
	}
}

// What is on this machine is not reached unless it is allowed, also not by a
// redirect, and one who asks is told why.
func TestRefusedTarget(t *testing.T) {
	t.Parallel()
	b := setup(t).run()
	url, got := target(t, false, 200)
	id := b.policy([]webhook.Target{{Type: "http", Address: url}}, "PUSH_ARTIFACT")
	b.happen(push())
	if _, tasks, _ := b.ends(id, task.Error); tasks[0].Attempts != 1 || !strings.Contains(tasks[0].Message, "allow_targets") || strings.Contains(tasks[0].Message, "s3cret") {
		t.Errorf("%+v", tasks[0])
	}
	if len(got) != 0 {
		t.Error("it was reached")
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	url, got := target(t, false, 307)
	id := b.policy([]webhook.Target{{Type: "http", Address: url}}, "PUSH_ARTIFACT")
	b.happen(push())
	wait(t, got)
	if _, tasks, _ := b.ends(id, task.Error); !strings.Contains(tasks[0].Message, "307 Temporary Redirect") {
		t.Errorf("%+v", tasks[0])
	}
}
