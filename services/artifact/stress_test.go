package artifact_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/database"
	"berth/services/reference"
)

// violations counts live manifests that refer to a blob which is not there.
const violations = `SELECT count(*) FROM manifests m JOIN manifest_blobs mb ON mb.manifest_id = m.id
	WHERE m.deleted_at IS NULL AND NOT EXISTS (SELECT FROM blobs b JOIN repo_blobs rb USING (digest)
		WHERE b.digest = mb.digest AND rb.repo_id = m.repo_id AND rb.deleted_at IS NULL)`

// Pushes, mounts, deletions and two collectors without any grace fight for the
// same twelve digests, and never does a manifest that was acknowledged lack a
// blob, or a blob its bytes. TestStressSeesTheRace shows that the test would
// notice.
func TestCollectAgainstPushes(t *testing.T) {
	length := 8 * time.Second
	if v, err := time.ParseDuration(os.Getenv("BERTH_STRESS")); err == nil {
		length = v
	}
	s := newStress(t)
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() { s.pushAndDelete(ctx, i) })
	}
	wg.Go(func() { s.mountForEver(ctx) })
	for range 2 {
		wg.Go(func() { s.collectForEver(ctx) })
	}
	for ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		s.check()
	}
	wg.Wait()
	s.check()
	t.Logf("%d pushes, %d told to push a blob again, %d mounts, %d deletions, %d blobs and %d objects collected",
		s.pushes.Load(), s.again.Load(), s.mounts.Load(), s.deletes.Load(), s.blobs.Load(), s.objects.Load())
	if s.pushes.Load() < 100 || s.blobs.Load() < 10 {
		t.Error("too little happened to prove anything")
	}
	s.drain()
}

type stress struct {
	*bench
	mu     sync.Mutex
	stored map[string]bool // the blob store: keys that have bytes

	pushes, again, mounts, deletes, blobs, objects atomic.Int64
}

func newStress(t *testing.T) *stress {
	s := &stress{stored: map[string]bool{}}
	s.bench = setup(t, artifact.Options{
		Times:   artifact.Times{Grace: 1, TombGrace: 1, Trash: 1}, // a nanosecond: everything is due at once
		Present: func(_ context.Context, key string, _ int64) bool { return s.has(key) },
	})
	return s
}

func (s *stress) has(key string) bool { s.mu.Lock(); defer s.mu.Unlock(); return s.stored[key] }
func (s *stress) set(key string, present bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if present {
		s.stored[key] = true
	} else {
		delete(s.stored, key)
	}
}

func (s *stress) upload(ctx context.Context, repo, content string) error {
	d := reference.Of(reference.SHA256, []byte(content))
	key := "blobs/" + rand.Text()
	s.set(key, true)
	used, err := s.CommitBlob(ctx, repo, artifact.Blob{Digest: d, Size: int64(len(content)), Key: key}, true)
	if err == nil && !used {
		s.set(key, false)
	}
	return err
}

func (s *stress) pushAndDelete(ctx context.Context, worker int) {
	for n := 0; ctx.Err() == nil; n++ {
		repo := fmt.Sprintf("p/r%d", mathrand.IntN(3))
		contents := []string{fmt.Sprint("config", worker, n), fmt.Sprint(mathrand.IntN(12)), fmt.Sprint(mathrand.IntN(12))}
		var blobs []reference.Digest
		for _, c := range contents {
			if err := s.upload(ctx, repo, c); err != nil && ctx.Err() == nil {
				s.t.Error(err)
				return
			}
			blobs = append(blobs, reference.Of(reference.SHA256, []byte(c)))
		}
		payload := image(nil, blobs...)
		d := reference.Of(reference.SHA256, payload)
		_, err := s.PutManifest(ctx, artifact.Push{Repo: repo, Digest: d, Tags: []string{fmt.Sprint("t", mathrand.IntN(8))}, Payload: payload})
		switch {
		case ctx.Err() != nil:
			return
		case fault.Is(err, fault.NotFound): // collected between upload and manifest: without grace that is right
			s.again.Add(1)
			continue
		case err != nil:
			s.t.Error(err)
			return
		}
		s.pushes.Add(1)
		if err := s.DeleteBlob(ctx, repo, reference.Of(reference.SHA256, []byte(fmt.Sprint(mathrand.IntN(12))))); err != nil && ctx.Err() == nil &&
			!fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
			s.t.Error(err)
		}
		if mathrand.IntN(3) > 0 {
			if err := s.DeleteManifest(ctx, repo, d); err == nil {
				s.deletes.Add(1)
			} else if ctx.Err() == nil && !fault.Is(err, fault.NotFound) {
				s.t.Error(err)
			}
		}
	}
}

func (s *stress) mountForEver(ctx context.Context) {
	for ctx.Err() == nil {
		d := reference.Of(reference.SHA256, []byte(fmt.Sprint(mathrand.IntN(12))))
		done, err := s.Mount(ctx, "q/m", fmt.Sprintf("p/r%d", mathrand.IntN(3)), d)
		if err != nil && ctx.Err() == nil {
			s.t.Error(err)
			return
		}
		if !done {
			continue
		}
		s.mounts.Add(1)
		if _, err := s.push("q/m", image(nil, d), "m"); err != nil && ctx.Err() == nil && !fault.Is(err, fault.NotFound) {
			s.t.Error(err)
		}
	}
}

func (s *stress) collectForEver(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := s.Collect(ctx, 50, func(_ context.Context, key string) error { s.set(key, false); return nil })
		if err != nil && ctx.Err() == nil {
			s.t.Error(err)
			return
		}
		s.blobs.Add(int64(c.Blobs))
		s.objects.Add(int64(c.Objects))
		time.Sleep(time.Millisecond)
	}
}

