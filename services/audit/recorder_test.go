package audit_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"berth/services/audit"
	"berth/services/dbtest"
	"berth/services/event"
)

// Events that come together are all written, once each, and one that cannot be
// written does not take the others along.
func TestRecorder(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	ctx, stop := context.WithCancel(t.Context())
	r := audit.NewRecorder(pool, nil, nil)
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	var wg sync.WaitGroup
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i := range 300 {
		wg.Go(func() {
			e := event.Event{ID: uuid.New(), Time: now, Operation: "create", ResourceType: "artifact", Resource: "p/r"}
			if i == 7 {
				e.Resource = "not text: \x00"
			}
			err := r.Record(ctx, e)
			if i != 7 && err == nil {
				err = r.Record(ctx, e) // a job that runs twice
			}
			if (err != nil) != (i == 7) {
				t.Errorf("event %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := pool.QueryRow(ctx, `SELECT count(*) FROM audit_events`).Scan(&n); err != nil || n != 299 {
		t.Errorf("%d entries, want 299 (%v)", n, err)
	}
	stop()
	<-ended
	if err := r.Record(ctx, event.Event{}); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("after the end: %v", err)
	}
}
