package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"berth/appliance/fault"
	"berth/services/dbtest"
	"berth/services/query"
	"berth/services/task"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bundle is a database, and processes that run tasks on it.
type bundle struct {
	*testing.T
	pool  *pgxpool.Pool
	store *task.Store
}

func setup(t *testing.T) *bundle {
	t.Parallel()
	pool := dbtest.New(t)
	store, err := task.NewStore(pool)
	if err != nil {
		t.Fatal(err)
	}
	return &bundle{t, pool, store}
}

// process is one that runs tasks.
type process struct {
	leave func() // as SIGTERM
	kill  func() // as kill -9: nothing is written any more
}

func (b *bundle) process(kinds ...task.Kind) process {
	b.Helper()
	// A pool of its own, so that killing it cuts its writes off.
	name, config := uuid.NewString(), b.pool.Config()
	var dead atomic.Bool
	config.ConnConfig.RuntimeParams["application_name"] = name
	config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if dead.Load() {
			return errors.New("the process is dead")
		}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store, err := task.NewStore(pool)
	if err != nil {
		b.Fatal(err)
	}
	r := task.NewRunner(store, task.RunnerOptions{Pool: pool, Kinds: kinds, Log: log, Name: name,
		Heartbeat: 100 * time.Millisecond, Dead: 800 * time.Millisecond, Tick: 50 * time.Millisecond})
	workers, queues := river.NewWorkers(), map[string]river.QueueConfig{}
	r.Register(workers, queues)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{ID: name, Queues: queues, Workers: workers,
		Logger: slog.New(slog.DiscardHandler), FetchPollInterval: 100 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	if err := r.Enter(ctx); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	if err := client.Start(ctx); err != nil {
		b.Fatal(err)
	}
	var gone atomic.Bool
	p := process{
		leave: func() {
			if gone.Swap(true) {
				return
			}
			r.Leave()
			bound, done := context.WithTimeout(context.Background(), 10*time.Second)
			defer done()
			if err := client.Stop(bound); err != nil {
				b.Errorf("stop: %v", err)
			}
			cancel()
			<-ended
			pool.Close()
		},
		kill: func() {
			gone.Store(true)
			dead.Store(true)
			// The database refuses the process's connections; its contexts live on.
			if _, err := b.pool.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = $1`, name); err != nil {
				b.Error(err)
			}
			cancel()
		},
	}
	b.Cleanup(p.leave)
	return p
}

func (b *bundle) start(n task.New, tasks ...task.NewTask) (id int64) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) (err error) {
		id, err = b.store.Start(b.Context(), tx, n, tasks...)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return id
}

// await polls until an execution is as wanted.
func (b *bundle) await(id int64, what string, ok func(task.Execution) bool) task.Execution {
	b.Helper()
	var e task.Execution
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var err error
		if e, err = b.store.Execution(b.Context(), task.Of{}, id); err != nil {
			b.Fatal(err)
		}
		if ok(e) {
			return e
		}
	}
	b.Fatalf("not %s: %+v", what, e)
	return e
}

func (b *bundle) ends(id int64, status task.Status) task.Execution {
	b.Helper()
	e := b.await(id, "at its end", func(e task.Execution) bool { return e.Status.Final() })
	if e.Status != status {
		b.Errorf("execution ended %s (%+v), want %s", e.Status, e, status)
	}
	if e.Ended.Before(e.Started) {
		b.Errorf("ended %v, started %v", e.Ended, e.Started)
	}
	return e
}

func (b *bundle) tasks(id int64) []task.Task {
	b.Helper()
	page, err := b.store.Tasks(b.Context(), id, query.Query{})
	if err != nil {
		b.Fatal(err)
	}
	return page.Items
}

func quick(int) time.Duration { return time.Millisecond }

func TestRuns(t *testing.T) {
	b := setup(t)
	b.process(task.Kind{Vendor: "RETENTION", Workers: 4, Run: func(ctx context.Context, r *task.Run) error {
		var in struct{ N int }
		if err := r.Decode(&in); err != nil {
			return err
		}
		r.Log.Info("working", "n", in.N, "text", "two\nlines")
		if err := r.Checkpoint(ctx, map[string]any{"done": in.N}); err != nil {
			return err
		}
		return r.Annotate(ctx, map[string]any{fmt.Sprint("task", in.N): true})
	}})
	var tasks []task.NewTask
	for i := range 10 {
		tasks = append(tasks, task.NewTask{Extra: map[string]any{"n": i}})
	}
	id := b.start(task.New{Vendor: "RETENTION", VendorID: 7, Trigger: task.Manual, Extra: map[string]any{"dry_run": true}}, tasks...)
	e := b.ends(id, task.Success)
	if e.Tasks != (task.Counts{Success: 10}) || e.VendorID != 7 || e.Trigger != task.Manual {
		t.Errorf("%+v", e)
	}
	var extra map[string]bool
	if err := json.Unmarshal(e.Extra, &extra); err != nil || len(extra) != 11 || !extra["task3"] || !extra["dry_run"] {
		t.Errorf("extra %s, %v", e.Extra, err)
	}
	list := b.tasks(id)
	if got := string(list[3].Extra); len(list) != 10 || got != `{"n": 3, "done": 3}` {
		t.Errorf("%d tasks, extra %s", len(list), got)
	}
	log, err := b.store.Log(t.Context(), list[3].ID)
	if err != nil || !strings.HasSuffix(log, "Z [INFO] working n=3 text=two lines\n") {
		t.Errorf("log %q, %v", log, err)
	}
}

// What is rolled back does not run, and an event starts a thing once.
func TestStartsInTheTransaction(t *testing.T) {
	b := setup(t)
	ran := make(chan int64, 10)
	b.process(task.Kind{Vendor: "WEBHOOK", Run: func(_ context.Context, r *task.Run) error { ran <- r.Task.ExecutionID; return nil }})
	oops := errors.New("rolled back")
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := b.store.Start(t.Context(), tx, task.New{Vendor: "WEBHOOK", Trigger: task.Event}, task.NewTask{}); err != nil {
			return err
		}
		return oops
	})
	if !errors.Is(err, oops) {
		t.Fatal(err)
	}
	e := task.New{Vendor: "WEBHOOK", VendorID: 1, Trigger: task.Event, EventID: uuid.New()}
	first, second := b.start(e, task.NewTask{}), b.start(e, task.NewTask{})
	e.VendorID = 2
	other := b.start(e, task.NewTask{})
	b.ends(first, task.Success)
	b.ends(other, task.Success)
	if second != 0 || len(ran) != 2 {
		t.Errorf("second start gave %d; %d ran", second, len(ran))
	}
}

func TestRetries(t *testing.T) {
	b := setup(t)
	var calls atomic.Int32
	b.process(task.Kind{Vendor: "REPLICATION", Backoff: quick, Run: func(_ context.Context, r *task.Run) error {
		switch string(r.Task.Extra) {
		case `{"how": "twice"}`:
			if r.Task.Attempts < 3 {
				return errors.New("not yet")
			}
			return nil
		case `{"how": "never"}`:
			calls.Add(1)
			return errors.New("no luck")
		case `{"how": "panic"}`:
			panic("a secret detail")
		}
		return task.Permanent(errors.New("no such thing"))
	}})
	start := func(how string) int64 {
		return b.start(task.New{Vendor: "REPLICATION", Trigger: task.Manual}, task.NewTask{Extra: map[string]string{"how": how}, MaxAttempts: 3})
	}
	twice, never, panics, permanent := start("twice"), start("never"), start("panic"), start("permanent")
	b.ends(twice, task.Success)
	b.ends(never, task.Error)
	b.ends(panics, task.Error)
	b.ends(permanent, task.Error)
	if calls.Load() != 3 {
		t.Errorf("%d calls, want 3", calls.Load())
	}
	for id, want := range map[int64]string{twice: "3 ", never: "3 no luck", panics: "1 internal error; the server's log has the cause", permanent: "1 no such thing"} {
		if got := b.tasks(id)[0]; fmt.Sprint(got.Attempts, " ", got.Message) != want {
			t.Errorf("%d attempts, %q; want %q", got.Attempts, got.Message, want)
		}
	}
}

func TestStop(t *testing.T) {
	b := setup(t)
	began := make(chan struct{}, 10)
	cause := make(chan error, 10)
	b.process(task.Kind{Vendor: "SCAN_ALL", Run: func(ctx context.Context, r *task.Run) error {
		began <- struct{}{}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return r.Checkpoint(context.WithoutCancel(ctx), map[string]any{"far": 1})
	}})
	id := b.start(task.New{Vendor: "SCAN_ALL", Trigger: task.Manual}, task.NewTask{}, task.NewTask{})
	<-began
	if err := b.store.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	e, err := b.store.Execution(t.Context(), task.Of{}, id) // at once
	if err != nil || e.Status != task.Stopped || e.Tasks.Stopped != 2 {
		t.Errorf("%+v, %v", e, err)
	}
	if got := <-cause; !errors.Is(got, task.ErrStopped) {
		t.Errorf("cause %v", got)
	}
	if err := b.store.Stop(t.Context(), id); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := b.store.Stop(t.Context(), 1<<40); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	// Nothing of it runs on, and the queue is free for the next.
	next := b.start(task.New{Vendor: "SCAN_ALL", Trigger: task.Manual}, task.NewTask{})
	<-began
	if err := b.store.StopTask(t.Context(), b.tasks(next)[0].ID); err != nil {
		t.Error(err)
	}
	b.ends(next, task.Stopped)
	if got := b.ends(id, task.Stopped); got.Tasks.Stopped != 2 {
		t.Errorf("%+v", got)
	}
}

// A worker that is cut off in the middle is noticed, and another goes on from
// the checkpoint. What the lost one still writes has no effect.
func TestLostWorker(t *testing.T) {
	b := setup(t)
	began, release := make(chan struct{}), make(chan struct{})
	lost := b.process(task.Kind{Vendor: "REPLICATION", Run: func(ctx context.Context, r *task.Run) error {
		if err := r.Checkpoint(ctx, map[string]any{"blobs": 5}); err != nil {
			return err
		}
		close(began)
		<-release
		return errors.New("from beyond")
	}})
	id := b.start(task.New{Vendor: "REPLICATION", Trigger: task.Manual}, task.NewTask{})
	<-began
	lost.kill()
	b.process(task.Kind{Vendor: "REPLICATION", Run: func(ctx context.Context, r *task.Run) error {
		if string(r.Task.Extra) != `{"blobs": 5}` || r.Task.Runs != 2 || r.Task.Attempts != 1 {
			return fmt.Errorf("not what was left: %s, run %d, attempt %d", r.Task.Extra, r.Task.Runs, r.Task.Attempts)
		}
		return nil
	}})
	e := b.ends(id, task.Success)
	close(release)
	if took := e.Ended.Sub(e.Started); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	for deadline, hang := time.Now().Add(10*time.Second), -1; hang != 0; time.Sleep(10 * time.Millisecond) {
		if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE state = 'running'`).Scan(&hang); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d jobs hang, %v", hang, err)
		}
	}
}

