package jobs_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/jobs"
	"berth/services/task"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// An event comes again to all consumers when one has failed, and none keeps the
// others or the audit trail from it.
func TestConsumers(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	outbox, err := event.NewOutbox(pool)
	check(t, err)
	blobs, err := blob.OpenLocal(t.TempDir())
	check(t, err)
	defer blobs.Close()
	artifacts, err := artifact.New(artifact.Options{Pool: pool, Outbox: outbox})
	check(t, err)
	tasks, err := task.NewStore(pool)
	check(t, err)
	var calls atomic.Int32
	healed, other := make(chan struct{}), make(chan uuid.UUID, 10)
	far := 24 * time.Hour
	svc, err := jobs.New(jobs.Options{
		Pool: pool, Artifacts: artifacts, Blobs: blobs, Tasks: tasks, Log: slog.New(slog.DiscardHandler),
		Every: jobs.Intervals{Collect: far, Sweep: far, Scrub: far, Verify: far, Upkeep: far},
		Consumers: []jobs.Consumer{
			func(context.Context, event.Event) error {
				if calls.Add(1) == 1 {
					return errors.New("not now")
				}
				close(healed)
				return nil
			},
			func(_ context.Context, e event.Event) error { other <- e.ID; return nil },
		},
	})
	check(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	defer func() {
		cancel()
		check(t, <-ended)
	}()
	e := event.Event{ID: uuid.New(), Operation: "create", ResourceType: "artifact", Resource: "x", Success: true}
	check(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return outbox.Add(t.Context(), tx, e) }))
	select {
	case <-healed:
	case <-time.After(30 * time.Second):
		t.Fatal("the event did not come again")
	}
	if first, second := <-other, <-other; first != e.ID || second != e.ID {
		t.Errorf("%v, %v", first, second)
	}
	var n int
	check(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_events WHERE event_id = $1`, e.ID).Scan(&n))
	if n != 1 {
		t.Errorf("%d entries in the audit trail", n)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
