package task

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"berth/services/database"
)

// Enter says that this process runs jobs. It comes before River's start, so
// that no job is ever held by a process that nobody knows.
func (r *Runner) Enter(ctx context.Context) error {
	_, err := r.beat(ctx)
	return err
}

// Run keeps the heartbeat, hears of stops, writes logs, fires schedules and
// looks after what other processes left, until ctx ends. Then it says that this
// process runs no jobs any more: let River stop first.
func (r *Runner) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { r.keepBeating(ctx); return nil })
	g.Go(func() error { return r.hearStops(ctx) })
	g.Go(func() error { every(ctx, flushEvery, r.flushLogs); return nil })
	g.Go(func() error { every(ctx, r.Tick, r.fire); return nil })
	g.Go(func() error { every(ctx, 10*time.Minute, r.sweep); return nil })
	err := g.Wait()
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if _, err := r.Pool.Exec(bye, `DELETE FROM job_pools WHERE id = $1`, r.Name); err != nil {
		r.Log.Debug("cannot say goodbye; others will notice", "err", err)
	}
	return err
}

// every calls f now and then until ctx ends.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f(ctx)
		}
	}
}

// keepBeating renews this process's row, drops runs that are not its own any
// more, and takes over from processes that have fallen silent.
func (r *Runner) keepBeating(ctx context.Context) {
	last, since := time.Now(), time.Now() // the last success, and since when there was no long silence
	every(ctx, r.Heartbeat, func(ctx context.Context) {
		timed, cancel := context.WithTimeout(ctx, r.Dead/2)
		defer cancel()
		gone, err := r.beat(timed)
		now := time.Now()
		if now.Sub(last) > r.Dead {
			// Others may have given us up: what we began is theirs, or will be ours
			// again. And those that seem silent may have had no database either.
			r.drop(nil)
			since = now
		}
		if err != nil {
			r.Log.Warn("cannot renew the heartbeat of the job service", "err", err)
			return
		}
		last = now
		r.drop(gone)
		if now.Sub(since) >= r.Dead {
			if err := r.rescue(timed); err != nil {
				r.Log.Warn("cannot take over the tasks of a lost worker", "err", err)
			}
		}
	})
}

