package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"berth/appliance/fault"
	"berth/services/task"
	"berth/services/upkeep"
)

// upkeepRoutes are for the collection of garbage and the purge of the audit
// trail, which Harbor has the same seven operations for.
var upkeepRoutes = []route{
	{"GET", v2 + "/system/gc", system("garbage-collection", "list"), "List garbage collections", handle(upkeepList(upkeep.Collection))},
	{"GET", v2 + "/system/gc/schedule", system("garbage-collection", "read"), "Get the schedule of garbage collections", handle(upkeepSchedule(upkeep.Collection))},
	{"POST", v2 + "/system/gc/schedule", system("garbage-collection", "create"), "Collect garbage now, or plan it", handle(upkeepCreate(upkeep.Collection, "gc"))},
	{"PUT", v2 + "/system/gc/schedule", system("garbage-collection", "update"), "Change the schedule of garbage collections", handle(upkeepUpdate(upkeep.Collection))},
	{"GET", v2 + "/system/gc/{execution_id}", system("garbage-collection", "read"), "Get a garbage collection", handle(upkeepGet(upkeep.Collection))},
	{"PUT", v2 + "/system/gc/{execution_id}", system("garbage-collection", "stop"), "Stop a garbage collection", handle(upkeepStop(upkeep.Collection))},
	{"GET", v2 + "/system/gc/{execution_id}/log", system("garbage-collection", "read"), "Get the log of a garbage collection", handle(upkeepLog(upkeep.Collection))},
	{"GET", v2 + "/system/purgeaudit", system("purge-audit", "list"), "List purges of the audit trail", handle(upkeepList(upkeep.AuditPurge))},
	{"GET", v2 + "/system/purgeaudit/schedule", system("purge-audit", "read"), "Get the schedule of purges of the audit trail", handle(upkeepSchedule(upkeep.AuditPurge))},
	{"POST", v2 + "/system/purgeaudit/schedule", system("purge-audit", "create"), "Purge the audit trail now, or plan it", handle(upkeepCreate(upkeep.AuditPurge, "purgeaudit"))},
	{"PUT", v2 + "/system/purgeaudit/schedule", system("purge-audit", "update"), "Change the schedule of purges of the audit trail", handle(upkeepUpdate(upkeep.AuditPurge))},
	{"GET", v2 + "/system/purgeaudit/{execution_id}", system("purge-audit", "read"), "Get a purge of the audit trail", handle(upkeepGet(upkeep.AuditPurge))},
	{"PUT", v2 + "/system/purgeaudit/{execution_id}", system("purge-audit", "stop"), "Stop a purge of the audit trail", handle(upkeepStop(upkeep.AuditPurge))},
	{"GET", v2 + "/system/purgeaudit/{execution_id}/log", system("purge-audit", "read"), "Get the log of a purge of the audit trail", handle(upkeepLog(upkeep.AuditPurge))},
}

type scheduleObject struct {
	Cron string `json:"cron,omitempty"`
	Next moment `json:"next_scheduled_time"`
	Type string `json:"type"` // Hourly, Daily, Weekly, Custom, Manual, None
}

// upkeepEntry is an execution, or the schedule of executions.
type upkeepEntry struct {
	Created  moment         `json:"creation_time"`
	ID       int64          `json:"id"`
	Kind     string         `json:"job_kind"`
	Name     string         `json:"job_name,omitempty"`
	Params   string         `json:"job_parameters"` // a JSON object
	Status   string         `json:"job_status"`
	Schedule scheduleObject `json:"schedule"`
	Updated  moment         `json:"update_time"`
}

func upkeepEntryOf(e task.Execution) upkeepEntry {
	kind := e.Trigger[:1] + strings.ToLower(e.Trigger[1:])
	return upkeepEntry{
		Created: moment(e.Started), ID: e.ID, Kind: e.Trigger, Name: e.Vendor, Params: compact(e.Extra), Status: string(e.Status),
		Schedule: scheduleObject{Type: kind}, Updated: moment(e.Updated),
	}
}

