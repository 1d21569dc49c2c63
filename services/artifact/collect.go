package artifact

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/services/reference"
)

// Collected counts what one run of the collector did.
type Collected struct {
	Manifests int   `json:"manifests"` // purged from the recycle bin, or untagged and unwanted
	Blobs     int   `json:"blobs"`     // dropped: their bytes go after Times.TombGrace
	Objects   int   `json:"objects"`   // unlinked
	Bytes     int64 `json:"bytes"`     // freed by Objects
	Failed    int   `json:"failed"`    // unlinks that will be tried again
	Dropped   int64 `json:"dropped"`   // bytes of Blobs
}

// Collect reviews everything that is due, at most limit items of each kind, and
// unlinks with remove what earlier runs have dropped. It is safe beside pushes
// and beside itself: workers skip what another holds. It does no storage I/O
// inside a transaction.
func (s *Store) Collect(ctx context.Context, limit int, remove func(ctx context.Context, key string) error) (c Collected, err error) {
	defer func() { s.work.note(c, err, time.Now()) }()
	if err := s.emptyTrash(ctx); err != nil {
		return c, err
	}
	for range limit {
		more, purged, err := s.reviewManifest(ctx)
		if err != nil {
			return c, wrap(err, "review manifests")
		}
		if purged {
			c.Manifests++
		}
		if !more {
			break
		}
	}
	for range limit {
		more, dropped, size, err := s.reviewBlob(ctx)
		if err != nil {
			return c, wrap(err, "review blobs")
		}
		if dropped {
			c.Blobs++
			c.Dropped += size
		}
		if !more {
			break
		}
	}
	err = s.sweep(ctx, limit, remove, &c)
	return c, err
}

// Work is what the collector has done in this process.
type Work struct {
	Collected
	Runs, Failures int       // a failure is a run that ended early
	Last           time.Time // when a run last came to its end; zero = never
}

// work keeps Work.
type work struct {
	mu sync.Mutex
	Work
}

func (w *work) note(c Collected, err error, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Runs++
	if err != nil {
		w.Failures++
	} else {
		w.Last = now
	}
	w.Manifests += c.Manifests
	w.Blobs += c.Blobs
	w.Objects += c.Objects
	w.Bytes += c.Bytes
	w.Failed += c.Failed
	w.Dropped += c.Dropped
}

// Work tells what the collector has done since this process began.
func (s *Store) Work() Work {
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	return s.work.Work
}

// emptyTrash forgets tags whose time in the recycle bin is over, and queues the
// manifests that they kept.
func (s *Store) emptyTrash(ctx context.Context) error {
	_, err := s.Pool.Exec(ctx, `
		WITH gone AS (DELETE FROM deleted_tags WHERE deleted_at <= now() - $1::interval RETURNING manifest_id)
		INSERT INTO gc_manifests (manifest_id, review_after) SELECT DISTINCT manifest_id, now() FROM gone`, s.Times.Trash)
	return wrap(err, "empty the recycle bin")
}

