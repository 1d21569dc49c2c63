package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/appliance/rest"
	"berth/services/account"
	"berth/services/artifact"
	"berth/services/query"
)

// What handlers return besides plain values, which become JSON with status 200.
type (
	// empty is 200 without a body.
	empty struct{}
	// text is a body that is no JSON, or not said to be.
	text struct{ contentType, body string }
	// created is 201: where the new thing is, and what is said of it.
	created struct {
		location string // "" = no header
		body     any    // nil = no body
	}
	// file is a download.
	file struct {
		name    string
		content []byte
	}
	// page is HTML that loads nothing and runs nothing.
	page struct{ html string }
	// missing is 404 with a list of what was not found in the body.
	missing struct{ body any }
	// rawJSON is JSON that exists as bytes.
	rawJSON []byte
)

// list is a page of T with Harbor's headers X-Total-Count and Link.
type list[T any] struct {
	items []T
	total int
	paging
	after string // where it ends; goes into the link to the next page
}

// paged turns a domain's page into a reply.
func paged[D, T any](p query.Page[D], err error, in paging, wire func(D) T) (list[T], error) {
	if err != nil {
		return list[T]{}, err
	}
	l := list[T]{items: make([]T, len(p.Items)), total: p.Total, paging: in}
	for i, item := range p.Items {
		l.items[i] = wire(item)
	}
	return l, nil
}

func (l list[T]) page() (items any, total int, p paging, after string) {
	return l.items, l.total, l.paging, l.after
}

// pager is any list.
type pager interface {
	page() (items any, total int, p paging, after string)
}

