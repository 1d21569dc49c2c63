package configuration

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
)

// others asks whether there are users besides the first administrator.
const others = `SELECT EXISTS (SELECT FROM users WHERE id > (SELECT min(id) FROM users))`

// ModeEditable reports whether auth_mode can still be changed: accounts of one
// kind mean nothing to another, so it cannot once there are any.
func (s *Store) ModeEditable(ctx context.Context) (bool, error) {
	var users bool
	err := s.pool.QueryRow(ctx, others).Scan(&users)
	return !users, database.Fault(err)
}

// Update changes settings, all of them or none. Errors: Invalid, naming the key.
func (s *Store) Update(ctx context.Context, change Change) error {
	if err := s.try(ctx, change); err != nil {
		return err
	}
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// One change at a time: checks look at several keys.
		if _, err := tx.Exec(ctx, `LOCK TABLE configurations IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		before, err := s.load(ctx, tx)
		if err != nil {
			return err
		}
		after, changed := before.with(change)
		if len(changed) == 0 {
			return nil
		}
		if after.AuthMode != before.AuthMode {
			if err := refuseMode(ctx, tx); err != nil {
				return err
			}
		}
		if err := after.check(changed); err != nil {
			return err
		}
		if err := s.write(ctx, tx, after, changed); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, event.Event{Operation: "update", ResourceType: "configuration", Resource: "configuration", Success: true,
			Description: "update configuration: " + strings.Join(changed, ", ")})
	})
	if err == nil {
		s.changes.Add(1) // who changed them sees them, whenever the notification comes
	}
	return database.Fault(err)
}

// try asks the probes of the keys that are about to change, before anything is
// locked: what they ask may take long to answer. A value that stays is not tried,
// for clients send all keys to change one.
func (s *Store) try(ctx context.Context, change Change) error {
	if !slices.ContainsFunc(slices.Collect(maps.Keys(change)), func(name string) bool { return s.probes[name] != nil }) {
		return nil
	}
	settings, err := s.Current(ctx)
	if err != nil {
		return err
	}
	_, changed := settings.with(change)
	for _, name := range changed {
		value, ok := change[name].(string)
		if probe := s.probes[name]; probe != nil && ok && value != "" {
			if err := probe(ctx, value); err != nil {
				return fault.Wrap(fault.Invalid, err, "%s: %s does not answer", name, value).On(name).WithHint("start it first, or correct the address")
			}
		}
	}
	return nil
}

// with gives the settings after a change, and the keys that differ.
func (s Settings) with(change Change) (Settings, []string) {
	var changed []string
	v := reflect.ValueOf(&s).Elem()
	for name, value := range change {
		field := v.Field(keys[name].field)
		if to := reflect.ValueOf(value).Convert(field.Type()); !field.Equal(to) {
			field.Set(to)
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return s, changed
}

func refuseMode(ctx context.Context, tx pgx.Tx) error {
	var users bool
	if err := tx.QueryRow(ctx, others).Scan(&users); err != nil {
		return err
	}
	if users {
		return fault.New(fault.Invalid, "the auth mode cannot be modified as new users have been inserted into database").On("auth_mode").
			WithHint("delete all users but the first administrator")
	}
	return nil
}

func (s *Store) write(ctx context.Context, tx pgx.Tx, settings Settings, changed []string) error {
	v := reflect.ValueOf(settings)
	var batch pgx.Batch
	for _, name := range changed {
		k := keys[name]
		value := v.Field(k.field).Interface()
		if k.secret {
			value = s.seal(name, v.Field(k.field).String())
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		batch.Queue(`INSERT INTO configurations (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value`, name, raw)
	}
	return tx.SendBatch(ctx, &batch).Close()
}
