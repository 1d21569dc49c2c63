package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
)

// partitionLock is the advisory lock's key under which partitions are made and
// dropped; any constant that no one else uses.
const partitionLock = 0x6265727461 // "berta"

// ahead is how many months' partitions are made before they are needed.
const ahead = 3

const allColumns = `id, op_time, event_id, operation, resource_type, resource, username, description, success,
	project_id, request_id, source`

const partitionName = "audit_events_y2006m01"

func monthOf(t time.Time) time.Time {
	return time.Date(t.UTC().Year(), t.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
}

// EnsurePartitions makes the partitions of this month and the next ones. What
// the default partition has gathered for a month is moved into its own.
func EnsurePartitions(ctx context.Context, pool *pgxpool.Pool, now time.Time) error {
	for i := range ahead + 1 {
		month := monthOf(now).AddDate(0, i, 0)
		err := inPartitionLock(ctx, pool, func(tx pgx.Tx) error { return ensureMonth(ctx, tx, month) })
		if err != nil {
			return fmt.Errorf("cannot make the audit partition of %s: %w", month.Format("2006-01"), err)
		}
	}
	return nil
}

func inPartitionLock(ctx context.Context, pool *pgxpool.Pool, f func(pgx.Tx) error) error {
	return database.Fault(database.InTx(ctx, pool, func(tx pgx.Tx) error {
		// Behind a long query the change of partitions would hold up every event: better to try again later.
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '5s'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(partitionLock)); err != nil {
			return err
		}
		return f(tx)
	}))
}

func ensureMonth(ctx context.Context, tx pgx.Tx, month time.Time) error {
	name := month.Format(partitionName)
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&exists); err != nil || exists {
		return err
	}
	from, to := month.Format(time.RFC3339), month.AddDate(0, 1, 0).Format(time.RFC3339)
	// Attaching locks the table less than CREATE … PARTITION OF.
	for _, sql := range []string{
		"CREATE TABLE " + name + " (LIKE audit_events INCLUDING DEFAULTS)",
		"LOCK TABLE audit_events_default IN ACCESS EXCLUSIVE MODE",
		fmt.Sprintf(`WITH moved AS (DELETE FROM audit_events_default WHERE op_time >= '%[1]s' AND op_time < '%[2]s' RETURNING %[4]s)
			INSERT INTO %[3]s (%[4]s) SELECT %[4]s FROM moved`, from, to, name, allColumns),
		fmt.Sprintf("ALTER TABLE audit_events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", name, from, to),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// purgeBatch is how many rows one statement deletes.
const purgeBatch = 5000

// Purge forgets the entries before a time, all of them or those of some event
// types (see event.Types), and gives how many. Whole months are dropped at once.
// chain, which may be nil, is told.
func Purge(ctx context.Context, pool *pgxpool.Pool, chain *Chain, before time.Time, types []string) (purged int64, err error) {
	if chain != nil { // before anything is gone
		if err := chain.announce(ctx, before, types); err != nil {
			return 0, err
		}
	}
	if types == nil {
		if purged, err = dropMonths(ctx, pool, before); err != nil {
			return purged, err
		}
	}
	n, err := deleteBefore(ctx, pool, before, types)
	purged += n
	if err == nil && types == nil && chain != nil {
		err = chain.trim(ctx, before)
	}
	return purged, err
}

func deleteBefore(ctx context.Context, pool *pgxpool.Pool, before time.Time, types []string) (purged int64, err error) {
	for {
		tag, err := pool.Exec(ctx, `
			DELETE FROM audit_events WHERE (op_time, id) IN (
				SELECT op_time, id FROM audit_events
				WHERE op_time < $1 AND ($2::text[] IS NULL OR operation || '_' || resource_type = ANY($2)) LIMIT $3)
			AND op_time < $1`, before, types, purgeBatch)
		if err != nil {
			return purged, database.Fault(err)
		}
		purged += tag.RowsAffected()
		if tag.RowsAffected() < purgeBatch {
			return purged, nil
		}
	}
}

// CountBefore gives how many entries Purge would forget.
func CountBefore(ctx context.Context, pool *pgxpool.Pool, before time.Time, types []string) (n int64, err error) {
	err = pool.QueryRow(ctx, `
		SELECT count(*) FROM audit_events
		WHERE op_time < $1 AND ($2::text[] IS NULL OR operation || '_' || resource_type = ANY($2))`, before, types).Scan(&n)
	return n, database.Fault(err)
}

// dropMonths drops the partitions that lie wholly before a time.
func dropMonths(ctx context.Context, pool *pgxpool.Pool, before time.Time) (purged int64, err error) {
	rows, err := pool.Query(ctx, `
		SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'audit_events'::regclass AND c.relname ~ '^audit_events_y[0-9]{4}m[0-9]{2}$' ORDER BY 1`)
	if err != nil {
		return 0, database.Fault(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, database.Fault(err)
	}
	for _, name := range names {
		month, err := time.Parse(partitionName, name)
		if err != nil || month.AddDate(0, 1, 0).After(before) {
			continue
		}
		err = inPartitionLock(ctx, pool, func(tx pgx.Tx) error {
			var n int64
			if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{name}.Sanitize()).Scan(&n); err != nil {
				return err
			}
			purged += n
			_, err := tx.Exec(ctx, "DROP TABLE "+pgx.Identifier{name}.Sanitize())
			return err
		})
		if err != nil {
			return purged, fmt.Errorf("cannot drop the audit partition %s: %w", name, err)
		}
	}
	return purged, nil
}
