package artifact

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/reference"
)

// Writable tells a client that begins an upload early what would refuse its end:
// that the project is read-only. It is free where that cannot be. Whether a quota
// has room is told at the end: what comes may be there already, and add nothing.
func (s *Store) Writable(ctx context.Context, name string) error {
	r, err := s.findRepo(ctx, name)
	if err != nil || !r.bound {
		return nil // the end of the upload makes the repository, or finds the fault
	}
	var frozen bool
	err = s.Pool.QueryRow(ctx, `SELECT p.read_only FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.id = $1`, r.id).Scan(&frozen)
	if err == nil && frozen {
		return readOnly(name)
	}
	return nil
}

// commitBlob is one statement and so one transaction. The CTEs depend on one
// another in the order of locks: repository, queue row, blob, link. The link's
// foreign key holds the blob FOR KEY SHARE, and fails if the collector has just
// removed it. A healthy row wins over the new object; a damaged one takes it.
const commitBlob = `
WITH p AS (
	SELECT id FROM repositories WHERE id = $1 AND $3::boolean IS NOT NULL FOR KEY SHARE),
q AS (
	INSERT INTO gc_blobs (digest, review_after) SELECT $2, now() + $4 FROM p
	ON CONFLICT (digest) DO UPDATE SET review_after = EXCLUDED.review_after, attempts = 0
	RETURNING digest),
` + storeBlob + `
SELECT 0::bigint, false, EXISTS (SELECT FROM b), COALESCE((SELECT storage_key FROM old), ''), COALESCE((SELECT size FROM old), 0), NULL::bigint FROM p`

// commitCounted takes the same arguments, of which commitBlob needs $3 for nothing,
// and is commitBlob in a project that has a limit or is read-only.
const commitCounted = `
WITH p AS (` + gate + `),
q AS (
	INSERT INTO gc_blobs (digest, review_after) SELECT $2, now() + $4 FROM p WHERE NOT p.read_only
	ON CONFLICT (digest) DO UPDATE SET review_after = EXCLUDED.review_after, attempts = 0
	RETURNING digest),
` + storeBlob + `,
counted AS (
	INSERT INTO project_blobs (project_id, digest, manifest, size) SELECT p.id, q.digest, false, $5 FROM p, q WHERE p.limited
	ON CONFLICT DO NOTHING RETURNING size)
SELECT p.id, p.read_only, EXISTS (SELECT FROM b), COALESCE((SELECT storage_key FROM old), ''), COALESCE((SELECT size FROM old), 0),
	(SELECT take_usage(p.id, counted.size) FROM counted) FROM p`

const storeBlob = `old AS (
	SELECT storage_key, size FROM blobs WHERE digest = $2),
b AS (
	INSERT INTO blobs AS have (digest, size, storage_key, verified_at) SELECT digest, $5, $6, CASE WHEN $8 THEN now() END FROM q
	ON CONFLICT (digest) DO UPDATE
		SET storage_key = EXCLUDED.storage_key, size = EXCLUDED.size, damaged_at = NULL, verified_at = EXCLUDED.verified_at, created_at = now()
		WHERE have.damaged_at IS NOT NULL
	RETURNING storage_key),
tomb AS (
	INSERT INTO storage_tombs (storage_key, size, delete_after)
	SELECT old.storage_key, old.size, now() + $7 FROM old, b WHERE old.storage_key <> b.storage_key
	ON CONFLICT DO NOTHING),
l AS (
	INSERT INTO repo_blobs (repo_id, digest) SELECT $1, digest FROM q
	ON CONFLICT (repo_id, digest) DO UPDATE SET deleted_at = NULL WHERE repo_blobs.deleted_at IS NOT NULL)`

