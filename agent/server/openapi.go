package server

import (
	"encoding/json"
	"reflect"
	"strings"

	"berth/agent/api"
	"berth/appliance/rest"
)

// Document renders the table of routes as OpenAPI 3.1.
func Document() ([]byte, error) {
	d := &rest.Describer{Name: schemaName, Requires: requires, Nullable: true}
	paths := map[string]map[string]any{}
	for _, rt := range routes() {
		path := api.Prefix + rt.path
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(rt.method)] = operation(d, rt)
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
			"schemas": d.Schemas(),
			"securitySchemes": map[string]any{
				"basic":   map[string]any{"type": "http", "scheme": "basic"},
				"session": map[string]any{"type": "apiKey", "in": "cookie", "name": "__Host-berth-console"},
			},
		},
	}, "", "  ")
	return append(doc, '\n'), err
}

func operation(d *rest.Describer, rt route) map[string]any {
	status, response := response(d, rt.endpoint.out)
	op := map[string]any{
		"summary":     rt.summary,
		"tags":        []string{subject(rt.path)},
		"operationId": rest.OperationID(rt.method, rt.path),
		"description": rt.policy.String(),
		"responses": map[string]any{
			status:    response,
			"default": map[string]any{"description": "What went wrong: one entry for each fault.", "content": rest.Content("application/json", d.Schema(reflect.TypeFor[api.Errors]()))},
		},
	}
	if rt.policy == anybody {
		op["security"] = []any{map[string]any{}}
	}
	d.Take(op, rt.endpoint.parameters)
	return op
}

// subject groups the operations: by the first word of a path.
func subject(path string) string {
	word, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return word
}

func response(d *rest.Describer, out reflect.Type) (status string, response map[string]any) {
	switch out {
	case reflect.TypeFor[done]():
		return "204", map[string]any{"description": "Done."}
	case reflect.TypeFor[text]():
		return "200", map[string]any{"description": "Text.", "content": rest.Content("text/plain", map[string]any{"type": "string"})}
	case reflect.TypeFor[file]():
		return "200", map[string]any{"description": "A file.", "content": rest.Content("application/gzip", map[string]any{})}
	case reflect.TypeFor[rawJSON]():
		return "200", map[string]any{"description": "JSON.", "content": rest.Content("application/json", map[string]any{})}
	}
	if out.Implements(reflect.TypeFor[answer]()) {
		status, _, _ := reflect.Zero(out).Interface().(answer).answer()
		body, _ := out.FieldByName("body")
		response := map[string]any{"description": "Made; the header Location says where it is.", "content": rest.Content("application/json", d.Schema(body.Type))}
		if status == 202 {
			response["description"] = "It is under way; the header Location says where its state is."
			return "202", response
		}
		return "201", response
	}
	return "200", map[string]any{"description": "What was asked for, or how it is now.", "content": rest.Content("application/json", d.Schema(out))}
}

// schemaName gives a type its name in the document. Those of the settings are told
// from the API's own of the same name.
func schemaName(t reflect.Type) (name, other string) {
	name = t.Name()
	if strings.HasSuffix(t.PkgPath(), "/setting") {
		name += "Settings"
	}
	return name, strings.ReplaceAll(t.String(), ".", "_")
}

// requires: of what is both sent and received, nothing is required; absent means
// empty.
func requires(t reflect.Type) bool {
	return strings.HasSuffix(t.PkgPath(), "agent/api") && !isInput(t)
}

// isInput reports whether clients send a type.
func isInput(t reflect.Type) bool {
	for _, rt := range routes() {
		for _, p := range rt.endpoint.parameters {
			if p.In == "body" && (p.Type == t || p.Type.Kind() == reflect.Struct && contains(p.Type, t)) {
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