// compact writes a JSON object as Harbor does: sorted, without spaces.
func compact(object json.RawMessage) string {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(object))
	d.UseNumber()
	if d.Decode(&fields) != nil {
		return string(object)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return string(object)
	}
	return string(b)
}

type executionPath struct {
	ID int64 `path:"execution_id"`
}

func upkeepList(w upkeep.Work) func(*API, *request, struct{ paging }) (list[upkeepEntry], error) {
	return func(a *API, r *request, in struct{ paging }) (list[upkeepEntry], error) {
		q, err := in.query()
		if err != nil {
			return list[upkeepEntry]{}, err
		}
		page, err := a.Tasks.Executions(r.Context(), task.Of{Vendor: w.Vendor}, q)
		return paged(page, err, in.paging, upkeepEntryOf)
	}
}

func upkeepGet(w upkeep.Work) func(*API, *request, executionPath) (upkeepEntry, error) {
	return func(a *API, r *request, in executionPath) (upkeepEntry, error) {
		e, err := a.Tasks.Execution(r.Context(), task.Of{Vendor: w.Vendor}, in.ID)
		if err != nil {
			return upkeepEntry{}, err
		}
		return upkeepEntryOf(e), nil
	}
}

func upkeepStop(w upkeep.Work) func(*API, *request, executionPath) (empty, error) {
	return func(a *API, r *request, in executionPath) (empty, error) {
		return empty{}, a.Upkeep.Stop(r.Context(), w, in.ID)
	}
}

func upkeepLog(w upkeep.Work) func(*API, *request, executionPath) (text, error) {
	return func(a *API, r *request, in executionPath) (text, error) {
		log, err := a.Upkeep.Log(r.Context(), w, in.ID)
		return text{"text/plain", log}, err
	}
}

// upkeepSchedule gives the schedule; without one Harbor answers with nothing.
func upkeepSchedule(w upkeep.Work) func(*API, *request, none) (*upkeepEntry, error) {
	return func(a *API, r *request, _ none) (*upkeepEntry, error) {
		p, ok, err := a.Tasks.Planned(r.Context(), w.Vendor, 0)
		if err != nil || !ok {
			return nil, err
		}
		return &upkeepEntry{
			Created: moment(p.Created), ID: p.ID, Kind: p.Cron, Params: compact(p.Params), Status: string(task.Running),
			Schedule: scheduleObject{Cron: p.Cron, Next: moment(p.Next), Type: p.Type}, Updated: moment(p.Updated),
		}, nil
	}
}

type upkeepBody struct {
	Schedule *struct {
		Type string `json:"type"`
		Cron string `json:"cron"`
	} `json:"schedule"`
	Parameters json.RawMessage `json:"parameters"`
}

func (a *API) setUpkeep(r *request, w upkeep.Work, b upkeepBody) (int64, error) {
	if b.Schedule == nil {
		return 0, fault.New(fault.Invalid, "schedule is missing").On("schedule")
	}
	return a.Upkeep.Set(r.Context(), w, upkeep.Plan{Type: b.Schedule.Type, Cron: b.Schedule.Cron}, b.Parameters)
}

func upkeepCreate(w upkeep.Work, name string) func(*API, *request, struct {
	Body upkeepBody `body:""`
}) (created, error) {
	return func(a *API, r *request, in struct {
		Body upkeepBody `body:""`
	}) (created, error) {
		id, err := a.setUpkeep(r, w, in.Body)
		return created{location: fmt.Sprintf("%s/system/%s/%d", v2, name, id)}, err
	}
}

func upkeepUpdate(w upkeep.Work) func(*API, *request, struct {
	Body upkeepBody `body:""`
}) (empty, error) {
	return func(a *API, r *request, in struct {
		Body upkeepBody `body:""`
	}) (empty, error) {
		_, err := a.setUpkeep(r, w, in.Body)
		return empty{}, err
	}
}
