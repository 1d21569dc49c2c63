package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
)

// Verified is what Verify has found.
type Verified struct {
	Entries int64  `json:"entries"` // that are there and hold
	Purged  int64  `json:"purged"`  // that are gone because a purge said so
	Faults  int64  `json:"faults"`
	Head    string `json:"head"` // the end of the chain, to be kept somewhere else
}

// purge is a row of audit_chain_purges.
type purge struct {
	before time.Time
	types  []string
}

func (p purge) covers(l link) bool {
	return l.time.Before(p.before) && (p.types == nil || slices.Contains(p.types, l.kind))
}

// verification goes along the chain.
type verification struct {
	*Chain
	tx     pgx.Tx
	report func(fault string)
	purges []purge
	out    Verified

	first, end          int64
	firstLink, lastLink []byte
	since               time.Time
	wantSeq             int64 // Verify's head: must be passed with wantLink
	wantLink            []byte
	passed              bool
}

func (v *verification) fault(format string, args ...any) {
	v.out.Faults++
	v.report(fmt.Sprintf(format, args...))
}

// Verify goes along the whole chain and reports, in words, every entry that was
// changed, removed or put in. head, if it is not "", is what an earlier Verify
// gave as Head: the chain must still go through it. Errors: NotFound if there is
// no chain.
func (c *Chain) Verify(ctx context.Context, head string, report func(fault string)) (Verified, error) {
	v := &verification{Chain: c, report: report}
	if head != "" {
		seq, sum, _ := strings.Cut(head, ":")
		n, err := strconv.ParseInt(seq, 10, 64)
		link, bad := hex.DecodeString(sum)
		if err != nil || bad != nil || len(link) != 32 {
			return v.out, fault.New(fault.Invalid, "it must be what an earlier verification has printed, number:hash").On("--head")
		}
		v.wantSeq, v.wantLink = n, link
	}
	// One snapshot: what is written meanwhile is none of ours.
	err := pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		v.tx = tx
		// Every step is a range of one index and lookups in another, also in the eyes
		// of a planner that thinks of the whole table.
		if _, err := tx.Exec(ctx, `SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off`); err != nil {
			return err
		}
		for _, step := range []func(context.Context) error{v.begin, v.walk, v.strangers} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return v.out, database.Fault(err)
}

func (v *verification) begin(ctx context.Context) error {
	var mac []byte
	err := v.tx.QueryRow(ctx, `SELECT seq, link, first, first_link, since, mac FROM audit_chain_state`).
		Scan(&v.end, &v.lastLink, &v.first, &v.firstLink, &v.since, &mac)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "the audit trail has no chain").WithHint("set audit_chain in the settings to begin one")
	}
	if err != nil {
		return err
	}
	v.out.Head = fmt.Sprintf("%d:%x", v.end, v.lastLink)
	if !same(mac, v.checkpoint(v.first, v.firstLink, v.since)) {
		v.fault("the beginning of the chain is not what Berth has written, or the key file is another one")
	}
	rows, err := v.tx.Query(ctx, `SELECT before, types, mac FROM audit_chain_purges ORDER BY id`)
	if err != nil {
		return err
	}
	var p purge
	_, err = pgx.ForEachRow(rows, []any{&p.before, &p.types, &mac}, func() error {
		if same(mac, v.purgeMAC(p.before, p.types)) {
			v.purges = append(v.purges, p)
		} else {
			v.fault("a purge of what was before %s is not one that Berth has made", p.before.Format(time.RFC3339))
		}
		p.types = nil
		return nil
	})
	v.passed = v.wantSeq <= v.first || v.wantLink == nil
	return err
}

const verifyBatch = 2000

