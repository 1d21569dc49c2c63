// Package rest is what Berth's two REST APIs share, the registry's and the agent's: a
// handler's argument is a struct whose fields say where in a request they come from,
//
//	Name  string    `path:"name"`
//	Lines int       `query:"lines" doc:"the newest"`
//	Owner string    `query:"owner,required"`
//	Body  api.Power `body:""`
//	More  *options  `body:",optional"`
//	Text  string    `body:"application/yaml"` // the media type, if it is not JSON
//
// and from the same structs, with the types of results, the OpenAPI documents are
// made. How a body is read, who may call what and how an answer looks is each API's
// own.
package rest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parameter is a field of a handler's argument.
type Parameter struct {
	In       string // path, query or body
	Name     string // in path and query; of a body the media type, "" for JSON
	Required bool
	Type     reflect.Type

	doc   string
	index []int
}

// Parameters are those of an argument's type, in the order of its fields.
func Parameters(t reflect.Type) (ps []Parameter) {
	for _, f := range reflect.VisibleFields(t) {
		for _, in := range []string{"path", "query", "body"} {
			if tag, ok := f.Tag.Lookup(in); ok {
				name, option, _ := strings.Cut(tag, ",")
				required := in == "path" || in == "body" && option != "optional" || option == "required"
				ps = append(ps, Parameter{in, name, required, f.Type, f.Tag.Get("doc"), f.Index})
			}
		}
	}
	return ps
}

// Of is the parameter's field of an argument.
func (p Parameter) Of(argument reflect.Value) reflect.Value { return argument.FieldByIndex(p.index) }

// Set fills the parameter's field from a text in path or query: a string, a bool, an
// integer, or a pointer to one. Errors: *Unprocessable.
func (p Parameter) Set(argument reflect.Value, s string) error {
	if !IsText(s) {
		return Unreadable("%s in %s must be text", p.Name, p.In)
	}
	field := p.Of(argument)
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
			return Unreadable("%s in %s must be true or false, not %q", p.Name, p.In, s)
		}
		field.SetBool(b)
	default:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || field.OverflowInt(n) {
			return Unreadable("%s in %s must be a number, not %q", p.Name, p.In, s)
		}
		field.SetInt(n)
	}
	return nil
}

// IsText reports whether s is text as everything behind the APIs can hold it:
// UTF-8 without NUL, which PostgreSQL refuses.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// Unprocessable is a request that cannot be read; the APIs answer 422.
type Unprocessable struct{ Text string }

func (u *Unprocessable) Error() string { return u.Text }

// Unreadable makes an Unprocessable.
func Unreadable(format string, args ...any) error {
	return &Unprocessable{fmt.Sprintf(format, args...)}
}
