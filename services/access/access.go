// Package access decides who may do what. May is the one place that answers;
// the registry, the token service and the REST API all ask it.
//
// The rules are Harbor's. A user's rights in a project are those of the user's
// roles in it, and on a public project those that anyone has. A robot's rights
// are listed one by one. A system administrator may do everything.
package access

import (
	"slices"

	"berth/services/selector"
)

// Kind tells what a principal is.
type Kind uint8

// The kinds of principals.
const (
	Anonymous Kind = iota
	User
	Robot
)

// Role is a member's role in a project, with Harbor's ids.
type Role int16

// Harbor's roles.
const (
	ProjectAdmin Role = 1
	Developer    Role = 2
	Guest        Role = 3
	Maintainer   Role = 4
	LimitedGuest Role = 5
)

// Valid reports whether r is one of Harbor's roles.
func (r Role) Valid() bool { return r >= ProjectAdmin && r <= LimitedGuest }

// String gives the role's name in Harbor's API.
func (r Role) String() string {
	if !r.Valid() {
		return ""
	}
	return [...]string{"", "projectAdmin", "developer", "guest", "maintainer", "limitedGuest"}[r]
}

// Principal is who asks. The zero Principal is anonymous.
type Principal struct {
	Kind        Kind
	ID          int64  // of the user or robot
	Name        string // what it logged in with; "" = anonymous
	Sysadmin    bool
	Groups      []int64      // that a user is in
	Limit       *Limit       // of a personal access token; nil = none
	Permissions []Permission // a robot's
}

// Permission is one block of a robot's rights, in the form of Harbor's API.
type Permission struct {
	Kind      string `json:"kind"`      // "project" or "system"
	Namespace string `json:"namespace"` // a project's name, "*" for all, "/" for the system
	Access    []Pair `json:"access"`

	// Repositories and Tags limit a block of kind project to names that match one
	// of the patterns (package selector); empty is no limit. Repositories are named
	// without their project. Harbor has no such fields.
	Repositories []string `json:"repositories,omitempty"`
	Tags         []string `json:"tags,omitempty"`
}

// Pair is an action on a kind of resource.
type Pair struct {
	Resource string `json:"resource"`
	Action   string `json:"action"`
}

// Target is what is asked about: a project, with the principal's roles in it,
// or the system as a whole (zero Target).
type Target struct {
	ProjectID int64
	Project   string
	Public    bool
	Roles     []Role

	Repository string // without the project; "" = the project as a whole
	Tag        string // "" = no tag in particular; EveryTag
}

// EveryTag is the Tag of a Target that is about all tags of something at once, as
// when an artifact is deleted.
const EveryTag = "*"

// May reports whether p may do action on resource in t. It is asked on every
// request, and allocates nothing.
func May(p Principal, t Target, resource, action string) bool {
	if !p.Limit.allows(t.ProjectID, action) {
		return false
	}
	if p.Sysadmin || p.Limit != nil && p.Limit.Sysadmin {
		// A scanner's pull passes the policies that block a vulnerable image. No
		// person has that right, so that the policies hold for administrators too.
		return action != "scanner-pull"
	}
	wanted := Pair{resource, action}
	if t.ProjectID == 0 {
		return p.Kind == Robot && granted(p.Permissions, "system", "/", &t, wanted)
	}
	if p.Kind == Robot && granted(p.Permissions, "project", t.Project, &t, wanted) {
		return true
	}
	return matrix[wanted]&held(p, t) != 0
}

// held gives the set of the principal's roles in the project, to which a public
// project adds one that everybody has.
func held(p Principal, t Target) (s roleSet) {
	if p.Kind == User {
		for _, r := range t.Roles {
			if r.Valid() {
				s |= 1 << r
			}
		}
	}
	if t.Public {
		s |= public
	}
	return s
}

// granted reports whether a robot's blocks have the pair for a namespace.
func granted(blocks []Permission, kind, namespace string, t *Target, wanted Pair) bool {
	for i := range blocks {
		b := &blocks[i]
		if b.Kind != kind || b.Namespace != namespace && (kind != "project" || b.Namespace != "*") {
			continue
		}
		for _, a := range b.Access {
			if a == wanted && b.reaches(t) {
				return true
			}
		}
	}
	return false
}

// reaches reports whether a block's patterns let it reach a target in its
// namespace. What is about a whole project is beyond a block that is limited to
// some of its repositories.
func (b *Permission) reaches(t *Target) bool {
	if len(b.Repositories) > 0 && (t.Repository == "" || !selector.Any(b.Repositories, t.Repository)) {
		return false
	}
	return len(b.Tags) == 0 || t.Tag == "" || MatchTag(b.Tags, t.Tag)
}

// MatchTag reports whether a tag matches one of the patterns that limit somebody.
// EveryTag matches only what matches everything.
func MatchTag(patterns []string, tag string) bool {
	if tag == EveryTag {
		return slices.Contains(patterns, "*") || slices.Contains(patterns, "**")
	}
	return selector.Any(patterns, tag)
}

// TagGrant is actions on a repository that are limited to some tags.
type TagGrant struct {
	Actions []string // shared: do not write to it
	Tags    []string // patterns
}

// TagGrants gives what p may do with the repository t beyond what p may do with
// all of its tags; that, Actions gives for t with EveryTag. It is nil for all but
// robots with patterns of tags.
func TagGrants(p Principal, t Target) (grants []TagGrant) {
	for i := range p.Permissions {
		if b := &p.Permissions[i]; len(b.Tags) > 0 {
			alone := Principal{Kind: p.Kind, Permissions: p.Permissions[i : i+1]}
			t.Tag, t.Public = "", false
			if actions := Actions(alone, t); actions != nil {
				grants = append(grants, TagGrant{actions, b.Tags})
			}
		}
	}
	return grants
}

// MayCreateProject reports whether p may create a project, given whether the
// configuration lets everyone do so (project_creation_restriction). Robots need
// the permission in any case.
func MayCreateProject(p Principal, everyone bool) bool {
	return May(p, Target{}, "project", "create") || everyone && p.Kind == User && p.Limit.allows(0, "create")
}

// Actions gives what p may do with a project's repositories, in the words of
// registry tokens. The slice is shared: do not write to it.
func Actions(p Principal, t Target) []string {
	if t.ProjectID == 0 {
		return nil
	}
	var i int
	if May(p, t, "repository", "pull") {
		i |= 1
	}
	if May(p, t, "repository", "push") {
		i |= 2
	}
	// Both are the right to take images away; roles have both or neither.
	if May(p, t, "artifact", "delete") || May(p, t, "repository", "delete") {
		i |= 4
	}
	if May(p, t, "repository", "scanner-pull") {
		i |= 8
	}
	return actionSets[i]
}

// CatalogActions gives what p may do with the registry's catalog, in the words
// of registry tokens.
func CatalogActions(p Principal) []string {
	if May(p, Target{}, "catalog", "read") {
		return []string{"*"}
	}
	return nil
}

// Held lists the pairs that p has in t, of all that roles can give.
func Held(p Principal, t Target) []Pair {
	var pairs []Pair
	for _, pair := range rolePairs {
		if May(p, t, pair.Resource, pair.Action) {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}
