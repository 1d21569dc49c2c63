package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/robfig/cron/v3"

	"berth/services/database"
	"berth/services/query"
)

// Planned is a schedule: when executions of something start by themselves.
type Planned struct {
	ID       int64
	Vendor   string
	VendorID int64
	Type     string          // Hourly, Daily, Weekly, Custom: what the portal shows; "" is Custom
	Cron     string          // six fields, in UTC
	Params   json.RawMessage // an object; becomes the Extra of executions
	Next     time.Time
	Last     time.Time // zero: never
	Created  time.Time
	Updated  time.Time
}

// cronParser knows seconds, as Harbor's. Descriptors (@daily) are not Harbor's.
var cronParser = cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// CheckCron says what is wrong with a cron text, as Harbor's six fields: second,
// minute, hour, day of month, month, day of week. The second must be 0. The
// error is a plain reason; the caller says what it is about.
func CheckCron(text string) error {
	_, err := next(text, time.Now())
	return err
}

// next gives the first time after t that a cron text means, in UTC.
func next(text string, t time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, errors.New("the cron string is empty")
	}
	if len(text) > 256 || strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(" *,-/?", r))
	}) {
		return time.Time{}, errors.New("it has characters that no cron string has")
	}
	fields := strings.Fields(text)
	if len(fields) != 6 {
		return time.Time{}, fmt.Errorf("it has %d fields, and there must be 6: second, minute, hour, day of month, month, day of week", len(fields))
	}
	if fields[0] != "0" {
		return time.Time{}, errors.New("the 1st field (indicating Seconds of time) of the cron setting must be 0")
	}
	schedule, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil {
		return time.Time{}, err
	}
	at := schedule.Next(t.UTC())
	if at.IsZero() {
		return at, errors.New("there is no such day within the next five years")
	}
	return at, nil
}

// Plan sets the schedule of a vendor's object, in tx, in the place of the one
// it had. Errors: those of CheckCron.
func (s *Store) Plan(ctx context.Context, tx pgx.Tx, p Planned) (int64, error) {
	at, err := next(p.Cron, time.Now())
	if err != nil {
		return 0, err
	}
	if p.Type == "" {
		p.Type = "Custom"
	}
	if len(p.Params) == 0 {
		p.Params = json.RawMessage(`{}`)
	}
	var id int64
	err = tx.QueryRow(ctx, `
		INSERT INTO schedules (vendor, vendor_id, type, cron, params, next_run) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (vendor, vendor_id) DO UPDATE SET type = excluded.type, cron = excluded.cron, params = excluded.params,
			next_run = excluded.next_run, updated_at = now() RETURNING id`,
		p.Vendor, p.VendorID, p.Type, p.Cron, p.Params, at).Scan(&id)
	return id, database.Fault(err)
}

// Unplan removes a schedule, in tx. There need not be one.
func (s *Store) Unplan(ctx context.Context, tx pgx.Tx, vendor string, vendorID int64) error {
	_, err := tx.Exec(ctx, `DELETE FROM schedules WHERE vendor = $1 AND vendor_id = $2`, vendor, vendorID)
	return database.Fault(err)
}

const scheduleColumns = `id, vendor, vendor_id, type, cron, params, next_run, coalesce(last_run, '0001-01-01'::timestamptz), created_at, updated_at`

func (p *Planned) into() []any {
	return []any{&p.ID, &p.Vendor, &p.VendorID, &p.Type, &p.Cron, &p.Params, &p.Next, &p.Last, &p.Created, &p.Updated}
}

// Planned gets the schedule of a vendor's object; false if it has none.
func (s *Store) Planned(ctx context.Context, vendor string, vendorID int64) (p Planned, ok bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT `+scheduleColumns+` FROM schedules WHERE vendor = $1 AND vendor_id = $2`, vendor, vendorID).Scan(p.into()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, false, nil
	}
	return p, err == nil, database.Fault(err)
}

var scheduleFields = query.Columns{
	"id": {SQL: "id", Type: query.Number}, "vendortype": {SQL: "vendor"}, "vendorid": {SQL: "vendor_id", Type: query.Number},
	"crontype": {SQL: "type"}, "cron": {SQL: "cron"}, "updatetime": {SQL: "updated_at", Type: query.Moment}, "creationtime": {SQL: "created_at", Type: query.Moment},
}

// Schedules gives a page of all schedules.
func (s *Store) Schedules(ctx context.Context, q query.Query) (query.Page[Planned], error) {
	var w query.Where
	if err := w.Terms(q.Terms, scheduleFields); err != nil {
		return query.Page[Planned]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, `SELECT count(*) FROM schedules`+w.String(),
		`SELECT `+scheduleColumns+` FROM schedules`+w.String()+q.OrderBy(scheduleFields, "id")+q.Limit(), w.Args,
		func(row pgx.CollectableRow) (p Planned, err error) {
			err = row.Scan(p.into()...)
			return p, err
		})
	return page, database.Fault(err)
}

// fire starts what is due. Any number of processes may do this at once: the
// row's lock makes each run one's, and it is planned anew in the transaction
// that starts it. What was missed while nobody was there starts once.
func (r *Runner) fire(ctx context.Context) {
	for range 100 {
		more, err := r.fireOne(ctx)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("cannot start what a schedule asks for", "err", err)
			}
			return
		}
		if !more {
			return
		}
	}
}

func (r *Runner) fireOne(ctx context.Context) (more bool, err error) {
	var p Planned
	err = database.InTx(ctx, r.Pool, func(tx pgx.Tx) error {
		more = false
		err := tx.QueryRow(ctx, `SELECT `+scheduleColumns+` FROM schedules s WHERE next_run <= now()
			AND NOT EXISTS (SELECT FROM river_queue WHERE name = $1 AND paused_at IS NOT NULL)
			ORDER BY next_run LIMIT 1 FOR UPDATE OF s SKIP LOCKED`, queueOf(Scheduler)).Scan(p.into()...)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		more = true
		at, err := next(p.Cron, time.Now())
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE schedules SET last_run = now(), next_run = $2 WHERE id = $1`, p.ID, at); err != nil {
			return err
		}
		k := r.kinds[p.Vendor]
		if k.Fire != nil {
			return k.Fire(ctx, tx, p)
		}
		_, err = r.store.Start(ctx, tx, New{Vendor: p.Vendor, VendorID: p.VendorID, Trigger: Schedule, Extra: p.Params}, NewTask{Extra: p.Params})
		return err
	})
	if err != nil && p.ID != 0 {
		// One that cannot start must not keep the others from it.
		err = fmt.Errorf("%s %d: %w", p.Vendor, p.VendorID, err)
		return false, errors.Join(err, postpone(ctx, r.Pool, p.ID))
	}
	return more, err
}

func postpone(ctx context.Context, pool *pgxpool.Pool, id int64) error {
	_, err := pool.Exec(ctx, `UPDATE schedules SET next_run = greatest(next_run, now() + interval '1 minute') WHERE id = $1`, id)
	return err
}
