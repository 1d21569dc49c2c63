package retention_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/jobs"
	"berth/services/query"
	"berth/services/reference"
	"berth/services/retention"
	"berth/services/task"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bench is a Berth with a project p, and a jobs service.
type bench struct {
	*retention.Store
	tasks     *task.Store
	artifacts *artifact.Store
	pool      *pgxpool.Pool
	ctx       context.Context
	t         *testing.T
}

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{pool: dbtest.New(t), ctx: t.Context(), t: t}
	b.exec(`INSERT INTO projects (id, name) VALUES (1, 'p')`)
	outbox, err := event.NewOutbox(b.pool)
	b.must(err)
	b.tasks, err = task.NewStore(b.pool)
	b.must(err)
	b.artifacts, err = artifact.New(artifact.Options{Pool: b.pool, Outbox: outbox})
	b.must(err)
	b.Store = retention.New(b.pool, outbox, b.tasks)
	blobs, err := blob.OpenLocal(t.TempDir())
	b.must(err)
	svc, err := jobs.New(jobs.Options{Pool: b.pool, Artifacts: b.artifacts, Blobs: blobs, Tasks: b.tasks,
		Log: slog.New(slog.DiscardHandler), Kinds: []task.Kind{b.Kind(b.artifacts)}})
	b.must(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		blobs.Close()
	})
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.ctx, sql, args...)
	b.must(err)
}

// push makes an image whose push was some days ago.
func (b *bench) push(repo, what string, days int, tags ...string) reference.Digest {
	b.t.Helper()
	config := reference.Of(reference.SHA256, []byte(what))
	_, err := b.artifacts.CommitBlob(b.ctx, repo, artifact.Blob{Digest: config, Size: 10, Key: "k/" + what}, true)
	b.must(err)
	payload := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":10,"digest":%q},"layers":[]}`,
		artifact.TypeOCIManifest, config)
	d := reference.Of(reference.SHA256, payload)
	_, err = b.artifacts.PutManifest(b.ctx, artifact.Push{Repo: repo, Digest: d, Tags: tags, Payload: payload})
	b.must(err)
	b.exec(`UPDATE manifests SET pushed_at = now() - make_interval(days => $2) WHERE digest = $1`, d.Bytes(), days)
	b.exec(`UPDATE tags t SET pushed_at = m.pushed_at FROM manifests m WHERE m.id = t.manifest_id AND m.digest = $1`, d.Bytes())
	return d
}

// left gives the tags of what a repository has; - stands for an untagged artifact.
func (b *bench) left(repo string) string {
	b.t.Helper()
	found, err := b.artifacts.Candidates(b.ctx, repo)
	if fault.Is(err, fault.NotFound) {
		return ""
	}
	b.must(err)
	var list []string
	for _, c := range found {
		names := "-"
		for i, t := range c.Tags {
			if i == 0 {
				names = t.Name
			} else {
				names += "," + t.Name
			}
		}
		list = append(list, names)
	}
	return strings.Join(list, " ")
}

// ends runs a policy and waits for its end.
func (b *bench) ends(id int64, dry bool) []task.Task {
	b.t.Helper()
	execution, err := b.Run(b.ctx, id, dry)
	b.must(err)
	return b.wait(execution)
}

func (b *bench) wait(execution int64) []task.Task {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		e, err := b.tasks.Execution(b.ctx, task.Of{Vendor: task.Retention}, execution)
		b.must(err)
		if e.Status == task.Success {
			page, err := b.tasks.Tasks(b.ctx, execution, query.Query{})
			b.must(err)
			return page.Items
		}
		if e.Status.Final() {
			b.t.Fatalf("the run ended with %s: %s", e.Status, e.Message)
		}
	}
	b.t.Fatal("the run does not end")
	return nil
}

