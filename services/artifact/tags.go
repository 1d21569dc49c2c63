package artifact

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/event"
	"berth/services/reference"
)

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
