// Package fault has the one error type that crosses package borders in Berth.
//
// A fault says what kind of failure it is, in words that may be shown to the
// person who caused it, and what to do next; its cause is for the log alone.
// Each edge (the registry's /v2/, the REST API, a command) renders it in one
// place. Any other error is shown as an internal one, so that leaking a detail
// takes effort.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind classifies a fault by what its receiver can do about it.
type Kind uint8

// The kinds. Their order means nothing.
const (
	Internal        Kind = iota // ours; the request may be fine
	Invalid                     // the request is wrong in itself
	Unauthenticated             // who is asking is not known
	Forbidden                   // who is asking is known and may not
	NotFound                    // no such thing, or none that the caller may see
	Conflict                    // it exists already, or changed meanwhile
	Precondition                // a rule or a state forbids it for now
	TooLarge                    // over a limit
	TooMany                     // come back later
	Unavailable                 // something that we need is down; come back later
	NoSpace                     // storage is full
	Unsupported                 // this server does not do that
)

var kindNames = [...]string{"internal", "invalid", "unauthenticated", "forbidden", "not found", "conflict",
	"precondition", "too large", "too many", "unavailable", "no space", "unsupported"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is a failure that may be shown.
type Error struct {
	Kind  Kind
	Field string // the input at fault, if one is: "--https", "project_name"
	Text  string // what went wrong; may be shown to whoever asked
	Hint  string // what to do next; may be empty
	Err   error  // the cause, for the log only; may be nil
}

// Error renders the whole fault, cause included: it is for logs and terminals
// of the machine's own operator, never for a remote caller.
func (e *Error) Error() string {
	s := e.Text
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes a fault of a kind. The text may be shown to a remote caller.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// Wrap makes a fault with a cause that only the log will see.
func Wrap(k Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...), Err: err}
}

// On names the input at fault.
func (e *Error) On(field string) *Error { e.Field = field; return e }

// WithHint says what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Of gives the fault in err's chain. Anything else becomes an Internal fault
// with a neutral text and err as its cause; nil stays nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	return &Error{Kind: Internal, Text: "internal error", Hint: "the server's log has the cause under this request's id", Err: err}
}

// Is reports whether err's chain has a fault of the kind.
func Is(err error, k Kind) bool {
	f, ok := errors.AsType[*Error](err)
	return ok && f.Kind == k
}

// Sentence makes one, for people, of a fault's text or hint: a capital letter and a
// full stop.
func Sentence(text string) string {
	r, n := utf8.DecodeRuneInString(text)
	if n == 0 {
		return ""
	}
	text = string(unicode.ToUpper(r)) + text[n:]
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "?") {
		text += "."
	}
	return text
}
