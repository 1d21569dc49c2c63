package task

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"berth/services/database"
	"berth/services/query"
)

const executionColumns = `e.id, e.vendor, e.vendor_id, e.trigger, e.status, e.message, e.extra,
	e.pending, e.scheduled, e.running, e.stopped, e.failed, e.succeeded, e.started_at, e.updated_at, coalesce(e.ended_at, '0001-01-01'::timestamptz)`

func (e *Execution) into() []any {
	c := &e.Tasks
	return []any{&e.ID, &e.Vendor, &e.VendorID, &e.Trigger, &e.Status, &e.Message, &e.Extra,
		&c.Pending, &c.Scheduled, &c.Running, &c.Stopped, &c.Error, &c.Success, &e.Started, &e.Updated, &e.Ended}
}

const taskColumns = `t.id, t.execution_id, t.vendor, t.status, t.message, t.extra, t.runs, t.attempts, t.max_attempts, t.worker,
	t.created_at, t.scheduled_at, coalesce(t.started_at, '0001-01-01'::timestamptz), t.updated_at, coalesce(t.ended_at, '0001-01-01'::timestamptz)`

func (t *Task) into() []any {
	return []any{&t.ID, &t.ExecutionID, &t.Vendor, &t.Status, &t.Message, &t.Extra, &t.Runs, &t.Attempts, &t.MaxAttempts, &t.Worker,
		&t.Created, &t.Scheduled, &t.Started, &t.Updated, &t.Ended}
}

// The fields that lists can be filtered and sorted by, in Harbor's names.
var (
	executionFields = query.Columns{
		"id": {SQL: "e.id", Type: query.Number}, "vendortype": {SQL: "e.vendor"}, "vendorid": {SQL: "e.vendor_id", Type: query.Number},
		"policyid": {SQL: "e.vendor_id", Type: query.Number}, "trigger": {SQL: "e.trigger"}, "status": {SQL: "e.status"}, "jobstatus": {SQL: "e.status"},
		"starttime": {SQL: "e.started_at", Type: query.Moment}, "creationtime": {SQL: "e.started_at", Type: query.Moment},
		"updatetime": {SQL: "e.updated_at", Type: query.Moment}, "endtime": {SQL: "e.ended_at", Type: query.Moment},
	}
	taskFields = query.Columns{
		"id": {SQL: "t.id", Type: query.Number}, "executionid": {SQL: "t.execution_id", Type: query.Number}, "vendortype": {SQL: "t.vendor"},
		"jobtype": {SQL: "t.vendor"}, "status": {SQL: "t.status"}, "runcount": {SQL: "t.attempts", Type: query.Number},
		"creationtime": {SQL: "t.created_at", Type: query.Moment}, "starttime": {SQL: "t.started_at", Type: query.Moment},
		"updatetime": {SQL: "t.updated_at", Type: query.Moment}, "endtime": {SQL: "t.ended_at", Type: query.Moment},
	}
)

// Of is whose executions are meant. The zero Of is all.
type Of struct {
	Vendor   string
	VendorID int64 // 0: of any
}

func (o Of) restrict(w *query.Where) {
	if o.Vendor != "" {
		w.And("e.vendor = %s", o.Vendor)
	}
	if o.VendorID != 0 {
		w.And("e.vendor_id = %s", o.VendorID)
	}
}

// Executions gives a page of executions, newest first unless the query sorts
// otherwise.
func (s *Store) Executions(ctx context.Context, of Of, q query.Query) (query.Page[Execution], error) {
	var w query.Where
	of.restrict(&w)
	if err := w.Terms(q.Terms, executionFields); err != nil {
		return query.Page[Execution]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, `SELECT count(*) FROM executions e`+w.String(),
		`SELECT `+executionColumns+` FROM executions e`+w.String()+q.OrderBy(executionFields, "e.id DESC")+q.Limit(), w.Args,
		func(row pgx.CollectableRow) (e Execution, err error) {
			err = row.Scan(e.into()...)
			return e, err
		})
	return page, database.Fault(err)
}

