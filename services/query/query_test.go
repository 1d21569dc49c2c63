package query_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/services/query"
)

func TestParse(t *testing.T) {
	for q, want := range map[string][]query.Term{
		"":                               nil,
		"name=library":                   {{"name", query.Equal, []string{"library"}}},
		"name=~lib":                      {{"name", query.Contains, []string{"lib"}}},
		"ProjectID=4,a=b=c":              {{"projectid", query.Equal, []string{"4"}}, {"a", query.Equal, []string{"b=c"}}},
		"n=[1~2]":                        {{"n", query.Between, []string{"1", "2"}}},
		"n=[~2]":                         {{"n", query.Between, []string{"", "2"}}},
		`n={1 "x" 'y'}`:                  {{"n", query.AnyOf, []string{"1", "x", "y"}}},
		"labels=(1 2)":                   {{"labels", query.AllOf, []string{"1", "2"}}},
		`name=\~x`:                       {{"name", query.Equal, []string{"~x"}}},
		"name%3D%257E":                   {{"name", query.Equal, []string{"%7E"}}},
		"op_time=[2026-01-02T03:04:05~]": {{"optime", query.Between, []string{"2026-01-02T03:04:05", ""}}},
	} {
		got, err := query.Parse(q)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, %v; want %v", q, got, err, want)
		}
	}
	for _, q := range []string{"bad", "=x", "x=", "a=1,", "%zz", "n=[1~2", "n=[12]", "n={1", "n=(1", "n=" + strings.Repeat("x", 9000), "n=\xff", "n=%00"} {
		if got, err := query.Parse(q); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, %v; want an invalid fault", q, got, err)
		}
	}
}

var columns = query.Columns{
	"name":   {SQL: "p.name"},
	"id":     {SQL: "p.id", Type: query.Number},
	"public": {SQL: "p.public", Type: query.Bool},
	"time":   {SQL: "p.at", Type: query.Moment},
}

func TestSQL(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for q, want := range map[string]struct {
		sql  string
		args []any
	}{
		"nosuch=1":                      {"", nil},
		"name=x,id=5":                   {" WHERE p.name = $1 AND p.id = $2", []any{"x", int64(5)}},
		"name=~50%25%5F":                {" WHERE (p.name)::text ILIKE $1", []any{`%50\%\_%`}},
		"id=[3~],public=true":           {" WHERE p.id >= $1 AND p.public = $2", []any{int64(3), true}},
		"time=[~2026-01-02T03:04:05]":   {" WHERE p.at <= $1", []any{at}},
		"id={1 2}":                      {" WHERE p.id IN ($1, $2)", []any{int64(1), int64(2)}},
		"id={}":                         {" WHERE false", nil},
		"name=(a b)":                    {" WHERE p.name = $1 AND p.name = $2", []any{"a", "b"}},
		"name='; DROP TABLE users; --'": {" WHERE p.name = $1", []any{"'; DROP TABLE users; --'"}},
	} {
		terms, err := query.Parse(q)
		if err != nil {
			t.Errorf("%q: %v", q, err)
			continue
		}
		var w query.Where
		if err := w.Terms(terms, columns); err != nil {
			t.Errorf("%q: %v", q, err)
		}
		if w.String() != want.sql || !reflect.DeepEqual(w.Args, want.args) {
			t.Errorf("%q: got %q %v, want %q %v", q, w.String(), w.Args, want.sql, want.args)
		}
	}
	for _, q := range []string{"id=x", "public=maybe", "time=yesterday", "id=[a~]"} {
		terms, _ := query.Parse(q)
		var w query.Where
		if err := w.Terms(terms, columns); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want an invalid fault", q, err)
		}
	}
}

func TestOrderAndLimit(t *testing.T) {
	q := query.Query{Sort: query.ParseSort("-name, nosuch,ID"), Page: 3, Size: 10}
	if got, want := q.OrderBy(columns, "p.id")+q.Limit(), " ORDER BY p.name DESC, p.id, p.id LIMIT 10 OFFSET 20"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (query.Query{Page: 3, Size: -1}).Limit(); got != "" {
		t.Errorf("all rows: %q", got)
	}
}

func TestTake(t *testing.T) {
	q := query.Query{}
	q.Terms, _ = query.Parse("tags=*,name=x,Tags=~v")
	if taken := q.Take("tags"); len(taken) != 2 || len(q.Terms) != 1 {
		t.Errorf("took %v, kept %v", taken, q.Terms)
	}
}

// Whatever a stranger sends, the SQL has only placeholders, and one for each argument.
func FuzzParse(f *testing.F) {
	for _, q := range []string{"name=library", "name=~l", "id=[1~2]", "id={1 2}", `name=\~`, "name='x'", "a,b", "%", "name=\x00", "name=~"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		terms, err := query.Parse(q)
		if err != nil {
			return
		}
		var w query.Where
		if w.Terms(terms, columns) != nil {
			return
		}
		sql := w.String()
		if strings.Count(sql, "$") != len(w.Args) {
			t.Errorf("%q: %q has %d arguments", q, sql, len(w.Args))
		}
		if rest := strings.NewReplacer("p.name", "", "p.id", "", "p.public", "", "p.at", "").Replace(sql); strings.ContainsAny(rest, `'";-\`) {
			t.Errorf("%q became SQL: %q", q, sql)
		}
	})
}
