package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
	"berth/services/event"
)

// Chain makes changes of the trail by hand show. Each entry's row in audit_chain
// has a keyed hash of itself and of the row before: an entry that was changed,
// removed or put in between breaks it. A purge says what it purges, under the
// same key, and the chain goes on over the gap; one that forgets everything
// before a time leaves a checkpoint in the place of the rows.
//
// The rows are written in one order, under the lock of one row, whichever node
// writes. What the chain cannot show is that its end was cut off together with
// the entries: for that, keep the head that Verify names somewhere else.
type Chain struct {
	pool *pgxpool.Pool
	key  []byte
}

// NewChain makes a chain with a key of 32 bytes that is not in the database.
func NewChain(pool *pgxpool.Pool, key []byte) *Chain { return &Chain{pool, key} }

// mac hashes fields with the key. Each is preceded by its length, so that no two
// lists of fields are the same bytes.
func (c *Chain) mac(fields ...[]byte) []byte {
	h := hmac.New(sha256.New, c.key)
	var length [8]byte
	for _, f := range fields {
		binary.BigEndian.PutUint64(length[:], uint64(len(f)))
		h.Write(length[:])
		h.Write(f)
	}
	return h.Sum(nil)
}

func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// link is a row of audit_chain.
type link struct {
	seq     int64
	time    time.Time
	event   uuid.UUID
	kind    string
	content []byte
	link    []byte
}

func (c *Chain) linkOf(l link, before []byte) []byte {
	return c.mac([]byte("entry"), before, number(l.seq), number(l.time.UnixMicro()), l.event[:], []byte(l.kind), l.content)
}

// content is the hash of all that an entry says.
func content(e event.Event) []byte {
	h := sha256.New()
	var length [8]byte
	success := "false"
	if e.Success {
		success = "true"
	}
	for _, f := range []string{string(number(e.Time.UnixMicro())), string(e.ID[:]), e.Operation, e.ResourceType, e.Resource, e.User, e.Description, success,
		string(number(e.ProjectID)), e.RequestID, e.Source} {
		binary.BigEndian.PutUint64(length[:], uint64(len(f)))
		h.Write(length[:])
		h.Write([]byte(f))
	}
	return h.Sum(nil)
}

// record writes entries and their links in one transaction. Those that are there
// already are left out.
func (c *Chain) record(ctx context.Context, events []event.Event) error {
	return database.Fault(database.InTx(ctx, c.pool, func(tx pgx.Tx) error {
		seq, last, err := c.head(ctx, tx)
		if err != nil {
			return err
		}
		fresh, err := unknown(ctx, tx, events)
		if err != nil || len(fresh) == 0 {
			return err
		}
		batch := &pgx.Batch{}
		for _, e := range fresh {
			seq++
			l := link{seq: seq, time: e.Time, event: e.ID, kind: e.Operation + "_" + e.ResourceType, content: content(e)}
			last = c.linkOf(l, last)
			batch.Queue(record, values(e)...)
			batch.Queue(`INSERT INTO audit_chain (seq, op_time, event_id, kind, content, link) VALUES ($1, $2, $3, $4, $5, $6)`,
				l.seq, l.time, l.event, l.kind, l.content, last)
		}
		batch.Queue(`UPDATE audit_chain_state SET seq = $1, link = $2`, seq, last)
		return tx.SendBatch(ctx, batch).Close()
	}))
}

// head locks the end of the chain and gives it; the first time it begins one.
func (c *Chain) head(ctx context.Context, tx pgx.Tx) (seq int64, last []byte, err error) {
	const lock = `SELECT seq, link FROM audit_chain_state FOR UPDATE`
	err = tx.QueryRow(ctx, lock).Scan(&seq, &last)
	if !errors.Is(err, pgx.ErrNoRows) {
		return seq, last, err
	}
	// What happened until now may still come without a link, from a node that
	// has not been told yet.
	since := time.Now().UTC().Add(time.Minute).Truncate(time.Microsecond)
	first := c.mac([]byte("beginning"))
	_, err = tx.Exec(ctx, `INSERT INTO audit_chain_state (link, first_link, since, mac) VALUES ($1, $1, $2, $3) ON CONFLICT DO NOTHING`,
		first, since, c.checkpoint(0, first, since))
	if err != nil {
		return 0, nil, err
	}
	err = tx.QueryRow(ctx, lock).Scan(&seq, &last)
	return seq, last, err
}

func (c *Chain) checkpoint(first int64, link []byte, since time.Time) []byte {
	return c.mac([]byte("checkpoint"), number(first), link, number(since.UnixMicro()))
}

// unknown gives the events that are not in the trail, once each.
func unknown(ctx context.Context, tx pgx.Tx, events []event.Event) ([]event.Event, error) {
	times, ids := make([]time.Time, len(events)), make([]uuid.UUID, len(events))
	for i, e := range events {
		times[i], ids[i] = e.Time, e.ID
	}
	rows, err := tx.Query(ctx, `SELECT x.id FROM unnest($1::timestamptz[], $2::uuid[]) AS x(at, id)
		WHERE EXISTS (SELECT FROM audit_events e WHERE e.op_time = x.at AND e.event_id = x.id)`, times, ids)
	if err != nil {
		return nil, err
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, err
	}
	seen := map[uuid.UUID]bool{}
	for _, id := range known {
		seen[id] = true
	}
	var fresh []event.Event
	for _, e := range events {
		if !seen[e.ID] {
			seen[e.ID] = true
			fresh = append(fresh, e)
		}
	}
	return fresh, nil
}

func (c *Chain) purgeMAC(before time.Time, types []string) []byte {
	all := "some"
	if types == nil {
		all = "all"
	}
	return c.mac([]byte("purge"), number(before.UnixMicro()), []byte(all), []byte(strings.Join(types, "\n")))
}

// announce says what a purge is about to forget. Without a chain it says nothing.
func (c *Chain) announce(ctx context.Context, before time.Time, types []string) error {
	_, err := c.pool.Exec(ctx, `INSERT INTO audit_chain_purges (before, types, mac) SELECT $1, $2, $3 WHERE EXISTS (SELECT FROM audit_chain_state)`,
		before, types, c.purgeMAC(before, types))
	return database.Fault(err)
}

// trim puts a checkpoint in the place of the links before a time, after
// everything before it was purged.
func (c *Chain) trim(ctx context.Context, before time.Time) error {
	return database.Fault(database.InTx(ctx, c.pool, func(tx pgx.Tx) error {
		var first int64
		var since time.Time
		err := tx.QueryRow(ctx, `SELECT first, since FROM audit_chain_state FOR UPDATE`).Scan(&first, &since)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		var last int64
		var at []byte
		err = tx.QueryRow(ctx, `SELECT seq, link FROM audit_chain WHERE seq > $1
			AND seq < coalesce((SELECT min(seq) FROM audit_chain WHERE op_time >= $2), (SELECT seq + 1 FROM audit_chain_state)) ORDER BY seq DESC LIMIT 1`,
			first, before).Scan(&last, &at)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if before.After(since) {
			since = before.UTC().Truncate(time.Microsecond)
		}
		batch := &pgx.Batch{}
		batch.Queue(`DELETE FROM audit_chain WHERE seq <= $1`, last)
		batch.Queue(`UPDATE audit_chain_state SET first = $1, first_link = $2, since = $3, mac = $4`, last, at, since, c.checkpoint(last, at, since))
		return tx.SendBatch(ctx, batch).Close()
	}))
}

func same(a, b []byte) bool { return len(a) > 0 && hmac.Equal(a, b) }