// CommitBlob makes a blob, whose bytes are durable under its key, part of a
// repository. verified says that the bytes have been hashed; the scrubber looks
// at those first that have not. It reports whether the store now uses that key; if not, the digest was
// here already and the caller removes its own copy. When it returns nil the row
// is on disk too.
//
// Errors: NotFound (no such project), Forbidden (its quota, or it is read-only),
// Unavailable.
func (s *Store) CommitBlob(ctx context.Context, repo string, blob Blob, verified bool) (used bool, err error) {
	d := blob.Digest
	for range 4 {
		r, err := s.ensureRepo(ctx, repo)
		if err != nil {
			return false, err
		}
		sql := commitBlob
		if r.bound {
			sql = commitCounted
		}
		var at place
		var oldKey string
		var oldSize int64
		err = s.Pool.QueryRow(ctx, sql, r.id, d.Bytes(), s.limits(ctx), s.Times.Grace, blob.Size, blob.Key, s.Times.TombGrace, verified).
			Scan(&at.project, &at.readOnly, &used, &oldKey, &oldSize, &at.passed)
		switch code := database.Code(err); {
		case code == database.ForeignKeyViolation || code == "40P01" || errors.Is(err, pgx.ErrNoRows):
			// The repository or the blob was deleted under us: once more.
			s.repos.Invalidate(repo)
			continue
		case err != nil:
			return false, wrap(s.overQuota(ctx, err, repo, "", d), "store blob %s", d)
		}
		if err := s.counted(ctx, at, repo, "", d); err != nil {
			return false, err
		}
		if used || oldKey == "" || s.Present(ctx, oldKey, oldSize) {
			return used, nil
		}
		// The row is healthy but its bytes are gone. Say so, and take ours.
		if err := s.MarkDamaged(ctx, d, oldKey); err != nil {
			return false, err
		}
	}
	return false, fault.New(fault.Unavailable, "blob %s is being deleted over and over", d).WithHint("push it again")
}

// mount links a blob of another repository. The link's foreign key holds off
// the collector. A review that is due soon is put off; a blob without one is
// referred to, and would be reviewed Times.Grace after its last manifest went.
const mount = `
WITH p AS (
	SELECT id FROM repositories WHERE id = $1 AND $3::boolean IS NOT NULL FOR KEY SHARE),
q AS (
	UPDATE gc_blobs SET review_after = now() + $4, attempts = 0 WHERE digest = $2 AND review_after < now() + $6 AND EXISTS (SELECT FROM p)
	RETURNING digest),
src AS (
	SELECT b.digest FROM p, blobs b
	JOIN repo_blobs rb ON rb.digest = b.digest AND rb.repo_id = (SELECT id FROM repositories WHERE name = $5)
	WHERE b.digest = $2 AND b.damaged_at IS NULL AND rb.deleted_at IS NULL AND (SELECT count(*) FROM q) >= 0),
l AS (
	INSERT INTO repo_blobs (repo_id, digest) SELECT $1, digest FROM src
	ON CONFLICT (repo_id, digest) DO UPDATE SET deleted_at = NULL
	RETURNING digest)
SELECT 0::bigint, false, EXISTS (SELECT FROM l), NULL::bigint FROM p`

// mountCounted takes the same arguments, and is mount in a project that has a
// limit or is read-only. With a limit the blob is reviewed in any case, since it
// may count from now on: then it counts no more, unless a manifest refers to it.
// That it counts already is no reason to leave the review out, for the last
// manifest that it counts for may be going just now.
const mountCounted = `
WITH p AS (` + gate + `),
q AS (
	INSERT INTO gc_blobs (digest, review_after) SELECT $2, now() + $4 FROM p
	WHERE NOT p.read_only AND EXISTS (SELECT FROM blobs WHERE digest = $2) AND (
		p.limited OR EXISTS (SELECT FROM gc_blobs WHERE digest = $2 AND review_after < now() + $6))
	ON CONFLICT (digest) DO UPDATE SET review_after = EXCLUDED.review_after, attempts = 0
	RETURNING digest),
src AS (
	SELECT b.digest, b.size FROM p, blobs b
	JOIN repo_blobs rb ON rb.digest = b.digest AND rb.repo_id = (SELECT id FROM repositories WHERE name = $5)
	WHERE b.digest = $2 AND b.damaged_at IS NULL AND rb.deleted_at IS NULL AND NOT p.read_only AND (SELECT count(*) FROM q) >= 0),
l AS (
	INSERT INTO repo_blobs (repo_id, digest) SELECT $1, digest FROM src
	ON CONFLICT (repo_id, digest) DO UPDATE SET deleted_at = NULL
	RETURNING digest),
counted AS (
	INSERT INTO project_blobs (project_id, digest, manifest, size) SELECT p.id, src.digest, false, src.size FROM p, src, l WHERE p.limited
	ON CONFLICT DO NOTHING RETURNING size)
SELECT p.id, p.read_only, EXISTS (SELECT FROM l), (SELECT take_usage(p.id, counted.size) FROM counted) FROM p`