// walk follows the links from the first to the last.
func (v *verification) walk(ctx context.Context) error {
	seq, last := v.first, v.firstLink
	for {
		rows, err := v.tx.Query(ctx, `
			SELECT c.seq, c.op_time, c.event_id, c.kind, c.content, c.link, e.id IS NOT NULL, coalesce(e.operation, ''), coalesce(e.resource_type, ''),
				coalesce(e.resource, ''), coalesce(e.username, ''), coalesce(e.description, ''), coalesce(e.success, false), coalesce(e.project_id, 0),
				coalesce(e.request_id, ''), coalesce(e.source, '')
			FROM audit_chain c LEFT JOIN audit_events e ON e.op_time = c.op_time AND e.event_id = c.event_id
			WHERE c.seq > $1 ORDER BY c.seq LIMIT $2`, seq, verifyBatch)
		if err != nil {
			return err
		}
		n := 0
		var l link
		var there bool
		var e event.Event
		if _, err := pgx.ForEachRow(rows, []any{&l.seq, &l.time, &l.event, &l.kind, &l.content, &l.link, &there, &e.Operation, &e.ResourceType,
			&e.Resource, &e.User, &e.Description, &e.Success, &e.ProjectID, &e.RequestID, &e.Source}, func() error {
			n++
			if l.seq != seq+1 {
				v.fault("the links %d to %d were removed", seq+1, l.seq-1)
			} else if !same(l.link, v.linkOf(l, last)) {
				v.fault("link %d, of %s at %s, does not hold: it or the one before was changed", l.seq, l.kind, l.time.Format(time.RFC3339))
			}
			e.ID, e.Time = l.event, l.time
			v.entry(l, e, there)
			if l.seq == v.wantSeq && same(l.link, v.wantLink) {
				v.passed = true
			}
			seq, last = l.seq, slices.Clone(l.link)
			return nil
		}); err != nil {
			return err
		}
		if n < verifyBatch {
			break
		}
	}
	if seq != v.end || !same(last, v.lastLink) && seq != v.first {
		v.fault("the chain ends at %d, and should at %d: its end was cut off", seq, v.end)
	}
	if !v.passed {
		v.fault("the chain does not go through the head %d that was given: it was cut off or written anew since", v.wantSeq)
	}
	return nil
}

// entry compares an entry with its link.
func (v *verification) entry(l link, e event.Event, there bool) {
	switch {
	case there && same(l.content, content(e)):
		v.out.Entries++
	case there:
		v.fault("entry %d, of %s at %s, was changed", l.seq, l.kind, l.time.Format(time.RFC3339))
	case slices.ContainsFunc(v.purges, func(p purge) bool { return p.covers(l) }):
		v.out.Purged++
	default:
		v.fault("entry %d, of %s at %s, was removed", l.seq, l.kind, l.time.Format(time.RFC3339))
	}
}

// maxStrangers bounds how many entries without a link are named.
const maxStrangers = 100

// strangers finds entries that nobody has linked.
func (v *verification) strangers(ctx context.Context) error {
	rows, err := v.tx.Query(ctx, `SELECT e.id, e.op_time, e.operation || '_' || e.resource_type FROM audit_events e
		WHERE e.op_time >= $1 AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.op_time = e.op_time AND c.event_id = e.event_id)
		ORDER BY e.op_time LIMIT $2`, v.since, maxStrangers)
	if err != nil {
		return err
	}
	var id int64
	var at time.Time
	var kind string
	_, err = pgx.ForEachRow(rows, []any{&id, &at, &kind}, func() error {
		v.fault("the entry with id %d, of %s at %s, was put in without a link", id, kind, at.Format(time.RFC3339))
		return nil
	})
	return err
}

// Export gives all entries of a time, oldest first, to visit. It reads them in
// pages, so its memory is bounded and no long transaction holds up anything.
func Export(ctx context.Context, pool *pgxpool.Pool, from, to time.Time, visit func(Entry, uuid.UUID) error) error {
	const page = 2000
	after := Cursor{Time: from, ID: -1}
	for {
		rows, err := pool.Query(ctx, `
			SELECT id, op_time, operation, resource_type, resource, username, description, success, coalesce(project_id, 0), request_id, source, event_id
			FROM audit_events WHERE op_time >= $1 AND op_time < $2 AND (op_time, id) > ($1, $3) ORDER BY op_time, id LIMIT $4`, after.Time, to, after.ID, page)
		if err != nil {
			return database.Fault(err)
		}
		n := 0
		var e Entry
		var id uuid.UUID
		if _, err := pgx.ForEachRow(rows, []any{&e.ID, &e.Time, &e.Operation, &e.ResourceType, &e.Resource, &e.Username, &e.Description, &e.Success,
			&e.ProjectID, &e.RequestID, &e.Source, &id}, func() error {
			n++
			after = Cursor{e.Time, e.ID}
			return visit(e, id)
		}); err != nil {
			return database.Fault(err)
		}
		if n < page {
			return nil
		}
	}
}
