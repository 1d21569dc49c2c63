package task

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
)

// Scheduler is the queue that schedules count as being in: pausing it pauses
// them all.
const Scheduler = "SCHEDULER"

// queues are the vendors that can wait in a queue, as Harbor lists them.
var queues = []string{
	"AUDIT_LOGS_GDPR_COMPLIANT", "EXECUTION_SWEEP", GarbageCollection, ImageScan, Preheat, PurgeAudit, Replication, Retention,
	ScanExport, Scheduler, Slack, "SYSTEM_ARTIFACT_CLEANUP", Webhook,
}

// AllQueues, as the name of a queue, is every one.
const AllQueues = "all"

// Queue is how many tasks of a vendor wait.
type Queue struct {
	Vendor  string
	Count   int
	Latency time.Duration // how long the first has waited
	Paused  bool
}

// Queues lists them all, by name.
func (s *Store) Queues(ctx context.Context) ([]Queue, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT v.vendor, coalesce(w.n, 0), coalesce(extract(epoch FROM now() - w.oldest), 0)::float8, q.paused_at IS NOT NULL
		FROM unnest($1::text[]) AS v(vendor)
		LEFT JOIN (SELECT vendor, count(*) AS n, min(scheduled_at) AS oldest FROM tasks
			WHERE status IN ('Pending', 'Scheduled') AND scheduled_at <= now() GROUP BY vendor) AS w ON w.vendor = v.vendor
		LEFT JOIN river_queue q ON q.name = lower(v.vendor) ORDER BY 1`, queues)
	if err != nil {
		return nil, database.Fault(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (q Queue, err error) {
		var seconds float64
		err = row.Scan(&q.Vendor, &q.Count, &seconds, &q.Paused)
		q.Latency = time.Duration(seconds * float64(time.Second))
		return q, err
	})
	return list, database.Fault(err)
}

// named gives the queues that a caller means. Errors: NotFound.
func named(vendor string) ([]string, error) {
	if strings.EqualFold(vendor, AllQueues) {
		return queues, nil
	}
	for _, q := range queues {
		if q == strings.ToUpper(vendor) {
			return []string{q}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no job type %q", vendor).On("job_type")
}

// Pause keeps a queue's tasks waiting, on every node; what runs goes on. Errors:
// NotFound.
func (s *Store) Pause(ctx context.Context, vendor string, pause bool) error {
	list, err := named(vendor)
	if err != nil {
		return err
	}
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		for _, v := range list {
			// River knows a queue once somebody has worked on it.
			if _, err := tx.Exec(ctx, `INSERT INTO river_queue (name, created_at, updated_at) VALUES ($1, now(), now()) ON CONFLICT (name) DO NOTHING`, queueOf(v)); err != nil {
				return err
			}
			change := s.client.QueueResumeTx
			if pause {
				change = s.client.QueuePauseTx
			}
			if err := change(ctx, tx, queueOf(v), nil); err != nil {
				return err
			}
		}
		return nil
	}))
}

// StopWaiting ends what waits or runs in a queue. Errors: NotFound.
func (s *Store) StopWaiting(ctx context.Context, vendor string) error {
	list, err := named(vendor)
	if err != nil {
		return err
	}
	for _, v := range list {
		if err := s.StopQueue(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// StopRunning ends everything that runs now, of all vendors.
func (s *Store) StopRunning(ctx context.Context) error {
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		return stopTasks(ctx, tx, `status = $1`, string(Running))
	}))
}

// SchedulesPaused reports whether no schedule starts anything.
func (s *Store) SchedulesPaused(ctx context.Context) (paused bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_queue WHERE name = $1 AND paused_at IS NOT NULL)`, queueOf(Scheduler)).Scan(&paused)
	return paused, database.Fault(err)
}

// Pool is a process that runs jobs.
type Pool struct {
	ID          string
	Host        string
	PID         int
	Concurrency int
	Started     time.Time
	Heartbeat   time.Time
}

// Pools lists the processes that run jobs.
func (s *Store) Pools(ctx context.Context) ([]Pool, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, host, pid, concurrency, started_at, heartbeat_at FROM job_pools ORDER BY started_at, id`)
	if err != nil {
		return nil, database.Fault(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Pool])
	return list, database.Fault(err)
}

// AtWork lists the tasks that a pool runs; AllQueues is every pool. Errors:
// NotFound.
func (s *Store) AtWork(ctx context.Context, pool string) ([]Task, error) {
	everywhere := strings.EqualFold(pool, AllQueues)
	var exists bool
	if err := s.pool.QueryRow(ctx, `SELECT $2 OR EXISTS (SELECT FROM job_pools WHERE id = $1)`, pool, everywhere).Scan(&exists); err != nil {
		return nil, database.Fault(err)
	}
	if !exists {
		return nil, fault.New(fault.NotFound, "there is no worker pool %q", pool).On("pool_id")
	}
	rows, err := s.pool.Query(ctx, `SELECT `+taskColumns+` FROM tasks t WHERE t.status = 'Running' AND ($2 OR t.worker = $1) ORDER BY t.started_at, t.id LIMIT 1000`, pool, everywhere)
	if err != nil {
		return nil, database.Fault(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Task, err error) {
		err = row.Scan(t.into()...)
		return t, err
	})
	return list, database.Fault(err)
}
