// Package quota knows how much storage each project may take, and takes.
//
// What counts, and how it is kept exact beside pushes, is the work of
// services/artifact and of the functions in the migration 0003_policies: a
// project's usage is the sum of its rows in usage_shards and usage_changes, and
// equals the sum of its rows in project_blobs. This package reads it, sets limits,
// and counts again.
package quota

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
)

// Quota is a project's. Its id is the project's.
type Quota struct {
	ID               int64
	Project, Owner   string
	Limit            int64 // bytes; -1 = none
	Used             int64 // bytes
	Created, Updated time.Time
}

// Store is the quotas in the database.
type Store struct {
	pool   *pgxpool.Pool
	outbox *event.Outbox
}

// New makes a store.
func New(pool *pgxpool.Pool, outbox *event.Outbox) *Store { return &Store{pool, outbox} }

// Used is the SQL of the usage of project p in bytes.
const Used = `(coalesce((SELECT sum(us.used) FROM usage_shards us WHERE us.project_id = p.id), 0)
	+ coalesce((SELECT sum(uc.bytes) FROM usage_changes uc WHERE uc.project_id = p.id), 0))::bigint`

const columns = `p.id, p.name, coalesce(u.username, ''), p.storage_limit, ` + Used + `, p.created_at, p.updated_at`

const tables = ` FROM projects p LEFT JOIN users u ON u.id = p.owner_id`

func scan(row pgx.CollectableRow) (q Quota, err error) {
	err = row.Scan(&q.ID, &q.Project, &q.Owner, &q.Limit, &q.Used, &q.Created, &q.Updated)
	return q, err
}

var fields = query.Columns{
	"id": {SQL: "p.id", Type: query.Number}, "referenceid": {SQL: "p.id", Type: query.Number}, "name": {SQL: "p.name"},
	"hard.storage": {SQL: "p.storage_limit", Type: query.Number}, "used.storage": {SQL: Used, Type: query.Number},
	"creationtime": {SQL: "p.created_at", Type: query.Moment}, "updatetime": {SQL: "p.updated_at", Type: query.Moment},
}

// List gives a page of quotas.
func (s *Store) List(ctx context.Context, q query.Query) (query.Page[Quota], error) {
	var w query.Where
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Quota]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*)"+tables+w.String(),
		"SELECT "+columns+tables+w.String()+q.OrderBy(fields, "p.id")+q.Limit(), w.Args, scan)
	return page, database.Fault(err)
}

// Quota gives a project's quota. Errors: NotFound.
func (s *Store) Quota(ctx context.Context, project int64) (Quota, error) {
	rows, err := s.pool.Query(ctx, "SELECT "+columns+tables+" WHERE p.id = $1", project)
	if err != nil {
		return Quota{}, database.Fault(err)
	}
	q, err := pgx.CollectExactlyOneRow(rows, scan)
	return q, unknown(err, project)
}

func unknown(err error, project int64) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "quota %d not found", project)
	}
	return database.Fault(err)
}

// MaxLimit is the largest limit that can be set, Harbor's: 1024 TiB.
const MaxLimit = 1 << 50

// CheckLimit accepts a limit in bytes, or -1 for none.
func CheckLimit(limit int64) error {
	switch {
	case limit == 0 || limit < -1:
		return fault.New(fault.Invalid, "a limit of %d bytes is not a quota", limit).On("storage").
			WithHint("give a positive number of bytes, or -1 for no limit")
	case limit > MaxLimit:
		return fault.New(fault.Invalid, "a limit of %d bytes is too large", limit).On("storage").
			WithHint("the most is 1024 TiB; -1 is no limit")
	}
	return nil
}

// Set sets a project's limit, which may be below what it uses: then nothing can
// be added. Pushes that have begun finish under the old limit. Errors: Invalid,
// NotFound.
func (s *Store) Set(ctx context.Context, project, limit int64) error {
	if err := CheckLimit(limit); err != nil {
		return err
	}
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var name string
		err := tx.QueryRow(ctx, `UPDATE projects SET storage_limit = $2, updated_at = now() WHERE id = $1 RETURNING name`, project, limit).Scan(&name)
		if err != nil {
			return err
		}
		if err := s.outbox.Add(ctx, tx, event.Event{Operation: "update", ResourceType: "quota", Resource: name, Success: true,
			ProjectID: project, Description: "update quota of project: " + name}); err != nil {
			return err
		}
		if err := Announce(ctx, tx); err != nil {
			return err
		}
		return settle(ctx, tx, project)
	})
	return unknown(err, project)
}

