package upkeep_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/jobs"
	"berth/services/project"
	"berth/services/query"
	"berth/services/reference"
	"berth/services/task"
	"berth/services/upkeep"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bundle is a database, blobs, and a jobs service that runs on them.
type bundle struct {
	*testing.T
	pool      *pgxpool.Pool
	artifacts *artifact.Store
	blobs     *blob.Store
	tasks     *task.Store
	upkeep    *upkeep.Store
}

func setup(t *testing.T) *bundle {
	t.Helper()
	t.Parallel()
	b := &bundle{T: t, pool: dbtest.New(t)}
	outbox, err := event.NewOutbox(b.pool)
	check(t, err)
	b.blobs, err = blob.OpenLocal(t.TempDir())
	check(t, err)
	t.Cleanup(func() { b.blobs.Close() })
	b.artifacts, err = artifact.New(artifact.Options{Pool: b.pool, Outbox: outbox, Log: slog.New(slog.DiscardHandler),
		Times: artifact.Times{Grace: time.Microsecond, Trash: time.Microsecond, TombGrace: time.Microsecond}})
	check(t, err)
	check(t, project.New(b.pool, outbox).EnsureLibrary(t.Context()))
	b.tasks, err = task.NewStore(b.pool)
	check(t, err)
	b.upkeep = upkeep.New(b.pool, b.tasks)
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run starts the jobs service without its own collector.
func (b *bundle) run() {
	b.Helper()
	far := 24 * time.Hour
	svc, err := jobs.New(jobs.Options{Pool: b.pool, Artifacts: b.artifacts, Blobs: b.blobs, Tasks: b.tasks, Log: slog.New(slog.DiscardHandler),
		Every: jobs.Intervals{Collect: far, Sweep: far, Scrub: far, Verify: far, Upkeep: far},
		Kinds: []task.Kind{upkeep.Collector(b.artifacts, b.blobs.Delete), upkeep.Purger(b.pool, nil)}})
	check(b, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("jobs: %v", err)
		}
	})
}

func (b *bundle) blob(content string) (reference.Digest, int) {
	b.Helper()
	d := reference.Of(reference.SHA256, []byte(content))
	u, err := b.blobs.Upload(b.Context(), uuid.New(), reference.SHA256)
	check(b, err)
	_, err = u.Append(b.Context(), strings.NewReader(content), int64(len(content)))
	check(b, err)
	key, err := u.Commit(b.Context(), d)
	check(b, err)
	_, err = b.artifacts.CommitBlob(b.Context(), "library/app", artifact.Blob{Digest: d, Size: int64(len(content)), Key: key}, true)
	check(b, err)
	return d, len(content)
}

