// Package selector picks repositories and tags by name, as the rules of
// immutability and retention do, and what a robot is limited to.
//
// A pattern is a doublestar glob: * is anything but /, ** between slashes any
// number of path components, ? one character, [a-z] a class, {a,b} alternatives.
package selector

import (
	"encoding/json"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"berth/appliance/fault"
)

// Kind is the one way of matching that there is.
const Kind = "doublestar"

// The decorations: what a pattern is matched with, and whether it picks what
// matches or all the rest.
const (
	Matches      = "matches"
	Excludes     = "excludes"
	RepoMatches  = "repoMatches"
	RepoExcludes = "repoExcludes"
)

// Selector is a pattern in the form of Harbor's API.
type Selector struct {
	Decoration string `json:"decoration"`
	Extras     string `json:"extras,omitempty"` // JSON; see Untagged
	Kind       string `json:"kind"`
	Pattern    string `json:"pattern"`
}

// MaxPattern is how long a pattern may be, in bytes.
const MaxPattern = 255

// maxBranches bounds the ways through the alternatives of a pattern, each of
// which may be tried on each name.
const maxBranches = 256

// CheckPattern accepts a pattern that can be matched in reasonable time.
func CheckPattern(pattern string) error {
	switch {
	case pattern == "":
		return fault.New(fault.Invalid, "a pattern cannot be empty").On("pattern").WithHint("** matches everything")
	case len(pattern) > MaxPattern:
		return fault.New(fault.Invalid, "a pattern has at most %d bytes", MaxPattern).On("pattern")
	case !doublestar.ValidatePattern(pattern) || strings.ContainsRune(pattern, 0):
		return fault.New(fault.Invalid, "the pattern %q is malformed", pattern).On("pattern").
			WithHint("close every [ and {, and put a \\ before one that means itself")
	case branches(pattern) > maxBranches:
		return fault.New(fault.Invalid, "the pattern %q has too many alternatives", pattern).On("pattern").
			WithHint("make several rules of it")
	}
	return nil
}

// branches gives at least the number of ways through a pattern's alternatives.
func branches(pattern string) int {
	n, here := 1, 1
	for i := 0; i < len(pattern) && n <= maxBranches; i++ {
		switch pattern[i] {
		case '\\':
			i++
		case ',':
			here++
		case '}':
			n, here = n*(here+1), 1
		}
	}
	return n
}

// Match reports whether a name matches a pattern that CheckPattern has accepted.
func Match(pattern, name string) bool {
	return pattern == "**" || doublestar.MatchUnvalidated(pattern, name)
}

// CheckTag accepts a selector of tags.
func (s Selector) CheckTag() error { return s.check("tag_selectors", Matches, Excludes) }

// CheckRepository accepts a selector of repositories.
func (s Selector) CheckRepository() error {
	return s.check("scope_selectors", RepoMatches, RepoExcludes)
}

func (s Selector) check(field, matches, excludes string) error {
	if s.Kind != Kind {
		return fault.New(fault.Invalid, "a selector's kind is %s, not %q", Kind, s.Kind).On(field)
	}
	if s.Decoration != matches && s.Decoration != excludes {
		return fault.New(fault.Invalid, "a decoration in %s is %s or %s, not %q", field, matches, excludes, s.Decoration).On(field)
	}
	if s.Extras != "" {
		var object map[string]any
		if len(s.Extras) > 1024 || json.Unmarshal([]byte(s.Extras), &object) != nil {
			return fault.New(fault.Invalid, "extras must be a JSON object, such as %s", `{"untagged":true}`).On(field)
		}
	}
	return CheckPattern(s.Pattern)
}

// Picks reports whether the selector picks a name.
func (s Selector) Picks(name string) bool {
	return Match(s.Pattern, name) == (s.Decoration == Matches || s.Decoration == RepoMatches)
}

// Untagged reports whether the selector picks artifacts without a tag, too:
// its extras say {"untagged": true}.
func (s Selector) Untagged() bool {
	var extras struct {
		Untagged bool `json:"untagged"`
	}
	return s.Extras != "" && json.Unmarshal([]byte(s.Extras), &extras) == nil && extras.Untagged
}

// Any reports whether a name matches one of the patterns; no patterns match
// everything.
func Any(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, p := range patterns {
		if Match(p, name) {
			return true
		}
	}
	return false
}
