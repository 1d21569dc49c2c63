package server

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"berth/agent/api"
)

// Document renders the table of routes as OpenAPI 3.1.
func Document() ([]byte, error) {
	g := generator{map[string]any{}, map[string]reflect.Type{}}
	paths := map[string]map[string]any{}
	for _, rt := range routes() {
		path := api.Prefix + rt.path
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(rt.method)] = g.operation(rt)
	}
	doc, err := json.MarshalIndent(map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "Berth appliance", "version": "1",
			"description": "The REST API of the appliance's agent: over HTTPS on port 5480, and for root over the unix socket /run/berth/agent.sock. " +
				"Programs send the name admin (the console's password) or root with each request. " +
				"Browsers have a session; a request of theirs that changes something sends its token in the header " + api.CSRFHeader + "."},
		"security": []any{map[string]any{"basic": []string{}}, map[string]any{"session": []string{}}},
		"paths":    paths,
		"components": map[string]any{
			"schemas": g.schemas,
			"securitySchemes": map[string]any{
				"basic":   map[string]any{"type": "http", "scheme": "basic"},
				"session": map[string]any{"type": "apiKey", "in": "cookie", "name": "__Host-berth-console"},
			},
		},
	}, "", "  ")
	return append(doc, '\n'), err
}

type generator struct {
	schemas map[string]any
	types   map[string]reflect.Type // by name
}

func (g *generator) operation(rt route) map[string]any {
	status, response := g.response(rt.endpoint.out)
	op := map[string]any{
		"summary":     rt.summary,
		"tags":        []string{subject(rt.path)},
		"operationId": operationID(rt),
		"description": rt.policy.String(),
		"responses": map[string]any{
			status:    response,
			"default": map[string]any{"description": "What went wrong: one entry for each fault.", "content": content("application/json", g.schema(reflect.TypeFor[api.Errors]()))},
		},
	}
	if rt.policy == anybody {
		op["security"] = []any{map[string]any{}}
	}
	var parameters []any
	for _, p := range rt.endpoint.parameters {
		if p.in == "body" {
			mediaType, schema := "application/json", g.schema(p.kind)
			if p.name == "text" {
				mediaType = "application/yaml"
			}
			op["requestBody"] = map[string]any{"required": !p.optional, "content": content(mediaType, schema)}
			continue
		}
		parameter := map[string]any{"name": p.name, "in": p.in, "required": p.in == "path", "schema": g.schema(p.kind)}
		if p.doc != "" {
			parameter["description"] = p.doc
		}
		parameters = append(parameters, parameter)
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	return op
}

// subject groups the operations: by the first word of a path.
func subject(path string) string {
	word, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return word
}

var notLetter = regexp.MustCompile(`[^A-Za-z0-9]+`)

func operationID(rt route) string {
	return strings.ToLower(rt.method) + strings.TrimRight(notLetter.ReplaceAllString(rt.path, "_"), "_")
}

func (g *generator) response(out reflect.Type) (status string, response map[string]any) {
	switch out {
	case reflect.TypeFor[done]():
		return "204", map[string]any{"description": "Done."}
	case reflect.TypeFor[text]():
		return "200", map[string]any{"description": "Text.", "content": content("text/plain", map[string]any{"type": "string"})}
	case reflect.TypeFor[file]():
		return "200", map[string]any{"description": "A file.", "content": content("application/gzip", map[string]any{})}
	case reflect.TypeFor[rawJSON]():
		return "200", map[string]any{"description": "JSON.", "content": content("application/json", map[string]any{})}
	}
	if out.Implements(reflect.TypeFor[answer]()) {
		status, _, _ := reflect.Zero(out).Interface().(answer).answer()
		body, _ := out.FieldByName("body")
		response := map[string]any{"description": "Made; the header Location says where it is.", "content": content("application/json", g.schema(body.Type))}
		if status == 202 {
			response["description"] = "It is under way; the header Location says where its state is."
			return "202", response
		}
		return "201", response
	}
	return "200", map[string]any{"description": "What was asked for, or how it is now.", "content": content("application/json", g.schema(out))}
}

func content(mediaType string, schema any) map[string]any {
	return map[string]any{mediaType: map[string]any{"schema": schema}}
}

// schema describes a type. Named structs are described once and referred to.
func (g *generator) schema(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case t.Kind() == reflect.Pointer:
		return g.schema(t.Elem())
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return map[string]any{"type": "string", "contentEncoding": "base64"}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": []string{"array", "null"}, "items": g.schema(t.Elem())}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case t.String() == "time.Time":
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.String, hasText(t):
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return map[string]any{"type": "number"}
	case t.Kind() != reflect.Struct:
		return map[string]any{"type": "integer", "format": "int64"}
	}
	name := g.name(t)
	if _, known := g.schemas[name]; !known {
		g.schemas[name] = nil // a type may hold itself
		g.schemas[name] = g.object(t)
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// name gives a type its name in the document. Those of the settings are told from
// the API's own of the same name.
func (g *generator) name(t reflect.Type) string {
	name := t.Name()
	if strings.HasSuffix(t.PkgPath(), "/setting") {
		name += "Settings"
	}
	if g.types[name] == nil {
		g.types[name] = t
	}
	if g.types[name] != t {
		name = strings.ReplaceAll(t.String(), ".", "_")
	}
	return name
}

// hasText reports whether a type marshals as a string.
func hasText(t reflect.Type) bool {
	_, ok := t.MethodByName("MarshalText")
	return ok
}

func (g *generator) object(t reflect.Type) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		properties[name] = g.schema(f.Type)
		if options == "" && f.Type.Kind() != reflect.Pointer && f.Type.Kind() != reflect.Slice {
			required = append(required, name)
		}
	}
	o := map[string]any{"type": "object", "properties": properties}
	// Of what is both sent and received, nothing is required: absent means empty.
	if slices.Sort(required); required != nil && strings.HasSuffix(t.PkgPath(), "agent/api") && !isInput(t) {
		o["required"] = required
	}
	return o
}

// isInput reports whether clients send a type.
func isInput(t reflect.Type) bool {
	for _, rt := range routes() {
		for _, p := range rt.endpoint.parameters {
			if p.in == "body" && (p.kind == t || p.kind.Kind() == reflect.Struct && contains(p.kind, t)) {
				return true
			}
		}
	}
	return false
}

func contains(outer, inner reflect.Type) bool {
	for _, f := range reflect.VisibleFields(outer) {
		kind := f.Type
		for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		if kind == inner {
			return true
		}
	}
	return false
}
