package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"berth/appliance/logger"
	"berth/services/database"
)

// RunnerOptions configure a Runner.
type RunnerOptions struct {
	Pool  *pgxpool.Pool
	Kinds []Kind
	Log   *slog.Logger
	// Name identifies this process among those that run jobs; it is River's
	// client id, too.
	Name string
	// Heartbeat is how often this process says that it lives, and Dead how long
	// one may be silent before its tasks are given to others. 0: 3 s and 20 s.
	Heartbeat, Dead time.Duration
	// Tick is how often schedules are looked at; 0 is a second.
	Tick time.Duration
	// Ended is told of each run: how it ended (Scheduled: it is tried again,
	// Pending: it was cut off) and how long it took. Nil is nobody.
	Ended func(vendor string, end Status, took time.Duration)
}

// DefaultDead is how long a process may be silent that is believed to live.
const DefaultDead = 20 * time.Second

// Runner runs tasks in a jobs service.
type Runner struct {
	RunnerOptions
	store *Store
	kinds map[string]Kind

	mu      sync.Mutex
	active  map[int64]*activeRun
	leaving bool
}

// activeRun is a run of this process.
type activeRun struct {
	run    int
	cancel context.CancelCauseFunc
	log    *logWriter
}

// NewRunner makes a Runner; Register and Run put it to work.
func NewRunner(store *Store, o RunnerOptions) *Runner {
	if o.Heartbeat == 0 {
		o.Heartbeat, o.Dead = 3*time.Second, DefaultDead
	}
	if o.Tick == 0 {
		o.Tick = time.Second
	}
	if o.Ended == nil {
		o.Ended = func(string, Status, time.Duration) {}
	}
	r := &Runner{RunnerOptions: o, store: store, kinds: map[string]Kind{}, active: map[int64]*activeRun{}}
	for _, k := range o.Kinds {
		r.kinds[k.Vendor] = k
	}
	return r
}

// Register adds the worker of tasks and the vendors' queues to River's settings.
func (r *Runner) Register(workers *river.Workers, queues map[string]river.QueueConfig) {
	river.AddWorker(workers, &worker{runner: r})
	for _, k := range r.kinds {
		// enqueue wakes the workers, so that they need not look often.
		queues[queueOf(k.Vendor)] = river.QueueConfig{MaxWorkers: k.workers(), FetchCooldown: 50 * time.Millisecond, FetchPollInterval: 3 * time.Second}
	}
}

// worker is River's side of a run.
type worker struct {
	river.WorkerDefaults[job]
	runner *Runner
}

// Timeout is none: kinds have their own, and a lost process is noticed by its
// heartbeat.
func (*worker) Timeout(*river.Job[job]) time.Duration { return -1 }

func (w *worker) Work(ctx context.Context, j *river.Job[job]) error {
	return w.runner.work(ctx, j.Args)
}

// work makes one run of a task. An error is one of claiming, and River tries
// again; what becomes of the task itself is written into its row.
func (r *Runner) work(ctx context.Context, j job) error {
	run, kind, err := r.claim(ctx, j)
	if err != nil || run == nil {
		return err
	}
	// A handler that works for a request puts its id here.
	about := &logger.Request{}
	ctx = logger.WithRequest(ctx, about)
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !r.begin(run, cancel) {
		cancel(ErrLeaving)
	}
	defer r.end(run)
	began := time.Now()
	err = r.handle(runCtx, kind, run)
	if cause := context.Cause(runCtx); cause != nil && err != nil {
		err = cause
		if ctx.Err() != nil && cause == ctx.Err() {
			err = ErrLeaving // River gives up waiting for us
		}
	}
	switch {
	case errors.Is(err, ErrStopped):
		run.Log.Warn("stopped")
	case errors.Is(err, ErrLeaving), errors.Is(err, ErrLost):
		run.Log.Warn(err.Error())
	case err != nil:
		run.Log.Error("failed", "error", err.Error())
	}
	r.tell(ctx, run, err)
	after, done := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer done()
	if err := run.log.flush(after, true); err != nil {
		r.Log.Warn("cannot keep the end of a task's log", "task", run.Task.ID, "err", err)
	}
	r.Ended(run.Task.Vendor, outcome(run, err), time.Since(began))
	return r.settle(after, kind, run, err)
}