// push makes an image with a layer of its own, tagged or not.
func (b *bundle) push(flavour, tag string) {
	b.Helper()
	config, n := b.blob("{}")
	layer, m := b.blob("layer " + flavour)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":%d,"digest":%q},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":%d,"digest":%q}]}`,
		artifact.TypeOCIManifest, n, config, m, layer)
	p := artifact.Push{Repo: "library/app", Digest: reference.Of(reference.SHA256, []byte(manifest)), MediaType: artifact.TypeOCIManifest, Payload: []byte(manifest)}
	if tag != "" {
		p.Tags = []string{tag}
	}
	_, err := b.artifacts.PutManifest(b.Context(), p)
	check(b, err)
}

func (b *bundle) set(w upkeep.Work, p upkeep.Plan, params string) int64 {
	b.Helper()
	id, err := b.upkeep.Set(b.Context(), w, p, json.RawMessage(params))
	check(b, err)
	return id
}

func (b *bundle) ends(id int64) (extra map[string]any) {
	b.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		e, err := b.tasks.Execution(b.Context(), task.Of{}, id)
		check(b, err)
		if e.Status.Final() {
			if e.Status != task.Success {
				page, err := b.tasks.Tasks(b.Context(), id, query.Query{})
				b.Errorf("%+v %+v %v", e, page.Items, err)
			}
			check(b, json.Unmarshal(e.Extra, &extra))
			return extra
		}
	}
	b.Fatal("it did not end")
	return nil
}

func (b *bundle) count(sql string) (n int) {
	b.Helper()
	check(b, b.pool.QueryRow(b.Context(), sql).Scan(&n))
	return n
}

// A dry run changes nothing and finds what a run then removes: untagged
// artifacts, their blobs, the bytes.
func TestCollection(t *testing.T) {
	b := setup(t)
	b.push("one", "1.0")
	b.push("two", "1.0") // the first has no tag now
	b.push("three", "")
	b.push("four", "4")
	b.run()
	manual := upkeep.Plan{Type: "Manual"}
	got := b.ends(b.set(upkeep.Collection, manual, `{"delete_untagged":true,"dry_run":true,"workers":2}`))
	if got["purged_manifests"] != 2.0 || got["workers"] != 2.0 || b.count(`SELECT count(*) FROM manifests`) != 4 {
		t.Errorf("dry run: %v", got)
	}
	if got := b.ends(b.set(upkeep.Collection, manual, `{}`)); got["purged_manifests"] != 0.0 {
		t.Errorf("without delete_untagged: %v", got)
	}
	id := b.set(upkeep.Collection, manual, `{"delete_untagged":true}`)
	got = b.ends(id)
	if got["untagged_artifacts"] != 2.0 || got["purged_manifests"] != 2.0 || got["purged_blobs"] != 2.0 || got["freed_space"] != float64(len("layer one")+len("layer three")) {
		t.Errorf("%v", got)
	}
	if n := b.count(`SELECT count(*) FROM manifests`); n != 2 {
		t.Errorf("%d manifests are left", n)
	}
	log, err := b.upkeep.Log(t.Context(), upkeep.Collection, id)
	if err != nil || !strings.Contains(log, "garbage collection is done manifests=2 blobs=2") {
		t.Errorf("log %q, %v", log, err)
	}
	if _, err := b.upkeep.Log(t.Context(), upkeep.AuditPurge, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("another work's: %v", err)
	}
}

func TestAuditPurge(t *testing.T) {
	b := setup(t)
	for i, operation := range []string{"create", "pull", "pull", "restore"} {
		_, err := b.pool.Exec(t.Context(), `INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username)
			VALUES (now() - interval '3 hours' * $1::int, gen_random_uuid(), $2, 'artifact', 'x', 'admin')`, i, operation)
		check(t, err)
	}
	b.run()
	manual := upkeep.Plan{Type: "Manual"}
	if got := b.ends(b.set(upkeep.AuditPurge, manual, `{"audit_retention_hour":2,"include_event_types":"pull_artifact","dry_run":true}`)); got["purged_entries"] != 2.0 {
		t.Errorf("dry run: %v", got)
	}
	if got := b.ends(b.set(upkeep.AuditPurge, manual, `{"audit_retention_hour":5,"include_event_types":"pull_artifact, create_user"}`)); got["purged_entries"] != 1.0 {
		t.Errorf("pulls: %v", got)
	}
	if got := b.ends(b.set(upkeep.AuditPurge, manual, `{"audit_retention_hour":2,"include_operations":"create,delete,update,pull,login,logout"}`)); got["purged_entries"] != 2.0 {
		t.Errorf("all: %v", got)
	}
	if n := b.count(`SELECT count(*) FROM audit_events WHERE op_time < now() - interval '1 hour'`); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

func TestPlans(t *testing.T) {
	b := setup(t)
	planned := func(w upkeep.Work) string {
		p, _, err := b.tasks.Planned(t.Context(), w.Vendor, 0)
		check(t, err)
		return p.Type + " " + p.Cron
	}
	if got := planned(upkeep.AuditPurge); got != "Daily 0 0 3 * * *" { // the trail is bounded from the start
		t.Errorf("purge: %q", got)
	}
	p, _, err := b.tasks.Planned(t.Context(), task.PurgeAudit, 0)
	check(t, err)
	if !strings.Contains(string(p.Params), strings.Join(event.Types(), ",")) {
		t.Errorf("not of all types: %s", p.Params)
	}
	b.set(upkeep.Collection, upkeep.Plan{Type: "Hourly"}, ``)
	if got := planned(upkeep.Collection); got != "Hourly 0 0 * * * *" {
		t.Error(got)
	}
	b.set(upkeep.Collection, upkeep.Plan{Type: "Custom", Cron: "0 30 4 * * 1"}, `{"workers":10}`)
	if got := planned(upkeep.Collection); got != "Custom 0 30 4 * * 1" {
		t.Error(got)
	}
	b.set(upkeep.Collection, upkeep.Plan{Type: "None"}, `{}`)
	if got := planned(upkeep.Collection); got != " " {
		t.Error(got)
	}
	for _, bad := range []struct {
		w      upkeep.Work
		p      upkeep.Plan
		params string
		field  string
	}{
		{upkeep.Collection, upkeep.Plan{}, `{}`, "schedule.type"},
		{upkeep.Collection, upkeep.Plan{Type: "Sometimes"}, `{}`, "schedule.type"},
		{upkeep.Collection, upkeep.Plan{Type: "Custom", Cron: "1 0 0 * * *"}, `{}`, "schedule.cron"},
		{upkeep.Collection, upkeep.Plan{Type: "Custom"}, `{}`, "schedule.cron"},
		{upkeep.Collection, upkeep.Plan{Type: "Manual"}, `{"workers":11}`, "parameters.workers"},
		{upkeep.Collection, upkeep.Plan{Type: "Manual"}, `{"workers":"x"}`, "parameters"},
		{upkeep.Collection, upkeep.Plan{Type: "Manual"}, `[]`, "parameters"},
		{upkeep.AuditPurge, upkeep.Plan{Type: "Manual"}, `{"audit_retention_hour":1}`, "parameters.include_event_types"},
		{upkeep.AuditPurge, upkeep.Plan{Type: "Manual"}, `{"audit_retention_hour":240001,"include_event_types":"create_user"}`, "parameters.audit_retention_hour"},
		{upkeep.AuditPurge, upkeep.Plan{Type: "Manual"}, `{"audit_retention_hour":1,"include_event_types":"nope"}`, "parameters.include_event_types"},
		{upkeep.AuditPurge, upkeep.Plan{Type: "Manual"}, `{"audit_retention_hour":1,"include_operations":"nope"}`, "parameters.include_operations"},
	} {
		_, err := b.upkeep.Set(t.Context(), bad.w, bad.p, json.RawMessage(bad.params))
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || f.Field != bad.field {
			t.Errorf("%+v %s: %v", bad.p, bad.params, err)
		}
	}
}