// beat renews this process's row and gives those of its runs that have no right
// to go on, with the reason.
func (r *Runner) beat(ctx context.Context) (map[int64]error, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	concurrency := 0
	for _, k := range r.kinds {
		concurrency += k.workers()
	}
	r.mu.Lock()
	ids, runs := make([]int64, 0, len(r.active)), make([]int32, 0, len(r.active))
	for id, a := range r.active {
		ids, runs = append(ids, id), append(runs, int32(a.run))
	}
	r.mu.Unlock()
	gone := map[int64]error{}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO job_pools (id, host, pid, concurrency) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()`, r.Name, host, os.Getpid(), concurrency)
	batch.Queue(`SELECT x.id, coalesce(t.status = 'Stopped', false) FROM unnest($1::bigint[], $2::int[]) AS x(id, run)
		LEFT JOIN tasks t ON t.id = x.id AND t.runs = x.run WHERE t.status IS DISTINCT FROM 'Running'`, ids, runs).
		Query(func(rows pgx.Rows) error {
			var id int64
			var stopped bool
			_, err := pgx.ForEachRow(rows, []any{&id, &stopped}, func() error {
				if gone[id] = ErrLost; stopped {
					gone[id] = ErrStopped
				}
				return nil
			})
			return err
		})
	return gone, database.Fault(r.Pool.SendBatch(ctx, batch).Close())
}

// drop cancels runs; nil is all of them.
func (r *Runner) drop(gone map[int64]error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, a := range r.active {
		if gone == nil {
			a.cancel(ErrLost)
		} else if why := gone[id]; why != nil {
			a.cancel(why)
		}
	}
}

// maxLost is how often a task's worker may be lost before the task is taken
// for the reason.
const maxLost = 3

// rescue takes away the rows of silent processes, and queues anew what belongs
// to no process that is left: River's running jobs, and tasks. A task of this
// very process that it does not run is one whose end could not be written.
func (r *Runner) rescue(ctx context.Context) error {
	r.mu.Lock()
	active := make([]int64, 0, len(r.active))
	for id := range r.active {
		active = append(active, id)
	}
	r.mu.Unlock()
	dead := r.Dead.String()
	return database.Fault(database.InTx(ctx, r.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM job_pools WHERE id IN (
			SELECT id FROM job_pools WHERE heartbeat_at < now() - $1::interval FOR UPDATE SKIP LOCKED)`, dead); err != nil {
			return err
		}
		// As River's own rescuer does an hour later. A task's job is over: the task
		// gets a new one.
		if _, err := tx.Exec(ctx, `
			UPDATE river_job SET state = (CASE WHEN kind = 'task' OR attempt >= max_attempts THEN 'discarded' ELSE 'available' END)::river_job_state,
				finalized_at = CASE WHEN kind = 'task' OR attempt >= max_attempts THEN now() END, scheduled_at = now()
			WHERE id IN (SELECT j.id FROM river_job j WHERE j.state = 'running' AND j.attempted_at < now() - $1::interval
				AND NOT EXISTS (SELECT FROM job_pools p WHERE p.id = j.attempted_by[array_upper(j.attempted_by, 1)])
				FOR UPDATE SKIP LOCKED)`, dead); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			WITH orphans AS (SELECT t.id FROM tasks t WHERE t.status = 'Running' AND t.updated_at < now() - $1::interval
				AND (NOT EXISTS (SELECT FROM job_pools p WHERE p.id = t.worker) OR t.worker = $2 AND t.id <> ALL($3))
				ORDER BY t.id FOR UPDATE SKIP LOCKED)
			UPDATE tasks t SET lost = lost + 1, updated_at = now(), attempts = attempts - 1, worker = '',
				status = CASE WHEN lost < $4 THEN 'Pending' ELSE 'Error' END,
				message = CASE WHEN lost < $4 THEN 'its worker was lost; it goes on' ELSE 'its worker was lost ' || lost + 1 || ' times' END,
				ended_at = CASE WHEN lost >= $4 THEN clock_timestamp() END
			FROM orphans o WHERE t.id = o.id
			RETURNING t.id, t.runs, t.vendor, t.status = 'Pending'`, dead, r.Name, active, maxLost)
		if err != nil {
			return err
		}
		var again []queued
		var q queued
		var goesOn bool
		if _, err := pgx.ForEachRow(rows, []any{&q.Task, &q.Run, &q.vendor, &goesOn}, func() error {
			r.Log.Warn("a task's worker was lost", "task", q.Task, "vendor", q.vendor, "runs", q.Run, "again", goesOn)
			if goesOn {
				again = append(again, q)
			}
			return nil
		}); err != nil || len(again) == 0 {
			return err
		}
		return r.store.enqueue(ctx, tx, again)
	}))
}

// hearStops hears of tasks that were stopped. Without a connection the heartbeat
// finds them, a little later.
func (r *Runner) hearStops(ctx context.Context) error {
	return database.Listen(ctx, r.Pool, database.Channel{Name: stopChannel, State: func(bool) {}, Heard: func(payload string) {
		id, err := strconv.ParseInt(payload, 10, 64)
		if err != nil {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if a := r.active[id]; a != nil {
			a.cancel(ErrStopped)
		}
	}})
}

// flushLogs writes what the runs' logs have gathered.
func (r *Runner) flushLogs(ctx context.Context) {
	r.mu.Lock()
	logs := make([]*logWriter, 0, len(r.active))
	for _, a := range r.active {
		logs = append(logs, a.log)
	}
	r.mu.Unlock()
	for _, w := range logs {
		if err := w.flush(ctx, false); err != nil && !errors.Is(err, context.Canceled) {
			r.Log.Warn("cannot keep a part of a task's log", "task", w.task, "err", err)
			return
		}
	}
}

// sweepBatch bounds how many executions one statement forgets.
const sweepBatch = 1000

// sweep forgets old executions, with their tasks and logs.
func (r *Runner) sweep(ctx context.Context) {
	for _, k := range r.kinds {
		for range 100 {
			tag, err := r.Pool.Exec(ctx, `
				DELETE FROM executions WHERE id IN (
					SELECT id FROM (SELECT id, status, row_number() OVER (PARTITION BY vendor_id ORDER BY id DESC) AS n
						FROM executions WHERE vendor = $1) AS x
					WHERE n > $2 AND status <> 'Running' LIMIT $3)`, k.Vendor, k.keep(), sweepBatch)
			if err != nil {
				r.Log.Warn("cannot forget old executions", "vendor", k.Vendor, "err", err)
				return
			}
			if tag.RowsAffected() < sweepBatch {
				break
			}
		}
	}
}
