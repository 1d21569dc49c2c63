// Package upkeep is the work that Berth does on itself, and that administrators
// start, plan, watch and stop: collecting garbage and purging the audit trail.
//
// The collector runs all the time anyway (package artifact), so a run by hand
// finds what has become due within the last half minute. What it can do beyond
// that is to move untagged artifacts to the recycle bin, and to say what is due.
package upkeep

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/task"
)

// Plan is what an administrator asks for: Harbor's schedule object.
type Plan struct {
	Type string // Manual, None, Hourly, Daily, Weekly, Custom
	Cron string // six fields; Hourly, Daily and Weekly have their own
}

// usual are the cron texts of the types that have one.
var usual = map[string]string{"Hourly": "0 0 * * * *", "Daily": "0 0 0 * * *", "Weekly": "0 0 0 * * 0"}

// Work is one of the two kinds of upkeep.
type Work struct {
	Vendor string
	name   string // in messages
	check  func(raw json.RawMessage) (json.RawMessage, error)
}

// The works.
var (
	Collection = Work{task.GarbageCollection, "gc", checkCollect}
	AuditPurge = Work{task.PurgeAudit, "purge audit log", checkPurge}
)

// Store starts and plans upkeep.
type Store struct {
	pool  *pgxpool.Pool
	tasks *task.Store
}

// New makes a Store.
func New(pool *pgxpool.Pool, tasks *task.Store) *Store { return &Store{pool, tasks} }

// Set does what a plan asks for: start the work now (and give the execution's
// id), plan it, or no longer plan it. params is the work's JSON object. Errors:
// Invalid.
func (s *Store) Set(ctx context.Context, w Work, p Plan, params json.RawMessage) (execution int64, err error) {
	if p.Type == "None" {
		return 0, database.InTx(ctx, s.pool, func(tx pgx.Tx) error { return s.tasks.Unplan(ctx, tx, w.Vendor, 0) })
	}
	if p.Cron == "" {
		p.Cron = usual[p.Type]
	}
	switch p.Type {
	case "Manual":
	case "Hourly", "Daily", "Weekly", "Custom":
		if err := task.CheckCron(p.Cron); err != nil {
			return 0, fault.New(fault.Invalid, "invalid cron string for scheduled %s: %s, error: %v", w.name, p.Cron, err).On("schedule.cron")
		}
	default:
		return 0, fault.New(fault.Invalid, "schedule.type must be Manual, None, Hourly, Daily, Weekly or Custom, not %q", p.Type).On("schedule.type")
	}
	if params, err = w.check(params); err != nil {
		return 0, err
	}
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		if p.Type == "Manual" {
			execution, err = s.tasks.Start(ctx, tx, task.New{Vendor: w.Vendor, Trigger: task.Manual, Extra: params}, task.NewTask{MaxAttempts: 2})
			return err
		}
		_, err = s.tasks.Plan(ctx, tx, task.Planned{Vendor: w.Vendor, Type: p.Type, Cron: p.Cron, Params: params})
		return err
	})
	return execution, err
}

// Log gives what an execution of the work has written. Errors: NotFound.
func (s *Store) Log(ctx context.Context, w Work, execution int64) (string, error) {
	if _, err := s.tasks.Execution(ctx, task.Of{Vendor: w.Vendor}, execution); err != nil {
		return "", err
	}
	return s.tasks.LogOf(ctx, execution)
}

// Stop ends an execution of the work. Errors: NotFound.
func (s *Store) Stop(ctx context.Context, w Work, execution int64) error {
	if _, err := s.tasks.Execution(ctx, task.Of{Vendor: w.Vendor}, execution); err != nil {
		return err
	}
	return s.tasks.Stop(ctx, execution)
}

// decode reads parameters over what v has. Numbers and booleans may be written
// as text, as some of Harbor's clients do.
func decode(raw json.RawMessage, v any) error {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		what := "it is not an object"
		if _, field, ok := strings.Cut(err.Error(), "field "); ok {
			what = "wrong type of " + field
		}
		return fault.Wrap(fault.Invalid, err, "cannot read parameters: %s", what).On("parameters")
	}
	return nil
}

func encode(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("cannot store parameters: %w", err)
	}
	return b, nil
}
