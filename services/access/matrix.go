package access

import "strings"

// roleSet has bit r for role r, and bit 0 for what anyone may do in a public
// project.
type roleSet uint8

const (
	public       roleSet = 1
	admin        roleSet = 1 << ProjectAdmin
	maintainer   roleSet = 1 << Maintainer
	developer    roleSet = 1 << Developer
	guest        roleSet = 1 << Guest
	limitedGuest roleSet = 1 << LimitedGuest

	keepers = admin | maintainer     // may also take images away
	writers = keepers | developer    // may push
	readers = writers | guest        // see the project's people and settings
	members = readers | limitedGuest // any role at all
	anyone  = members | public       // on a public project even strangers
)

// rules say which roles may do what inside a project. "project" is the project
// itself.
var rules = []struct {
	resource, actions string
	roles             roleSet
}{
	{"project", "read", anyone},
	{"project", "update delete", admin},
	{"member", "read list", readers},
	{"member", "create update delete", admin},
	{"metadata", "read", keepers},
	{"metadata", "create update delete", admin},
	{"log", "list", admin},
	{"label", "read list", readers | public},
	{"label", "create update delete", keepers},
	{"quota", "read", members},
	{"repository", "list pull", anyone},
	{"repository", "read", members},
	{"repository", "create update push", writers},
	{"repository", "delete", keepers},
	{"artifact", "read list", anyone},
	{"artifact", "create", writers},
	{"artifact", "delete", keepers},
	{"artifact-addition", "read", anyone},
	{"tag", "list", anyone},
	{"tag", "create", writers},
	{"tag", "delete", keepers},
	{"accessory", "list", anyone},
	{"artifact-label", "create delete", writers},
	{"tag-retention", "create read update delete list operate", writers},
	{"immutable-tag", "create update delete list", keepers},
	{"robot", "read list", readers},
	{"robot", "create update delete", admin},
	{"notification-policy", "read list", keepers},
	{"notification-policy", "create update delete", admin},
	{"scan", "read", anyone},
	{"scan", "create stop", keepers},
	{"sbom", "read", members},
	{"sbom", "create stop", keepers},
	{"scanner", "read", anyone},
	{"scanner", "create", admin},
	{"configuration", "read", members},
	{"configuration", "update", admin},
	{"preheat-policy", "create read update delete list", admin},
	{"export-cve", "create read list", writers},
}

// matrix and rolePairs are the rules in the forms that May and Held read.
var matrix, rolePairs = compile()

func compile() (map[Pair]roleSet, []Pair) {
	m, pairs := map[Pair]roleSet{}, []Pair(nil)
	for _, r := range rules {
		for action := range strings.FieldsSeq(r.actions) {
			pair := Pair{r.resource, action}
			m[pair] = r.roles
			pairs = append(pairs, pair)
		}
	}
	return m, pairs
}

// actionSets holds every answer that Actions can give, by bit pattern.
var actionSets = func() (sets [16][]string) {
	for i := range sets {
		for bit, word := range []string{"pull", "push", "delete", "scanner-pull"} {
			if i&(1<<bit) != 0 {
				sets[i] = append(sets[i], word)
			}
		}
	}
	return sets
}()
