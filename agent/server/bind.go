package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	"berth/appliance/rest"
)

// maxBody is how large a body may be: a certificate with its chain, or a whole
// configuration.
const maxBody = 1 << 20

// bind fills a handler's argument from a request.
func bind(ps []rest.Parameter, r *request, into reflect.Value) error {
	values := r.URL.Query()
	known := map[string]bool{}
	for _, p := range ps {
		var err error
		switch p.In {
		case "path":
			err = p.Set(into, r.PathValue(p.Name))
		case "query":
			known[p.Name] = true
			if values.Get(p.Name) != "" {
				err = p.Set(into, values.Get(p.Name))
			}
		case "body":
			err = readBody(r, p, p.Of(into))
		}
		if err != nil {
			return err
		}
	}
	// A parameter that was misspelt must not mean something else than was meant.
	for name := range values {
		if !known[name] {
			return rest.Unreadable("there is no parameter %q here", name)
		}
	}
	return nil
}

// readBody reads JSON, of which every field must be known, or a text as it is.
func readBody(r *request, p rest.Parameter, field reflect.Value) error {
	body, err := io.ReadAll(http.MaxBytesReader(r.writer, r.Body, maxBody))
	if err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return err
		}
		return rest.Unreadable("cannot read the body")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if !p.Required {
			return nil
		}
		return rest.Unreadable("the body is missing")
	}
	if !utf8.Valid(body) {
		return rest.Unreadable("the body is no UTF-8")
	}
	if p.Name != "" {
		field.SetString(string(body))
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(field.Addr().Interface()); err != nil {
		return rest.Unreadable("cannot read the body as JSON: %s", jsonText(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return rest.Unreadable("there is more than one JSON value in the body")
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
