// Package task keeps executions and tasks: work that goes on while nobody waits,
// and that somebody wants to see, stop and read the log of.
//
// An execution is one run of something: a collection of garbage, a retention, a
// webhook's delivery. It has tasks; each is run by a handler that the jobs
// service has for its vendor (Kind). Both are rows, and a task's next run is a
// River job that is inserted in the same transaction: what Start commits will
// run, and what it does not commit will not.
//
//	Start ─► Pending ──claim──► Running ──► Success
//	            ▲                  │ ├────► Error      no attempt is left, or Permanent
//	            │   Scheduled ◄────┤ └────► Stopped    by Stop, at any time
//	            └───────┴──────────┘ after an error, or when its worker was given up
//
// The state of an execution is computed by the database from its tasks' states,
// in the transaction that changes them.
//
// # Who owns a task
//
// A run is fenced by its number. Claiming a task raises tasks.runs, and whatever
// the run writes afterwards says which number it is: once a task was stopped, or
// given to another worker, nothing that the old run writes has an effect.
//
// A process that runs tasks keeps a row in job_pools and renews it every few
// seconds. When it has not for a while (Runner's Dead), another takes it away,
// and queues its tasks, and River's running jobs, anew. So work that was cut off
// by kill -9 or a power failure goes on within half a minute; handlers must be
// able to run twice, and use Run.Checkpoint to go on where they were.
//
// # Logs
//
// Run.Log writes lines that are kept with the task, up to a megabyte. They hold
// no secrets; neither do Extra and Params.
package task

import (
	"encoding/json"
	"time"

	"berth/appliance/fault"
)

// Status is the state of a task or of an execution, in Harbor's words.
type Status string

// The states. An execution is Running until its last task has ended.
const (
	Pending   Status = "Pending"   // waits for a worker
	Scheduled Status = "Scheduled" // waits for a time
	Running   Status = "Running"
	Stopped   Status = "Stopped"
	Error     Status = "Error"
	Success   Status = "Success"
)

// Final reports whether a state is the last one.
func (s Status) Final() bool { return s == Stopped || s == Error || s == Success }

// The vendors: what an execution is of, and which queue a task waits in. They
// are Harbor's, whose API shows them.
const (
	GarbageCollection = "GARBAGE_COLLECTION"
	PurgeAudit        = "PURGE_AUDIT_LOG"
	Webhook           = "WEBHOOK"
	Slack             = "SLACK" // tasks only; the execution is a WEBHOOK
	Replication       = "REPLICATION"
	Retention         = "RETENTION"
	ScanAll           = "SCAN_ALL"
	ImageScan         = "IMAGE_SCAN"
	Preheat           = "P2P_PREHEAT"
	ScanExport        = "SCAN_DATA_EXPORT"
)

// The triggers of executions.
const (
	Manual   = "MANUAL"
	Schedule = "SCHEDULE"
	Event    = "EVENT"
)

// Counts are how many of an execution's tasks are in which state.
type Counts struct {
	Pending, Scheduled, Running, Stopped, Error, Success int
}

// Total is how many tasks there are.
func (c Counts) Total() int {
	return c.Pending + c.Scheduled + c.Running + c.Stopped + c.Error + c.Success
}

// Execution is one run of something.
type Execution struct {
	ID       int64
	Vendor   string
	VendorID int64
	Trigger  string
	Status   Status
	Message  string
	Extra    json.RawMessage // an object: parameters and results
	Tasks    Counts
	Started  time.Time
	Updated  time.Time
	Ended    time.Time // zero: not yet
}

// Task is a part of an execution that a worker does.
type Task struct {
	ID          int64
	ExecutionID int64
	Vendor      string
	Status      Status
	Message     string          // why it failed, or what it waits for
	Extra       json.RawMessage // an object: parameters and checkpoints
	Runs        int             // how often it was begun
	Attempts    int             // of them, those that were not cut off from outside
	MaxAttempts int
	Worker      string
	Created     time.Time
	Scheduled   time.Time // when its next run may begin
	Started     time.Time // zero: not yet
	Updated     time.Time
	Ended       time.Time // zero: not yet
}

// object renders v as a JSON object for a jsonb column; nil is the empty one.
func object(v any) (json.RawMessage, error) {
	if raw, ok := v.(json.RawMessage); ok && len(raw) > 0 {
		return raw, nil
	}
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" {
		return json.RawMessage(`{}`), err
	}
	return b, nil
}

func executionNotFound(id int64) error {
	return fault.New(fault.NotFound, "execution %d not found", id)
}

func taskNotFound(id int64) error { return fault.New(fault.NotFound, "task %d not found", id) }
