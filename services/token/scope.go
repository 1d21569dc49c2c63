package token

import (
	"strings"

	"berth/appliance/fault"
)

// maxScopes is how many scopes one token may have: a client that mounts from
// many repositories asks for some tens.
const maxScopes = 100

// scope is one thing asked for: type:name:action,action…
type scope struct {
	Type, Name string
	Actions    []string
}

// parseScopes reads scope parameters, each of which may hold several scopes
// parted by spaces (Docker "Token Scope Documentation"). The same resource asked
// for twice is one scope.
func parseScopes(params []string) ([]scope, error) {
	var list []scope
	for _, param := range params {
		for s := range strings.FieldsSeq(param) {
			parsed, err := parseScope(s)
			if err != nil {
				return nil, err
			}
			list = merge(list, parsed)
			if len(list) > maxScopes {
				return nil, fault.New(fault.Invalid, "a token has at most %d scopes", maxScopes).On("scope")
			}
		}
	}
	return list, nil
}

// parseScope cuts at the first and the last colon: a name may have a port.
// A class after the type, as in repository(plugin), says nothing to us.
func parseScope(s string) (scope, error) {
	kind, rest, ok := strings.Cut(s, ":")
	i := strings.LastIndexByte(rest, ':')
	if !ok || i < 0 || kind == "" || len(s) > 1024 {
		return scope{}, fault.New(fault.Invalid, "a scope must be <type>:<name>:<actions>").On("scope")
	}
	if j := strings.IndexByte(kind, '('); j > 0 && strings.HasSuffix(kind, ")") {
		kind = kind[:j]
	}
	sc := scope{Type: kind, Name: rest[:i]}
	for a := range strings.SplitSeq(rest[i+1:], ",") {
		if a != "" {
			sc.add(a)
		}
	}
	return sc, nil
}

func (s *scope) add(action string) {
	for _, have := range s.Actions {
		if have == action {
			return
		}
	}
	if len(s.Actions) < 16 {
		s.Actions = append(s.Actions, action)
	}
}

func merge(list []scope, next scope) []scope {
	for i := range list {
		if list[i].Type == next.Type && list[i].Name == next.Name {
			for _, a := range next.Actions {
				list[i].add(a)
			}
			return list
		}
	}
	return append(list, next)
}