// A dry run says what a run then does; what goes can be restored, and no longer
// counts.
func TestRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("p/app", "one", 1, "v1", "latest")
	b.push("p/app", "two", 2, "v2")
	b.push("p/app", "three", 3, "v3")
	b.push("p/app", "four", 4)
	b.push("p/nested/lib", "five", 5, "v1")
	b.push("p/nested/lib", "six", 6, "v2")
	b.exec(`INSERT INTO immutable_rules (project_id, rule) VALUES (1, '{"tag": {"kind": "doublestar", "decoration": "matches", "pattern": "v3"},
		"repository": {"kind": "doublestar", "decoration": "repoMatches", "pattern": "**"}}')`)
	p := retention.Policy{Rules: []retention.Rule{rule("latestPushedK", 1, "matches **+untagged")}}
	id, err := b.Create(b.ctx, 1, p)
	b.must(err)
	if _, err := b.Create(b.ctx, 1, p); !fault.Is(err, fault.Invalid) {
		t.Errorf("a second policy: %v", err)
	}
	tasks := b.ends(id, true)
	if len(tasks) != 2 || b.left("p/app") != "latest,v1 v2 v3 -" {
		t.Fatalf("%d tasks; a dry run left %s", len(tasks), b.left("p/app"))
	}
	log, err := b.tasks.Log(b.ctx, tasks[0].ID)
	if err != nil || !strings.Contains(log, "rule 1 keeps the 1 artifacts that were pushed last") || !strings.Contains(log, "no rule keeps it") || !strings.Contains(log, "immutable") {
		t.Errorf("%v: %s", err, log)
	}
	if extra := string(tasks[0].Extra); !strings.Contains(extra, `"total": 4`) || !strings.Contains(extra, `"retained": 2`) {
		t.Error(extra)
	}
	b.ends(id, false)
	if got := b.left("p/app") + "; " + b.left("p/nested/lib"); got != "latest,v1 v3; v1" {
		t.Errorf("left: %s", got)
	}
	bin, err := b.artifacts.Trash(b.ctx, 1, 10)
	if err != nil || len(bin) != 3 || bin[0].DeletedBy != "retention" {
		t.Fatalf("%v, %v", bin, err)
	}
	b.must(b.artifacts.Restore(b.ctx, 1, bin[0].Kind, bin[0].ID))
	b.must(b.Delete(b.ctx, id))
	if _, err := b.Policy(b.ctx, id); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// By tag, tags go one by one, and an artifact with its last.
func TestRunByTag(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("p/app", "one", 1, "keep-1", "drop-1")
	b.push("p/app", "two", 2, "drop-2", "drop-3")
	id, err := b.Create(b.ctx, 1, retention.Policy{ByTag: true, Rules: []retention.Rule{rule("always", 0, "matches keep-*")}})
	b.must(err)
	b.ends(id, false)
	if got := b.left("p/app"); got != "keep-1" {
		t.Errorf("left: %s", got)
	}
}

// What changes between the decision and the deed stays.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := b.push("p/app", "one", 10, "v1")
	found, err := b.artifacts.Candidates(b.ctx, "p/app")
	b.must(err)
	b.must(b.artifacts.CreateTag(b.ctx, "p/app", d, "v2"))
	if err := b.artifacts.Retire(b.ctx, "p/app", found[0], []string{"v1"}); !fault.Is(err, fault.Precondition) {
		t.Error(err)
	}
	found, err = b.artifacts.Candidates(b.ctx, "p/app")
	b.must(err)
	b.push("p/app", "one", 0, "v1")
	if err := b.artifacts.Retire(b.ctx, "p/app", found[0], []string{"v1", "v2"}); !fault.Is(err, fault.Precondition) {
		t.Error(err)
	}
	if got := b.left("p/app"); got != "v1,v2" {
		t.Errorf("left: %s", got)
	}
}

// A policy with a cron text has a schedule, which starts the same run.
func TestSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.push("p/app", "one", 1, "v1")
	b.push("p/app", "two", 2, "v2")
	p := retention.Policy{Rules: []retention.Rule{rule("latestPushedK", 1, "matches **")}}
	p.Trigger.Settings.Cron = "0 0 0 * * *"
	id, err := b.Create(b.ctx, 1, p)
	b.must(err)
	b.exec(`UPDATE schedules SET next_run = now() WHERE vendor = 'RETENTION'`)
	for end := time.Now().Add(20 * time.Second); b.left("p/app") != "v1" && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	e, err := b.tasks.Latest(b.ctx, task.Of{Vendor: task.Retention, VendorID: id})
	if err != nil || e.Trigger != task.Schedule || b.left("p/app") != "v1" {
		t.Errorf("%+v, %v, left %s", e, err, b.left("p/app"))
	}
	p.Trigger.Settings.Cron = ""
	b.must(b.Update(b.ctx, id, p))
	if _, planned, err := b.tasks.Planned(b.ctx, task.Retention, id); planned || err != nil {
		t.Errorf("still planned: %v", err)
	}
}