// reviewManifest takes one manifest that is due. It is purged if its time in
// the recycle bin is over, or if its project wants untagged artifacts deleted
// and nothing names, lists or needs it.
func (s *Store) reviewManifest(ctx context.Context) (more, purged bool, err error) {
	err = s.retryTx(ctx, func(tx pgx.Tx) error {
		more, purged = false, false
		var entry, id int64
		err := tx.QueryRow(ctx, `SELECT id, manifest_id FROM gc_manifests WHERE review_after <= now()
			ORDER BY review_after LIMIT 1 FOR UPDATE SKIP LOCKED`).Scan(&entry, &id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		more = true
		if _, err := tx.Exec(ctx, `DELETE FROM gc_manifests WHERE id = $1`, entry); err != nil {
			return err
		}
		// The blobs' queue rows come before the manifest in the order of locks.
		// If the manifest stays they are reviewed in vain, which is harmless. The
		// update waits for a reviewer that holds the row, and queues the blob again
		// after it: DO NOTHING would rely on a row that is about to go.
		if _, err := tx.Exec(ctx, `INSERT INTO gc_blobs (digest, review_after)
			SELECT digest, now() + $2 FROM manifest_blobs WHERE manifest_id = $1 ORDER BY digest
			ON CONFLICT (digest) DO UPDATE SET attempts = 0`, id, s.Times.Grace); err != nil {
			return err
		}
		// Only a manifest that nobody has deleted still counts.
		var project *int64
		var n needs
		err = tx.QueryRow(ctx, `SELECT r.project_id FROM manifests m JOIN repositories r ON r.id = m.repo_id JOIN projects p ON p.id = r.project_id
			WHERE m.id = $1 AND m.deleted_at IS NULL AND p.metadata->>'delete_untagged' = 'true'`, id).Scan(&project)
		if err == nil {
			n, err = hold(ctx, tx, []int64{id})
		}
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT FROM manifests WHERE id = $1 FOR UPDATE`, id); err != nil {
			return err
		}
		// A new statement: it sees what committed while we waited for the lock.
		tag, err := tx.Exec(ctx, purgeManifest, id, s.Times.Trash, project != nil)
		if purged = err == nil && tag.RowsAffected() > 0; purged && project != nil {
			return release(ctx, tx, *project, n)
		}
		if err != nil || purged {
			return err
		}
		// The bin's time may have been made longer since this was queued.
		_, err = tx.Exec(ctx, `INSERT INTO gc_manifests (manifest_id, review_after)
			SELECT id, deleted_at + $2 FROM manifests WHERE id = $1 AND deleted_at > now() - $2::interval`, id, s.Times.Trash)
		return err
	})
	return more, purged, err
}

const purgeManifest = `
WITH doomed AS (
	SELECT m.id, m.repo_id, m.digest FROM manifests m JOIN repositories r ON r.id = m.repo_id JOIN projects p ON p.id = r.project_id
	WHERE m.id = $1
	AND NOT EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id)
	AND CASE WHEN m.deleted_at IS NOT NULL THEN m.deleted_at <= now() - $2::interval
	ELSE $3::boolean AND p.metadata->>'delete_untagged' = 'true'
		AND NOT EXISTS (SELECT FROM deleted_tags t WHERE t.manifest_id = m.id)
		AND NOT EXISTS (SELECT FROM manifest_children c JOIN manifests x ON x.id = c.parent_id WHERE c.digest = m.digest AND x.repo_id = m.repo_id)
		AND NOT EXISTS (SELECT FROM manifests x WHERE x.repo_id = m.repo_id AND x.digest = m.subject)
	END),
kin AS ( -- children, and what refers to it
	INSERT INTO gc_manifests (manifest_id, review_after)
	SELECT x.id, now() FROM doomed d JOIN manifests x ON x.repo_id = d.repo_id
	WHERE x.subject = d.digest OR x.digest IN (SELECT digest FROM manifest_children WHERE parent_id = d.id))
DELETE FROM manifests WHERE id IN (SELECT id FROM doomed)`

// reviewBlob takes one blob that is due and drops it if nothing refers to it:
// its rows go, and a tomb with its storage key stays until the bytes are gone.
func (s *Store) reviewBlob(ctx context.Context) (more, dropped bool, size int64, err error) {
	err = s.retryTx(ctx, func(tx pgx.Tx) error {
		more, dropped = false, false
		var d []byte
		err := tx.QueryRow(ctx, `SELECT digest FROM gc_blobs WHERE review_after <= now()
			ORDER BY review_after LIMIT 1 FOR UPDATE SKIP LOCKED`).Scan(&d)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		more = true
		if _, err := tx.Exec(ctx, `SELECT FROM blobs WHERE digest = $1 FOR UPDATE`, d); err != nil {
			return err
		}
		// Separate statements, each with a snapshot from after the lock.
		if err := releaseUnreferred(ctx, tx, d); err != nil {
			return err
		}
		var used bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM manifest_blobs WHERE digest = $1)`, d).Scan(&used); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM gc_blobs WHERE digest = $1`, d); err != nil || used {
			return err
		}
		tag, err := tx.Exec(ctx, `
			WITH t AS (
				INSERT INTO storage_tombs (storage_key, size, delete_after) SELECT storage_key, size, now() + $2 FROM blobs WHERE digest = $1
				ON CONFLICT DO NOTHING)
			DELETE FROM repo_blobs WHERE digest = $1`, d, s.Times.TombGrace)
		if err != nil {
			return err
		}
		if tag.RowsAffected() > 0 {
			if err := notify(ctx, tx, "collected"); err != nil {
				return err
			}
		}
		err = tx.QueryRow(ctx, `DELETE FROM blobs WHERE digest = $1 RETURNING size`, d).Scan(&size)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		dropped = err == nil
		return err
	})
	if dropped {
		s.links.InvalidateAll()
	}
	return more, dropped, size, err
}

// sweep unlinks what tombs name. Unlinking is idempotent: a tomb is removed only
// after it, and one that fails is tried again, later each time.
func (s *Store) sweep(ctx context.Context, limit int, remove func(context.Context, string) error, c *Collected) error {
	for done := 0; done < limit; {
		rows, err := s.Pool.Query(ctx, `
			UPDATE storage_tombs SET attempts = attempts + 1, delete_after = now() + least(attempts + 1, 60) * interval '1 minute'
			WHERE storage_key IN (SELECT storage_key FROM storage_tombs WHERE delete_after <= now()
				ORDER BY delete_after LIMIT $1 FOR UPDATE SKIP LOCKED)
			RETURNING storage_key, size`, min(100, limit-done))
		if err != nil {
			return wrap(err, "list dropped objects")
		}
		type tomb struct {
			Key  string
			Size int64
		}
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[tomb])
		if err != nil || len(due) == 0 {
			return wrap(err, "list dropped objects")
		}
		done += len(due)
		gone := make([]string, 0, len(due))
		for _, t := range due {
			if err := remove(ctx, t.Key); err != nil {
				s.Log.Warn("cannot remove a dropped object; it is tried again", "key", t.Key, "err", err)
				c.Failed++
				continue
			}
			gone = append(gone, t.Key)
			c.Objects++
			c.Bytes += t.Size
		}
		if _, err := s.Pool.Exec(ctx, `DELETE FROM storage_tombs WHERE storage_key = ANY($1)`, gone); err != nil {
			return wrap(err, "forget dropped objects")
		}
	}
	return nil
}

// PurgeProject removes all that a project's repositories still have in the
// recycle bin, and the repositories, in the caller's transaction; the collector
// then finds their blobs. The caller has checked that nothing live is left.
func PurgeProject(ctx context.Context, tx pgx.Tx, projectID int64, grace time.Duration) error {
	batch := &pgx.Batch{}
	batch.Queue(`SELECT FROM repositories WHERE project_id = $1 ORDER BY id FOR UPDATE`, projectID)
	batch.Queue(`INSERT INTO gc_blobs (digest, review_after)
		SELECT DISTINCT mb.digest, now() + $2 FROM manifest_blobs mb JOIN manifests m ON m.id = mb.manifest_id
		JOIN repositories r ON r.id = m.repo_id WHERE r.project_id = $1 ORDER BY 1 ON CONFLICT (digest) DO UPDATE SET attempts = 0`, projectID, grace)
	batch.Queue(`DELETE FROM repositories WHERE project_id = $1 AND NOT has_manifests`, projectID)
	for _, table := range []string{"project_blobs", "usage_changes", "usage_shards"} {
		batch.Queue(`DELETE FROM `+table+` WHERE project_id = $1`, projectID)
	}
	batch.Queue(`SELECT pg_notify('berth_artifact', 'deleted')`)
	return tx.SendBatch(ctx, batch).Close()
}

// Adopt finds stored objects that nothing knows and dooms those older than age:
// leftovers of pushes that were cut off between bytes and row. keys lists the
// store's objects. It returns how many it doomed.
func (s *Store) Adopt(ctx context.Context, age time.Duration, keys func(ctx context.Context, visit func(key string, size int64, modified time.Time) error) error) (int, error) {
	const page = 500
	var names []string
	var sizes []int64
	doomed := 0
	flush := func() error {
		tag, err := s.Pool.Exec(ctx, `
			INSERT INTO storage_tombs (storage_key, size, delete_after)
			SELECT x.key, x.size, now() + $3 FROM unnest($1::text[], $2::bigint[]) AS x(key, size)
			WHERE NOT EXISTS (SELECT FROM blobs b WHERE b.storage_key = x.key) ON CONFLICT DO NOTHING`, names, sizes, s.Times.TombGrace)
		doomed += int(tag.RowsAffected())
		names, sizes = names[:0], sizes[:0]
		return wrap(err, "look for unknown objects")
	}
	err := keys(ctx, func(key string, size int64, modified time.Time) error {
		if time.Since(modified) < age {
			return nil
		}
		names, sizes = append(names, key), append(sizes, size)
		if len(names) < page {
			return nil
		}
		return flush()
	})
	if err == nil && len(names) > 0 {
		err = flush()
	}
	return doomed, err
}

// Check is one blob that Verify has looked at.
type Check struct {
	Blob
	Damaged bool   // found now
	Reason  string // why it counts as damaged
}

// Verify re-hashes up to n blobs, those first that were verified longest ago,
// and marks damaged ones. hash gives the digest and size of the bytes under a
// key; a NotFound fault from it means that they are missing. report is called
// for every blob that was looked at.
func (s *Store) Verify(ctx context.Context, n int, before time.Time,
	hash func(context.Context, string, reference.Algorithm) (reference.Digest, int64, error), missing func(error) bool, report func(Check)) (int, error) {
	rows, err := s.Pool.Query(ctx, `SELECT digest, size, storage_key FROM blobs
		WHERE damaged_at IS NULL AND (verified_at IS NULL OR verified_at < $2) ORDER BY verified_at NULLS FIRST LIMIT $1`, n, before)
	if err != nil {
		return 0, wrap(err, "list the blobs to verify")
	}
	var list []Blob
	var b Blob
	var raw []byte
	if _, err := pgx.ForEachRow(rows, []any{&raw, &b.Size, &b.Key}, func() (err error) {
		b.Digest, err = reference.FromBytes(raw)
		list = append(list, b)
		return err
	}); err != nil {
		return 0, wrap(err, "list the blobs to verify")
	}
	for i, b := range list {
		check := Check{Blob: b}
		got, size, err := hash(ctx, b.Key, b.Digest.Algorithm())
		switch {
		case err != nil && missing(err):
			check.Damaged, check.Reason = true, "its bytes are missing"
		case err != nil && ctx.Err() != nil:
			return i, ctx.Err()
		case err != nil:
			check.Damaged, check.Reason = true, "its bytes cannot be read: "+err.Error()
		case size != b.Size:
			check.Damaged, check.Reason = true, fmt.Sprintf("it has %d bytes instead of %d", size, b.Size)
		case got != b.Digest:
			check.Damaged, check.Reason = true, "its bytes hash to "+got.String()
		}
		if check.Damaged {
			err = s.MarkDamaged(ctx, b.Digest, b.Key)
		} else {
			_, err = s.Pool.Exec(ctx, `UPDATE blobs SET verified_at = now() WHERE digest = $1 AND storage_key = $2`, b.Digest.Bytes(), b.Key)
		}
		if err != nil {
			return i, wrap(err, "record the verification of %s", b.Digest)
		}
		report(check)
	}
	return len(list), nil
}

// Damaged lists blobs that are known to be damaged and the repositories that
// have them.
func (s *Store) Damaged(ctx context.Context, n int) ([]DamagedBlob, error) {
	rows, err := s.Pool.Query(ctx, `SELECT b.digest, b.storage_key, b.damaged_at,
		ARRAY(SELECT r.name FROM repo_blobs rb JOIN repositories r ON r.id = rb.repo_id WHERE rb.digest = b.digest ORDER BY r.name LIMIT 20)
		FROM blobs b WHERE b.damaged_at IS NOT NULL ORDER BY b.damaged_at LIMIT $1`, n)
	if err != nil {
		return nil, wrap(err, "list damaged blobs")
	}
	var list []DamagedBlob
	var e DamagedBlob
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&raw, &e.Key, &e.Since, &e.Repositories}, func() (err error) {
		e.Digest, err = reference.FromBytes(raw)
		list = append(list, e)
		e.Repositories = nil
		return err
	})
	return list, wrap(err, "list damaged blobs")
}

// DamagedBlob is a blob whose bytes are missing or rotten.
type DamagedBlob struct {
	Digest       reference.Digest
	Key          string
	Since        time.Time
	Repositories []string // at most 20
}
