package artifact

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/event"
	"berth/services/immutability"
	"berth/services/reference"
)

// Deleting is putting into the recycle bin: a deleted manifest keeps its row,
// with deleted_at, and its tags move to deleted_tags. Both are invisible to
// everything but Trash and Restore, and keep their blobs from the collector
// until Times.Trash has passed.

// lockedRepo is a repository held FOR UPDATE, so that has_manifests can be set
// without racing with a push, which holds it FOR KEY SHARE.
type lockedRepo struct {
	id, projectID int64
	name          string
	rules         immutability.Rules
}

// immutable reads the rules of a project p that are in force, and whether they
// forbid pushing the same again.
const immutable = `(SELECT jsonb_agg(i.rule) FROM immutable_rules i WHERE i.project_id = p.id AND NOT i.disabled),
	coalesce(p.metadata->>'immutable_strict' = 'true', false)`

func lockRepo(ctx context.Context, tx pgx.Tx, name string) (r lockedRepo, err error) {
	r.name = name
	var frozen, strict bool
	err = tx.QueryRow(ctx, `SELECT r.id, p.id, p.read_only, `+immutable+`
		FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.name = $1 FOR UPDATE OF r`, name).
		Scan(&r.id, &r.projectID, &frozen, &r.rules, &strict)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, nameUnknown(name)
	}
	if err == nil && frozen {
		err = readOnly(name)
	}
	return r, err
}

// ErrImmutable is what the Precondition fault of a change to an immutable tag
// wraps.
var ErrImmutable = errors.New("immutable")

func immutableFault(repo, tag, what string) error {
	return fault.Wrap(fault.Precondition, ErrImmutable, "the tag %s of %s is configured as immutable, it cannot %s", tag, repo, what).
		WithHint("choose another tag, or change the project's rules of immutability")
}

