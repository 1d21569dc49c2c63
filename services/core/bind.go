package core

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"

	"berth/appliance/rest"
	"berth/services/query"
)

// maxBody is how large a JSON body may be.
const maxBody = 1 << 20

// bind fills a handler's argument from a request.
func bind(ps []rest.Parameter, r *http.Request, into reflect.Value) error {
	var values url.Values
	for _, p := range ps {
		var err error
		switch p.In {
		case "path":
			err = p.Set(into, unescape(r.PathValue(p.Name)))
		case "query":
			if values == nil {
				values = r.URL.Query()
			}
			if values.Get(p.Name) != "" {
				err = p.Set(into, values.Get(p.Name))
			} else if p.Required {
				err = rest.Unreadable("%s in query is required", p.Name)
			}
		case "body":
			err = readBody(r, p.Required, p.Of(into).Addr().Interface())
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
		return rest.Unreadable("the body is required")
	}
	if bytes.Contains(body, []byte(`\u0000`)) { // PostgreSQL's text cannot hold it
		return rest.Unreadable("the body has a NUL character")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return rest.Unreadable("cannot read the body as JSON: %v", err)
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
		return q, rest.Unreadable("page_size in query should be less than or equal to %d", maxPageSize)
	}
	terms, err := query.Parse(p.Q)
	return query.Query{Terms: terms, Sort: query.ParseSort(p.Sort), Page: p.number(), Size: p.size()}, err
}
