// Package audit keeps the trail of what has been done, by whom, from where.
//
// The trail is one table, partitioned by month, so that forgetting a month is
// dropping a table. Events get here through the outbox, at least once each, and
// are written once. Lists are paged by key and never count the whole table.
package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
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

// String renders a cursor for a URL.
func (c Cursor) String() string { return fmt.Sprintf("%d-%d", c.Time.UnixMicro(), c.ID) }

// ParseCursor reads what String has written. Errors: Invalid.
func ParseCursor(s string) (*Cursor, error) {
	micros, id, _ := strings.Cut(s, "-")
	at, err := strconv.ParseInt(micros, 10, 64)
	n, bad := strconv.ParseInt(id, 10, 64)
	// What PostgreSQL can compare: the years 1 to 9999.
	if err != nil || bad != nil || at < -62135596800e6 || at > 253402300799e6 {
		return nil, fault.New(fault.Invalid, "after must be what the link to the next page has, not %.60q", s).On("after")
	}
	return &Cursor{time.UnixMicro(at).UTC(), n}, nil
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
// sorts otherwise. With a cursor it gives those after it, newest first, which
// costs the same at any depth. Without one a page that lies deep is found by
// skipping index entries, not rows.
func List(ctx context.Context, pool *pgxpool.Pool, scope Scope, q query.Query, after *Cursor) (query.Page[Entry], error) {
	if q.Size <= 0 {
		q.Size = countUpTo // nobody reads millions of rows at once, and memory should not have to hold them
	}
	before := q.Offset()
	if err := exactUser(ctx, pool, &q); err != nil {
		return query.Page[Entry]{}, err
	}
	var w query.Where
	switch {
	case scope.All:
	case len(scope.Projects) == 1: // in the order of its index
		w.And("project_id = %s", scope.Projects[0])
	default:
		w.And("project_id = ANY(%s)", scope.Projects)
	}
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Entry]{}, err
	}
	batch := &pgx.Batch{}
	page := query.Page[Entry]{Items: []Entry{}}
	batch.Queue(fmt.Sprintf("SELECT count(*) FROM (SELECT FROM audit_events%s LIMIT %d) AS counted", w.String(), countUpTo), slices.Clone(w.Args)...).
		QueryRow(func(row pgx.Row) error { return row.Scan(&page.Total) })
	if after != nil {
		w.And("(op_time, id) < (%s, %s)", after.Time, after.ID)
		q.Page, q.Sort = 1, nil
	}
	order := q.OrderBy(fields, "op_time DESC, id DESC")
	batch.Queue(`SELECT id, op_time, operation, resource_type, resource, username, description, success, coalesce(project_id, 0), request_id, source
		FROM audit_events WHERE (op_time, id) IN (SELECT op_time, id FROM audit_events`+w.String()+order+q.Limit()+`)`+order, w.Args...).
		Query(func(rows pgx.Rows) (err error) {
			page.Items, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
				err = row.Scan(&e.ID, &e.Time, &e.Operation, &e.ResourceType, &e.Resource, &e.Username, &e.Description, &e.Success,
					&e.ProjectID, &e.RequestID, &e.Source)
				return e, err
			})
			return err
		})
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return query.Page[Entry]{}, database.Fault(err)
	}
	if n := len(page.Items); page.Total == countUpTo && n == q.Size {
		page.Total = max(countUpTo, before+2*n)
	} else if page.Total == countUpTo && n > 0 {
		page.Total = before + n
	}
	return page, nil
}

// maxNames is how many names of users exactUser looks at.
const maxNames = 1000

// exactUser turns a search for a part of a user's name into one for the name, if
// there is one such name alone: users are few where entries are many, and the
// index of names gives each once without reading them all.
func exactUser(ctx context.Context, pool *pgxpool.Pool, q *query.Query) error {
	for i, t := range q.Terms {
		if t.Field != "username" || t.Op != query.Contains {
			continue
		}
		rows, err := pool.Query(ctx, `
			WITH RECURSIVE names (name, n) AS (
				(SELECT username, 1 FROM audit_events ORDER BY username LIMIT 1)
				UNION ALL
				SELECT (SELECT e.username FROM audit_events e WHERE e.username > names.name ORDER BY e.username LIMIT 1), n + 1
				FROM names WHERE names.name IS NOT NULL AND n < $1)
			SELECT name FROM names WHERE name IS NOT NULL`, maxNames)
		if err != nil {
			return database.Fault(err)
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return database.Fault(err)
		}
		var found []string
		for _, name := range names {
			if strings.Contains(strings.ToLower(name), strings.ToLower(t.Values[0])) {
				found = append(found, name)
			}
		}
		if len(names) < maxNames && len(found) == 1 {
			q.Terms = slices.Clone(q.Terms)
			q.Terms[i] = query.Term{Field: t.Field, Op: query.Equal, Values: found}
		}
	}
	return nil
}
