package audit

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
	"berth/services/event"
)

// Recorder writes events that come at the same time together: one transaction
// and one sync of the disk for up to maxTogether of them, where each alone would
// cost as much as the push that it tells of.
//
// What administrators have disabled is left out, and what they want forwarded is
// sent to their collector, at least once each.
type Recorder struct {
	pool    *pgxpool.Pool
	rules   func(context.Context) (Rules, error)
	chain   *Chain
	forward Forwarder
	in      chan entry
}

type entry struct {
	event event.Event
	done  chan<- error
}

const (
	maxTogether = 500
	// gather is how long the first event of a batch waits for others. Nobody
	// waits for an audit entry.
	gather = 5 * time.Millisecond
)

// NewRecorder makes a Recorder, which works while Run does. rules and chain may
// be nil.
func NewRecorder(pool *pgxpool.Pool, chain *Chain, rules func(context.Context) (Rules, error)) *Recorder {
	if rules == nil {
		rules = func(context.Context) (Rules, error) { return Rules{}, nil }
	}
	return &Recorder{pool: pool, chain: chain, rules: rules, in: make(chan entry, maxTogether)}
}

// Record returns when the event is in the trail and has been forwarded, or
// cannot be.
func (r *Recorder) Record(ctx context.Context, e event.Event) error {
	rules, err := r.rules(ctx)
	if err != nil || slices.Contains(rules.Disabled, e.Operation+"_"+e.ResourceType) {
		return err
	}
	if !rules.SkipDatabase || rules.Endpoint == "" {
		if err := r.keep(ctx, e); err != nil {
			return err
		}
	}
	if rules.Endpoint == "" {
		return nil
	}
	return r.forward.Send(ctx, rules.Endpoint, e)
}

// keep returns when the event is in the table, or cannot be.
func (r *Recorder) keep(ctx context.Context, e event.Event) error {
	done := make(chan error, 1)
	select {
	case r.in <- entry{e, done}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run writes until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	defer r.forward.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-r.in:
			r.write(ctx, r.collect(ctx, first))
		}
	}
}

func (r *Recorder) collect(ctx context.Context, first entry) []entry {
	list := []entry{first}
	wait := time.NewTimer(gather)
	defer wait.Stop()
	for len(list) < maxTogether {
		select {
		case e := <-r.in:
			list = append(list, e)
		case <-wait.C:
			return list
		case <-ctx.Done():
			return list
		}
	}
	return list
}

// write answers every entry. If the batch fails each is tried alone, so that
// one which cannot be written does not take the others along.
func (r *Recorder) write(ctx context.Context, list []entry) {
	events := make([]event.Event, len(list))
	for i, e := range list {
		events[i] = e.event
	}
	err := r.insert(ctx, events)
	for _, e := range list {
		if err != nil && len(list) > 1 {
			e.done <- r.insert(ctx, []event.Event{e.event})
			continue
		}
		e.done <- err
	}
}

// insert writes events in one transaction.
func (r *Recorder) insert(ctx context.Context, events []event.Event) error {
	if r.chain != nil {
		return r.chain.record(ctx, events)
	}
	batch := &pgx.Batch{}
	for _, e := range events {
		batch.Queue(record, values(e)...)
	}
	return database.Fault(r.pool.SendBatch(ctx, batch).Close())
}
