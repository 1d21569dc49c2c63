// Package audit keeps the trail of what has been done, by whom, from where.
//
// The trail is one table, partitioned by month, so that forgetting a month is
// dropping a table. Events get here through the outbox, at least once each, and
// are written once. Lists are paged by key and never count the whole table.
package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
)

// Entry is one line of the trail.
type Entry struct {
	ID           int64
	Time         time.Time
	Operation    string
	ResourceType string
	Resource     string
	Username     string
	Description  string
	Success      bool
	ProjectID    int64
	RequestID    string
	Source       string
}

// Execer is a pool or a transaction.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

const record = `
	INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username, description, success,
		project_id, request_id, source)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (op_time, event_id) DO NOTHING`

func values(e event.Event) []any {
	var project *int64
	if e.ProjectID != 0 {
		project = &e.ProjectID
	}
	return []any{e.Time, e.ID, e.Operation, e.ResourceType, e.Resource, e.User, e.Description, e.Success, project, e.RequestID, e.Source}
}

// Record writes an event into the trail, once however often it is called.
func Record(ctx context.Context, db Execer, e event.Event) error {
	_, err := db.Exec(ctx, record, values(e)...)
	return database.Fault(err)
}

// Scope is which entries a caller may see. The zero Scope has none.
type Scope struct {
	All      bool
	Projects []int64 // entries of these alone
}

// Cursor is where a page ended: its last entry.
type Cursor struct {
	Time time.Time
	ID   int64
}

var fields = query.Columns{
	"id": {SQL: "id", Type: query.Number}, "optime": {SQL: "op_time", Type: query.Moment}, "operation": {SQL: "operation"},
	"resourcetype": {SQL: "resource_type"}, "resource": {SQL: "resource"}, "username": {SQL: "username"},
	"operationresult": {SQL: "success", Type: query.Bool}, "operationdescription": {SQL: "description"},
	"projectid": {SQL: "project_id", Type: query.Number}, "source": {SQL: "source"}, "requestid": {SQL: "request_id"},
}

// countUpTo bounds what a list counts. A longer list is said to be as long as
// that, or as what has been paged through so far and one page more.
const countUpTo = 10_000

// List gives a page of the entries in scope, newest first unless the query
// sorts otherwise. With a cursor it gives those after it, which costs the same
// at any depth; the query's page number does not count then.
func List(ctx context.Context, pool *pgxpool.Pool, scope Scope, q query.Query, after *Cursor) (query.Page[Entry], error) {
	var w query.Where
	if !scope.All {
		w.And("project_id = ANY(%s)", scope.Projects)
	}
	if after != nil {
		w.And("(op_time, id) < (%s, %s)", after.Time, after.ID)
		q.Page, q.Sort = 1, nil
	}
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Entry]{}, err
	}
	if q.Size <= 0 {
		q.Size = countUpTo // nobody reads millions of rows at once, and memory should not have to hold them
	}
	limit := max(countUpTo, q.Offset()+2*q.Size)
	page, err := query.Fetch(ctx, pool,
		fmt.Sprintf("SELECT count(*) FROM (SELECT FROM audit_events%s LIMIT %d) AS counted", w.String(), limit),
		`SELECT id, op_time, operation, resource_type, resource, username, description, success, coalesce(project_id, 0),
			request_id, source FROM audit_events`+w.String()+q.OrderBy(fields, "op_time DESC, id DESC")+q.Limit(), w.Args,
		func(row pgx.CollectableRow) (e Entry, err error) {
			err = row.Scan(&e.ID, &e.Time, &e.Operation, &e.ResourceType, &e.Resource, &e.Username, &e.Description, &e.Success,
				&e.ProjectID, &e.RequestID, &e.Source)
			return e, err
		})
	return page, database.Fault(err)
}