// mayGo refuses the deletion of manifests that have an immutable tag.
func (r lockedRepo) mayGo(ctx context.Context, tx pgx.Tx, ids []int64) error {
	if len(r.rules) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT name FROM tags WHERE manifest_id = ANY($1) ORDER BY name`, ids)
	if err != nil {
		return err
	}
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if held := r.rules.Among(r.name, tags); len(held) > 0 {
		return immutableFault(r.name, held[0], "be deleted")
	}
	return nil
}

// DeleteTag removes one tag and leaves what it names (OCI Distribution 1.1,
// "Deleting tags"). Errors: NotFound; Precondition if the tag is immutable.
func (s *Store) DeleteTag(ctx context.Context, repo, tag string) error {
	return s.deleting(ctx, repo, func(tx pgx.Tx, r lockedRepo) (event.Event, error) {
		if r.rules.Hold(repo, tag) {
			return event.Event{}, immutableFault(repo, tag, "be deleted")
		}
		d, err := s.untag(ctx, tx, r, []string{tag})
		if errors.Is(err, pgx.ErrNoRows) {
			return event.Event{}, fault.Wrap(fault.NotFound, ErrManifestUnknown, "tag %s:%s not found", repo, tag)
		}
		return event.Event{
			Operation: "delete", ResourceType: "tag", Resource: repo + ":" + tag, Description: "delete tag: " + repo + ":" + tag,
			Digest: d.String(), Tag: tag,
		}, err
	})
}

// untag moves tags of one artifact to the recycle bin, and gives its digest.
func (s *Store) untag(ctx context.Context, tx pgx.Tx, r lockedRepo, tags []string) (reference.Digest, error) {
	var raw []byte
	err := tx.QueryRow(ctx, `
		WITH gone AS (
			DELETE FROM tags WHERE repo_id = $1 AND name = ANY($2) RETURNING name, manifest_id),
		bin AS (
			INSERT INTO deleted_tags (repo_id, name, manifest_id, deleted_by) SELECT $1, name, manifest_id, $3 FROM gone),
		review AS (
			INSERT INTO gc_manifests (manifest_id, review_after) SELECT DISTINCT manifest_id, now() + $4 FROM gone)
		SELECT m.digest FROM gone JOIN manifests m ON m.id = gone.manifest_id LIMIT 1`,
		r.id, tags, event.From(ctx).User, s.Times.Trash).Scan(&raw)
	if err != nil {
		return reference.Digest{}, err
	}
	return reference.FromBytes(raw)
}

// DeleteManifest removes a manifest and all its tags and, unless they are tagged,
// the children of an index that no other lists, and what refers to it as its
// subject (signatures, SBOMs). Errors: NotFound; Conflict if an index lists it;
// Precondition if one of its tags is immutable.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d reference.Digest) error {
	return s.deleting(ctx, repo, func(tx pgx.Tx, r lockedRepo) (event.Event, error) {
		id, tag, err := r.unlisted(ctx, tx, d)
		if err != nil {
			return event.Event{}, err
		}
		return event.Event{
			Operation: "delete", ResourceType: "artifact", Resource: repo + "@" + d.String(),
			Description: "delete artifact: " + repo + "@" + d.String(), Digest: d.String(), Tag: tag,
		}, s.trash(ctx, tx, r, []int64{id})
	})
}

// unlisted gives the id of a manifest that no index lists, one that may go, and
// its first tag.
func (r lockedRepo) unlisted(ctx context.Context, tx pgx.Tx, d reference.Digest) (id int64, tag string, err error) {
	var parent []byte
	err = tx.QueryRow(ctx, `
		SELECT m.id, coalesce((SELECT min(t.name) FROM tags t WHERE t.manifest_id = m.id), ''), (SELECT p.digest FROM manifest_children c JOIN manifests p ON p.id = c.parent_id
			WHERE c.digest = m.digest AND p.repo_id = m.repo_id AND p.deleted_at IS NULL LIMIT 1)
		FROM manifests m WHERE m.repo_id = $1 AND m.digest = $2 AND m.deleted_at IS NULL`,
		r.id, d.Bytes()).Scan(&id, &tag, &parent)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, "", fault.Wrap(fault.NotFound, ErrManifestUnknown, "artifact %s@%s not found", r.name, d)
	}
	if err == nil && parent != nil {
		p, _ := reference.FromBytes(parent)
		return 0, "", fault.Wrap(fault.Conflict, ErrInUse, "%s is part of the index %s", d, p).WithHint("delete the index first")
	}
	return id, tag, err
}

// DeleteRepository removes everything in a repository. Errors: NotFound;
// Precondition if it has an immutable tag.
func (s *Store) DeleteRepository(ctx context.Context, repo string) error {
	return s.deleting(ctx, repo, func(tx pgx.Tx, r lockedRepo) (event.Event, error) {
		rows, err := tx.Query(ctx, `SELECT m.id, m.digest, coalesce((SELECT min(t.name) FROM tags t WHERE t.manifest_id = m.id), '')
			FROM manifests m WHERE m.repo_id = $1 AND m.deleted_at IS NULL`, r.id)
		if err != nil {
			return event.Event{}, err
		}
		var ids []int64
		var told []event.Artifact
		var id int64
		var raw []byte
		var tag string
		if _, err := pgx.ForEachRow(rows, []any{&id, &raw, &tag}, func() error {
			ids = append(ids, id)
			d, err := reference.FromBytes(raw)
			if len(told) < event.MaxArtifacts {
				told = append(told, event.Artifact{Digest: d.String(), Tag: tag})
			}
			return err
		}); err != nil {
			return event.Event{}, err
		}
		if len(ids) == 0 {
			return event.Event{}, nameUnknown(repo)
		}
		return event.Event{
			Operation: "delete", ResourceType: "repository", Resource: repo, Description: "delete repository: " + repo, Artifacts: told,
		}, s.trash(ctx, tx, r, ids)
	})
}

// deleting runs one deletion with its repository locked, and tells of it: the
// event in the transaction, the caches after it.
func (s *Store) deleting(ctx context.Context, repo string, f func(pgx.Tx, lockedRepo) (event.Event, error)) error {
	err := s.retryTx(ctx, func(tx pgx.Tx) error {
		r, err := lockRepo(ctx, tx, repo)
		if err != nil {
			return err
		}
		e, err := f(tx, r)
		if err != nil {
			return err
		}
		e.Success, e.ProjectID, e.RepositoryID, e.Repository = true, r.projectID, r.id, repo
		if err := notify(ctx, tx, "deleted"); err != nil {
			return err
		}
		return s.Outbox.Add(ctx, tx, e)
	})
	s.forget()
	return err
}

// family finds, for manifests that are being deleted, the untagged children
// that no other live index lists and the referrers, one level at a time. The tag
// that attaches a signature to what it signs keeps neither.
const family = `
SELECT m.id FROM manifests m
WHERE m.repo_id = $1 AND m.deleted_at IS NULL AND m.id <> ALL($2)
AND NOT EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id AND NOT (m.attached AND t.name LIKE 'sha___-%.%')) AND (
	m.subject IN (SELECT digest FROM manifests WHERE id = ANY($2))
	OR (m.digest IN (SELECT digest FROM manifest_children WHERE parent_id = ANY($2))
		AND NOT EXISTS (SELECT FROM manifest_children c JOIN manifests p ON p.id = c.parent_id
			WHERE c.digest = m.digest AND p.repo_id = m.repo_id AND p.deleted_at IS NULL AND p.id <> ALL($2))))