// Mount links a blob that the repository from has (OCI Distribution 1.1,
// "Mounting a blob from another repository"). The caller has checked that the
// client may read from. It reports false if there is nothing to mount.
//
// Errors: Forbidden (the project's quota, or it is read-only), Unavailable.
func (s *Store) Mount(ctx context.Context, repo, from string, d reference.Digest) (done bool, err error) {
	for range 3 {
		r, err := s.ensureRepo(ctx, repo)
		if err != nil {
			return false, err
		}
		sql := mount
		if r.bound {
			sql = mountCounted
		}
		var at place
		err = s.Pool.QueryRow(ctx, sql, r.id, d.Bytes(), s.limits(ctx), s.Times.Grace, from, s.margin()).
			Scan(&at.project, &at.readOnly, &done, &at.passed)
		if code := database.Code(err); code == database.ForeignKeyViolation || code == "40P01" || errors.Is(err, pgx.ErrNoRows) {
			s.repos.Invalidate(repo)
			continue
		}
		if err != nil {
			return false, wrap(s.overQuota(ctx, err, repo, "", d), "mount blob %s", d)
		}
		return done, s.counted(ctx, at, repo, "", d)
	}
	return false, nil
}

// margin is how soon a review must be due for a pusher's HEAD or mount to put
// it off: rarely, so that asking is not writing.
func (s *Store) margin() time.Duration { return min(time.Hour, s.Times.Grace/2) }

// BlobForPush answers a pusher's HEAD: from the database, never from a cache,
// and with the promise that the blob stays at least an hour (or half of
// Times.Grace, if that is shorter), so that "exists" is still true when the
// manifest comes.
func (s *Store) BlobForPush(ctx context.Context, repo string, d reference.Digest) (Blob, error) {
	for range 3 {
		b, soon, err := s.blobRow(ctx, repo, d, s.margin())
		if err != nil || !soon {
			return b, err
		}
		tag, err := s.Pool.Exec(ctx, `UPDATE gc_blobs SET review_after = now() + $2 WHERE digest = $1`, d.Bytes(), s.Times.Grace)
		if err != nil {
			return Blob{}, wrap(err, "keep blob %s", d)
		}
		if tag.RowsAffected() == 1 {
			return b, nil
		}
		// The collector has just reviewed it: look again.
	}
	return Blob{}, blobUnknown(repo, d)
}

func (s *Store) blobRow(ctx context.Context, repo string, d reference.Digest, margin time.Duration) (b Blob, soon bool, err error) {
	b.Digest = d
	err = s.Pool.QueryRow(ctx, `
		SELECT b.size, b.storage_key, COALESCE(g.review_after < now() + $3, false)
		FROM repositories r JOIN repo_blobs rb ON rb.repo_id = r.id JOIN blobs b ON b.digest = rb.digest
		LEFT JOIN gc_blobs g ON g.digest = b.digest
		WHERE r.name = $1 AND rb.digest = $2 AND rb.deleted_at IS NULL AND b.damaged_at IS NULL`,
		repo, d.Bytes(), margin).Scan(&b.Size, &b.Key, &soon)
	if errors.Is(err, pgx.ErrNoRows) {
		return Blob{}, false, blobUnknown(repo, d)
	}
	return b, soon, wrap(err, "look up blob %s", d)
}
