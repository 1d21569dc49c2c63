package rest

import (
	"cmp"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Describer describes Go types, as encoding/json writes them, for an OpenAPI document.
// Its functions are required.
type Describer struct {
	// Name is a type's name in the document, and another one for when a type before
	// it has the name.
	Name func(t reflect.Type) (name, other string)
	// Requires reports whether a type has all fields that it is not without: so what is
	// received, and not what is sent.
	Requires func(t reflect.Type) bool
	// Nullable says that an array may be null, as a nil slice is (OpenAPI 3.1).
	Nullable bool
	// Times are types that are written as a time, beside time.Time.
	Times []reflect.Type

	types   map[string]reflect.Type // by name
	schemas map[string]any
}

// Schemas are the named types that were described.
func (d *Describer) Schemas() map[string]any { return d.schemas }

// Schema describes a type. Named structs are described once and referred to.
func (d *Describer) Schema(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time](), slices.Contains(d.Times, t):
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case t.Kind() == reflect.Pointer:
		return d.Schema(t.Elem())
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return map[string]any{"type": "string", "contentEncoding": "base64"}
	case t.Kind() == reflect.Slice && d.Nullable:
		return map[string]any{"type": []string{"array", "null"}, "items": d.Schema(t.Elem())}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": d.Schema(t.Elem())}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": d.Schema(t.Elem())}
	case t.Kind() == reflect.String, hasText(t):
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return map[string]any{"type": "number"}
	case t.Kind() != reflect.Struct:
		return map[string]any{"type": "integer", "format": "int64"}
	case t.Name() == "":
		return d.object(t)
	}
	if d.schemas == nil {
		d.schemas, d.types = map[string]any{}, map[string]reflect.Type{}
	}
	name, other := d.Name(t)
	if d.types[name] == nil {
		d.types[name] = t
	}
	if d.types[name] != t {
		name = other
	}
	if _, known := d.schemas[name]; !known {
		d.schemas[name] = nil // a type may hold itself
		d.schemas[name] = d.object(t)
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// hasText reports whether a type marshals as a string.
func hasText(t reflect.Type) bool {
	_, ok := t.MethodByName("MarshalText")
	return ok
}

func (d *Describer) object(t reflect.Type) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		properties[name] = d.Schema(f.Type)
		if null := f.Type.Kind() == reflect.Pointer || d.Nullable && f.Type.Kind() == reflect.Slice; options == "" && !null && len(f.Index) == 1 {
			required = append(required, name)
		}
	}
	o := map[string]any{"type": "object", "properties": properties}
	if slices.Sort(required); required != nil && d.Requires(t) {
		o["required"] = required
	}
	return o
}

// Take says in an operation what it takes.
func (d *Describer) Take(operation map[string]any, ps []Parameter) {
	var list []any
	for _, p := range ps {
		if p.In == "body" {
			operation["requestBody"] = map[string]any{"required": p.Required, "content": Content(cmp.Or(p.Name, "application/json"), d.Schema(p.Type))}
			continue
		}
		parameter := map[string]any{"name": p.Name, "in": p.In, "required": p.Required, "schema": d.Schema(p.Type)}
		if p.doc != "" {
			parameter["description"] = p.doc
		}
		list = append(list, parameter)
	}
	if list != nil {
		operation["parameters"] = list
	}
}

// Content is a body of a media type.
func Content(mediaType string, schema any) map[string]any {
	return map[string]any{mediaType: map[string]any{"schema": schema}}
}

var notLetter = regexp.MustCompile(`[^A-Za-z0-9]+`)

// OperationID makes one of a method and a path that begins with a slash.
func OperationID(method, path string) string {
	return strings.ToLower(method) + strings.TrimRight(notLetter.ReplaceAllString(path, "_"), "_")
}