// check looks at one snapshot of the database, then at the bytes of all blobs
// that are still rows: bytes go after rows.
func (s *stress) check() {
	var n int
	if err := s.pool.QueryRow(context.WithoutCancel(s.ctx), violations).Scan(&n); err != nil || n > 0 {
		s.t.Errorf("%d manifests lack a blob (%v)", n, err)
	}
	keys := func() map[string]bool {
		rows, _ := s.pool.Query(context.WithoutCancel(s.ctx), `SELECT storage_key FROM blobs`)
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			s.t.Error(err)
		}
		out := map[string]bool{}
		for _, k := range list {
			out[k] = true
		}
		return out
	}
	before := keys()
	var missing []string
	for k := range before {
		if !s.has(k) {
			missing = append(missing, k)
		}
	}
	after := keys() // one that was dropped meanwhile is no violation
	for _, k := range missing {
		if after[k] {
			s.t.Errorf("the blob under %s has a row and no bytes", k)
		}
	}
}

// drain deletes everything and expects nothing to be left anywhere.
func (s *stress) drain() {
	for _, repo := range []string{"p/r0", "p/r1", "p/r2", "q/m"} {
		if err := s.DeleteRepository(s.ctx, repo); err != nil && !fault.Is(err, fault.NotFound) {
			s.t.Error(err)
		}
	}
	// Uploads that the end of the test cut off between bytes and row.
	if _, err := s.Adopt(s.ctx, -time.Hour, func(_ context.Context, visit func(string, int64, time.Time) error) error {
		for _, key := range slices.Collect(maps.Keys(s.stored)) {
			if err := visit(key, 1, time.Now()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		s.t.Error(err)
	}
	for range 4 {
		time.Sleep(5 * time.Millisecond)
		if _, err := s.Collect(s.ctx, 100_000, func(_ context.Context, key string) error { s.set(key, false); return nil }); err != nil {
			s.t.Error(err)
		}
	}
	var rows string
	err := s.pool.QueryRow(s.ctx, `SELECT concat_ws(' ', (SELECT count(*) FROM blobs), (SELECT count(*) FROM manifests), (SELECT count(*) FROM repo_blobs),
		(SELECT count(*) FROM storage_tombs), (SELECT count(*) FROM gc_blobs), (SELECT count(*) FROM gc_manifests))`).Scan(&rows)
	if err != nil || rows != "0 0 0 0 0 0" || len(s.stored) != 0 {
		s.t.Errorf("rows (blobs, manifests, links, tombs, queues) %s and %d objects leak (%v)", rows, len(s.stored), err)
	}
}

// Without the lock that a push takes on its blobs the collector does remove
// what a manifest refers to: the invariant above is able to fail.
func TestStressSeesTheRace(t *testing.T) {
	s := newStress(t)
	if err := s.upload(s.ctx, "p/r0", "layer"); err != nil {
		t.Fatal(err)
	}
	d := reference.Of(reference.SHA256, []byte("layer"))
	err := database.InTx(s.ctx, s.pool, func(tx pgx.Tx) error {
		// A push that looks without locking …
		var there bool
		if err := tx.QueryRow(s.ctx, `SELECT EXISTS (SELECT FROM blobs WHERE digest = $1)`, d.Bytes()).Scan(&there); err != nil || !there {
			t.Fatal(there, err)
		}
		// … while the collector works …
		time.Sleep(2 * time.Millisecond)
		if _, err := s.Collect(s.ctx, 10, func(context.Context, string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		// … and then writes.
		_, err := tx.Exec(s.ctx, `WITH m AS (INSERT INTO manifests (repo_id, digest, media_type, size, total_size, payload)
			SELECT id, '\x01', 'x/y', 1, 1, '' FROM repositories RETURNING id)
			INSERT INTO manifest_blobs SELECT id, $1, 1 FROM m`, d.Bytes())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := s.pool.QueryRow(s.ctx, violations).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d violations seen, want 1 (%v)", n, err)
	}
}

// A blob that is deleted from a repository while a manifest that has it is
// pushed there is missing to that push: it looks for links only once it holds
// the repository, which the deletion holds until it commits.
func TestPushBesideBlobDeletion(t *testing.T) {
	s := newStress(t)
	for _, content := range []string{"config", "layer"} {
		if err := s.upload(s.ctx, "p/r0", content); err != nil {
			t.Fatal(err)
		}
	}
	config, layer := reference.Of(reference.SHA256, []byte("config")), reference.Of(reference.SHA256, []byte("layer"))
	pushed := make(chan error, 1)
	err := database.InTx(s.ctx, s.pool, func(tx pgx.Tx) error {
		// What DeleteBlob does, held open …
		if _, err := tx.Exec(s.ctx, `SELECT FROM repositories WHERE name = 'p/r0' FOR UPDATE`); err != nil {
			return err
		}
		if _, err := tx.Exec(s.ctx, `UPDATE repo_blobs SET deleted_at = now() WHERE digest = $1`, layer.Bytes()); err != nil {
			return err
		}
		// … until a push waits for the repository.
		go func() { _, err := s.push("p/r0", image(nil, config, layer), "t"); pushed <- err }()
		for waiting := 0; waiting == 0; time.Sleep(time.Millisecond) {
			if err := s.pool.QueryRow(s.ctx, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, <-pushed, fault.NotFound, artifact.ErrBlobUnknown)
	s.check()
}
