package audit_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"berth/services/audit"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/query"
)

// BenchmarkList answers how long a page of the trail takes, by how deep it lies
// and by what is asked for. BERTH_AUDIT_ROWS is how many entries there are, over
// a year: 100,000 unless it says otherwise.
func BenchmarkList(b *testing.B) {
	n := 100_000
	if s := os.Getenv("BERTH_AUDIT_ROWS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	pool, ctx := dbtest.New(b), b.Context()
	now := time.Now().UTC()
	if err := audit.EnsurePartitions(ctx, pool, now.AddDate(0, -12, 0)); err != nil {
		b.Fatal(err)
	}
	for _, back := range []int{-8, -4, 0} { // each makes four months
		if err := audit.EnsurePartitions(ctx, pool, now.AddDate(0, back, 0)); err != nil {
			b.Fatal(err)
		}
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	const step = 500_000
	for from := 0; from < n; from += step {
		// Pulls mostly, by robots mostly; one entry in ten thousand is a user's.
		_, err := conn.Exec(ctx, `SET statement_timeout = 0`)
		if err == nil {
			_, err = conn.Exec(ctx, `INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username, description, project_id, source)
			SELECT $3::timestamptz - i * (interval '365 days' / $4::float8), gen_random_uuid(),
				CASE WHEN i % 10000 = 7 THEN 'delete' WHEN i % 20 = 0 THEN 'create' ELSE 'pull' END,
				CASE WHEN i % 10000 = 7 THEN 'user' ELSE 'artifact' END,
				'project' || i % 200 || '/app' || i % 5000 || ':1.' || i % 97,
				CASE WHEN i % 10000 = 7 THEN 'jane' ELSE 'robot$ci' || i % 50 END, 'pull artifact', 1 + i % 200, '10.0.0.1'
			FROM generate_series($1::bigint, $2::bigint) AS i`, from, min(from+step, n)-1, now, float64(n))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if _, err := conn.Exec(ctx, `VACUUM ANALYZE audit_events`); err != nil {
		b.Fatal(err)
	}
	conn.Release()
	b.Logf("%d entries in %s", n, time.Since(began).Round(time.Second))

	all := audit.Scope{All: true}
	deep := n / 10 / 2
	for _, c := range []struct {
		name, q string
		scope   audit.Scope
		page    int
		after   *audit.Cursor
	}{
		{"first", "", all, 1, nil},
		{"page1000", "", all, 1000, nil},
		{"middle-by-number", "", all, deep, nil},
		{"middle-by-link", "", all, deep, &audit.Cursor{Time: now.AddDate(0, -6, 0), ID: 1}},
		{"project", "", audit.Scope{Projects: []int64{77}}, 1, nil},
		{"projects", "", audit.Scope{Projects: []int64{7, 77, 177}}, 1, nil},
		{"user", "username=jane", all, 1, nil},
		{"operation", "operation=delete", all, 1, nil},
		{"type", "resource_type=user", all, 1, nil},
		{"month", fmt.Sprintf("op_time=[%s~%s]", now.AddDate(0, -7, 0).Format(time.DateOnly), now.AddDate(0, -6, 0).Format(time.DateOnly)), all, 1, nil},
		{"part-of-name", "resource=~app4711:", all, 1, nil},
		{"part-of-rare-user", "username=~jan", all, 1, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			terms, err := query.Parse(c.q)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				page, err := audit.List(ctx, pool, c.scope, query.Query{Terms: terms, Page: c.page, Size: 10}, c.after)
				if err != nil || len(page.Items) != 10 {
					b.Fatalf("%d entries, %v", len(page.Items), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/page")
		})
	}
}

// BenchmarkRecord answers how many entries a second get into the trail when they
// come together, without and with the chain.
func BenchmarkRecord(b *testing.B) {
	for _, linked := range []bool{false, true} {
		b.Run(fmt.Sprintf("chain=%v", linked), func(b *testing.B) {
			pool := dbtest.New(b)
			var chain *audit.Chain
			if linked {
				chain = audit.NewChain(pool, make([]byte, 32))
			}
			r := audit.NewRecorder(pool, chain, nil)
			ctx, stop := context.WithCancel(b.Context())
			defer stop()
			go r.Run(ctx)
			began := time.Now()
			for b.Loop() {
				var wg sync.WaitGroup
				for range 500 {
					wg.Go(func() {
						e := event.Event{ID: uuid.New(), Time: time.Now().UTC().Truncate(time.Microsecond), Operation: "pull", ResourceType: "artifact",
							Resource: "library/app:1.0", User: "robot$ci", ProjectID: 1, Success: true}
						if err := r.Record(ctx, e); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
			b.ReportMetric(500*float64(b.N)/time.Since(began).Seconds(), "entries/s")
		})
	}
}
