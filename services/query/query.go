// Package query reads what a list request asks for (Harbor's q, sort, page and
// page_size parameters) and renders it as SQL over the columns that the list's
// domain has named. A field that no column is named for is ignored, as Harbor
// does, so nothing that a stranger sends ever becomes SQL text.
package query

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"berth/appliance/fault"
)

// Op is how a term compares.
type Op uint8

// The comparisons of the q grammar.
const (
	Equal    Op = iota // k=v
	Contains           // k=~v, without regard to case
	Between            // k=[min~max]; either end may be empty
	AnyOf              // k={a b}
	AllOf              // k=(a b)
)

// Term is one condition.
type Term struct {
	Field  string // folded (see Fold)
	Op     Op
	Values []string // Between has two
}

// Order is one key of a sort.
type Order struct {
	Field      string // folded
	Descending bool
}

// Query is what a list request asks for. The zero Query asks for everything.
type Query struct {
	Terms []Term
	Sort  []Order
	Page  int // from 1
	Size  int // rows of a page; 0 or less: all rows
}

// maxQuery is how long a q parameter may be: the number of its terms is the
// number of a statement's arguments.
const maxQuery = 8 << 10

// Parse reads the q parameter: terms joined by commas. The parameter is
// escaped twice by Harbor's clients; the HTTP layer has undone the first.
func Parse(q string) ([]Term, error) {
	if q == "" {
		return nil, nil
	}
	if len(q) > maxQuery {
		return nil, fault.New(fault.Invalid, "the query string is longer than %d bytes", maxQuery).On("q")
	}
	plain, err := url.QueryUnescape(q)
	if err != nil || !utf8.ValidString(plain) || strings.ContainsRune(plain, 0) { // PostgreSQL's text holds neither
		return nil, fault.New(fault.Invalid, "the query string is not URL-encoded text").On("q")
	}
	var terms []Term
	for part := range strings.SplitSeq(plain, ",") {
		field, value, _ := strings.Cut(part, "=")
		field, value = strings.TrimSpace(field), strings.TrimSpace(value)
		if field == "" || value == "" {
			return nil, fault.New(fault.Invalid, `the query string must contain "=" and the key/value cannot be empty`).On("q")
		}
		t, err := parseTerm(Fold(field), value)
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
	}
	return terms, nil
}

func parseTerm(field, value string) (Term, error) {
	inner := func(closing string) (string, error) {
		s, ok := strings.CutSuffix(value[1:], closing)
		if !ok {
			return "", fault.New(fault.Invalid, "the value %q of %s does not end with %q", value, field, closing).On("q")
		}
		return s, nil
	}
	switch value[0] {
	case '~':
		return Term{field, Contains, []string{unquote(value[1:])}}, nil
	case '[':
		s, err := inner("]")
		if err != nil {
			return Term{}, err
		}
		low, high, ok := strings.Cut(s, "~")
		if !ok {
			return Term{}, fault.New(fault.Invalid, "the range %q of %s has no ~", value, field).On("q")
		}
		return Term{field, Between, []string{unquote(low), unquote(high)}}, nil
	case '{':
		s, err := inner("}")
		return Term{field, AnyOf, list(s)}, err
	case '(':
		s, err := inner(")")
		return Term{field, AllOf, list(s)}, err
	case '\\':
		return Term{field, Equal, []string{value[1:]}}, nil
	}
	return Term{field, Equal, []string{value}}, nil
}

func list(s string) []string {
	values := strings.Fields(s)
	for i := range values {
		values[i] = unquote(values[i])
	}
	return values
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// ParseSort reads the sort parameter: fields joined by commas, a leading "-"
// for descending.
func ParseSort(s string) []Order {
	var keys []Order
	for part := range strings.SplitSeq(s, ",") {
		field, descending := strings.CutPrefix(strings.TrimSpace(part), "-")
		if field != "" {
			keys = append(keys, Order{Fold(field), descending})
		}
	}
	return keys
}

// Fold makes the spellings that Harbor's clients use of one field the same:
// ProjectID, projectId and project_id all become projectid.
func Fold(field string) string {
	return strings.ToLower(strings.ReplaceAll(field, "_", ""))
}

// Take removes the terms of a field and returns them: for a field that is no
// column, such as an artifact's tags.
func (q *Query) Take(field string) []Term {
	var taken, kept []Term
	for _, t := range q.Terms {
		if t.Field == Fold(field) {
			taken = append(taken, t)
		} else {
			kept = append(kept, t)
		}
	}
	q.Terms = kept
	return taken
}

// Offset is how many rows precede the page.
func (q Query) Offset() int {
	if q.Size <= 0 || q.Page <= 1 {
		return 0
	}
	return (q.Page - 1) * q.Size
}