// claim takes a task for a run; nil if there is nothing to do: the task was
// stopped, deleted, or has been taken by another.
func (r *Runner) claim(ctx context.Context, j job) (*Run, Kind, error) {
	run := &Run{pool: r.Pool}
	t := &run.Task
	err := database.InTx(ctx, r.Pool, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			UPDATE tasks t SET status = 'Running', runs = runs + 1, attempts = attempts + 1, worker = $3, message = '',
				started_at = coalesce(t.started_at, now()), updated_at = now()
			FROM executions e WHERE t.id = $1 AND t.runs = $2 AND t.status IN ('Pending', 'Scheduled') AND e.id = t.execution_id
			RETURNING `+taskColumns+`, t.log_bytes, e.vendor_id, e.trigger, e.extra`, j.Task, j.Run, r.Name).
			Scan(append(t.into(), &j.Run, &run.VendorID, &run.Trigger, &run.Params)...)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, Kind{}, nil
	}
	if err != nil {
		return nil, Kind{}, database.Fault(err)
	}
	kind, ok := r.kinds[t.Vendor]
	if !ok {
		kind = Kind{Run: func(context.Context, *Run) error {
			return Permanent(fmt.Errorf("nothing here does tasks of %s", t.Vendor))
		}}
	}
	run.log = &logWriter{pool: r.Pool, task: t.ID, room: maxLog - int64(j.Run), flushd: time.Now()}
	run.Log = slog.New(lineHandler{w: run.log})
	return run, kind, nil
}

// tell writes a run's end into the process's log; the steps are in the task's own.
func (r *Runner) tell(ctx context.Context, run *Run, err error) {
	t := run.Task
	if err != nil {
		r.Log.WarnContext(ctx, "a task's run has failed", "vendor", t.Vendor, "task", t.ID, "attempt", t.Attempts, "err", err)
		return
	}
	r.Log.InfoContext(ctx, "a task's run is done", "vendor", t.Vendor, "task", t.ID, "attempt", t.Attempts)
}

func (r *Runner) handle(ctx context.Context, k Kind, run *Run) (err error) {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if k.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, k.Timeout, fmt.Errorf("it took longer than %s", k.Timeout))
		defer cancel()
	}
	defer func() {
		if p := recover(); p != nil {
			r.Log.Error("a task's handler panicked", "vendor", run.Task.Vendor, "task", run.Task.ID, "panic", p, "stack", string(debug.Stack()))
			err = Permanent(errors.New("internal error; the server's log has the cause"))
		}
	}()
	if err = k.Run(ctx, run); err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return err
}

// begin notes a run, unless the process is about to leave.
func (r *Runner) begin(run *Run, cancel context.CancelCauseFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[run.Task.ID] = &activeRun{run.Task.Runs, cancel, run.log}
	return !r.leaving
}

func (r *Runner) end(run *Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.active[run.Task.ID]; a != nil && a.run == run.Task.Runs {
		delete(r.active, run.Task.ID)
	}
}

// Leave makes all runs end soon. Their tasks go on later, elsewhere or here.
func (r *Runner) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = true
	for _, a := range r.active {
		a.cancel(ErrLeaving)
	}
}

// outcome is the state that a run's end leads to.
func outcome(run *Run, failure error) Status {
	switch {
	case failure == nil:
		return Success
	case errors.Is(failure, ErrStopped), errors.Is(failure, ErrLost):
		return Stopped
	case errors.Is(failure, ErrLeaving):
		return Pending
	case !run.Last() && !errors.As(failure, new(*permanent)):
		return Scheduled
	}
	return Error
}

// settle writes what became of a run, and queues the next one if there is to be
// one, in one transaction.
func (r *Runner) settle(ctx context.Context, k Kind, run *Run, failure error) error {
	t := run.Task
	status, message, again := outcome(run, failure), "", (*time.Time)(nil)
	free := 0 // attempts given back
	switch status {
	case Stopped:
		return nil // the row says so already
	case Pending:
		free = 1
	case Scheduled:
		at := time.Now().Add(k.backoff(t.Attempts))
		message, again = failure.Error(), &at
	case Error:
		message = failure.Error()
	}
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		err := r.write(ctx, t, status, printable(message), again, free)
		if err == nil || !database.Down(err) || ctx.Err() != nil {
			return err
		}
		select { // a moment without the database must not cost what has been done
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (r *Runner) write(ctx context.Context, t Task, status Status, message string, at *time.Time, free int) error {
	return database.InTx(ctx, r.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE tasks SET status = $3, message = $4, attempts = attempts - $6, scheduled_at = coalesce($5, scheduled_at), updated_at = now(),
				worker = CASE WHEN $3 IN ('Pending', 'Scheduled') THEN '' ELSE worker END,
				ended_at = CASE WHEN $3 IN ('Error', 'Success') THEN clock_timestamp() END
			WHERE id = $1 AND runs = $2 AND status = 'Running'`, t.ID, t.Runs, string(status), message, at, free)
		if err != nil || tag.RowsAffected() == 0 || status.Final() {
			return err
		}
		return r.store.enqueue(ctx, tx, []queued{{job{t.ID, t.Runs}, t.Vendor, at}})
	})
}
