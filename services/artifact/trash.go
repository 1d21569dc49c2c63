package artifact

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/event"
	"berth/services/reference"
)

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
