package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"berth/appliance/fault"
	"berth/services/event"
	"berth/services/reference"
)

// What counts towards a project's quota are the rows of project_blobs: its
// blobs and manifests, each once, however many repositories have them. A row
// comes with the manifest that refers to it, or is it, and goes in the transaction
// that takes the last such live manifest away (release). In a project with a limit
// it comes with the upload or mount already; what is not referred to afterwards
// goes with the blob's review.
//
// The usage changes in the same transaction as the rows. The functions of the
// migration 0003_policies say how it stays exact without a lock that pushes would
// queue for.

// gate begins statements that write to a repository ($1): its project, whether
// that may be written to, and whether its quota binds ($3: quotas are enforced).
const gate = `SELECT p.id, p.read_only, p.storage_limit >= 0 AND $3::boolean AS limited
	FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.id = $1 FOR KEY SHARE OF r`

// place is what a statement has told of the project that it wrote to.
type place struct {
	project  int64
	readOnly bool
	passed   *int64 // the usage, if this write took it past the mark at which people are warned
}

// limits reports whether quotas are enforced.
func (s *Store) limits(ctx context.Context) bool { return s.Quotas == nil || s.Quotas(ctx) }

// ErrReadOnly is what a Forbidden fault of a write to a read-only project wraps,
// ErrQuota that of one which would exceed the project's quota.
var (
	ErrReadOnly = errors.New("the project is read-only")
	ErrQuota    = errors.New("quota exceeded")
)

func readOnly(repo string) error {
	project, _ := reference.Project(repo)
	return fault.Wrap(fault.Forbidden, ErrReadOnly, "the project %s is read-only", project).
		WithHint("an administrator of the project may change that")
}

// counted handles what a write has told: a refusal, or a quota that is nearly
// used up.
func (s *Store) counted(ctx context.Context, at place, repo, tag string, d reference.Digest) error {
	if at.readOnly {
		return readOnly(repo)
	}
	if at.passed != nil {
		s.quotaEvent(ctx, event.QuotaWarning, at.project, repo, tag, d, fmt.Sprintf("%s of the project's storage are used", Size(*at.passed)))
	}
	return nil
}

// quotaExceeded is the SQLSTATE of settle_usage's refusal, whose detail is an
// excess.
const quotaExceeded = "BQ001"

type excess struct{ Project, Used, Limit, Added int64 }

// overQuota turns the database's refusal into what a client is told, and tells
// the rest of Berth: in a transaction of its own, for the push's is undone.
func (s *Store) overQuota(ctx context.Context, err error, repo, tag string, d reference.Digest) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || refused.Code != quotaExceeded {
		return err
	}
	var e excess
	if err := json.Unmarshal([]byte(refused.Detail), &e); err != nil {
		return fmt.Errorf("cannot read the refusal of a quota: %w", err)
	}
	text := fmt.Sprintf("adding %s to the %s of storage that the project uses would exceed its limit of %s", Size(e.Added), Size(e.Used), Size(e.Limit))
	s.quotaEvent(ctx, event.QuotaExceed, e.Project, repo, tag, d, text)
	return fault.Wrap(fault.Forbidden, ErrQuota, "%s", text).WithHint("delete artifacts, or ask an administrator for more")
}

// quotaEvent tells of a quota. A quota that is not told of is no reason to fail.
func (s *Store) quotaEvent(ctx context.Context, operation string, project int64, repo, tag string, d reference.Digest, text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		return s.Outbox.Add(ctx, tx, event.Event{
			Operation: operation, ResourceType: "quota", Resource: repo, Description: text, Success: operation != event.QuotaExceed,
			ProjectID: project, Repository: repo, Digest: d.String(), Tag: tag,
		})
	})
	if err != nil {
		s.Log.Warn("cannot tell of a quota", "repository", repo, "err", err)
	}
}

// Size writes a number of bytes for people, as Harbor does: 734 B, 5.0 MiB.
func Size(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for value >= 1<<10 && unit < 6 {
		value, unit = value/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, " KMGTPE"[unit])
}

// needs is what manifests that are about to go have in their project's usage.
type needs struct{ manifests, blobs [][]byte }