// Announce tells the registry, when the transaction commits, that a project has
// another limit.
func Announce(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `SELECT pg_notify('berth_artifact', 'project')`)
	return err
}

// settle gathers a project's usage and gives out what is left of its limit. It
// must be the last thing that a transaction does.
func settle(ctx context.Context, tx interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, project int64) error {
	var passed *int64
	return tx.QueryRow(ctx, `SELECT settle_usage($1, 0)`, project).Scan(&passed)
}

// Gather adds up what has been appended to the usage of projects. It is done
// from time to time so that the sums stay short.
func Gather(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, `
		WITH gone AS (DELETE FROM usage_changes c WHERE NOT EXISTS (SELECT FROM projects p WHERE p.id = c.project_id))
		SELECT DISTINCT c.project_id FROM usage_changes c JOIN projects p ON p.id = c.project_id`)
	if err != nil {
		return database.Fault(err)
	}
	projects, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	for _, id := range projects {
		if err == nil {
			err = settle(ctx, pool, id)
		}
	}
	return database.Fault(err)
}

// Drift is what a recount has put right.
type Drift struct {
	Project string `json:"project"`
	Missing int    `json:"missing"` // blobs and manifests that did not count and should have
	Stale   int    `json:"stale"`   // that counted and should not have
	Bytes   int64  `json:"bytes"`   // by which the usage differed from what counted
	Used    int64  `json:"used"`    // bytes, now
}

// Recompute counts what is in a project and puts its usage right, while pushes
// go on; deletions in the project wait for it. Nothing is wrong unless there is an
// error in Berth or somebody has changed the database.
func (s *Store) Recompute(ctx context.Context, project int64) (d Drift, err error) {
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT name FROM projects WHERE id = $1`, project).Scan(&d.Project); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		// In the order of locks of services/artifact.
		batch.Queue(`SELECT FROM repositories WHERE project_id = $1 ORDER BY id FOR KEY SHARE`, project)
		batch.Queue(`SELECT FROM blobs WHERE digest IN (
			SELECT c.digest FROM project_blobs c WHERE `+stale+`) ORDER BY digest FOR UPDATE`, project)
		batch.Queue(`INSERT INTO project_blobs (project_id, digest, manifest, size)
			SELECT DISTINCT $1::bigint, b.digest, false, b.size FROM repositories r JOIN manifests m ON m.repo_id = r.id
				JOIN manifest_blobs mb ON mb.manifest_id = m.id JOIN blobs b ON b.digest = mb.digest WHERE r.project_id = $1 AND m.deleted_at IS NULL
			UNION ALL SELECT DISTINCT $1::bigint, m.digest, true, m.size FROM repositories r JOIN manifests m ON m.repo_id = r.id
				WHERE r.project_id = $1 AND m.deleted_at IS NULL
			ON CONFLICT DO NOTHING`, project).Exec(count(&d.Missing))
		batch.Queue(`DELETE FROM project_blobs c WHERE `+stale, project).Exec(count(&d.Stale))
		// Every transaction changes rows and usage together, so in one snapshot they
		// differ by the error alone.
		batch.Queue(`
			WITH drift AS (SELECT coalesce((SELECT sum(size) FROM project_blobs WHERE project_id = $1), 0) - `+Used+` AS bytes FROM projects p WHERE p.id = $1),
			mended AS (INSERT INTO usage_changes (project_id, bytes) SELECT $1, bytes FROM drift WHERE bytes <> 0)
			SELECT bytes::bigint FROM drift`, project).QueryRow(func(row pgx.Row) error { return row.Scan(&d.Bytes) })
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		if err := settle(ctx, tx, project); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT `+Used+` FROM projects p WHERE p.id = $1`, project).Scan(&d.Used)
	})
	return d, unknown(err, project)
}

// stale holds for a row c of project $1 that no live manifest needs and whose
// blob nobody is going to review.
const stale = `c.project_id = $1 AND CASE WHEN c.manifest THEN
		NOT EXISTS (SELECT FROM repositories r JOIN manifests m ON m.repo_id = r.id WHERE r.project_id = $1 AND m.digest = c.digest AND m.deleted_at IS NULL)
	ELSE NOT EXISTS (SELECT FROM gc_blobs g WHERE g.digest = c.digest) AND NOT EXISTS (
		SELECT FROM manifest_blobs mb JOIN manifests m ON m.id = mb.manifest_id JOIN repositories r ON r.id = m.repo_id
		WHERE mb.digest = c.digest AND m.deleted_at IS NULL AND r.project_id = $1) END`

func count(n *int) func(pgconn.CommandTag) error {
	return func(t pgconn.CommandTag) error { *n = int(t.RowsAffected()); return nil }
}