ORDER BY m.id`

// trash moves manifests and their families to the recycle bin. All that one
// call moves carries the same deleted_at (the transaction's time), which is how
// Restore brings it back together. What the project's usage no longer needs is
// free at once, though its bytes stay until the bin is emptied.
//
// It finds them under the repository's lock, and then locks blobs and manifests
// in the order that all do.
func (s *Store) trash(ctx context.Context, tx pgx.Tx, r lockedRepo, ids []int64) error {
	if err := r.mayGo(ctx, tx, ids); err != nil {
		return err
	}
	for range 16 { // an index of indexes of …: deeper than any real one
		rows, err := tx.Query(ctx, family, r.id, ids)
		if err != nil {
			return err
		}
		more, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		if len(more) == 0 {
			break
		}
		ids = append(ids, more...)
	}
	n, err := hold(ctx, tx, ids)
	if err != nil {
		return err
	}
	user := event.From(ctx).User
	batch := &pgx.Batch{}
	batch.Queue(`SELECT FROM manifests WHERE id = ANY($1) ORDER BY id FOR UPDATE`, ids)
	batch.Queue(`UPDATE manifests SET deleted_at = now(), deleted_by = $2 WHERE id = ANY($1)`, ids, user)
	batch.Queue(`WITH gone AS (DELETE FROM tags WHERE manifest_id = ANY($1) RETURNING name, manifest_id)
		INSERT INTO deleted_tags (repo_id, name, manifest_id, deleted_by) SELECT $2, name, manifest_id, $3 FROM gone`, ids, r.id, user)
	batch.Queue(`INSERT INTO gc_manifests (manifest_id, review_after) SELECT id, now() + $2 FROM unnest($1::bigint[]) AS x(id)`, ids, s.Times.Trash)
	batch.Queue(setHasManifests, r.id)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	return release(ctx, tx, r.projectID, n)
}

const setHasManifests = `UPDATE repositories SET updated_at = now(),
	has_manifests = EXISTS (SELECT FROM manifests m WHERE m.repo_id = $1 AND m.deleted_at IS NULL) WHERE id = $1`

// DeleteBlob takes a blob out of a repository. Its bytes go when no repository
// and no manifest needs them. Errors: NotFound; Conflict if a manifest of the
// repository refers to it.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d reference.Digest) error {
	err := s.retryTx(ctx, func(tx pgx.Tx) error {
		// A review that is due already has somebody's promise behind its time.
		_, err := tx.Exec(ctx, `INSERT INTO gc_blobs (digest, review_after) VALUES ($1, now() + $2)
			ON CONFLICT (digest) DO UPDATE SET attempts = 0`, d.Bytes(), s.Times.Grace)
		if err != nil {
			return err
		}
		r, err := lockRepo(ctx, tx, repo)
		if errors.Is(err, ErrNameUnknown) {
			return blobUnknown(repo, d)
		}
		if err != nil {
			return err
		}
		// Manifests are pushed under a share lock of the repository: with ours
		// held, none can begin to refer to the blob between check and deletion.
		var user []byte
		err = tx.QueryRow(ctx, `SELECT m.digest FROM manifest_blobs mb JOIN manifests m ON m.id = mb.manifest_id
			WHERE m.repo_id = $1 AND mb.digest = $2 AND m.deleted_at IS NULL LIMIT 1`, r.id, d.Bytes()).Scan(&user)
		if err == nil {
			m, _ := reference.FromBytes(user)
			return fault.Wrap(fault.Conflict, ErrInUse, "blob %s is used by the manifest %s", d, m).WithHint("delete the manifest first")
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE repo_blobs SET deleted_at = now() WHERE repo_id = $1 AND digest = $2 AND deleted_at IS NULL`, r.id, d.Bytes())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return blobUnknown(repo, d)
		}
		if _, err := tx.Exec(ctx, `SELECT FROM blobs WHERE digest = $1 FOR UPDATE`, d.Bytes()); err != nil {
			return err
		}
		if err := releaseUnreferred(ctx, tx, d.Bytes()); err != nil {
			return err
		}
		return notify(ctx, tx, "deleted")
	})
	s.forget()
	return err
}

