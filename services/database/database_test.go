package database_test

import (
	"context"
	"sync"
	"testing"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// Several nodes that start at once migrate once, and none fails.
func TestMigrateFromSeveralNodes(t *testing.T) {
	pool := dbtest.New(t)
	ctx := t.Context()
	if _, err := pool.Exec(ctx, "DROP SCHEMA public CASCADE; CREATE SCHEMA public"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := database.Migrate(ctx, pool); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM goose_db_version WHERE version_id = 1").Scan(&n); err != nil || n != 1 {
		t.Fatalf("step 1 is recorded %d times, want 1 (%v)", n, err)
	}
}

// An older binary must not write to a newer schema.
func TestMigrateRefusesNewerSchema(t *testing.T) {
	pool := dbtest.New(t)
	if _, err := pool.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999999, true)"); err != nil {
		t.Fatal(err)
	}
	if err := database.Migrate(t.Context(), pool); !fault.Is(err, fault.Precondition) {
		t.Fatalf("got %v, want a precondition fault", err)
	}
}

// A server that is away is told apart from a wrong statement.
func TestDown(t *testing.T) {
	pool := dbtest.New(t)
	_, wrong := pool.Exec(t.Context(), "SELECT nonsense")
	if database.Down(wrong) {
		t.Errorf("a wrong statement counts as down: %v", wrong)
	}
	away, err := database.Open(t.Context(), "host=/nonexistent user=x dbname=y", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	_, err = away.Exec(context.Background(), "SELECT 1")
	if !fault.Is(database.Fault(err), fault.Unavailable) {
		t.Errorf("got %v, want unavailable", database.Fault(err))
	}
}
