package event_test

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5"

	"berth/services/dbtest"
	"berth/services/event"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// What Queue inserts is what Add does by River's own client.
func TestQueueIsAdd(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	ctx := event.With(context.Background(), event.Origin{User: "jane", Source: "192.0.2.1", RequestID: "r"})
	e := event.Event{Operation: "create", ResourceType: "artifact", Resource: "library/app:1", Success: true, ProjectID: 7, Tag: "1"}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := outbox.Add(ctx, tx, e); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for range 2 { // the second without a notification
			if err := outbox.Queue(ctx, batch, e); err != nil {
				return err
			}
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := pool.Query(ctx, `SELECT to_jsonb(j) - 'id' - 'created_at' - 'scheduled_at' FROM river_job j ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
	if err != nil || len(all) != 3 {
		t.Fatalf("%d rows, %v", len(all), err)
	}
	var want map[string]any
	for i, raw := range all {
		var got map[string]any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		args := got["args"].(map[string]any)
		if args["id"] == "" || args["user"] != "jane" || args["source"] != "192.0.2.1" {
			t.Errorf("row %d is not complete: %v", i, args)
		}
		delete(args, "id")
		delete(args, "time")
		if i == 0 {
			want = got
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("row %d\ngot  %v\nwant %v", i, got, want)
		}
	}
}