// reply writes what a handler has returned.
func (a *API) reply(w http.ResponseWriter, r *http.Request, v any) {
	h := w.Header()
	switch v := v.(type) {
	case empty:
		w.WriteHeader(http.StatusOK)
	case browser:
		for _, c := range v.cookies {
			http.SetCookie(w, c)
		}
		if v.location != "" {
			http.Redirect(w, r, v.location, http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusOK)
	case stream:
		v.copy(w)
	case text:
		h.Set("Content-Type", v.contentType)
		w.Write([]byte(v.body))
	case page:
		writePage(w, http.StatusOK, v.html)
	case missing:
		a.json(w, r, http.StatusNotFound, v.body)
	case rawJSON:
		h.Set("Content-Type", "application/json; charset=utf-8")
		w.Write(v)
	case file:
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Disposition", "attachment; filename="+v.name)
		w.Write(v.content)
	case created:
		if v.location != "" {
			h.Set("Location", v.location)
		}
		if v.body == nil {
			w.WriteHeader(http.StatusCreated)
			return
		}
		a.json(w, r, http.StatusCreated, v.body)
	case pager:
		items, total, p, after := v.page()
		h.Set("X-Total-Count", strconv.Itoa(total))
		if link := linkHeader(r.URL, p, total, after); link != "" {
			h.Set("Link", link)
		}
		a.json(w, r, http.StatusOK, items)
	default:
		if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && p.IsNil() { // what is not set has no body, in Harbor
			h.Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			return
		}
		a.json(w, r, http.StatusOK, v)
	}
}

func writePage(w http.ResponseWriter, status int, html string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write([]byte(html))
}

// json marshals before it writes the header, so that a failure is still a 500.
func (a *API) json(w http.ResponseWriter, r *http.Request, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		a.refuse(w, r, fmt.Errorf("cannot marshal a reply: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// linkHeader points to the pages before and after, in Harbor's form: relative,
// and not escaped where that is safe.
func linkHeader(u *url.URL, p paging, total int, after string) string {
	size := p.size()
	if size <= 0 {
		return ""
	}
	var links []string
	add := func(page int, rel string) {
		q := u.Query()
		q.Set("page", strconv.Itoa(page))
		q.Set("page_size", strconv.Itoa(size))
		if q.Del("after"); after != "" && rel == "next" {
			q.Set("after", after)
		}
		encoded := q.Encode()
		if plain, err := url.QueryUnescape(encoded); err == nil && !strings.ContainsFunc(plain, unsafeInLink) {
			encoded = plain
		}
		links = append(links, fmt.Sprintf("<%s?%s>; rel=%q", u.EscapedPath(), encoded, rel))
	}
	if p.number() > 1 {
		add(p.number()-1, "prev")
	}
	if p.number()*size < total {
		add(p.number()+1, "next")
	}
	return strings.Join(links, " , ")
}

func unsafeInLink(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"+%#`, r)
}

// codes says how each kind of fault looks on the wire.
var codes = map[fault.Kind]struct {
	status int
	code   string
}{
	fault.Internal:        {http.StatusInternalServerError, "UNKNOWN"},
	fault.Invalid:         {http.StatusBadRequest, "BAD_REQUEST"},
	fault.Unauthenticated: {http.StatusUnauthorized, "UNAUTHORIZED"},
	fault.Forbidden:       {http.StatusForbidden, "FORBIDDEN"},
	fault.NotFound:        {http.StatusNotFound, "NOT_FOUND"},
	fault.Conflict:        {http.StatusConflict, "CONFLICT"},
	fault.Precondition:    {http.StatusPreconditionFailed, "PRECONDITION"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, "REQUEST_ENTITY_TOO_LARGE"},
	fault.TooMany:         {http.StatusTooManyRequests, "TOO_MANY_REQUEST"},
	fault.Unavailable:     {http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE"},
	fault.NoSpace:         {http.StatusInsufficientStorage, "INSUFFICIENT_STORAGE"},
	fault.Unsupported:     {http.StatusBadRequest, "UNSUPPORTED"},
}

// errorBody is Harbor's.
type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// refuse renders an error. It is the one place that does, and that logs it.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if u, ok := errors.AsType[*rest.Unprocessable](err); ok {
		refusal(w, http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY", u.Text)
		return
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		err = fault.New(fault.TooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	f := fault.Of(err)
	c := codes[f.Kind]
	message := f.Text
	if f.Field != "" && !strings.Contains(message, f.Field) {
		message = f.Field + ": " + message
	}
	if f.Kind == fault.Internal {
		message = "internal server error"
	} else if f.Hint != "" {
		message += ": " + f.Hint
	}
	a.tell(r, f, err)
	if wait, ok := errors.AsType[*account.Backoff](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Wait.Seconds()))))
	}
	if errors.Is(err, artifact.ErrQuota) || errors.Is(err, artifact.ErrReadOnly) || errors.Is(err, errReadOnly) {
		c.code = "DENIED" // a rule's refusal; FORBIDDEN is one of rights
	}
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, oidcPath+"/") && strings.Contains(r.Header.Get("Accept"), "text/html") {
		a.refusalPage(w, r, c.status, message)
		return
	}
	refusal(w, c.status, c.code, message)
}

// tell logs why a request has failed or was refused.
func (a *API) tell(r *http.Request, f *fault.Error, err error) {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case f.Kind == fault.Internal && r.Context().Err() != nil: // the client has left
	case f.Kind == fault.Internal, f.Kind == fault.Unavailable, f.Kind == fault.NoSpace:
		a.Log.ErrorContext(r.Context(), "a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	case f.Kind == fault.NotFound && reading:
	default:
		user := ""
		if about := logger.RequestOf(r.Context()); about != nil {
			user = about.User
		}
		a.Log.Log(r.Context(), logger.LevelNotice, "request refused", "method", r.Method, "path", r.URL.Path, "code", codes[f.Kind].code, "reason", f.Text, "field", f.Field, "user", user)
	}
}

func refusal(w http.ResponseWriter, status int, code, message string) {
	body, _ := json.Marshal(errorBody{[]errorEntry{{code, message}}}) // strings always marshal
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// moment is a time as Harbor writes it: UTC, milliseconds; never is year 1.
type moment time.Time

func (m moment) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(m).UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}
