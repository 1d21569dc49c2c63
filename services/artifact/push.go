package artifact

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/reference"
)

// commitBlob is one statement and so one transaction. The CTEs depend on one
// another in the order of locks: queue row, blob, link. The link's foreign key
// holds the blob FOR KEY SHARE, and fails if the collector has just removed it.
// A healthy row wins over the new object; a damaged one takes it.
const commitBlob = `
WITH q AS (
	INSERT INTO gc_blobs (digest, review_after) VALUES ($2, now() + $5)
	ON CONFLICT (digest) DO UPDATE SET review_after = EXCLUDED.review_after, attempts = 0
	RETURNING digest),
old AS (
	SELECT storage_key, size FROM blobs WHERE digest = $2),
b AS (
	INSERT INTO blobs AS have (digest, size, storage_key, verified_at) SELECT digest, $3, $4, CASE WHEN $7 THEN now() END FROM q
	ON CONFLICT (digest) DO UPDATE
		SET storage_key = EXCLUDED.storage_key, size = EXCLUDED.size, damaged_at = NULL, verified_at = EXCLUDED.verified_at, created_at = now()
		WHERE have.damaged_at IS NOT NULL
	RETURNING storage_key),
tomb AS (
	INSERT INTO storage_tombs (storage_key, size, delete_after)
	SELECT old.storage_key, old.size, now() + $6 FROM old, b WHERE old.storage_key <> b.storage_key
	ON CONFLICT DO NOTHING),
l AS (
	INSERT INTO repo_blobs (repo_id, digest) SELECT $1, digest FROM q
	ON CONFLICT (repo_id, digest) DO UPDATE SET deleted_at = NULL WHERE repo_blobs.deleted_at IS NOT NULL)
SELECT EXISTS (SELECT FROM b), COALESCE((SELECT storage_key FROM old), ''), COALESCE((SELECT size FROM old), 0)`

