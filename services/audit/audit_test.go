package audit_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/audit"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/query"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func record(t *testing.T, pool *pgxpool.Pool, e event.Event) event.Event {
	t.Helper()
	if e.ID == uuid.Nil {
		e.ID = uuid.New()
	}
	if err := audit.Record(t.Context(), pool, e); err != nil {
		t.Fatal(err)
	}
	return e
}

func list(t *testing.T, pool *pgxpool.Pool, scope audit.Scope, text string) (resources string, total int) {
	t.Helper()
	terms, err := query.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	page, err := audit.List(t.Context(), pool, scope, query.Query{Terms: terms, Page: 1, Size: 50}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range page.Items {
		got = append(got, e.Resource)
	}
	return strings.Join(got, " "), page.Total
}

func TestRecordAndList(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	e := event.Event{Time: noon, Operation: "create", ResourceType: "artifact", Resource: "a", User: "anna", ProjectID: 1, Success: true, Source: "10.0.0.1", RequestID: "r", Description: "d"}
	e = record(t, pool, e)
	record(t, pool, e) // a job that runs twice writes one row
	record(t, pool, event.Event{Time: noon.Add(time.Hour), Operation: "delete", ResourceType: "artifact", Resource: "b", User: "bert", ProjectID: 2})
	record(t, pool, event.Event{Time: noon.Add(2 * time.Hour), Operation: "create", ResourceType: "user", Resource: "c"})

	all := audit.Scope{All: true}
	for q, want := range map[string]string{
		"":                               "c b a",
		"operation=create":               "c a",
		"resource_type=artifact":         "b a",
		"username=anna":                  "a",
		"username=~NN":                   "a",
		"username=~e":                    "b",
		"username=~n,operation=delete":   "",
		"username=~x":                    "",
		"resource=~B":                    "b",
		"project_id=2":                   "b",
		"op_time=[2026-11-21T12:30:00~]": "c b",
		"op_time=[~2026-11-21T12:30:00]": "a",
		"operation_result=true":          "a",
	} {
		if got, total := list(t, pool, all, q); got != want || total != len(strings.Fields(want)) {
			t.Errorf("%q: %q of %d, want %q", q, got, total, want)
		}
	}
	if got, _ := list(t, pool, audit.Scope{Projects: []int64{1}}, ""); got != "a" {
		t.Errorf("project 1: %q", got)
	}
	if got, _ := list(t, pool, audit.Scope{}, ""); got != "" {
		t.Errorf("no scope: %q", got)
	}
	page, err := audit.List(t.Context(), pool, audit.Scope{Projects: []int64{1}}, query.Query{}, nil)
	if got := page.Items[0]; err != nil || !got.Time.Equal(noon) || got.Source != "10.0.0.1" || got.RequestID != "r" || got.Description != "d" || !got.Success || got.ProjectID != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	for i := range 25 {
		record(t, pool, event.Event{Time: noon.Add(time.Duration(i/3) * time.Minute), Operation: "pull", Resource: fmt.Sprint(i)})
	}
	seen, pages := map[string]bool{}, 0
	var after *audit.Cursor
	for {
		page, err := audit.List(t.Context(), pool, audit.Scope{All: true}, query.Query{Size: 10}, after)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Items) == 0 {
			break
		}
		pages++
		for _, e := range page.Items {
			seen[e.Resource] = true
			after = &audit.Cursor{Time: e.Time, ID: e.ID}
		}
	}
	if len(seen) != 25 || pages != 3 {
		t.Errorf("%d entries on %d pages", len(seen), pages)
	}
}

// Partitions are made once, by however many nodes, and take over what the
// default partition has gathered.
func TestPartitions(t *testing.T) {
	t.Parallel()
	pool, ctx := dbtest.New(t), t.Context()
	record(t, pool, event.Event{Time: noon, Operation: "pull", Resource: "early"})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := audit.EnsurePartitions(ctx, pool, noon); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	record(t, pool, event.Event{Time: noon.AddDate(0, 1, 0), Operation: "pull", Resource: "next"})
	record(t, pool, event.Event{Time: noon.AddDate(-1, 0, 0), Operation: "pull", Resource: "old"})
	var where string
	if err := pool.QueryRow(ctx, `SELECT string_agg(tableoid::regclass || '=' || resource, ' ' ORDER BY resource) FROM audit_events`).Scan(&where); err != nil ||
		where != "audit_events_y2026m11=early audit_events_y2026m12=next audit_events_default=old" {
		t.Errorf("%s, %v", where, err)
	}
	if got, _ := list(t, pool, audit.Scope{All: true}, ""); got != "next early old" {
		t.Errorf("list %q", got)
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	pool, ctx := dbtest.New(t), t.Context()
	if err := audit.EnsurePartitions(ctx, pool, noon); err != nil {
		t.Fatal(err)
	}
	at := func(months int, operation, resource string) {
		record(t, pool, event.Event{Time: noon.AddDate(0, months, 0), Operation: operation, ResourceType: "artifact", Resource: resource})
	}
	at(-5, "pull", "ancient")
	at(0, "pull", "november")
	at(1, "pull", "december-pull")
	at(1, "create", "december-create")
	at(2, "pull", "january")
	before := noon.AddDate(0, 1, 1)
	if n, err := audit.CountBefore(ctx, pool, before, []string{"create_artifact"}); n != 1 || err != nil {
		t.Errorf("would purge %d, %v", n, err)
	}
	if n, err := audit.Purge(ctx, pool, nil, before, []string{"create_artifact"}); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	if got, _ := list(t, pool, audit.Scope{All: true}, ""); got != "january december-pull november ancient" {
		t.Errorf("left %q", got)
	}
	if n, err := audit.Purge(ctx, pool, nil, before, nil); n != 3 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	if got, _ := list(t, pool, audit.Scope{All: true}, ""); got != "january" {
		t.Errorf("left %q", got)
	}
	var november bool
	if err := pool.QueryRow(ctx, `SELECT to_regclass('audit_events_y2026m11') IS NOT NULL`).Scan(&november); err != nil || november {
		t.Errorf("the month's table is still there (%v)", err)
	}
}
