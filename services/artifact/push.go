package artifact

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/immutability"
	"berth/services/reference"
)

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
	place   place
}

// PutManifest stores a manifest, what it refers to and its tags, all or nothing.
//
// Errors: Invalid or TooLarge (the manifest), NotFound with ErrBlobUnknown
// (Missing tells which) or ErrNameUnknown (no such project), Precondition (a tag
// is immutable), Forbidden (the quota, or the project is read-only), Unavailable.
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
		return Pushed{}, s.overQuota(ctx, err, push.Repo, push.tag(), push.Digest)
	}
	s.payloads.Set(push.Digest, push.Payload)
	return out, s.counted(ctx, out.place, push.Repo, push.tag(), push.Digest)
}

// tag is the one that the push is known by, "" if it has none.
func (p Push) tag() string {
	if len(p.Tags) == 0 {
		return ""
	}
	return p.Tags[0]
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
	readOnly  bool
	limited   bool     // the project has a quota that binds
	immutable []string // those of the push's tags that cannot be moved once they are there
	strict    bool     // nor be pushed again as they are
	blobs     [][]byte // digests, sorted
	sizes     []int64  // of blobs, as stored: what a manifest says of them is its author's word
	children  int64    // total size of an index's children
}

// openRepo finds a repository ($1) and what binds a push to it, and holds it
// against deletions.
const openRepo = `SELECT r.id, p.id, p.read_only, p.storage_limit >= 0 AND $2::boolean, ` + immutable + `
	FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.name = $1 FOR KEY SHARE OF r`

func (b *pushBase) scan(row pgx.Row, push Push) error {
	var rules immutability.Rules
	if err := row.Scan(&b.repoID, &b.projectID, &b.readOnly, &b.limited, &rules, &b.strict); err != nil {
		return err
	}
	b.immutable = rules.Among(push.Repo, push.Tags)
	return nil
}

