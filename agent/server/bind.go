package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxBody is how large a body may be: a certificate with its chain, or a whole
// configuration.
const maxBody = 1 << 20

// A handler's argument is a struct whose fields say where they come from:
//
//	Name string      `path:"name"`
//	Lines int        `query:"lines" doc:"the newest"`
//	Body  api.Power  `body:""`
//	Text  string     `body:"text"`  // as it is, whatever its media type
//
// parameter is one of them.
type parameter struct {
	index    []int
	in, name string // in: path, query or body
	doc      string
	optional bool // of a body
	kind     reflect.Type
}

func parametersOf(t reflect.Type) (ps []parameter) {
	for _, f := range reflect.VisibleFields(t) {
		for _, in := range []string{"path", "query", "body"} {
			if name, ok := f.Tag.Lookup(in); ok {
				name, option, _ := strings.Cut(name, ",")
				ps = append(ps, parameter{f.Index, in, name, f.Tag.Get("doc"), option == "optional", f.Type})
			}
		}
	}
	return ps
}

// unprocessable is a request that cannot be read.
type unprocessable struct{ text string }

func (u *unprocessable) Error() string { return u.text }

func unreadable(format string, args ...any) error {
	return &unprocessable{fmt.Sprintf(format, args...)}
}

// bind fills a handler's argument from a request.
func bind(ps []parameter, r *request, into reflect.Value) error {
	values := r.URL.Query()
	known := map[string]bool{}
	for _, p := range ps {
		field := into.FieldByIndex(p.index)
		var err error
		switch p.in {
		case "path":
			err = setText(field, p, r.PathValue(p.name))
		case "query":
			known[p.name] = true
			if values.Get(p.name) != "" {
				err = setText(field, p, values.Get(p.name))
			}
		case "body":
			err = readBody(r, p, field)
		}
		if err != nil {
			return err
		}
	}
	// A parameter that was misspelt must not mean something else than was meant.
	for name := range values {
		if !known[name] {
			return unreadable("there is no parameter %q here", name)
		}
	}
	return nil
}

func setText(field reflect.Value, p parameter, s string) error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return unreadable("%s in %s must be text", p.name, p.in)
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return unreadable("%s in %s must be true or false, not %q", p.name, p.in, s)
		}
		field.SetBool(b)
	default:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || field.OverflowInt(n) {
			return unreadable("%s in %s must be a number, not %q", p.name, p.in, s)
		}
		field.SetInt(n)
	}
	return nil
}

// readBody reads JSON, of which every field must be known, or a text as it is.
func readBody(r *request, p parameter, field reflect.Value) error {
	body, err := io.ReadAll(http.MaxBytesReader(r.writer, r.Body, maxBody))
	if err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return err
		}
		return unreadable("cannot read the body")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if p.optional {
			return nil
		}
		return unreadable("the body is missing")
	}
	if !utf8.Valid(body) {
		return unreadable("the body is no UTF-8")
	}
	if p.name == "text" {
		field.SetString(string(body))
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(field.Addr().Interface()); err != nil {
		return unreadable("cannot read the body as JSON: %s", jsonText(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return unreadable("there is more than one JSON value in the body")
	}
	return nil
}

// jsonText says what is wrong with a body. It never repeats what was sent: that
// may be a secret.
func jsonText(err error) string {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s must be a %s, not a %s", t.Field, t.Type, t.Value)
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("it is no JSON at byte %d", s.Offset)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return "there is no field " + name
	}
	return "it does not fit"
}
