package quota_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/query"
	"berth/services/quota"
	"berth/services/reference"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bench has two projects, p with id 1 and q with id 2.
type bench struct {
	*quota.Store
	artifacts *artifact.Store
	pool      *pgxpool.Pool
	ctx       context.Context
	t         testing.TB
}

func setup(t testing.TB, times artifact.Times) *bench {
	t.Helper()
	pool := dbtest.New(t)
	if _, err := pool.Exec(t.Context(), `INSERT INTO projects (id, name) VALUES (1, 'p'), (2, 'q')`); err != nil {
		t.Fatal(err)
	}
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	artifacts, err := artifact.New(artifact.Options{Pool: pool, Outbox: outbox, Times: times})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{quota.New(pool, outbox), artifacts, pool, t.Context(), t}
}

func (b *bench) limit(project, bytes int64) {
	b.t.Helper()
	if err := b.Set(b.ctx, project, bytes); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) used(project int64) int64 {
	b.t.Helper()
	q, err := b.Quota(b.ctx, project)
	if err != nil {
		b.t.Fatal(err)
	}
	return q.Used
}

func (b *bench) wantUsed(project, want int64) {
	b.t.Helper()
	if got := b.used(project); got != want {
		b.t.Errorf("project %d uses %d bytes, want %d", project, got, want)
	}
}

// blob uploads a blob of a size.
func (b *bench) blob(repo, content string, size int64) (reference.Digest, error) {
	d := reference.Of(reference.SHA256, []byte(content))
	_, err := b.artifacts.CommitBlob(b.ctx, repo, artifact.Blob{Digest: d, Size: size, Key: "blobs/" + rand.Text()}, true)
	return d, err
}

func manifest(blobs ...reference.Digest) []byte {
	type desc struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	m := struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
		Config        desc   `json:"config"`
		Layers        []desc `json:"layers"`
	}{2, artifact.TypeOCIManifest, desc{"application/vnd.oci.image.config.v1+json", blobs[0].String(), 1}, []desc{}}
	for _, d := range blobs[1:] {
		m.Layers = append(m.Layers, desc{"application/vnd.oci.image.layer.v1.tar", d.String(), 1})
	}
	text, _ := json.Marshal(m)
	return text
}

