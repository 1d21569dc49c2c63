package artifact

import (
	"context"
	"errors"

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
		r, err := lockRepo(ctx, tx, repo)
		if errors.Is(err, ErrNameUnknown) {
			return blobUnknown(repo, d)
		}
		if err != nil {
			return err
		}
		// A review that is due already has somebody's promise behind its time.
		_, err = tx.Exec(ctx, `INSERT INTO gc_blobs (digest, review_after) VALUES ($1, now() + $2)
			ON CONFLICT (digest) DO UPDATE SET attempts = 0`, d.Bytes(), s.Times.Grace)
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
