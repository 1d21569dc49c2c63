package core

import (
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// document renders the table of routes as OpenAPI 3.0.
func document() ([]byte, error) {
	g := generator{map[string]any{}, map[string]reflect.Type{}}
	paths := map[string]map[string]any{}
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = map[string]any{}
		}
		paths[rt.path][strings.ToLower(rt.method)] = g.operation(rt)
	}
	doc, err := json.MarshalIndent(map[string]any{
		"openapi":  "3.0.3",
		"info":     map[string]any{"title": "Berth", "version": "2.0", "description": "The REST API of Berth: Harbor's v2.0, and what Berth adds to it."},
		"security": []any{map[string]any{"basic": []string{}}},
		"paths":    paths,
		"components": map[string]any{
			"schemas":         g.schemas,
			"securitySchemes": map[string]any{"basic": map[string]any{"type": "http", "scheme": "basic"}},
		},
	}, "", "  ")
	return append(doc, '\n'), err
}

type generator struct {
	schemas map[string]any
	types   map[string]reflect.Type // by name
}

func (g *generator) operation(rt route) map[string]any {
	op := map[string]any{
		"summary":     rt.summary,
		"tags":        []string{subject(rt.path)},
		"operationId": operationID(rt),
		"description": rt.policy.String(),
		"responses": map[string]any{
			g.status(rt): g.response(rt.endpoint.out),
			"default":    map[string]any{"description": "What went wrong.", "content": content("application/json", g.schema(reflect.TypeFor[errorBody]()))},
		},
	}
	if rt.policy.kind == anybody {
		op["security"] = []any{map[string]any{}, map[string]any{"basic": []string{}}}
	}
	var parameters []any
	for _, p := range rt.endpoint.parameters {
		if p.in == "body" {
			op["requestBody"] = map[string]any{"required": p.required, "content": content("application/json", g.schema(p.kind))}
			continue
		}
		parameter := map[string]any{"name": p.name, "in": p.in, "required": p.required, "schema": g.schema(p.kind)}
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

// subject groups the operations: by the kind of thing that a path is about.
func subject(path string) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(path, "/api/"), "/") // without the version
	var words []string
	for word := range strings.SplitSeq(rest, "/") {
		if word != "" && word[0] != '{' {
			words = append(words, word)
		}
	}
	word := "system"
	switch {
	case len(words) > 2 && words[1] == "repositories" && words[2] == "artifacts":
		word = "artifacts"
	case len(words) > 1 && (words[0] == "system" || words[0] == "projects" && words[1][0] != '_' && words[1] != "summary"):
		word = words[1]
	case len(words) > 0:
		word = words[0]
	}
	if group, ok := subjects[word]; ok {
		return group
	}
	return word
}

// subjects are groups under another name than their paths have.
var subjects = map[string]string{
	"ping": "system", "health": "system", "openapi.json": "system", "systeminfo": "system", "statistics": "system", "permissions": "system",
	"icons": "artifacts", "logs": "audit", "auditlog-exts": "audit", "audit-logs": "audit", "p2p": "preheat", "metadatas": "projects",
	"internalconfig": "configurations", "scans": "scanAll", "scanner": "scanners", "export": "security",
}

var notLetter = regexp.MustCompile(`[^A-Za-z0-9]+`)

func operationID(rt route) string {
	place := strings.TrimPrefix(rt.path, "/api/")
	return strings.ToLower(rt.method) + strings.TrimRight(notLetter.ReplaceAllString("_"+place, "_"), "_")
}

// String says who may call a route.
func (p policy) String() string {
	right := p.resource + ":" + p.action
	switch p.kind {
	case anybody:
		return "Anyone, logged in or not."
	case signedIn:
		return "Whoever has logged in."
	case bySystem:
		return "Needs " + right + " on the system."
	case byProject:
		return "Needs " + right + " in the project."
	case bySysadmin:
		return "System administrators."
	case bySelf:
		return "The user itself, or needs " + right + " on the system."
	}
	return "Nobody."
}

func (g *generator) status(rt route) string {
	if rt.endpoint.out == reflect.TypeFor[created]() {
		return "201"
	}
	return "200"
}

func (g *generator) response(out reflect.Type) map[string]any {
	switch out {
	case reflect.TypeFor[empty](), reflect.TypeFor[browser]():
		return map[string]any{"description": "Done."}
	case reflect.TypeFor[created]():
		return map[string]any{"description": "Made; the header Location says where it is."}
	case reflect.TypeFor[text]():
		return map[string]any{"description": "Text.", "content": content("text/plain", map[string]any{"type": "string"})}
	case reflect.TypeFor[file]():
		return map[string]any{"description": "A file.", "content": content("application/octet-stream", map[string]any{"type": "string", "format": "binary"})}
	case reflect.TypeFor[stream]():
		return map[string]any{"description": "Server-sent events.", "content": content("text/event-stream", map[string]any{"type": "string"})}
	case reflect.TypeFor[rawJSON]():
		return map[string]any{"description": "JSON.", "content": content("application/json", map[string]any{})}
	}
	if out.Implements(reflect.TypeFor[pager]()) {
		items, _ := out.FieldByName("items")
		return map[string]any{"description": "A page; X-Total-Count is the length of the whole list, Link points to its neighbours.",
			"content": content("application/json", g.schema(items.Type))}
	}
	return map[string]any{"description": "Found.", "content": content("application/json", g.schema(out))}
}

func content(mediaType string, schema any) map[string]any {
	return map[string]any{mediaType: map[string]any{"schema": schema}}
}

// schema describes a type. Named structs are described once and referred to.
func (g *generator) schema(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[moment]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case t.Kind() == reflect.Pointer:
		return g.schema(t.Elem())
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": g.schema(t.Elem())}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case t.Kind() == reflect.String, hasText(t):
		return map[string]any{"type": "string"}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() != reflect.Struct:
		return map[string]any{"type": "integer", "format": "int64"}
	case t.String() == "time.Time":
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Name() == "":
		return g.object(t)
	}
	name := g.name(t)
	if _, done := g.schemas[name]; !done {
		g.schemas[name] = nil // a type may hold itself
		g.schemas[name] = g.object(t)
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// name gives a type its name in the document. Two types of one name, such as
// what is sent and what comes back, are told apart by their packages.
func (g *generator) name(t reflect.Type) string {
	name := strings.ToUpper(t.Name()[:1]) + strings.TrimSuffix(t.Name()[1:], "Wire")
	if g.types[name] == nil {
		g.types[name] = t
	}
	if g.types[name] != t {
		home := path.Base(t.PkgPath())
		name = strings.ToUpper(home[:1]) + home[1:] + name
	}
	return name
}

// hasText reports whether a type marshals as a string.
func hasText(t reflect.Type) bool {
	_, ok := t.MethodByName("MarshalText")
	return ok && t.String() != "time.Time"
}

func (g *generator) object(t reflect.Type) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		properties[name] = g.schema(f.Type)
		if options == "" && f.Type.Kind() != reflect.Pointer && len(f.Index) == 1 {
			required = append(required, name)
		}
	}
	o := map[string]any{"type": "object", "properties": properties}
	if slices.Sort(required); required != nil && !isInput(t) {
		o["required"] = required
	}
	return o
}

// isInput reports whether a type is what clients send, of which we require
// nothing that the handler does not.
func isInput(t reflect.Type) bool {
	return t.Name() == "" || strings.HasSuffix(t.Name(), "Body") && t != reflect.TypeFor[errorBody]() || fmt.Sprint(t) == "access.Permission"
}