// CommitBlob makes a blob, whose bytes are durable under its key, part of a
// repository. verified says that the bytes have been hashed; the scrubber looks
// at those first that have not. It reports whether the store now uses that key; if not, the digest was
// here already and the caller removes its own copy. When it returns nil the row
// is on disk too.
//
// Errors: NotFound (no such project), Unavailable.
func (s *Store) CommitBlob(ctx context.Context, repo string, blob Blob, verified bool) (used bool, err error) {
	d := blob.Digest
	for range 4 {
		id, err := s.ensureRepo(ctx, repo)
		if err != nil {
			return false, err
		}
		var oldKey string
		var oldSize int64
		err = s.Pool.QueryRow(ctx, commitBlob, id, d.Bytes(), blob.Size, blob.Key, s.Times.Grace, s.Times.TombGrace, verified).Scan(&used, &oldKey, &oldSize)
		switch code := database.Code(err); {
		case code == database.ForeignKeyViolation || code == "40P01":
			// The repository or the blob was deleted under us: once more.
			s.repos.Invalidate(repo)
			continue
		case err != nil:
			return false, wrap(err, "store blob %s", d)
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
WITH q AS (
	UPDATE gc_blobs SET review_after = now() + $4, attempts = 0 WHERE digest = $2 AND review_after < now() + $5
	RETURNING digest),
src AS (
	SELECT b.digest FROM blobs b
	JOIN repo_blobs rb ON rb.digest = b.digest AND rb.repo_id = (SELECT id FROM repositories WHERE name = $3)
	WHERE b.digest = $2 AND b.damaged_at IS NULL AND rb.deleted_at IS NULL AND (SELECT count(*) FROM q) >= 0)
INSERT INTO repo_blobs (repo_id, digest) SELECT $1, digest FROM src
ON CONFLICT (repo_id, digest) DO UPDATE SET deleted_at = NULL
RETURNING digest`

// Mount links a blob that the repository from has (OCI Distribution 1.1,
// "Mounting a blob from another repository"). The caller has checked that the
// client may read from. It reports false if there is nothing to mount.
func (s *Store) Mount(ctx context.Context, repo, from string, d reference.Digest) (bool, error) {
	for range 3 {
		id, err := s.ensureRepo(ctx, repo)
		if err != nil {
			return false, err
		}
		var got []byte
		err = s.Pool.QueryRow(ctx, mount, id, d.Bytes(), from, s.Times.Grace, s.margin()).Scan(&got)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return false, nil
		case database.Code(err) == database.ForeignKeyViolation:
			s.repos.Invalidate(repo)
			continue
		}
		return err == nil, wrap(err, "mount blob %s", d)
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

// Push is one manifest to store.
type Push struct {
	Repo      string
	Digest    reference.Digest // of Payload
	Tags      []string         // may be empty: pushed by digest
	MediaType string           // the request's Content-Type; may be empty
	Payload   []byte
}

// Pushed tells what PutManifest did.
type Pushed struct {
	ID      int64
	Created bool // false: the repository had this very manifest
	Parsed  *Parsed
}

// PutManifest stores a manifest, what it refers to and its tags, all or nothing.
//
// Errors: Invalid or TooLarge (the manifest), NotFound with ErrBlobUnknown
// (Missing tells which) or ErrNameUnknown (no such project), Unavailable.
func (s *Store) PutManifest(ctx context.Context, push Push) (Pushed, error) {
	parsed, err := Parse(push.MediaType, push.Payload)
	if err != nil {
		return Pushed{}, err
	}
	out := Pushed{Parsed: parsed}
	// Sorted digests are part of the order of locks.
	slices.SortFunc(parsed.Blobs, byDigest)
	err = retry(func() error { return s.putOnce(ctx, push, &out) })
	if class := database.Code(err); len(class) > 2 && (class[:2] == "22" || class[:2] == "54") {
		// Data exception, or limit exceeded: JSON allows what the database cannot
		// store, such as a NUL in a string or half of a surrogate pair.
		err = fault.Wrap(fault.Invalid, err, "the manifest is invalid: it has text that cannot be stored").On("manifest").
			WithHint("look for NUL characters, broken Unicode or extreme nesting in its annotations and platforms")
	}
	if err != nil {
		return Pushed{}, err
	}
	s.payloads.Set(push.Digest, push.Payload)
	return out, nil
}

// putOnce is a push's transaction in two round trips: the first begins it and
// takes the locks, the second writes, tells and commits. Each round trip costs
// both sides as much as a small statement.
func (s *Store) putOnce(ctx context.Context, push Push, out *Pushed) error {
	conn, err := s.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	// If even the rollback fails the pool closes the connection, and that ends
	// the transaction.
	defer conn.Release()
	base, err := s.lockForPush(ctx, conn, push, out.Parsed)
	if err == nil {
		err = s.insertManifest(ctx, conn, base, push, out)
	}
	if err != nil {
		conn.Exec(ctx, "rollback")
	}
	return err
}

func byDigest(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Digest.Algorithm(), b.Digest.Algorithm()), cmp.Compare(a.Digest.Hex(), b.Digest.Hex()))
}

// pushBase is what a push has found and locked.
type pushBase struct {
	repoID    int64
	projectID int64
	children  int64 // total size of an index's children
}

// lockForPush begins the transaction and takes its locks in one round trip: the
// repository, the blobs and the children, in that order. What is missing is found here, under the locks, so the
// statements that follow cannot refer to it.
func (s *Store) lockForPush(ctx context.Context, tx *pgxpool.Conn, push Push, p *Parsed) (pushBase, error) {
	var base pushBase
	batch := &pgx.Batch{}
	batch.Queue("begin")
	var missing []reference.Digest
	// The repository comes first: a deletion of a blob holds it for itself while
	// it looks whether a manifest refers to the blob, and whoever came second sees
	// what the first has done.
	batch.Queue(`SELECT id, project_id FROM repositories WHERE name = $1 FOR KEY SHARE`, push.Repo).QueryRow(func(row pgx.Row) error {
		return row.Scan(&base.repoID, &base.projectID)
	})
	if len(p.Blobs) > 0 {
		want := digests(p.Blobs)
		// OFFSET 0 keeps the planner from making a join of it, for which it may walk
		// through all blobs of the repository.
		batch.Queue(`SELECT b.digest FROM blobs b
			WHERE b.digest = ANY($2) AND b.damaged_at IS NULL AND EXISTS (
				SELECT FROM repo_blobs rb WHERE rb.repo_id = (SELECT id FROM repositories WHERE name = $1)
				AND rb.digest = b.digest AND rb.deleted_at IS NULL OFFSET 0)
			ORDER BY b.digest FOR KEY SHARE OF b`, push.Repo, want).Query(func(rows pgx.Rows) error {
			found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
			missing = append(missing, without(p.Blobs, found)...)
			return err
		})
	}
	if len(p.Children) > 0 {
		batch.Queue(`SELECT m.digest, m.total_size FROM manifests m JOIN repositories r ON r.id = m.repo_id
			WHERE r.name = $1 AND m.digest = ANY($2) AND m.deleted_at IS NULL ORDER BY m.digest FOR KEY SHARE OF m`,
			push.Repo, digests(p.Children)).Query(func(rows pgx.Rows) error {
			var found [][]byte
			var d []byte
			var size int64
			_, err := pgx.ForEachRow(rows, []any{&d, &size}, func() error {
				found = append(found, slices.Clone(d))
				base.children += size
				return nil
			})
			if !s.SparseIndexes {
				missing = append(missing, without(p.Children, found)...)
			}
			return err
		})
	}
	err := tx.SendBatch(ctx, batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		// A repository is made by its first blob, or here by a manifest without any.
		if len(p.Blobs) > 0 {
			return base, missingFault(push.Repo, digestsOf(p.Blobs))
		}
		if _, err := s.ensureRepo(ctx, push.Repo); err != nil {
			return base, err
		}
		err = tx.QueryRow(ctx, `SELECT id, project_id FROM repositories WHERE name = $1 FOR KEY SHARE`, push.Repo).
			Scan(&base.repoID, &base.projectID)
		if err != nil {
			return base, err
		}
	} else if err != nil {
		return base, err
	}
	if len(missing) > 0 {
		return base, missingFault(push.Repo, missing)
	}
	return base, nil
}

// MissingError lists what a pushed manifest refers to and the repository lacks.
type MissingError struct{ Digests []reference.Digest }

func (e *MissingError) Error() string { return "content that the manifest refers to is not there" }

// Is makes a MissingError an ErrBlobUnknown.
func (e *MissingError) Is(target error) bool { return target == ErrBlobUnknown }

func missingFault(repo string, missing []reference.Digest) error {
	return fault.Wrap(fault.NotFound, &MissingError{missing}, "%d of the manifest's blobs or manifests are not in %s, the first is %s",
		len(missing), repo, missing[0]).WithHint("push them to this repository first")
}

const putManifest = `
WITH m AS (
	INSERT INTO manifests (repo_id, digest, media_type, artifact_type, config_type, config_digest, subject, size, total_size, payload, annotations)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
	ON CONFLICT (repo_id, digest) DO UPDATE SET media_type = EXCLUDED.media_type, pushed_at = now(), deleted_at = NULL, deleted_by = NULL
	RETURNING id, xmax = 0 AS created),
b AS (
	INSERT INTO manifest_blobs (manifest_id, digest, size) SELECT m.id, x.digest, x.size
	FROM m, unnest($12::bytea[], $13::bigint[]) AS x(digest, size) WHERE m.created ON CONFLICT DO NOTHING),
c AS (
	INSERT INTO manifest_children (parent_id, digest, position, platform, annotations) SELECT m.id, x.digest, x.n, x.platform, x.annotations
	FROM m, unnest($14::bytea[], $15::jsonb[], $16::jsonb[]) WITH ORDINALITY AS x(digest, platform, annotations, n) WHERE m.created ON CONFLICT DO NOTHING),
old AS (
	INSERT INTO gc_manifests (manifest_id, review_after)
	SELECT DISTINCT t.manifest_id, now() FROM tags t, m WHERE t.repo_id = $1 AND t.name = ANY($17::text[]) AND t.manifest_id <> m.id),
t AS (
	INSERT INTO tags (repo_id, name, manifest_id) SELECT $1, x.name, m.id FROM m, unnest($17::text[]) AS x(name) ORDER BY x.name
	ON CONFLICT (repo_id, name) DO UPDATE SET manifest_id = EXCLUDED.manifest_id, pushed_at = now()),
r AS (
	UPDATE repositories SET has_manifests = true, updated_at = now() WHERE id = $1 AND NOT has_manifests)
SELECT id, created FROM m`

// insertManifest writes what lockForPush has made safe to write, and its event,
// and commits. When a statement fails the server skips those after it, so the
// commit too.
func (s *Store) insertManifest(ctx context.Context, tx *pgxpool.Conn, base pushBase, push Push, out *Pushed) error {
	p := out.Parsed
	sizes := make([]int64, len(p.Blobs))
	for i, b := range p.Blobs {
		sizes[i] = b.Size
	}
	platforms, annotations := make([][]byte, len(p.Children)), make([][]byte, len(p.Children))
	for i, c := range p.Children {
		platforms[i], annotations[i] = c.Platform, c.Annotations
	}
	tags := push.Tags
	if tags == nil {
		tags = []string{}
	}
	batch := &pgx.Batch{}
	batch.Queue(putManifest,
		base.repoID, push.Digest.Bytes(), p.MediaType, p.ArtifactType, p.ConfigType, bytesOrNil(p.Config), bytesOrNil(p.Subject),
		len(push.Payload), int64(len(push.Payload))+p.Listed+base.children, push.Payload, p.Annotations,
		digests(p.Blobs), sizes, digests(p.Children), platforms, annotations, tags).
		QueryRow(func(row pgx.Row) error { return row.Scan(&out.ID, &out.Created) })
	if err := s.Outbox.Queue(ctx, batch, pushEvent(base, push)); err != nil {
		return err
	}
	batch.Queue("commit")
	return tx.SendBatch(ctx, batch).Close()
}

func pushEvent(base pushBase, push Push) event.Event {
	at := "@" + push.Digest.String()
	e := event.Event{
		Operation: "create", ResourceType: "artifact", Success: true, Resource: push.Repo + at, Description: "push artifact: " + push.Repo + at,
		ProjectID: base.projectID, RepositoryID: base.repoID, Repository: push.Repo, Digest: push.Digest.String(),
	}
	if len(push.Tags) > 0 {
		e.Tag = push.Tags[0]
		e.Resource = push.Repo + ":" + e.Tag
	}
	return e
}

func bytesOrNil(d reference.Digest) []byte {
	if d.IsZero() {
		return nil
	}
	return d.Bytes()
}

func digests(refs []Ref) [][]byte {
	out := make([][]byte, len(refs))
	for i, r := range refs {
		out[i] = r.Digest.Bytes()
	}
	return out
}

func digestsOf(refs []Ref) []reference.Digest {
	out := make([]reference.Digest, len(refs))
	for i, r := range refs {
		out[i] = r.Digest
	}
	return out
}

// without gives the digests of refs that are not among found.
func without(refs []Ref, found [][]byte) []reference.Digest {
	if len(found) == len(refs) {
		return nil
	}
	have := make(map[string]bool, len(found))
	for _, d := range found {
		have[string(d)] = true
	}
	var missing []reference.Digest
	for _, r := range refs {
		if !have[string(r.Digest.Bytes())] {
			missing = append(missing, r.Digest)
		}
	}
	return missing
}
