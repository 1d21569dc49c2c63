package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"berth/appliance/fault"
	"berth/services/database"
)

// Store starts, lists and stops executions.
type Store struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

// NewStore makes a Store on the pool's database. It runs nothing: Runner does.
func NewStore(pool *pgxpool.Pool) (*Store, error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		return nil, err
	}
	return &Store{pool: pool, client: client}, nil
}

// New is an execution to start.
type New struct {
	Vendor   string
	VendorID int64
	Trigger  string // Manual, Schedule or Event
	Message  string
	Extra    any // becomes a JSON object; no secrets
	// EventID makes the start happen once for each (Vendor, VendorID, EventID).
	// The zero UUID makes no such promise.
	EventID uuid.UUID
}

// NewTask is a task to start.
type NewTask struct {
	Vendor      string // "" is the execution's
	Extra       any    // becomes a JSON object; no secrets
	MaxAttempts int    // 0 is 1
	// NotBefore delays the first run; the zero time is now.
	NotBefore time.Time
}

// Start inserts an execution, its tasks and their River jobs in tx, and gives
// the execution's id; 0 if its event has started one before. An execution
// without tasks is Running until Add or Finish.
func (s *Store) Start(ctx context.Context, tx pgx.Tx, e New, tasks ...NewTask) (int64, error) {
	extra, err := object(e.Extra)
	if err != nil {
		return 0, fmt.Errorf("cannot store the parameters of an execution: %w", err)
	}
	var event *uuid.UUID
	if e.EventID != uuid.Nil {
		event = &e.EventID
	}
	var id int64
	err = tx.QueryRow(ctx, `
		INSERT INTO executions (vendor, vendor_id, trigger, message, extra, event_id) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (vendor, vendor_id, event_id) WHERE event_id IS NOT NULL DO NOTHING RETURNING id`,
		e.Vendor, e.VendorID, e.Trigger, e.Message, extra, event).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, database.Fault(err)
	}
	for i := range tasks {
		if tasks[i].Vendor == "" {
			tasks[i].Vendor = e.Vendor
		}
	}
	_, err = s.Add(ctx, tx, id, tasks...)
	return id, err
}