// CreateTag gives a manifest one more name. Errors: NotFound; Conflict if the
// repository has the tag.
func (s *Store) CreateTag(ctx context.Context, repo string, d reference.Digest, tag string) error {
	if err := reference.CheckTag(tag); err != nil {
		return err
	}
	return s.retryTx(ctx, func(tx pgx.Tx) error {
		var id, repoID, projectID int64
		var frozen bool
		err := tx.QueryRow(ctx, `SELECT m.id, r.id, r.project_id, p.read_only
			FROM repositories r JOIN manifests m ON m.repo_id = r.id JOIN projects p ON p.id = r.project_id
			WHERE r.name = $1 AND m.digest = $2 AND m.deleted_at IS NULL FOR KEY SHARE OF r, m`, repo, d.Bytes()).Scan(&id, &repoID, &projectID, &frozen)
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.Wrap(fault.NotFound, ErrManifestUnknown, "artifact %s@%s not found", repo, d)
		}
		if err != nil {
			return err
		}
		if frozen {
			return readOnly(repo)
		}
		done, err := tx.Exec(ctx, `INSERT INTO tags (repo_id, name, manifest_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, repoID, tag, id)
		if err != nil {
			return err
		}
		if done.RowsAffected() == 0 {
			return fault.New(fault.Conflict, "tag %s already exists in %s", tag, repo)
		}
		return s.Outbox.Add(ctx, tx, event.Event{
			Operation: "create", ResourceType: "tag", Success: true, Resource: repo + ":" + tag, Description: "create tag: " + repo + ":" + tag,
			ProjectID: projectID, RepositoryID: repoID, Repository: repo, Digest: d.String(), Tag: tag,
		})
	})
}

// Deleted is something in the recycle bin: an artifact with the tags it had,
// or, with Tag alone set, a tag that was removed from an artifact that stayed.
type Deleted struct {
	ID           int64     `json:"id"` // of the bin's entry; pass it to Restore
	Kind         string    `json:"kind"`
	Repository   string    `json:"repository"`
	Digest       string    `json:"digest"`
	Tags         []string  `json:"tags"`
	DeletedAt    time.Time `json:"deleted_at"`
	DeletedBy    string    `json:"deleted_by"`
	RestoreUntil time.Time `json:"restore_until"`
}

// The kinds of a Deleted.
const (
	DeletedArtifact = "artifact"
	DeletedTag      = "tag"
)

// Trash lists the recycle bin of a project, newest first, at most n entries.
func (s *Store) Trash(ctx context.Context, projectID int64, n int) ([]Deleted, error) {
	rows, err := s.Pool.Query(ctx, `
		SELECT * FROM (
			SELECT m.id, 'artifact' AS kind, r.name, m.digest, m.deleted_at, COALESCE(m.deleted_by, ''),
				ARRAY(SELECT d.name FROM deleted_tags d WHERE d.manifest_id = m.id AND d.deleted_at = m.deleted_at ORDER BY d.name) AS tags
			FROM manifests m JOIN repositories r ON r.id = m.repo_id WHERE r.project_id = $1 AND m.deleted_at IS NOT NULL
			UNION ALL
			SELECT d.id, 'tag', r.name, m.digest, d.deleted_at, d.deleted_by, ARRAY[d.name]
			FROM deleted_tags d JOIN manifests m ON m.id = d.manifest_id JOIN repositories r ON r.id = d.repo_id
			WHERE r.project_id = $1 AND m.deleted_at IS DISTINCT FROM d.deleted_at) AS bin
		ORDER BY deleted_at DESC, id DESC LIMIT $2`, projectID, n)
	if err != nil {
		return nil, wrap(err, "list the recycle bin")
	}
	list := []Deleted{}
	var e Deleted
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&e.ID, &e.Kind, &e.Repository, &raw, &e.DeletedAt, &e.DeletedBy, &e.Tags}, func() error {
		d, err := reference.FromBytes(raw)
		e.Digest, e.RestoreUntil = d.String(), e.DeletedAt.Add(s.Times.Trash)
		list = append(list, e)
		e.Tags = nil
		return err
	})
	return list, wrap(err, "list the recycle bin")
}

// Restore brings an entry of a project's recycle bin back: an artifact with
// everything that was deleted with it, or a tag. Tags that have been pushed anew
// since keep what they name now. What comes back counts again. Errors: NotFound;
// Forbidden (the quota, or the project is read-only).
func (s *Store) Restore(ctx context.Context, projectID int64, kind string, id int64) error {
	table := "manifests"
	if kind == DeletedTag {
		table = "deleted_tags"
	} else if kind != DeletedArtifact {
		return fault.New(fault.Invalid, "the kind must be artifact or tag").On("kind")
	}
	var name string
	err := s.retryTx(ctx, func(tx pgx.Tx) error {
		var repo lockedRepo
		var at *time.Time
		var frozen bool
		err := tx.QueryRow(ctx, `SELECT r.id, r.project_id, r.name, x.deleted_at, p.read_only
			FROM `+table+` x JOIN repositories r ON r.id = x.repo_id JOIN projects p ON p.id = r.project_id
			WHERE x.id = $1 AND r.project_id = $2 FOR UPDATE OF r`, id, projectID).Scan(&repo.id, &repo.projectID, &repo.name, &at, &frozen)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && at == nil {
			return fault.New(fault.NotFound, "there is no %s %d in the recycle bin", kind, id)
		}
		if err != nil {
			return err
		}
		if name = repo.name; frozen {
			return readOnly(name)
		}
		if err := s.restore(ctx, tx, repo.id, kind, id, *at); err != nil {
			return err
		}
		return s.Outbox.Add(ctx, tx, event.Event{
			Operation: "restore", ResourceType: kind, Success: true, Resource: repo.name, Description: "restore " + kind + " in " + repo.name,
			ProjectID: repo.projectID, RepositoryID: repo.id, Repository: repo.name,
		})
	})
	return s.overQuota(ctx, err, name, "", reference.Digest{})
}

func (s *Store) restore(ctx context.Context, tx pgx.Tx, repoID int64, kind string, id int64, at time.Time) error {
	which, back := `id = $3`, `id = (SELECT manifest_id FROM deleted_tags WHERE id = $3) AND deleted_at IS NOT NULL`
	if kind == DeletedArtifact {
		which, back = `$3 > 0 AND deleted_at = $2`, `deleted_at = $2`
	}
	rows, err := tx.Query(ctx, `SELECT id FROM manifests WHERE repo_id = $1 AND $2::timestamptz IS NOT NULL AND $3::bigint > 0 AND `+back, repoID, at, id)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	batch := &pgx.Batch{}
	// As a push does: who would take them from the project's usage has to wait.
	batch.Queue(`SELECT FROM blobs WHERE digest IN (SELECT digest FROM manifest_blobs WHERE manifest_id = ANY($1)) ORDER BY digest FOR KEY SHARE`, ids)
	batch.Queue(`UPDATE manifests SET deleted_at = NULL, deleted_by = NULL WHERE id = ANY($1)`, ids)
	batch.Queue(`UPDATE repo_blobs SET deleted_at = NULL WHERE repo_id = $1 AND deleted_at IS NOT NULL AND digest IN (
		SELECT mb.digest FROM manifest_blobs mb JOIN manifests m ON m.id = mb.manifest_id WHERE m.repo_id = $1 AND m.deleted_at IS NULL)`, repoID)
	batch.Queue(`WITH back AS (DELETE FROM deleted_tags WHERE repo_id = $1 AND `+which+` AND $2::timestamptz IS NOT NULL RETURNING name, manifest_id)
		INSERT INTO tags (repo_id, name, manifest_id) SELECT $1, name, manifest_id FROM back ON CONFLICT DO NOTHING`, repoID, at, id)
	batch.Queue(setHasManifests, repoID)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	return s.recount(ctx, tx, repoID, ids)
}