// lockForPush begins the transaction and takes its locks in one round trip: the
// repository, the blobs and the children, in that order. What is missing is found here, under the locks, so the
// statements that follow cannot refer to it.
func (s *Store) lockForPush(ctx context.Context, tx *pgxpool.Conn, push Push, p *Parsed) (pushBase, error) {
	var base pushBase
	limits := s.limits(ctx)
	batch := &pgx.Batch{}
	batch.Queue("begin")
	var missing []reference.Digest
	// The repository comes first: a deletion of a blob holds it for itself while
	// it looks whether a manifest refers to the blob, and whoever came second sees
	// what the first has done.
	batch.Queue(openRepo, push.Repo, limits).QueryRow(func(row pgx.Row) error { return base.scan(row, push) })
	if len(p.Blobs) > 0 {
		// OFFSET 0 keeps the planner from making a join of it, for which it may walk
		// through all blobs of the repository.
		batch.Queue(`SELECT b.digest, b.size FROM blobs b
			WHERE b.digest = ANY($2) AND b.damaged_at IS NULL AND EXISTS (
				SELECT FROM repo_blobs rb WHERE rb.repo_id = (SELECT id FROM repositories WHERE name = $1)
				AND rb.digest = b.digest AND rb.deleted_at IS NULL OFFSET 0)
			ORDER BY b.digest FOR KEY SHARE OF b`, push.Repo, digests(p.Blobs)).Query(func(rows pgx.Rows) (err error) {
			base.blobs, base.sizes, err = collectSizes(rows)
			missing = append(missing, without(p.Blobs, base.blobs)...)
			return err
		})
	}
	if len(p.Children) > 0 {
		batch.Queue(`SELECT m.digest, m.total_size FROM manifests m JOIN repositories r ON r.id = m.repo_id
			WHERE r.name = $1 AND m.digest = ANY($2) AND m.deleted_at IS NULL ORDER BY m.digest FOR KEY SHARE OF m`,
			push.Repo, digests(p.Children)).Query(func(rows pgx.Rows) error {
			found, sizes, err := collectSizes(rows)
			for _, size := range sizes {
				base.children += size
			}
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
		err = base.scan(tx.QueryRow(ctx, openRepo, push.Repo, limits), push)
	}
	switch {
	case err != nil:
		return base, err
	case base.readOnly:
		return base, readOnly(push.Repo)
	case len(missing) > 0:
		return base, missingFault(push.Repo, missing)
	}
	return base, nil
}

func collectSizes(rows pgx.Rows) (digests [][]byte, sizes []int64, err error) {
	var d []byte
	var size int64
	_, err = pgx.ForEachRow(rows, []any{&d, &size}, func() error {
		digests, sizes = append(digests, slices.Clone(d)), append(sizes, size)
		return nil
	})
	return digests, sizes, err
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
	INSERT INTO manifests AS have (repo_id, digest, media_type, artifact_type, config_type, config_digest, subject, attached, size, total_size, payload, annotations)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $23, $8, $9, $10, $11)
	ON CONFLICT (repo_id, digest) DO UPDATE SET media_type = EXCLUDED.media_type, pushed_at = now(), deleted_at = NULL, deleted_by = NULL,
		subject = coalesce(have.subject, EXCLUDED.subject), attached = have.attached OR EXCLUDED.attached,
		artifact_type = CASE WHEN EXCLUDED.attached THEN EXCLUDED.artifact_type ELSE have.artifact_type END
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
	ON CONFLICT (repo_id, name) DO UPDATE SET manifest_id = EXCLUDED.manifest_id, pushed_at = now()
		WHERE tags.name <> ALL($18::text[]) OR tags.manifest_id = EXCLUDED.manifest_id AND NOT $19::boolean
	RETURNING name),
r AS (
	UPDATE repositories SET has_manifests = true, updated_at = now() WHERE id = $1 AND NOT has_manifests),
counted AS (
	INSERT INTO project_blobs (project_id, digest, manifest, size) SELECT $20, x.digest, false, x.size
	FROM unnest($12::bytea[], $21::bigint[]) AS x(digest, size) ON CONFLICT DO NOTHING RETURNING size),
counted_self AS ( -- and its row is held, whoever made it: see release
	INSERT INTO project_blobs (project_id, digest, manifest, size) VALUES ($20, $2, true, $8)
	ON CONFLICT (project_id, digest, manifest) DO UPDATE SET size = EXCLUDED.size WHERE false RETURNING size),
added AS (
	SELECT coalesce((SELECT sum(size) FROM counted), 0)::bigint + coalesce((SELECT size FROM counted_self), 0) AS bytes),
free AS (
	INSERT INTO usage_changes (project_id, bytes) SELECT $20, bytes FROM added WHERE bytes > 0 AND NOT $22::boolean)
SELECT id, created, bytes, CASE WHEN $18::text[] <> '{}' THEN ARRAY(SELECT name FROM t) END FROM m, added`

// insertManifest writes what lockForPush has made safe to write, and its event,
// and commits. When a statement fails the server skips those after it, so the
// commit too. Only if a limit or an immutable tag may stand in the way it looks
// at what the statement did before it commits.
func (s *Store) insertManifest(ctx context.Context, tx *pgxpool.Conn, base pushBase, push Push, out *Pushed) error {
	batch := &pgx.Batch{}
	var added int64
	var set []string
	batch.Queue(putManifest, manifestArgs(base, push, out.Parsed)...).
		QueryRow(func(row pgx.Row) error { return row.Scan(&out.ID, &out.Created, &added, &set) })
	if base.limited || len(base.immutable) > 0 {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		for _, tag := range base.immutable {
			if !slices.Contains(set, tag) {
				return immutableFault(push.Repo, tag, "be pushed again")
			}
		}
		batch = &pgx.Batch{}
	}
	if err := s.Outbox.Queue(ctx, batch, pushEvent(base, push)); err != nil {
		return err
	}
	out.place = place{project: base.projectID}
	if base.limited && added > 0 {
		// The last lock of all, and no round trip between it and the commit.
		batch.Queue(`SELECT take_usage($1, $2)`, base.projectID, added).
			QueryRow(func(row pgx.Row) error { return row.Scan(&out.place.passed) })
	}
	batch.Queue("commit")
	return tx.SendBatch(ctx, batch).Close()
}

func manifestArgs(base pushBase, push Push, p *Parsed) []any {
	listed := make([]int64, len(p.Blobs))
	for i, b := range p.Blobs {
		listed[i] = b.Size
	}
	platforms, annotations := make([][]byte, len(p.Children)), make([][]byte, len(p.Children))
	for i, c := range p.Children {
		platforms[i], annotations[i] = c.Platform, c.Annotations
	}
	subject, artifactType, attached := p.Subject, p.ArtifactType, false
	if subject.IsZero() {
		if to, what, ok := attachment(push.Tags); ok {
			subject, artifactType, attached = to, what, true
		}
	}
	return []any{
		base.repoID, push.Digest.Bytes(), p.MediaType, artifactType, p.ConfigType, bytesOrNil(p.Config), bytesOrNil(subject),
		len(push.Payload), int64(len(push.Payload)) + p.Listed + base.children, push.Payload, p.Annotations,
		digests(p.Blobs), listed, digests(p.Children), platforms, annotations, orEmpty(push.Tags),
		orEmpty(base.immutable), base.strict, base.projectID, base.sizes, base.limited, attached,
	}
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
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