// hold locks the blobs of manifests that are about to go, before the manifests:
// no push can begin to refer to them until the transaction ends, so what release
// finds unused stays unused.
func hold(ctx context.Context, tx pgx.Tx, ids []int64) (n needs, err error) {
	batch := &pgx.Batch{}
	into := func(list *[][]byte) func(pgx.Rows) error {
		return func(rows pgx.Rows) (err error) {
			*list, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
			return err
		}
	}
	batch.Queue(`SELECT digest FROM blobs WHERE digest IN (SELECT digest FROM manifest_blobs WHERE manifest_id = ANY($1))
		ORDER BY digest FOR UPDATE`, ids).Query(into(&n.blobs))
	batch.Queue(`SELECT digest FROM manifests WHERE id = ANY($1)`, ids).Query(into(&n.manifests))
	err = tx.SendBatch(ctx, batch).Close()
	return n, err
}

// release takes from a project's usage what no live manifest of it needs any
// more. The caller has made the manifests that needed it invisible, since hold.
func release(ctx context.Context, tx pgx.Tx, projectID int64, n needs) error {
	batch := &pgx.Batch{}
	// A push of one of these manifests to another repository holds its row: whoever
	// comes second sees what the first has done.
	batch.Queue(`SELECT FROM project_blobs WHERE project_id = $1 AND manifest AND digest = ANY($2) ORDER BY digest FOR UPDATE`, projectID, n.manifests)
	batch.Queue(`
		WITH gone AS (
			DELETE FROM project_blobs c WHERE project_id = $1 AND NOT manifest AND digest = ANY($3) AND NOT `+referred+` RETURNING size),
		gone_manifests AS (
			DELETE FROM project_blobs c WHERE project_id = $1 AND manifest AND digest = ANY($2) AND NOT EXISTS (
				SELECT FROM repositories r JOIN manifests m ON m.repo_id = r.id
				WHERE r.project_id = c.project_id AND m.digest = c.digest AND m.deleted_at IS NULL)
			RETURNING size)
		INSERT INTO usage_changes (project_id, bytes)
		SELECT $1, -sum(size) FROM (SELECT size FROM gone UNION ALL SELECT size FROM gone_manifests) AS x HAVING count(*) > 0`,
		projectID, n.manifests, n.blobs)
	return tx.SendBatch(ctx, batch).Close()
}

// referred holds for a blob of project_blobs c that a live manifest of its
// project refers to.
const referred = `EXISTS (SELECT FROM manifest_blobs mb JOIN manifests m ON m.id = mb.manifest_id JOIN repositories r ON r.id = m.repo_id
	WHERE mb.digest = c.digest AND m.deleted_at IS NULL AND r.project_id = c.project_id)`

// releaseUnreferred takes a blob, which the caller holds FOR UPDATE, from the
// usage of all projects that have no live manifest with it: it was uploaded or
// mounted there and then not used.
func releaseUnreferred(ctx context.Context, tx pgx.Tx, digest []byte) error {
	_, err := tx.Exec(ctx, `
		WITH gone AS (
			DELETE FROM project_blobs c WHERE digest = $1 AND NOT manifest AND project_id IN (
				SELECT r.project_id FROM repo_blobs rb JOIN repositories r ON r.id = rb.repo_id WHERE rb.digest = $1)
			AND NOT `+referred+` RETURNING project_id, size)
		INSERT INTO usage_changes (project_id, bytes) SELECT project_id, -size FROM gone`, digest)
	return err
}

// recount adds to a project's usage what live manifests of a repository need,
// after some of them came back.
func (s *Store) recount(ctx context.Context, tx pgx.Tx, repoID int64, ids []int64) error {
	_, err := tx.Exec(ctx, `
		WITH p AS (`+gate+`),
		counted AS (
			INSERT INTO project_blobs (project_id, digest, manifest, size)
			SELECT p.id, x.digest, x.manifest, x.size FROM p, (
				SELECT DISTINCT b.digest, false AS manifest, b.size FROM manifest_blobs mb JOIN blobs b ON b.digest = mb.digest WHERE mb.manifest_id = ANY($2)
				UNION ALL SELECT DISTINCT m.digest, true, m.size FROM manifests m WHERE m.id = ANY($2)) AS x
			ORDER BY x.digest ON CONFLICT DO NOTHING RETURNING size),
		free AS (
			INSERT INTO usage_changes (project_id, bytes) SELECT p.id, counted.size FROM p, counted WHERE NOT p.limited)
		SELECT take_usage(p.id, (SELECT sum(size) FROM counted)::bigint) FROM p WHERE p.limited AND EXISTS (SELECT FROM counted)`,
		repoID, ids, s.limits(ctx))
	return err
}