// Add puts more tasks into an execution, in tx, and gives their ids.
func (s *Store) Add(ctx context.Context, tx pgx.Tx, execution int64, tasks ...NewTask) ([]int64, error) {
	if len(tasks) == 0 {
		return nil, nil
	}
	n := len(tasks)
	vendors, extras, attempts, times := make([]string, n), make([]json.RawMessage, n), make([]int32, n), make([]*time.Time, n)
	for i, t := range tasks {
		var err error
		if extras[i], err = object(t.Extra); err != nil {
			return nil, fmt.Errorf("cannot store the parameters of a task: %w", err)
		}
		vendors[i], attempts[i] = t.Vendor, int32(max(t.MaxAttempts, 1))
		if !t.NotBefore.IsZero() {
			times[i] = &tasks[i].NotBefore
		}
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO tasks (execution_id, vendor, extra, max_attempts, scheduled_at, status)
		SELECT $1, coalesce(nullif(x.vendor, ''), e.vendor), x.extra, x.attempts, coalesce(x.at, now()), CASE WHEN x.at > now() THEN 'Scheduled' ELSE 'Pending' END
		FROM unnest($2::text[], $3::jsonb[], $4::int[], $5::timestamptz[]) WITH ORDINALITY AS x(vendor, extra, attempts, at, n)
		JOIN executions e ON e.id = $1 ORDER BY x.n
		RETURNING id, vendor, CASE WHEN status = 'Scheduled' THEN scheduled_at END`, execution, vendors, extras, attempts, times)
	if err != nil {
		return nil, database.Fault(err)
	}
	var made []queued
	var ids []int64
	var q queued
	if _, err := pgx.ForEachRow(rows, []any{&q.Task, &q.vendor, &q.at}, func() error {
		made, ids = append(made, q), append(ids, q.Task)
		return nil
	}); err != nil {
		return nil, database.Fault(err)
	}
	if len(made) != n {
		return nil, executionNotFound(execution)
	}
	return ids, s.enqueue(ctx, tx, made)
}

// job is the River job of one run of a task.
type job struct {
	Task int64 `json:"task"`
	Run  int   `json:"run"` // how often it has been begun before; else the job is obsolete
}

// Kind is the job's name in River.
func (job) Kind() string { return "task" }

// queued is a run to be put into its vendor's queue.
type queued struct {
	job
	vendor string
	at     *time.Time // nil: now
}

// jobAttempts is for failures around a handler (the database is away when a
// task is to be claimed); a task's own attempts are counted in its row.
const jobAttempts = 25

// enqueue inserts River jobs and wakes who works on their queues. River itself
// tells them at most every tenth of a second, and looks every few seconds.
func (s *Store) enqueue(ctx context.Context, tx pgx.Tx, list []queued) error {
	params := make([]river.InsertManyParams, len(list))
	queues := map[string]bool{}
	for i, q := range list {
		opts := &river.InsertOpts{Queue: queueOf(q.vendor), MaxAttempts: jobAttempts}
		if q.at != nil {
			opts.ScheduledAt = *q.at
		}
		params[i] = river.InsertManyParams{Args: q.job, InsertOpts: opts}
		queues[queueOf(q.vendor)] = true
	}
	if _, err := s.client.InsertManyFastTx(ctx, tx, params); err != nil {
		return database.Fault(err)
	}
	batch := &pgx.Batch{}
	for name := range queues {
		batch.Queue(`SELECT pg_notify(current_schema() || '.river_insert', json_build_object('queue', $1::text)::text)`, name)
	}
	return database.Fault(tx.SendBatch(ctx, batch).Close())
}

// queueOf is the River queue of a vendor's tasks; River wants lower case.
func queueOf(vendor string) string { return strings.ToLower(vendor) }

// Finish gives an execution that has no tasks its state. One that has tasks
// keeps what they say.
func (s *Store) Finish(ctx context.Context, tx pgx.Tx, execution int64, status Status, message string) error {
	tag, err := tx.Exec(ctx, `UPDATE executions SET verdict = $2, message = $3, updated_at = now(),
		ended_at = CASE WHEN pending + scheduled + running = 0 THEN coalesce(ended_at, clock_timestamp()) END WHERE id = $1`, execution, string(status), message)
	if err == nil && tag.RowsAffected() == 0 {
		return executionNotFound(execution)
	}
	return database.Fault(err)
}

// Annotate merges fields into an execution's Extra: results, for example.
func (s *Store) Annotate(ctx context.Context, execution int64, fields any) error {
	return annotate(ctx, s.pool, execution, fields)
}

// Stop ends an execution: what waits never runs, and what runs is stopped on
// whatever node it is. The rows say Stopped when Stop returns; a handler hears of
// it within a moment, and what it still writes has no effect. Errors: NotFound.
// Stopping what has ended does nothing.
func (s *Store) Stop(ctx context.Context, execution int64) error {
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// The execution is not locked: who ends a task locks it after the task.
		var tasks int
		err := tx.QueryRow(ctx, `SELECT pending + scheduled + running + stopped + failed + succeeded FROM executions WHERE id = $1`, execution).Scan(&tasks)
		if errors.Is(err, pgx.ErrNoRows) {
			return executionNotFound(execution)
		}
		if err != nil {
			return err
		}
		if tasks == 0 {
			_, err := tx.Exec(ctx, `UPDATE executions SET verdict = coalesce(verdict, 'Stopped'), ended_at = coalesce(ended_at, clock_timestamp()), updated_at = now() WHERE id = $1`, execution)
			return err
		}
		return stopTasks(ctx, tx, `execution_id = $1`, execution)
	}))
}

// StopTask ends one task. Errors: NotFound.
func (s *Store) StopTask(ctx context.Context, id int64) error {
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tasks WHERE id = $1)`, id).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			return taskNotFound(id)
		}
		return stopTasks(ctx, tx, `id = $1`, id)
	}))
}

// StopQueue ends all tasks of a vendor that wait or run, whatever they belong to.
func (s *Store) StopQueue(ctx context.Context, vendor string) error {
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		return stopTasks(ctx, tx, `vendor = $1`, vendor)
	}))
}

func stopTasks(ctx context.Context, tx pgx.Tx, which string, arg any) error {
	// In the order of ids: whoever stops the same tasks waits and does not deadlock.
	_, err := tx.Exec(ctx, `
		WITH doomed AS (SELECT id FROM tasks WHERE `+which+` AND status IN ('Pending', 'Scheduled', 'Running') ORDER BY id FOR UPDATE),
		ended AS (UPDATE tasks t SET status = 'Stopped', ended_at = clock_timestamp(), updated_at = now()
			FROM doomed d WHERE t.id = d.id RETURNING t.id, t.worker)
		SELECT pg_notify('`+stopChannel+`', id::text) FROM ended WHERE worker <> ''`, arg)
	return err
}

// stopChannel tells runners which tasks were stopped.
const stopChannel = "berth_tasks"

// DeleteOf forgets all executions of a vendor's object that was deleted, in tx.
// Errors: Precondition if one is running.
func (s *Store) DeleteOf(ctx context.Context, tx pgx.Tx, vendor string, vendorID int64) error {
	var running bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM executions WHERE vendor = $1 AND vendor_id = $2 AND status = 'Running')`, vendor, vendorID).Scan(&running)
	if err != nil {
		return database.Fault(err)
	}
	if running {
		return fault.New(fault.Precondition, "an execution of %s %d is running", strings.ToLower(vendor), vendorID).WithHint("stop it first, or wait for its end")
	}
	_, err = tx.Exec(ctx, `DELETE FROM executions WHERE vendor = $1 AND vendor_id = $2`, vendor, vendorID)
	return database.Fault(err)
}
