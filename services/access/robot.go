package access

import (
	"slices"
	"strings"

	"berth/appliance/fault"
	"berth/services/selector"
)

// What a robot may be given, resource by resource, in the order of Harbor's
// GET /permissions.
var (
	projectGrants = pairs(
		"log list", "project read delete update", "metadata read create delete list update",
		"repository read update delete list pull push", "artifact read create list delete",
		"scan create read stop", "sbom create stop read", "tag create list delete", "accessory list",
		"artifact-addition read", "artifact-label create delete", "scanner create read",
		"preheat-policy read create delete list update", "immutable-tag create delete list update",
		"notification-policy read create delete list update", "tag-retention read create delete list update",
		"label read create delete list update", "quota read", "robot create read list delete",
		"export-cve create read", "member create read update list delete")

	systemGrants = pairs(
		"audit-log list", "preheat-instance read create delete list update", "project list create",
		"replication-policy read create delete list update", "replication read create list",
		"replication-adapter list", "registry read create delete list update",
		"scan-all read update stop create", "system-volumes read",
		"garbage-collection read create list update stop", "purge-audit read create list update stop",
		"jobservice-monitor list stop", "scanner read create delete list update",
		"label read create delete update", "security-hub read list", "catalog read", "quota read list",
		"robot create read list delete", "user create read update list delete", "ldap-user create list",
		"quota update", "user-group create read update list delete")
)

func pairs(lines ...string) (all []Pair) {
	for _, line := range lines {
		resource, actions, _ := strings.Cut(line, " ")
		for action := range strings.FieldsSeq(actions) {
			all = append(all, Pair{resource, action})
		}
	}
	return all
}

// Grantable lists the pairs that a robot's system and project blocks may have.
func Grantable() (system, project []Pair) {
	return slices.Clone(systemGrants), slices.Clone(projectGrants)
}

// CheckPermissions accepts the permissions of a robot of a level, "project"
// (one block, for its own project) or "system" (any number of blocks).
func CheckPermissions(level string, blocks []Permission) error {
	switch {
	case level != "project" && level != "system":
		return fault.New(fault.Invalid, "a robot's level is project or system, not %q", level).On("level")
	case len(blocks) == 0:
		return fault.New(fault.Invalid, "a robot needs at least one permission").On("permissions")
	case len(blocks) > maxBlocks:
		return fault.New(fault.Invalid, "a robot has at most %d blocks of permissions", maxBlocks).On("permissions")
	}
	for _, b := range blocks {
		if level == "project" && (b.Kind != "project" || b.Namespace == "*" || b.Namespace != blocks[0].Namespace) {
			return fault.New(fault.Invalid, "a project's robot has permissions for one project only").On("permissions")
		}
		if err := checkBlock(b); err != nil {
			return err
		}
	}
	return nil
}

func checkBlock(b Permission) error {
	var grants []Pair
	switch {
	case b.Kind == "system" && b.Namespace == "/":
		grants = systemGrants
	case b.Kind == "project" && b.Namespace != "" && b.Namespace != "/":
		grants = projectGrants
	default:
		return fault.New(fault.Invalid, "no robot can have permissions of kind %q on %q", b.Kind, b.Namespace).On("permissions").
			WithHint(`kind "system" goes with namespace "/", kind "project" with a project's name or "*"`)
	}
	if len(b.Access) == 0 {
		return fault.New(fault.Invalid, "the permissions on %q list no access", b.Namespace).On("permissions")
	}
	for _, a := range b.Access {
		if !slices.Contains(grants, a) {
			return fault.New(fault.Invalid, "bad request permission: %s:%s", a.Resource, a.Action).On("permissions")
		}
	}
	return checkPatterns(b)
}

const (
	maxBlocks       = 1000
	maxPatterns     = 20   // of a block, of either kind
	maxPatternBytes = 1024 // together: tags' patterns travel in tokens
)

// inRepository are the resources that belong to one repository, so that patterns
// can limit the rights to them.
var inRepository = []string{"repository", "artifact", "artifact-addition", "artifact-label", "accessory", "tag", "scan", "sbom"}

func checkPatterns(b Permission) error {
	for field, patterns := range map[string][]string{"repositories": b.Repositories, "tags": b.Tags} {
		if len(patterns) == 0 {
			continue
		}
		if b.Kind != "project" {
			return fault.New(fault.Invalid, "only permissions of kind project can be limited by %s", field).On("permissions")
		}
		bytes := 0
		for _, p := range patterns {
			if err := selector.CheckPattern(p); err != nil {
				return err
			}
			bytes += len(p)
		}
		if len(patterns) > maxPatterns || bytes > maxPatternBytes {
			return fault.New(fault.Invalid, "%s has at most %d patterns of %d bytes together", field, maxPatterns, maxPatternBytes).On("permissions")
		}
		for _, a := range b.Access {
			if !slices.Contains(inRepository, a.Resource) || field == "tags" && a == (Pair{"repository", "delete"}) {
				return fault.New(fault.Invalid, "%s:%s cannot be limited by %s", a.Resource, a.Action, field).On("permissions").
					WithHint("give it in a block of its own")
			}
		}
	}
	return nil
}

// Covers reports whether robot p has every one of the permissions itself: a
// robot may make others only with rights out of its own. A limited right covers
// one that is limited to some of the same patterns.
func Covers(p Principal, blocks []Permission) bool {
	for _, b := range blocks {
		for _, a := range b.Access {
			if !slices.ContainsFunc(p.Permissions, func(own Permission) bool { return own.covers(b, a) }) {
				return false
			}
		}
	}
	return true
}

func (b Permission) covers(other Permission, a Pair) bool {
	return b.Kind == other.Kind && (b.Namespace == other.Namespace || b.Kind == "project" && b.Namespace == "*") && slices.Contains(b.Access, a) &&
		within(other.Repositories, b.Repositories) && within(other.Tags, b.Tags)
}

// within reports whether patterns are no more than limit has.
func within(patterns, limit []string) bool {
	if len(limit) == 0 {
		return true
	}
	for _, p := range patterns {
		if !slices.Contains(limit, p) {
			return false
		}
	}
	return len(patterns) > 0
}
