// Package reference parses the names that clients send: repositories, tags and
// digests, as the OCI Distribution Specification 1.1 ("Pulling manifests",
// name and reference) and the OCI Image Specification ("Digests") define them.
//
// All of it runs on every request, hence loops instead of regular expressions.
package reference

import (
	"strings"

	"berth/appliance/fault"
)

// MaxName is how long a repository's whole name may be (Docker's limit, which
// clients and Harbor share), MaxTag a tag (OCI).
const (
	MaxName = 255
	MaxTag  = 128
)

// Project gives the first component of a repository's name, and the rest.
func Project(name string) (project, rest string) {
	project, rest, _ = strings.Cut(name, "/")
	return project, rest
}

// CheckName accepts a repository's whole name: a project and at least one more
// component, each [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, at most 255 characters.
func CheckName(name string) error {
	switch {
	case name == "":
		return fault.New(fault.Invalid, "the repository name is empty").On("name")
	case len(name) > MaxName:
		return fault.New(fault.Invalid, "the repository name is longer than %d characters", MaxName).On("name")
	}
	slashes := 0
	rest := name
	for {
		component, tail, more := strings.Cut(rest, "/")
		if !validComponent(component) {
			return fault.New(fault.Invalid, "%s is not a repository name", quote(name)).On("name").
				WithHint("use lower-case letters and digits, joined by single '.', '_', '__' or '-', in components parted by '/'")
		}
		if !more {
			break
		}
		slashes++
		rest = tail
	}
	if slashes == 0 {
		return fault.New(fault.Invalid, "the repository name %s has no project", quote(name)).On("name").
			WithHint("push to <host>/<project>/<repository>, for example library/%s", name)
	}
	return nil
}

// CheckProject accepts a project's name: Harbor's rule, which is one component
// of a repository's name with single separators, at most 255 characters.
func CheckProject(name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return fault.New(fault.Invalid, "a project name has 1 to %d characters", MaxName).On("project_name")
	}
	separated := true // no separator at the start
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case lowerOrDigit(c):
			separated = false
		case (c == '.' || c == '_' || c == '-') && !separated:
			separated = true
		default:
			separated = true
			i = len(name)
		}
	}
	if separated {
		return fault.New(fault.Invalid, "%s is not a project name", quote(name)).On("project_name").
			WithHint("use lower-case letters and digits, joined by single '.', '_' or '-'")
	}
	return nil
}

func validComponent(s string) bool {
	if s == "" || !lowerOrDigit(s[0]) || !lowerOrDigit(s[len(s)-1]) {
		return false
	}
	for i := 1; i < len(s); {
		c := s[i]
		if lowerOrDigit(c) {
			i++
			continue
		}
		run := i
		for run < len(s) && s[run] == c {
			run++
		}
		switch {
		case c == '-':
		case c == '.' && run-i == 1:
		case c == '_' && run-i <= 2:
		default:
			return false
		}
		if run < len(s) && !lowerOrDigit(s[run]) {
			return false
		}
		i = run
	}
	return true
}

func lowerOrDigit(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// CheckTag accepts [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func CheckTag(tag string) error {
	ok := len(tag) > 0 && len(tag) <= MaxTag
	for i := 0; ok && i < len(tag); i++ {
		c := tag[i]
		ok = lowerOrDigit(c) || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c == '.' || c == '-')
	}
	if !ok {
		return fault.New(fault.Invalid, "%s is not a tag", quote(tag)).On("reference").
			WithHint("a tag has 1 to %d letters, digits, '_', '.' and '-', and starts with none of the last two", MaxTag)
	}
	return nil
}

// quote shows a stranger's text in an error without letting it be long or
// carry control characters.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return `"` + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s) + `"`
}
