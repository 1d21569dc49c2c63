package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/services/artifact"
	"berth/services/reference"
)

// errSession marks the faults of upload sessions.
var errSession = errors.New("upload session")

// code gives the OCI Distribution Specification's error code ("Error Codes").
func code(f *fault.Error) string {
	var missing *artifact.MissingError
	switch {
	case errors.As(f, &missing):
		return "MANIFEST_BLOB_UNKNOWN"
	case errors.Is(f, artifact.ErrBlobUnknown):
		return "BLOB_UNKNOWN"
	case errors.Is(f, artifact.ErrManifestUnknown):
		return "MANIFEST_UNKNOWN"
	case errors.Is(f, artifact.ErrNameUnknown):
		return "NAME_UNKNOWN"
	case errors.Is(f, errSession):
		if f.Kind == fault.NotFound {
			return "BLOB_UPLOAD_UNKNOWN"
		}
		return "BLOB_UPLOAD_INVALID"
	}
	switch f.Field {
	case "name":
		return "NAME_INVALID"
	case "digest":
		return "DIGEST_INVALID"
	case "manifest", "reference":
		if f.Kind == fault.Invalid {
			return "MANIFEST_INVALID"
		}
	case "n":
		return "PAGINATION_NUMBER_INVALID" // the Docker registry's
	}
	return kindCode[f.Kind]
}

var kindCode = map[fault.Kind]string{
	fault.Internal: "UNKNOWN", fault.Invalid: "UNSUPPORTED", fault.Unauthenticated: "UNAUTHORIZED", fault.Forbidden: "DENIED",
	fault.NotFound: "NOT_FOUND", fault.Conflict: "DENIED", fault.Precondition: "DENIED", fault.TooLarge: "SIZE_INVALID",
	fault.TooMany: "TOOMANYREQUESTS", fault.Unavailable: "UNAVAILABLE", fault.NoSpace: "INSUFFICIENT_STORAGE", fault.Unsupported: "UNSUPPORTED",
}

var kindStatus = map[fault.Kind]int{
	fault.Internal: http.StatusInternalServerError, fault.Invalid: http.StatusBadRequest, fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden: http.StatusForbidden, fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict,
	fault.Precondition: http.StatusPreconditionFailed, fault.TooLarge: http.StatusRequestEntityTooLarge, fault.TooMany: http.StatusTooManyRequests,
	fault.Unavailable: http.StatusServiceUnavailable, fault.NoSpace: http.StatusInsufficientStorage, fault.Unsupported: http.StatusBadRequest,
}

type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// fail answers with an error in the form of the OCI specification, and logs
// what a client is not told. It is the registry's only way to fail.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.Of(err)
	if r.Context().Err() != nil && f.Kind == fault.Internal {
		return // the client is gone; nobody reads the answer
	}
	s.tell(r, f, err)
	entry := errorEntry{Code: code(f), Message: f.Text}
	if f.Hint != "" {
		entry.Message += ": " + f.Hint
	}
	if id := r.Header.Get("X-Request-Id"); f.Kind == fault.Internal && id != "" {
		entry.Message += " " + id // docker shows no headers, but it shows this
	}
	if missing, ok := errors.AsType[*artifact.MissingError](err); ok {
		entry.Detail = missing.Digests
	}
	status := kindStatus[f.Kind]
	switch {
	case entry.Code == "MANIFEST_BLOB_UNKNOWN":
		status = http.StatusBadRequest // what clients know from the CNCF registry
	case f == methodFault || errors.Is(err, artifact.ErrInUse):
		status = http.StatusMethodNotAllowed // the only refusal that the specification has for a deletion
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	if f.Kind == fault.Unavailable || f.Kind == fault.TooMany {
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "2")
		}
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // people read these on a terminal
	_ = enc.Encode(errorBody{[]errorEntry{entry}})
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body.Bytes())
	}
}

// tell logs why a request was refused or has failed. What belongs to every push
// is left out: the first request without a token, and the question whether a
// blob is there already.
func (s *Server) tell(r *http.Request, f *fault.Error, err error) {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case f.Kind == fault.Internal || f.Kind == fault.Unavailable || f.Kind == fault.NoSpace:
		s.Log.ErrorContext(r.Context(), "a request failed", "method", r.Method, "path", reference.Brief(r.URL.Path), "err", err)
	case f.Kind == fault.NotFound && reading, f.Kind == fault.Unauthenticated && r.Header.Get("Authorization") == "":
	default:
		s.Log.Log(r.Context(), logger.LevelNotice, "request refused", "method", r.Method, "path", reference.Brief(r.URL.Path), "code", code(f), "reason", f.Text)
	}
}

var jsonType = []string{"application/json; charset=utf-8"}
