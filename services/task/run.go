package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
)

// Handler does a task. It returns nil when it is done; an error makes the task
// run again later while attempts are left, unless it is Permanent. Its context
// ends when the task is stopped, when its time is over, and when the process
// is asked to leave; context.Cause says which.
//
// A handler may be cut off anywhere and run again.
type Handler func(ctx context.Context, r *Run) error

// Kind is what a jobs service needs to know to run a vendor's tasks.
type Kind struct {
	Vendor string
	Run    Handler
	// Workers is how many of them a node runs at once; 0 is 1.
	Workers int
	// Timeout bounds a run; 0 is no bound.
	Timeout time.Duration
	// Backoff says how long to wait after the n-th failed attempt (from 1). Nil
	// doubles from ten seconds to an hour.
	Backoff func(n int) time.Duration
	// Keep is how many ended executions of one (vendor, vendor id) are kept; 0 is
	// 100. Harbor keeps 50 to 1,000, by vendor.
	Keep int
	// Fire starts an execution because its schedule is due, in tx. Nil starts one
	// with a single task; both carry the schedule's parameters as Extra.
	Fire func(ctx context.Context, tx pgx.Tx, s Planned) error
}

func (k Kind) workers() int { return max(k.Workers, 1) }

func (k Kind) backoff(n int) time.Duration {
	if k.Backoff != nil {
		return k.Backoff(n)
	}
	wait := min(10*time.Second<<min(n-1, 20), time.Hour)
	return wait + rand.N(wait/10) // those that failed together do not come back together
}

func (k Kind) keep() int {
	if k.Keep == 0 {
		return 100
	}
	return k.Keep
}

// Why a handler's context has ended.
var (
	// ErrStopped: somebody stopped the task.
	ErrStopped = errors.New("the task was stopped")
	// ErrLeaving: the process ends; the task goes on elsewhere or later.
	ErrLeaving = errors.New("the service is stopping; the task goes on later")
	// ErrLost: the task belongs to another worker now, or is gone.
	ErrLost = errors.New("the task is no longer this worker's")
)

// Permanent makes an error final: the task is not tried again.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ error }

func (p *permanent) Unwrap() error { return p.error }

// Run is a task at work.
type Run struct {
	Task     Task
	VendorID int64           // of its execution
	Trigger  string          // of its execution
	Params   json.RawMessage // its execution's Extra
	Log      *slog.Logger    // lines that are kept with the task

	pool *pgxpool.Pool
	log  *logWriter
}

// Decode reads the task's Extra: its parameters, and what Checkpoint left.
func (r *Run) Decode(v any) error {
	if err := json.Unmarshal(r.Task.Extra, v); err != nil {
		return Permanent(fmt.Errorf("cannot read the parameters of task %d: %w", r.Task.ID, err))
	}
	return nil
}

// Last reports whether no attempt is left after this one.
func (r *Run) Last() bool { return r.Task.Attempts >= r.Task.MaxAttempts }

// Checkpoint merges fields into the task's Extra, where the next run finds them,
// and readers of the API see progress. It gives ErrLost when the task is not
// this run's any more.
func (r *Run) Checkpoint(ctx context.Context, fields any) error {
	extra, err := object(fields)
	if err != nil {
		return err
	}
	// A stopped run may still say how far it got.
	tag, err := r.pool.Exec(ctx, `UPDATE tasks SET extra = extra || $3, updated_at = now()
		WHERE id = $1 AND runs = $2 AND status IN ('Running', 'Stopped')`, r.Task.ID, r.Task.Runs, extra)
	if err == nil && tag.RowsAffected() == 0 {
		return ErrLost
	}
	return database.Fault(err)
}

// Annotate merges fields into the execution's Extra: results, for example.
func (r *Run) Annotate(ctx context.Context, fields any) error {
	return annotate(ctx, r.pool, r.Task.ExecutionID, fields)
}

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func annotate(ctx context.Context, db execer, execution int64, fields any) error {
	extra, err := object(fields)
	if err != nil {
		return err
	}
	tag, err := db.Exec(ctx, `UPDATE executions SET extra = extra || $2, updated_at = now() WHERE id = $1`, execution, extra)
	if err == nil && tag.RowsAffected() == 0 {
		return executionNotFound(execution)
	}
	return database.Fault(err)
}
