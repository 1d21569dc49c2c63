package audit_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/audit"
	"berth/services/dbtest"
	"berth/services/event"
)

// chained is a trail with a chain and thirty entries, written by three nodes.
func chained(t *testing.T) (*pgxpool.Pool, *audit.Chain) {
	t.Helper()
	pool := dbtest.New(t)
	chain := audit.NewChain(pool, make([]byte, 32))
	if _, err := chain.Verify(t.Context(), "", nil); !fault.Is(err, fault.NotFound) {
		t.Fatalf("no chain yet: %v", err)
	}
	more(t, pool, chain, time.Now().Add(time.Hour), 30)
	return pool, chain
}

// more writes entries, each twice, as jobs do that are cut off.
func more(t *testing.T, pool *pgxpool.Pool, chain *audit.Chain, from time.Time, n int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var nodes []*audit.Recorder
	for range 3 {
		r := audit.NewRecorder(pool, chain, nil)
		go r.Run(ctx)
		nodes = append(nodes, r)
	}
	var wg sync.WaitGroup
	for i := range n {
		kind := []string{"create", "pull", "delete"}[i%3]
		e := event.Event{ID: uuid.New(), Time: from.Add(time.Duration(i) * time.Second).UTC().Truncate(time.Microsecond), Operation: kind, ResourceType: "artifact",
			Resource: fmt.Sprint("p/r", i), User: "jane", Success: i%2 == 0, ProjectID: int64(i)}
		for j := range 2 {
			wg.Go(func() {
				if err := nodes[(i+j)%3].Record(ctx, e); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
}

func verify(t *testing.T, chain *audit.Chain, head string) (v audit.Verified, faults string) {
	t.Helper()
	v, err := chain.Verify(t.Context(), head, func(f string) { faults += f + "\n" })
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(faults, "\n"); int64(got) != v.Faults {
		t.Errorf("%d faults of %d", got, v.Faults)
	}
	return v, faults
}

func TestChainHolds(t *testing.T) {
	t.Parallel()
	pool, chain := chained(t)
	v, faults := verify(t, chain, "")
	if faults != "" || v.Entries != 30 || !strings.HasPrefix(v.Head, "30:") {
		t.Errorf("%+v\n%s", v, faults)
	}
	more(t, pool, chain, time.Now().Add(2*time.Hour), 5)
	if w, faults := verify(t, chain, v.Head); faults != "" || w.Entries != 35 {
		t.Errorf("%+v\n%s", w, faults)
	}
	other := audit.NewChain(pool, []byte(strings.Repeat("k", 32)))
	if v, _ := verify(t, other, ""); v.Faults < 35 {
		t.Errorf("another key: %+v", v)
	}
}

// Whatever somebody does to the tables by hand shows.
func TestChainShowsChanges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"changed":         {`UPDATE audit_events SET resource = 'other' WHERE id = 12`, "was changed"},
		"result":          {`UPDATE audit_events SET success = NOT success WHERE id = 12`, "was changed"},
		"removed":         {`DELETE FROM audit_events WHERE id = 12`, "was removed"},
		"both removed":    {`WITH gone AS (DELETE FROM audit_events WHERE id = 12 RETURNING op_time, event_id) DELETE FROM audit_chain c USING gone g WHERE c.event_id = g.event_id`, "were removed"},
		"put in":          {`INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username) VALUES (now() + interval '1 day', gen_random_uuid(), 'pull', 'artifact', 'x', 'y')`, "without a link"},
		"swapped":         {`UPDATE audit_chain SET content = (SELECT content FROM audit_chain WHERE seq = 4) WHERE seq = 5`, "does not hold"},
		"forged purge":    {`WITH p AS (INSERT INTO audit_chain_purges (before, mac) VALUES ('2100-01-01', 'x')) DELETE FROM audit_events WHERE id = 12`, "not one that Berth has made"},
		"forged start":    {`WITH s AS (UPDATE audit_chain_state SET first = 10, first_link = (SELECT link FROM audit_chain WHERE seq = 10)) DELETE FROM audit_chain WHERE seq <= 10`, "the beginning of the chain"},
		"end cut off":     {`DELETE FROM audit_chain WHERE seq > 20`, "its end was cut off"},
		"everything gone": {`TRUNCATE audit_events, audit_chain`, "its end was cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, chain := chained(t)
			if _, err := pool.Exec(t.Context(), c.sql); err != nil {
				t.Fatal(err)
			}
			if _, faults := verify(t, chain, ""); !strings.Contains(faults, c.want) {
				t.Errorf("%q, want %q", faults, c.want)
			}
		})
	}
}

// The end and the state set back together look whole, but for whoever has kept
// an earlier head.
func TestChainHead(t *testing.T) {
	t.Parallel()
	pool, chain := chained(t)
	v, _ := verify(t, chain, "")
	for _, sql := range []string{
		`DELETE FROM audit_events e USING audit_chain c WHERE c.seq > 20 AND e.event_id = c.event_id`, `DELETE FROM audit_chain WHERE seq > 20`,
		`UPDATE audit_chain_state SET seq = 20, link = (SELECT link FROM audit_chain WHERE seq = 20)`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if w, faults := verify(t, chain, ""); faults != "" || w.Entries != 20 {
		t.Errorf("%+v %s", w, faults)
	}
	if _, faults := verify(t, chain, v.Head); !strings.Contains(faults, "does not go through the head 30") {
		t.Errorf("%q", faults)
	}
	if _, err := chain.Verify(t.Context(), "nonsense", nil); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// A purge is no fault, and after one of everything the chain begins later.
func TestChainAndPurge(t *testing.T) {
	t.Parallel()
	pool, chain := chained(t)
	now := time.Now()
	if n, err := audit.Purge(t.Context(), pool, chain, now.Add(time.Hour+15*time.Second), []string{"pull_artifact"}); err != nil || n != 5 {
		t.Fatalf("%d, %v", n, err)
	}
	v, faults := verify(t, chain, "")
	if faults != "" || v.Entries != 25 || v.Purged != 5 {
		t.Errorf("%+v\n%s", v, faults)
	}
	if n, err := audit.Purge(t.Context(), pool, chain, now.Add(time.Hour+21*time.Second), nil); err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if w, faults := verify(t, chain, v.Head); faults != "" || w.Entries+w.Purged > 30 || w.Entries > 9 {
		t.Errorf("%+v\n%s", w, faults)
	}
	more(t, pool, chain, now.Add(3*time.Hour), 14)
	if _, err := audit.Purge(t.Context(), pool, chain, now.Add(2*time.Hour), nil); err != nil {
		t.Fatal(err)
	}
	var links int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_chain`).Scan(&links); err != nil || links != 14 {
		t.Errorf("%d links are left, %v", links, err)
	}
	if w, faults := verify(t, chain, v.Head); faults != "" || w.Entries != 14 {
		t.Errorf("%+v\n%s", w, faults)
	}
	if _, err := pool.Exec(t.Context(), `DELETE FROM audit_events WHERE op_time = (SELECT max(op_time) FROM audit_events)`); err != nil {
		t.Fatal(err)
	}
	if _, faults := verify(t, chain, ""); !strings.Contains(faults, "was removed") {
		t.Errorf("%q", faults)
	}
	exported := 0
	if err := audit.Export(t.Context(), pool, now.Add(-time.Hour), now.Add(24*time.Hour), func(audit.Entry, uuid.UUID) error { exported++; return nil }); err != nil || exported < 11 {
		t.Errorf("%d exported, %v", exported, err)
	}
}
