package artifact

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/event"
	"berth/services/reference"
)

// untagged are manifests that nothing names: no tag, no index that lists them,
// nothing that they refer to. They have been there longer than the grace, for a
// push brings an index's manifests before the index, and an artifact before its
// tag.
const untagged = `
	FROM manifests m JOIN repositories r ON r.id = m.repo_id
	WHERE m.deleted_at IS NULL AND m.pushed_at < now() - $1::interval
	AND NOT EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id)
	AND NOT EXISTS (SELECT FROM manifest_children c JOIN manifests p ON p.id = c.parent_id
		WHERE c.digest = m.digest AND p.repo_id = m.repo_id AND p.deleted_at IS NULL)
	AND (m.subject IS NULL OR NOT EXISTS (SELECT FROM manifests s WHERE s.repo_id = m.repo_id AND s.digest = m.subject AND s.deleted_at IS NULL))`

// DeleteUntagged moves untagged artifacts to the recycle bin, at most n of those
// after a manifest's id, and gives how many it moved and the id of the last that
// it looked at; 0 when there are no more.
func (s *Store) DeleteUntagged(ctx context.Context, after int64, n int) (deleted int, last int64, err error) {
	rows, err := s.Pool.Query(ctx, `SELECT m.id, r.name, m.digest`+untagged+` AND m.id > $2 ORDER BY m.id LIMIT $3`, s.Times.Grace, after, n)
	if err != nil {
		return 0, 0, wrap(err, "list untagged artifacts")
	}
	type found struct {
		ID     int64
		Repo   string
		Digest []byte
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[found])
	if err != nil {
		return 0, 0, wrap(err, "list untagged artifacts")
	}
	for _, f := range list {
		d, err := reference.FromBytes(f.Digest)
		if err != nil {
			return deleted, last, err
		}
		done, err := s.deleteUntagged(ctx, f.Repo, d)
		if err != nil {
			return deleted, last, err
		}
		if last = f.ID; done {
			deleted++
		}
	}
	if len(list) < n {
		last = 0
	}
	return deleted, last, nil
}

// deleteUntagged is DeleteManifest for one that still has no tag: the
// repository's lock keeps a push from tagging it meanwhile.
func (s *Store) deleteUntagged(ctx context.Context, repo string, d reference.Digest) (bool, error) {
	err := s.deleting(ctx, repo, func(tx pgx.Tx, r lockedRepo) (event.Event, error) {
		var id int64
		err := tx.QueryRow(ctx, `SELECT m.id`+untagged+` AND m.repo_id = $2 AND m.digest = $3`, s.Times.Grace, r.id, d.Bytes()).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			return event.Event{}, fault.Wrap(fault.NotFound, ErrManifestUnknown, "%s@%s is not untagged any more", repo, d)
		}
		if err != nil {
			return event.Event{}, err
		}
		return event.Event{
			Operation: "delete", ResourceType: "artifact", Resource: repo + "@" + d.String(),
			Description: "delete untagged artifact: " + repo + "@" + d.String(), Digest: d.String(),
		}, s.trash(ctx, tx, r, []int64{id})
	})
	if fault.Is(err, fault.NotFound) || errors.Is(err, ErrReadOnly) {
		return false, nil
	}
	return err == nil, err
}

// Collectable says what Collect would find now, and DeleteUntagged, too, if
// asked; nothing is changed. Bytes are those of Blobs.
func (s *Store) Collectable(ctx context.Context, withUntagged bool) (c Collected, err error) {
	batch := &pgx.Batch{}
	batch.Queue(`SELECT count(*), coalesce(sum(b.size), 0)::bigint FROM gc_blobs g JOIN blobs b ON b.digest = g.digest
		WHERE g.review_after <= now() AND NOT EXISTS (SELECT FROM manifest_blobs mb WHERE mb.digest = g.digest)`).
		QueryRow(func(row pgx.Row) error { return row.Scan(&c.Blobs, &c.Bytes) })
	batch.Queue(`SELECT count(DISTINCT m.id) FROM gc_manifests g JOIN manifests m ON m.id = g.manifest_id
		WHERE g.review_after <= now() AND m.deleted_at <= now() - $1::interval`, s.Times.Trash).
		QueryRow(func(row pgx.Row) error { return row.Scan(&c.Manifests) })
	if withUntagged {
		batch.Queue(`SELECT count(*)`+untagged, s.Times.Grace).QueryRow(func(row pgx.Row) error {
			var n int
			err := row.Scan(&n)
			c.Manifests += n
			return err
		})
	}
	return c, wrap(s.Pool.SendBatch(ctx, batch).Close(), "count what can be collected")
}