func (b *bench) push(repo, tag string, blobs ...reference.Digest) (d reference.Digest, size int64, err error) {
	payload := manifest(blobs...)
	d = reference.Of(reference.SHA256, payload)
	_, err = b.artifacts.PutManifest(b.ctx, artifact.Push{Repo: repo, Digest: d, Tags: []string{tag}, Payload: payload})
	return d, int64(len(payload)), err
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (b *bench) mustBlob(repo, content string, size int64) reference.Digest {
	b.t.Helper()
	return must[reference.Digest](b.t)(b.blob(repo, content, size))
}

func (b *bench) mustPush(repo, tag string, blobs ...reference.Digest) (reference.Digest, int64) {
	b.t.Helper()
	d, size, err := b.push(repo, tag, blobs...)
	if err != nil {
		b.t.Fatal(err)
	}
	return d, size
}

func (b *bench) events(operation string) (n int) {
	b.t.Helper()
	err := b.pool.QueryRow(b.ctx, `SELECT count(*) FROM river_job WHERE kind = 'event' AND args->>'operation' = $1 AND args->>'resource_type' = 'quota'`, operation).Scan(&n)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// check counts everything from the beginning: the usage must be what is there.
func (b *bench) check() {
	b.t.Helper()
	for project := range int64(2) {
		before := b.used(project + 1)
		d, err := b.Recompute(b.ctx, project+1)
		if err != nil || d.Bytes != 0 || d.Missing != 0 || d.Stale != 0 || d.Used != before {
			b.t.Errorf("a recount of project %d finds %+v where the counter said %d (%v)", project+1, d, before, err)
		}
	}
}

// What two repositories of a project share counts once, what two projects share
// counts in each, and what the last artifact goes with is free at once.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{})
	shared, own := b.mustBlob("p/one", "shared", 1000), b.mustBlob("p/one", "own", 50)
	first, size := b.mustPush("p/one", "v1", shared, own)
	b.wantUsed(1, 1050+size)
	b.mustBlob("p/two", "shared", 1000)
	second, size2 := b.mustPush("p/two", "v1", shared)
	b.wantUsed(1, 1050+size+size2)
	if err := b.artifacts.Copy(b.ctx, "p/one", first, "p/three", []string{"v1"}); err != nil {
		t.Fatal(err)
	}
	b.wantUsed(1, 1050+size+size2) // a copy within a project adds nothing
	if err := b.artifacts.Copy(b.ctx, "p/one", first, "q/one", []string{"v1"}); err != nil {
		t.Fatal(err)
	}
	b.wantUsed(2, 1050+size)
	b.check()

	for _, repo := range []string{"p/one", "p/three"} {
		if err := b.artifacts.DeleteManifest(b.ctx, repo, first); err != nil {
			t.Fatal(err)
		}
	}
	b.wantUsed(1, 1000+size2)
	if err := b.artifacts.DeleteManifest(b.ctx, "p/two", second); err != nil {
		t.Fatal(err)
	}
	b.wantUsed(1, 0)
	b.wantUsed(2, 1050+size)
	bin, err := b.artifacts.Trash(b.ctx, 1, 10)
	if err != nil || len(bin) != 3 {
		t.Fatal(bin, err)
	}
	for _, e := range bin {
		if err := b.artifacts.Restore(b.ctx, 1, e.Kind, e.ID); err != nil {
			t.Fatal(err)
		}
	}
	b.wantUsed(1, 1050+size+size2)
	b.check()
}

// An upload counts where there is a limit, and is refused with what is used,
// allowed and asked for; the event of a refusal survives it.
func TestExceeded(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{})
	b.limit(1, 5<<20)
	b.mustBlob("p/app", "a", 4<<20)
	b.wantUsed(1, 4<<20)
	_, err := b.blob("p/app", "b", 734+1<<20)
	if !fault.Is(err, fault.Forbidden) || !errors.Is(err, artifact.ErrQuota) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"1.0 MiB", "4.0 MiB", "5.0 MiB"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %s", err, part)
		}
	}
	b.wantUsed(1, 4<<20)
	if n := b.events("quota_exceed"); n != 1 {
		t.Errorf("%d events of the refusal", n)
	}
	b.mustBlob("q/app", "c", 2<<20)
	if _, err := b.artifacts.Mount(b.ctx, "p/app", "q/app", reference.Of(reference.SHA256, []byte("c"))); !errors.Is(err, artifact.ErrQuota) {
		t.Errorf("a mount over the limit: %v", err)
	}
	other, _ := b.mustPush("q/app", "v1", b.mustBlob("q/app", "d", 2<<20))
	if err := b.artifacts.Copy(b.ctx, "q/app", other, "p/app", nil); !errors.Is(err, artifact.ErrQuota) {
		t.Errorf("a copy over the limit: %v", err)
	}
	b.limit(1, 4<<20)
	if _, _, err := b.push("p/app", "v1", reference.Of(reference.SHA256, []byte("a"))); !errors.Is(err, artifact.ErrQuota) {
		t.Errorf("a manifest over the limit: %v", err)
	}
	b.limit(1, 4<<20+2000)
	d, _ := b.mustPush("p/app", "v1", reference.Of(reference.SHA256, []byte("a")))
	if err := b.artifacts.DeleteManifest(b.ctx, "p/app", d); err != nil {
		t.Fatal(err)
	}
	b.wantUsed(1, 0)
	b.mustBlob("p/app", "full", 4<<20+2000)
	if n := b.events("quota_warning"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	bin, _ := b.artifacts.Trash(b.ctx, 1, 10)
	if err := b.artifacts.Restore(b.ctx, 1, bin[0].Kind, bin[0].ID); !errors.Is(err, artifact.ErrQuota) {
		t.Errorf("restored over the limit: %v", err)
	}
	b.check()
}