// Execution gets one. Errors: NotFound, also if it is not one of those meant.
func (s *Store) Execution(ctx context.Context, of Of, id int64) (e Execution, err error) {
	var w query.Where
	w.And("e.id = %s", id)
	of.restrict(&w)
	err = s.pool.QueryRow(ctx, `SELECT `+executionColumns+` FROM executions e`+w.String(), w.Args...).Scan(e.into()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return e, executionNotFound(id)
	}
	return e, database.Fault(err)
}

// Latest gets the newest execution. Errors: NotFound.
func (s *Store) Latest(ctx context.Context, of Of) (e Execution, err error) {
	page, err := s.Executions(ctx, of, query.Query{Page: 1, Size: 1})
	if err != nil {
		return e, err
	}
	if len(page.Items) == 0 {
		return e, executionNotFound(0)
	}
	return page.Items[0], nil
}

// Tasks gives a page of an execution's tasks, oldest first.
func (s *Store) Tasks(ctx context.Context, execution int64, q query.Query) (query.Page[Task], error) {
	var w query.Where
	w.And("t.execution_id = %s", execution)
	return s.tasks(ctx, w, q, "t.id")
}

// TasksOf gives a page of the tasks of all executions of somebody, newest first.
func (s *Store) TasksOf(ctx context.Context, of Of, q query.Query) (query.Page[Task], error) {
	var w query.Where
	of.restrict(&w)
	return s.tasks(ctx, w, q, "t.id DESC")
}

func (s *Store) tasks(ctx context.Context, w query.Where, q query.Query, order string) (query.Page[Task], error) {
	if err := w.Terms(q.Terms, taskFields); err != nil {
		return query.Page[Task]{}, err
	}
	const from = ` FROM tasks t JOIN executions e ON e.id = t.execution_id`
	page, err := query.Fetch(ctx, s.pool, `SELECT count(*)`+from+w.String(),
		`SELECT `+taskColumns+from+w.String()+q.OrderBy(taskFields, order)+q.Limit(), w.Args,
		func(row pgx.CollectableRow) (t Task, err error) {
			err = row.Scan(t.into()...)
			return t, err
		})
	return page, database.Fault(err)
}

// Task gets a task of an execution; execution 0 is any. Errors: NotFound.
func (s *Store) Task(ctx context.Context, execution, id int64) (t Task, err error) {
	err = s.pool.QueryRow(ctx, `SELECT `+taskColumns+` FROM tasks t WHERE t.id = $1 AND ($2 = 0 OR t.execution_id = $2)`, id, execution).Scan(t.into()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, taskNotFound(id)
	}
	return t, database.Fault(err)
}

// Log gives what a task has written, over all its runs. Errors: NotFound if
// there is no such task.
func (s *Store) Log(ctx context.Context, task int64) (string, error) {
	rows, err := s.pool.Query(ctx, `SELECT lines FROM task_logs WHERE task_id = $1 ORDER BY id`, task)
	if err != nil {
		return "", database.Fault(err)
	}
	chunks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", database.Fault(err)
	}
	if len(chunks) == 0 {
		_, err = s.Task(ctx, 0, task)
	}
	return strings.Join(chunks, ""), err
}

// LogOf gives the logs of an execution's tasks, one after the other, up to a
// hundred of them.
func (s *Store) LogOf(ctx context.Context, execution int64) (string, error) {
	rows, err := s.pool.Query(ctx, `SELECT l.lines FROM task_logs l JOIN (SELECT id FROM tasks WHERE execution_id = $1 ORDER BY id LIMIT 100) AS t
		ON t.id = l.task_id ORDER BY l.task_id, l.id`, execution)
	if err != nil {
		return "", database.Fault(err)
	}
	chunks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(chunks, ""), database.Fault(err)
}
