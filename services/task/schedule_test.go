package task_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/query"
	"berth/services/task"
)

func TestQueues(t *testing.T) {
	b := setup(t)
	began := make(chan struct{}, 1)
	b.process(task.Kind{Vendor: "GARBAGE_COLLECTION", Run: func(ctx context.Context, r *task.Run) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}})
	if err := b.store.Pause(t.Context(), "garbage_collection", true); err != nil {
		t.Fatal(err)
	}
	waiting := func() (q task.Queue) {
		list, err := b.store.Queues(t.Context())
		if err != nil || len(list) != 13 {
			t.Fatalf("%d queues, %v", len(list), err)
		}
		return list[2]
	}
	// River hears of the pause a moment later.
	var ids []int64
	for deadline := time.Now().Add(20 * time.Second); ; {
		ids = append(ids, b.start(task.New{Vendor: "GARBAGE_COLLECTION", Trigger: task.Manual}, task.NewTask{}))
		select {
		case <-began:
			if err := b.store.StopRunning(t.Context()); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatal("a paused queue runs on")
			}
			continue
		case <-time.After(500 * time.Millisecond):
		}
		break
	}
	if q := waiting(); !q.Paused || q.Count != 1 || q.Latency <= 0 {
		t.Errorf("%+v", q)
	}
	if err := b.store.Pause(t.Context(), task.AllQueues, false); err != nil {
		t.Fatal(err)
	}
	<-began
	list, err := b.store.AtWork(t.Context(), task.AllQueues)
	if err != nil || len(list) != 1 || list[0].ExecutionID != ids[len(ids)-1] {
		t.Errorf("at work: %+v, %v", list, err)
	}
	if err := b.store.StopWaiting(t.Context(), task.AllQueues); err != nil {
		t.Fatal(err)
	}
	b.ends(ids[len(ids)-1], task.Stopped)
	if q := waiting(); q.Paused || q.Count != 0 {
		t.Errorf("%+v", q)
	}
	for _, err := range []error{b.store.Pause(t.Context(), "NOPE", true), b.store.StopWaiting(t.Context(), "NOPE")} {
		if !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
	if _, err := b.store.AtWork(t.Context(), "nope"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// A schedule that was missed any number of times fires once, on one of the
// processes, and not while schedules are paused.
func TestSchedules(t *testing.T) {
	b := setup(t)
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.store.Plan(t.Context(), tx, task.Planned{Vendor: "RETENTION", VendorID: 3, Cron: "0 * * * * *", Params: json.RawMessage(`{"a":1}`)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p, ok, err := b.store.Planned(t.Context(), "RETENTION", 3)
	if err != nil || !ok || !p.Next.After(time.Now()) || p.Next.After(time.Now().Add(time.Minute)) || p.Type != "Custom" {
		t.Errorf("%+v, %v, %v", p, ok, err)
	}
	if err := b.store.Pause(t.Context(), task.Scheduler, true); err != nil {
		t.Fatal(err)
	}
	if paused, err := b.store.SchedulesPaused(t.Context()); err != nil || !paused {
		t.Errorf("paused %v, %v", paused, err)
	}
	if _, err := b.pool.Exec(t.Context(), `UPDATE schedules SET next_run = now() - interval '3 days'`); err != nil {
		t.Fatal(err)
	}
	kind := task.Kind{Vendor: "RETENTION", Run: func(context.Context, *task.Run) error { return nil }}
	b.process(kind)
	b.process(kind)
	executions := func() []task.Execution {
		page, err := b.store.Executions(t.Context(), task.Of{Vendor: "RETENTION", VendorID: 3}, query.Query{})
		if err != nil {
			t.Fatal(err)
		}
		return page.Items
	}
	if n := len(executions()); n != 0 {
		t.Errorf("%d executions while paused", n)
	}
	if err := b.store.Pause(t.Context(), task.Scheduler, false); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(executions()) == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	list := executions()
	if len(list) != 1 || list[0].Trigger != task.Schedule || string(list[0].Extra) != `{"a": 1}` {
		t.Fatalf("%+v", list)
	}
	b.ends(list[0].ID, task.Success)
	if p, _, _ := b.store.Planned(t.Context(), "RETENTION", 3); !p.Next.After(time.Now()) || p.Last.IsZero() {
		t.Errorf("%+v", p)
	}
}

func TestCheckCron(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0 0 * * * *":       "",
		"0 */5 1-3 ? JAN 1": "",
		"1 0 0 * * *":       "the 1st field (indicating Seconds of time) of the cron setting must be 0",
		"* 0 0 * * *":       "the 1st field (indicating Seconds of time) of the cron setting must be 0",
		"":                  "the cron string is empty",
		"0 0 * * *":         "it has 5 fields",
		"@daily":            "it has characters",
		"TZ=X":              "it has characters",
		"0 0 0 31 2 *":      "there is no such day",
		"0 61 0 * * *":      "above maximum",
		"0 */0 0 * * *":     "step of range",
	} {
		err := task.CheckCron(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzCheckCron(f *testing.F) {
	for _, s := range []string{"0 0 * * * *", "0 */5 1-3 ? JAN 1", "TZ=", "CRON_TZ=UTC 0 0 0 * * *", "0 0 0 29 2 *", "0 0-59/7,3 * * * MON-FRI", "0 9223372036854775808 0 * * *"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { _ = task.CheckCron(s) }) // it must only not panic, nor take long
}

func TestExecutionWithoutTasks(t *testing.T) {
	b := setup(t)
	id := b.start(task.New{Vendor: "REPLICATION", Trigger: task.Manual})
	if e := b.await(id, "running", func(e task.Execution) bool { return e.Status == task.Running }); e.Tasks.Total() != 0 {
		t.Errorf("%+v", e)
	}
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return b.store.Finish(t.Context(), tx, id, task.Success, "nothing to do") })
	if err != nil {
		t.Fatal(err)
	}
	if e := b.ends(id, task.Success); e.Message != "nothing to do" {
		t.Errorf("%+v", e)
	}
}