// Of 64 pushers as many get in as the limit has room for: not one more, and not
// one less.
func TestPushersAtTheLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{})
	const pushers, room, size = 64, 40, 1000
	b.limit(1, room*size+size/2)
	var in, out atomic.Int64
	var wg sync.WaitGroup
	for i := range pushers {
		wg.Go(func() {
			_, err := b.blob(fmt.Sprint("p/r", i%5), fmt.Sprint("blob", i), size)
			switch {
			case err == nil:
				in.Add(1)
			case errors.Is(err, artifact.ErrQuota):
				out.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in.Load() != room || out.Load() != pushers-room {
		t.Errorf("%d got in and %d did not, want %d and %d", in.Load(), out.Load(), room, pushers-room)
	}
	b.wantUsed(1, room*size)
	if n := b.events("quota_warning"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	b.check()
}

// A mount may come while the last manifest with the blob goes. What is then counted
// for the mount is reviewed, though it was counted already when the mount began.
func TestMountBesideDeletion(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{Grace: 1, TombGrace: 1, Trash: time.Hour})
	b.limit(1, 10_000)
	d := b.mustBlob("p/app", "x", 100)
	b.mustPush("q/app", "v1", b.mustBlob("q/app", "x", 100))
	b.mustPush("p/app", "v1", d)
	if _, err := b.artifacts.Collect(b.ctx, 100, func(context.Context, string) error { return nil }); err != nil { // makes the reviews of the uploads
		t.Fatal(err)
	}
	tx, err := b.pool.Begin(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(b.ctx)
	for _, sql := range []string{ // what the deletion of p/app does, and has not committed yet
		`UPDATE manifests SET deleted_at = now() WHERE repo_id = (SELECT id FROM repositories WHERE name = 'p/app')`,
		`WITH gone AS (DELETE FROM project_blobs WHERE project_id = 1 RETURNING size) INSERT INTO usage_changes (project_id, bytes) SELECT 1, -sum(size) FROM gone`,
	} {
		if _, err := tx.Exec(b.ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	mounted := make(chan error, 1)
	go func() {
		done, err := b.artifacts.Mount(b.ctx, "p/other", "q/app", d)
		if err == nil && !done {
			err = errors.New("there was nothing to mount")
		}
		mounted <- err
	}()
	for waiting := 0; waiting == 0; {
		if err := b.pool.QueryRow(b.ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-mounted:
			t.Fatalf("the mount did not wait: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := tx.Commit(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-mounted; err != nil {
		t.Fatal(err)
	}
	b.wantUsed(1, 100)
	b.check()
	if _, err := b.artifacts.Collect(b.ctx, 100, func(context.Context, string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	b.wantUsed(1, 0) // nothing refers to it
	b.check()
}

// Images whose manifests do not fit leave nothing; the blobs that came before
// expire with the collector's review.
func TestRefusedPushesLeaveNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{Grace: 1, TombGrace: 1, Trash: time.Hour})
	_, size := b.mustPush("q/app", "v1", b.mustBlob("q/app", "x", 10))
	b.limit(1, 100+size-1)
	b.mustBlob("p/app", "layer", 100)
	if _, _, err := b.push("p/app", "v1", reference.Of(reference.SHA256, []byte("layer"))); !errors.Is(err, artifact.ErrQuota) {
		t.Fatal(err)
	}
	if done, err := b.artifacts.Mount(b.ctx, "p/app", "q/app", reference.Of(reference.SHA256, []byte("x"))); !done || err != nil {
		t.Fatal(done, err)
	}
	b.wantUsed(1, 110)
	cancelled, stop := context.WithCancel(b.ctx)
	stop()
	if _, err := b.artifacts.CommitBlob(cancelled, "p/app", artifact.Blob{Digest: reference.Of(reference.SHA256, []byte("y")), Size: 5, Key: "k"}, true); err == nil {
		t.Fatal("a cancelled push succeeded")
	}
	b.wantUsed(1, 110)
	for range 3 {
		if _, err := b.artifacts.Collect(b.ctx, 100, func(context.Context, string) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	b.wantUsed(1, 0)
	b.wantUsed(2, 10+size)
	b.check()
}

// After any sequence of operations, with deletions, restores and the collector
// beside pushes, the counter is what a recount finds; also if the database's
// connections die in the middle of them.
func TestCounterIsExact(t *testing.T) {
	for name, kill := range map[string]bool{"undisturbed": false, "connections die": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			counterIsExact(t, kill)
		})
	}
}

func counterIsExact(t *testing.T, kill bool) {
	b := setup(t, artifact.Times{Grace: 1, TombGrace: 1, Trash: time.Hour})
	b.limit(1, 3000)
	ctx, stop := context.WithTimeout(b.ctx, 6*time.Second)
	defer stop()
	var done, refused, killed atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := b.something(worker)
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, artifact.ErrQuota):
					refused.Add(1)
				case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict), fault.Is(err, fault.Unavailable):
				case kill:
					killed.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := quota.Gather(b.ctx, b.pool); err != nil && !kill {
				t.Error(err)
			}
			if q, err := b.Quota(b.ctx, 1); err == nil && (q.Used > 3000 || q.Used < 0) || err != nil && !kill {
				t.Errorf("%d bytes are used (%v)", q.Used, err)
			}
			if kill {
				b.pool.Exec(b.ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle' ORDER BY random() LIMIT 2`)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	wg.Wait()
	var deadlocks int
	if err := b.pool.QueryRow(b.ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks); err != nil && !kill {
		t.Error(err)
	}
	t.Logf("%d operations, %d refused by the quota, %d cut off, %d deadlocks", done.Load(), refused.Load(), killed.Load(), deadlocks)
	if done.Load() < 200 || refused.Load() < 10 {
		t.Error("too little happened to prove anything")
	}
	b.check()
}

// something is one random operation.
func (b *bench) something(worker int) error {
	repo := fmt.Sprintf("%s/r%d", []string{"p", "p", "q"}[mathrand.IntN(3)], mathrand.IntN(3))
	other := fmt.Sprintf("%s/r%d", []string{"p", "q"}[mathrand.IntN(2)], mathrand.IntN(3))
	switch mathrand.IntN(10) {
	case 0, 1, 2, 3:
		blobs := make([]reference.Digest, 1+mathrand.IntN(3))
		for i := range blobs {
			n := mathrand.IntN(15)
			var err error
			if blobs[i], err = b.blob(repo, fmt.Sprint("content", n), int64(10*n+1)); err != nil {
				return err
			}
		}
		slices.SortFunc(blobs, func(x, y reference.Digest) int { return strings.Compare(x.Hex(), y.Hex()) })
		_, _, err := b.push(repo, fmt.Sprint("t", mathrand.IntN(4)), slices.Compact(blobs)...)
		return err
	case 4:
		_, err := b.artifacts.Mount(b.ctx, repo, other, reference.Of(reference.SHA256, fmt.Appendf(nil, "content%d", mathrand.IntN(15))))
		return err
	case 5, 6, 7:
		page, err := b.artifacts.ListArtifacts(b.ctx, query.Query{Page: 1, Size: 5}, artifact.ListOptions{Repository: repo, ProjectID: map[byte]int64{'p': 1, 'q': 2}[repo[0]]})
		if fault.Is(err, fault.NotFound) || err == nil && len(page.Items) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		i := page.Items[mathrand.IntN(len(page.Items))]
		switch mathrand.IntN(8) {
		case 0:
			return b.artifacts.DeleteRepository(b.ctx, repo)
		case 1:
			return b.artifacts.Copy(b.ctx, repo, i.Digest, other, nil)
		}
		return b.artifacts.DeleteManifest(b.ctx, repo, i.Digest)
	case 8:
		bin, err := b.artifacts.Trash(b.ctx, 1+mathrand.Int64N(2), 20)
		if err != nil || len(bin) == 0 {
			return err
		}
		e := bin[mathrand.IntN(len(bin))]
		return b.artifacts.Restore(b.ctx, 1+mathrand.Int64N(2), e.Kind, e.ID)
	}
	_, err := b.artifacts.Collect(b.ctx, 20, func(context.Context, string) error { return nil })
	return err
}

// Quotas that are switched off bind nobody, and count all the same.
func TestNotEnforced(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{})
	b.artifacts.Quotas = func(context.Context) bool { return false }
	b.limit(1, 10)
	_, size := b.mustPush("p/app", "v1", b.mustBlob("p/app", "x", 100))
	b.wantUsed(1, 100+size)
	b.artifacts.Quotas = nil
	if err := quota.Gather(b.ctx, b.pool); err != nil { // what was added unchecked is known to the limit from now on
		t.Fatal(err)
	}
	if _, err := b.blob("p/app", "y", 1); !errors.Is(err, artifact.ErrQuota) {
		t.Errorf("got %v", err)
	}
	b.limit(1, -1)
	b.check()
}

// A recount mends what somebody has broken by hand.
func TestRecompute(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{})
	_, size := b.mustPush("p/app", "v1", b.mustBlob("p/app", "x", 100))
	for _, sql := range []string{
		`DELETE FROM project_blobs WHERE NOT manifest`,
		`INSERT INTO project_blobs (project_id, digest, manifest, size) VALUES (1, '\x01ff', true, 7)`,
		`INSERT INTO usage_changes (project_id, bytes) VALUES (1, 12345)`,
	} {
		if _, err := b.pool.Exec(b.ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	d, err := b.Recompute(b.ctx, 1)
	if err != nil || d != (quota.Drift{Project: "p", Missing: 1, Stale: 1, Bytes: -12345, Used: 100 + size}) {
		t.Errorf("got %+v, %v", d, err)
	}
	b.check()
	if _, err := b.Recompute(b.ctx, 99); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Times{})
	for _, bad := range []int64{0, -2, quota.MaxLimit + 1} {
		if err := b.Set(b.ctx, 1, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("a limit of %d: %v", bad, err)
		}
	}
	if err := b.Set(b.ctx, 99, 1); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	b.mustPush("q/app", "v1", b.mustBlob("q/app", "x", 100))
	page, err := b.List(b.ctx, query.Query{Sort: query.ParseSort("-used.storage"), Page: 1, Size: 1})
	if err != nil || page.Total != 2 || page.Items[0].Project != "q" {
		t.Errorf("got %+v, %v", page, err)
	}
}
