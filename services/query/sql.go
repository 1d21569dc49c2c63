package query

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
)

// Type is how the values of a column are written in a q parameter.
type Type uint8

// The types.
const (
	Text Type = iota
	Number
	Moment
	Bool
)

// Column is what one field of a list means in SQL.
type Column struct {
	SQL  string // an expression of the statement's FROM
	Type Type
}

// Columns names the fields that a list can be filtered and sorted by, folded.
type Columns map[string]Column

// Where gathers the conditions and arguments of a statement.
type Where struct {
	conditions []string
	Args       []any
}

// Arg adds an argument and gives its placeholder.
func (w *Where) Arg(v any) string {
	w.Args = append(w.Args, v)
	return "$" + strconv.Itoa(len(w.Args))
}

// And adds a condition. Each %s in it stands for the placeholder of an argument.
func (w *Where) And(condition string, args ...any) {
	places := make([]any, len(args))
	for i, a := range args {
		places[i] = w.Arg(a)
	}
	w.conditions = append(w.conditions, fmt.Sprintf(condition, places...))
}

// Never makes the statement find nothing.
func (w *Where) Never() { w.conditions = append(w.conditions, "false") }

// String gives the WHERE clause, or "" without conditions.
func (w *Where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// Terms adds the terms whose fields are among the columns.
func (w *Where) Terms(terms []Term, columns Columns) error {
	for _, t := range terms {
		c, ok := columns[t.Field]
		if !ok {
			continue
		}
		if err := w.term(t, c); err != nil {
			return err
		}
	}
	return nil
}

func (w *Where) term(t Term, c Column) error {
	if t.Op == Contains {
		w.And("("+c.SQL+")::text ILIKE %s", "%"+escapeLike.Replace(t.Values[0])+"%")
		return nil
	}
	values := make([]any, len(t.Values))
	for i, text := range t.Values {
		if t.Op == Between && text == "" {
			continue
		}
		v, err := c.Type.parse(text)
		if err != nil {
			return fault.New(fault.Invalid, "the value %q of %s is not %s", text, t.Field, c.Type).On("q")
		}
		values[i] = v
	}
	switch t.Op {
	case Equal:
		w.And(c.SQL+" = %s", values[0])
	case Between:
		if values[0] != nil {
			w.And(c.SQL+" >= %s", values[0])
		}
		if values[1] != nil {
			w.And(c.SQL+" <= %s", values[1])
		}
	case AnyOf:
		places := make([]string, len(values))
		for i, v := range values {
			places[i] = w.Arg(v)
		}
		if len(places) == 0 {
			w.Never()
		} else {
			w.conditions = append(w.conditions, c.SQL+" IN ("+strings.Join(places, ", ")+")")
		}
	case AllOf:
		for _, v := range values {
			w.And(c.SQL+" = %s", v)
		}
	}
	return nil
}

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (t Type) parse(s string) (any, error) {
	switch t {
	case Number:
		return strconv.ParseInt(s, 10, 64)
	case Bool:
		return strconv.ParseBool(s)
	case Moment:
		for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", time.RFC3339, time.DateOnly} {
			if at, err := time.Parse(layout, s); err == nil {
				return at, nil
			}
		}
		return nil, fmt.Errorf("no time")
	}
	return s, nil
}

func (t Type) String() string {
	return [...]string{"text", "a number", "a time such as 2006-01-02T15:04:05", "true or false"}[t]
}

// OrderBy gives the ORDER BY clause: the sort keys that are columns, then
// fallback, which must make the order total.
func (q Query) OrderBy(columns Columns, fallback string) string {
	var keys []string
	for _, k := range q.Sort {
		c, ok := columns[k.Field]
		if !ok {
			continue
		}
		if k.Descending {
			keys = append(keys, c.SQL+" DESC")
		} else {
			keys = append(keys, c.SQL)
		}
	}
	return " ORDER BY " + strings.Join(append(keys, fallback), ", ")
}

// Limit gives the LIMIT and OFFSET clauses of the page.
func (q Query) Limit() string {
	if q.Size <= 0 {
		return ""
	}
	return fmt.Sprintf(" LIMIT %d OFFSET %d", q.Size, q.Offset())
}

// Page is one page of a list, and how long the whole list is.
type Page[T any] struct {
	Items []T
	Total int
}

// Batcher sends statements together: a pool, a connection or a transaction.
type Batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Fetch runs a page's two statements, count and rows, in one round trip. Both
// take the same arguments.
func Fetch[T any](ctx context.Context, db Batcher, count, rows string, args []any, scan pgx.RowToFunc[T]) (Page[T], error) {
	var b pgx.Batch
	p := Page[T]{Items: []T{}}
	b.Queue(count, args...).QueryRow(func(row pgx.Row) error { return row.Scan(&p.Total) })
	b.Queue(rows, args...).Query(func(r pgx.Rows) (err error) {
		p.Items, err = pgx.CollectRows(r, scan)
		return err
	})
	if err := db.SendBatch(ctx, &b).Close(); err != nil {
		return Page[T]{}, err
	}
	return p, nil
}
