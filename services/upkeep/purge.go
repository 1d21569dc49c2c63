package upkeep

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/audit"
	"berth/services/event"
	"berth/services/task"
)

// purgeParams are Harbor's parameters of a purge of the audit trail.
type purgeParams struct {
	Hours  int64  `json:"audit_retention_hour"` // entries older than that go
	Types  string `json:"include_event_types,omitempty"`
	Old    string `json:"include_operations,omitempty"` // before 2.13: create, delete, pull
	DryRun bool   `json:"dry_run"`
}

// maxRetention is Harbor's limit, 27 years.
const maxRetention = 240_000

func checkPurge(raw json.RawMessage) (json.RawMessage, error) {
	var p purgeParams
	if err := decode(raw, &p); err != nil {
		return nil, err
	}
	if p.Hours < 0 || p.Hours > maxRetention {
		return nil, fault.New(fault.Invalid, "parameters.audit_retention_hour must be between 0 and %d, not %d", maxRetention, p.Hours).On("parameters.audit_retention_hour")
	}
	if p.Types == "" && p.Old == "" {
		return nil, fault.New(fault.Invalid, "parameters.include_event_types is missing: name the event types to purge, joined by commas").On("parameters.include_event_types")
	}
	if _, err := p.types(); err != nil {
		return nil, err
	}
	return encode(p)
}

// types are the event types to purge; nil is everything, which is what all of
// Harbor's types mean, so that what Berth records beyond them is not kept for
// ever.
func (p purgeParams) types() ([]string, error) {
	known := event.Types()
	var list []string
	for _, t := range split(p.Types) {
		if !slices.Contains(known, t) {
			return nil, fault.New(fault.Invalid, "parameters.include_event_types: there is no event type %q", t).On("parameters.include_event_types")
		}
		list = append(list, t)
	}
	for _, op := range split(p.Old) {
		n := len(list)
		for _, t := range known {
			if operation, _, _ := strings.Cut(t, "_"); strings.EqualFold(operation, op) {
				list = append(list, t)
			}
		}
		if len(list) == n {
			return nil, fault.New(fault.Invalid, "parameters.include_operations: there is no operation %q", op).On("parameters.include_operations")
		}
	}
	slices.Sort(list)
	if list = slices.Compact(list); len(list) == len(known) {
		return nil, nil
	}
	return list, nil
}

func split(s string) (list []string) {
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// Purger runs purges of the audit trail, and tells its chain, which may be nil.
func Purger(pool *pgxpool.Pool, chain *audit.Chain) task.Kind {
	return task.Kind{Vendor: task.PurgeAudit, Keep: 100, Run: func(ctx context.Context, r *task.Run) error {
		var p purgeParams
		if err := json.Unmarshal(r.Params, &p); err != nil {
			return task.Permanent(err)
		}
		types, err := p.types()
		if err != nil {
			return task.Permanent(err)
		}
		before := r.Task.Created.Add(-time.Duration(p.Hours) * time.Hour)
		r.Log.Info("purge of the audit trail begins", "before", before.Format(time.RFC3339), "event_types", cmp.Or(strings.Join(types, ","), "all"), "dry_run", p.DryRun)
		var n int64
		if p.DryRun {
			n, err = audit.CountBefore(ctx, pool, before, types)
		} else {
			n, err = audit.Purge(ctx, pool, chain, before, types)
		}
		r.Log.Info("purge of the audit trail is done", "entries", n, "dry_run", p.DryRun)
		if err != nil {
			return err
		}
		return r.Annotate(ctx, map[string]int64{"purged_entries": n})
	}}
}
