package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"berth/agent/api"
	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/rest"
)

// What handlers return besides plain values, which become JSON with status 200.
type (
	// done is 204: there is nothing to say.
	done struct{}
	// text is a body that is no JSON.
	text struct{ contentType, name, body string }
	// created is 201: where the new thing is, and what is said of it.
	created[T any] struct {
		location string
		body     T
	}
	// accepted is 202: it is under way, and its state is at location.
	accepted[T any] struct {
		location string
		body     T
	}
	// file is a download.
	file struct {
		name string
		size int64
		from io.ReadCloser
	}
	// rawJSON is JSON that exists as bytes.
	rawJSON []byte
)

func (c created[T]) answer() (status int, location string, body any) {
	return http.StatusCreated, c.location, c.body
}

func (c accepted[T]) answer() (status int, location string, body any) {
	return http.StatusAccepted, c.location, c.body
}

type answer interface {
	answer() (status int, location string, body any)
}

// downloadTime is how long a download may take.
const downloadTime = 30 * time.Minute

// reply writes what a handler has returned.
func (a *API) reply(w http.ResponseWriter, r *http.Request, v any) {
	h := w.Header()
	switch v := v.(type) {
	case done:
		w.WriteHeader(http.StatusNoContent)
	case text:
		h.Set("Content-Type", v.contentType)
		if v.name != "" {
			h.Set("Content-Disposition", "attachment; filename="+v.name)
		}
		_, _ = io.WriteString(w, v.body)
	case rawJSON:
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(v)
	case file:
		defer v.from.Close()
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTime)) // not for every kind of writer
		h.Set("Content-Type", "application/gzip")
		h.Set("Content-Disposition", "attachment; filename="+v.name)
		h.Set("Content-Length", strconv.FormatInt(v.size, 10))
		_, _ = io.CopyN(w, v.from, v.size) // a client that leaves is no fault
	case answer:
		status, location, body := v.answer()
		if location != "" {
			h.Set("Location", location)
		}
		a.json(w, r, status, body)
	default:
		a.json(w, r, http.StatusOK, v)
	}
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
	_, _ = w.Write(append(body, '\n'))
}

// statuses says how each kind of fault looks on the wire.
var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Conflict:        http.StatusConflict,
	fault.Precondition:    http.StatusPreconditionFailed,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.TooMany:         http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
	fault.NoSpace:         http.StatusInsufficientStorage,
	fault.Unsupported:     http.StatusBadRequest,
}

// refuse renders an error, or several that were joined. It is the one place that
// does, and that logs it.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if u, ok := errors.AsType[*rest.Unprocessable](err); ok {
		writeErrors(w, http.StatusUnprocessableEntity, api.Fault{Kind: fault.Invalid.String(), Text: u.Text})
		return
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		err = fault.New(fault.TooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if wait, ok := errors.AsType[*session.Wait](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.For.Seconds()))))
	}
	first := fault.Of(err)
	if first.Kind == fault.Unauthenticated {
		// A page asks for the password itself; a browser's own box would stay for ever.
		if r.Header.Get("Sec-Fetch-Mode") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="Berth console", charset="UTF-8"`)
		}
	}
	a.tell(r, first, err)
	writeErrors(w, statuses[first.Kind], Faults(err)...)
}

// Faults gives every fault of an error, which may be several joined, as it may be
// shown.
func Faults(err error) []api.Fault {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []api.Fault
		for _, e := range joined.Unwrap() {
			all = append(all, Faults(e)...)
		}
		return all
	}
	f := fault.Of(err)
	return []api.Fault{{Kind: f.Kind.String(), Field: f.Field, Text: f.Text, Hint: f.Hint}}
}

// tell logs why a request has failed or was refused.
func (a *API) tell(r *http.Request, f *fault.Error, err error) {
	switch {
	case f.Kind == fault.Internal && r.Context().Err() != nil: // the client has left
	case f.Kind == fault.Internal, f.Kind == fault.Unavailable, f.Kind == fault.NoSpace:
		a.o.Log.Log(r.Context(), slog.LevelError, "a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	case f.Kind == fault.NotFound, f.Kind == fault.Unauthenticated:
	default:
		a.o.Log.Log(r.Context(), slog.LevelInfo, "a request was refused", "method", r.Method, "path", r.URL.Path, "reason", f.Text, "field", f.Field)
	}
}

func writeErrors(w http.ResponseWriter, status int, list ...api.Fault) {
	body, _ := json.Marshal(api.Errors{Errors: list}) // strings always marshal
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