// A process that is asked to leave gives its tasks back at once, and that costs
// them no attempt.
func TestLeave(t *testing.T) {
	b := setup(t)
	began := make(chan struct{}, 1)
	kind := func(stay bool) task.Kind {
		return task.Kind{Vendor: "RETENTION", Run: func(ctx context.Context, r *task.Run) error {
			if !stay {
				return nil
			}
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}}
	}
	p := b.process(kind(true))
	id := b.start(task.New{Vendor: "RETENTION", Trigger: task.Manual}, task.NewTask{})
	<-began
	p.leave()
	if got := b.tasks(id)[0]; got.Status != task.Pending || got.Attempts != 0 || got.Runs != 1 {
		t.Errorf("%+v", got)
	}
	b.process(kind(false))
	b.ends(id, task.Success)
	pools, err := b.store.Pools(t.Context())
	if err != nil || len(pools) != 1 || pools[0].Concurrency != 1 {
		t.Errorf("%+v, %v", pools, err)
	}
}

func TestLists(t *testing.T) {
	b := setup(t)
	for i := range 5 {
		b.start(task.New{Vendor: "RETENTION", VendorID: int64(i%2 + 1), Trigger: task.Manual}, task.NewTask{})
	}
	list := func(of task.Of, q, sort string) (ids string) {
		terms, err := query.Parse(q)
		if err != nil {
			t.Fatal(err)
		}
		page, err := b.store.Executions(t.Context(), of, query.Query{Terms: terms, Sort: query.ParseSort(sort), Page: 1, Size: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			ids += fmt.Sprint(e.ID)
		}
		return ids
	}
	of := task.Of{Vendor: "RETENTION", VendorID: 1}
	if got := list(of, "", ""); got != "531" {
		t.Error(got)
	}
	if got := list(task.Of{}, "status=Running", "id"); got != "12345" {
		t.Error(got)
	}
	if got := list(of, "id=3", ""); got != "3" {
		t.Error(got)
	}
	if _, err := b.store.Execution(t.Context(), of, 2); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := b.store.Task(t.Context(), 1, 2); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := b.store.Log(t.Context(), 99); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if log, err := b.store.Log(t.Context(), 1); err != nil || log != "" {
		t.Errorf("%q, %v", log, err)
	}
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return b.store.DeleteOf(t.Context(), tx, "RETENTION", 1) })
	if !fault.Is(err, fault.Precondition) {
		t.Error(err)
	}
}

// The log of a task is bounded, and says so.
func TestLogIsCapped(t *testing.T) {
	b := setup(t)
	b.process(task.Kind{Vendor: "RETENTION", Run: func(_ context.Context, r *task.Run) error {
		for range 3000 {
			r.Log.Info(strings.Repeat("x", 1000))
		}
		return nil
	}})
	id := b.start(task.New{Vendor: "RETENTION", Trigger: task.Manual}, task.NewTask{})
	b.ends(id, task.Success)
	log, err := b.store.Log(t.Context(), b.tasks(id)[0].ID)
	if err != nil || len(log) > 1<<20+100 || !strings.HasSuffix(log, "the log is full; the rest is left out\n") {
		t.Errorf("%d bytes, %v", len(log), err)
	}
}
