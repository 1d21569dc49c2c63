package core

import (
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"strings"

	"berth/appliance/rest"
)

// document renders the table of routes as OpenAPI 3.0.
func document() ([]byte, error) {
	d := &rest.Describer{Name: schemaName, Requires: func(t reflect.Type) bool { return !isInput(t) }, Times: []reflect.Type{reflect.TypeFor[moment]()}}
	paths := map[string]map[string]any{}
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = map[string]any{}
		}
		paths[rt.path][strings.ToLower(rt.method)] = operation(d, rt)
	}
	doc, err := json.MarshalIndent(map[string]any{
		"openapi":  "3.0.3",
		"info":     map[string]any{"title": "Berth", "version": "2.0", "description": "The REST API of Berth: Harbor's v2.0, and what Berth adds to it."},
		"security": []any{map[string]any{"basic": []string{}}},
		"paths":    paths,
		"components": map[string]any{
			"schemas":         d.Schemas(),
			"securitySchemes": map[string]any{"basic": map[string]any{"type": "http", "scheme": "basic"}},
		},
	}, "", "  ")
	return append(doc, '\n'), err
}

func operation(d *rest.Describer, rt route) map[string]any {
	op := map[string]any{
		"summary":     rt.summary,
		"tags":        []string{subject(rt.path)},
		"operationId": rest.OperationID(rt.method, strings.TrimPrefix(rt.path, "/api")),
		"description": rt.policy.String(),
		"responses": map[string]any{
			status(rt): response(d, rt.endpoint.out),
			"default":  map[string]any{"description": "What went wrong.", "content": rest.Content("application/json", d.Schema(reflect.TypeFor[errorBody]()))},
		},
	}
	if rt.policy.kind == anybody {
		op["security"] = []any{map[string]any{}, map[string]any{"basic": []string{}}}
	}
	d.Take(op, rt.endpoint.parameters)
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

func status(rt route) string {
	if rt.endpoint.out == reflect.TypeFor[created]() {
		return "201"
	}
	return "200"
}

func response(d *rest.Describer, out reflect.Type) map[string]any {
	switch out {
	case reflect.TypeFor[empty](), reflect.TypeFor[browser]():
		return map[string]any{"description": "Done."}
	case reflect.TypeFor[created]():
		return map[string]any{"description": "Made; the header Location says where it is."}
	case reflect.TypeFor[text]():
		return map[string]any{"description": "Text.", "content": rest.Content("text/plain", map[string]any{"type": "string"})}
	case reflect.TypeFor[file]():
		return map[string]any{"description": "A file.", "content": rest.Content("application/octet-stream", map[string]any{"type": "string", "format": "binary"})}
	case reflect.TypeFor[stream]():
		return map[string]any{"description": "Server-sent events.", "content": rest.Content("text/event-stream", map[string]any{"type": "string"})}
	case reflect.TypeFor[rawJSON]():
		return map[string]any{"description": "JSON.", "content": rest.Content("application/json", map[string]any{})}
	}
	if out.Implements(reflect.TypeFor[pager]()) {
		items, _ := out.FieldByName("items")
		return map[string]any{"description": "A page; X-Total-Count is the length of the whole list, Link points to its neighbours.",
			"content": rest.Content("application/json", d.Schema(items.Type))}
	}
	return map[string]any{"description": "Found.", "content": rest.Content("application/json", d.Schema(out))}
}

// schemaName gives a type its name in the document. Two types of one name, such as
// what is sent and what comes back, are told apart by their packages.
func schemaName(t reflect.Type) (name, other string) {
	name = strings.ToUpper(t.Name()[:1]) + strings.TrimSuffix(t.Name()[1:], "Wire")
	home := path.Base(t.PkgPath())
	return name, strings.ToUpper(home[:1]) + home[1:] + name
}

// isInput reports whether a type is what clients send, of which we require
// nothing that the handler does not.
func isInput(t reflect.Type) bool {
	return t.Name() == "" || strings.HasSuffix(t.Name(), "Body") && t != reflect.TypeFor[errorBody]() || fmt.Sprint(t) == "access.Permission"
}
