package core

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"berth/services/query"
)

// maxBody is how large a JSON body may be.
const maxBody = 1 << 20

// A handler's argument is a struct whose fields say where they come from:
//
//	Name string  `path:"repository_name"`
//	Owner string `query:"owner" doc:"only this user's"`
//	Body  newUser `body:""`
//
// parameter is one of them.
type parameter struct {
	index    []int
	in, name string // in: path, query or body
	doc      string
	required bool
	kind     reflect.Type
}

func parametersOf(t reflect.Type) (ps []parameter) {
	for _, f := range reflect.VisibleFields(t) {
		for _, in := range []string{"path", "query", "body"} {
			if name, ok := f.Tag.Lookup(in); ok {
				name, option, _ := strings.Cut(name, ",")
				ps = append(ps, parameter{f.Index, in, name, f.Tag.Get("doc"), in == "path" || in == "body" && option != "optional" || option == "required", f.Type})
			}
		}
	}
	return ps
}

// bind fills a handler's argument from a request.
func bind(ps []parameter, r *http.Request, into reflect.Value) error {
	var values url.Values
	for _, p := range ps {
		field := into.FieldByIndex(p.index)
		var err error
		switch p.in {
		case "path":
			err = setText(field, p, unescape(r.PathValue(p.name)))
		case "query":
			if values == nil {
				values = r.URL.Query()
			}
			if values.Has(p.name) && values.Get(p.name) != "" {
				err = setText(field, p, values.Get(p.name))
			} else if p.required {
				err = unreadable("%s in query is required", p.name)
			}
		case "body":
			err = readBody(r, p.required, field.Addr().Interface())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unescape undoes the second escaping of repository names in paths, which the
// mux has left. Whatever is not escaped stays as it is.
func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// isText reports whether PostgreSQL's text can hold s.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func setText(field reflect.Value, p parameter, s string) error {
	if !isText(s) {
		return unreadable("%s in %s must be text", p.name, p.in)
	}
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return unreadable("%s in %s must be true or false: %q", p.name, p.in, s)
		}
		field.SetBool(b)
	default:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || field.OverflowInt(n) {
			return unreadable("%s in %s must be a number: %q", p.name, p.in, s)
		}
		field.SetInt(n)
	}
	return nil
}

// readBody decodes a JSON body. Fields that we do not know are ignored, as
// Harbor does: clients send back what they were given.
func readBody(r *http.Request, required bool, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if !required {
			return nil
		}
		return unreadable("the body is required")
	}
	if bytes.Contains(body, []byte(`\u0000`)) { // PostgreSQL's text cannot hold it
		return unreadable("the body has a NUL character")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return unreadable("cannot read the body as JSON: %v", err)
	}
	return nil
}

// paging is the parameters of every list.
type paging struct {
	Q        string `query:"q" doc:"conditions, joined by commas: k=v, k=~v, k=[min~max], k={a b}, k=(a b)"`
	Sort     string `query:"sort" doc:"fields, joined by commas; - before one sorts it downwards"`
	Page     *int64 `query:"page" doc:"from 1"`
	PageSize *int64 `query:"page_size" doc:"10 if absent, at most 100; 0 is everything"`
}

// maxPageSize is the longest page, maxPage the last one that can be asked for.
const (
	defaultPageSize = 10
	maxPageSize     = 100
	maxPage         = 1 << 40 / maxPageSize
)

func (p paging) number() int {
	if p.Page == nil || *p.Page < 1 {
		return 1
	}
	return int(min(*p.Page, maxPage))
}

func (p paging) size() int {
	if p.PageSize == nil {
		return defaultPageSize
	}
	return int(max(*p.PageSize, 0))
}

// query gives what the list asks for.
func (p paging) query() (q query.Query, err error) {
	if p.size() > maxPageSize {
		return q, unreadable("page_size in query should be less than or equal to %d", maxPageSize)
	}
	terms, err := query.Parse(p.Q)
	return query.Query{Terms: terms, Sort: query.ParseSort(p.Sort), Page: p.number(), Size: p.size()}, err
}
