package access

import "slices"

// Limit narrows a user's rights to those of a personal access token. It never
// widens them: what the user may not do the token may not either.
type Limit struct {
	// ReadOnly leaves looking and pulling.
	ReadOnly bool
	// Projects are the ids of the only projects that there are for the token,
	// which then has no rights on the system as a whole. nil = all of them.
	Projects []int64
	// Sysadmin says that the user is a system administrator. A narrowed token
	// has it here and not in Principal.Sysadmin, so that whatever asks only that
	// one errs on the safe side.
	Sysadmin bool
	// Token is the id of the personal access token; 0 for another secret that
	// stands in for the user's own login.
	Token int64
}

// allows reports whether the limit lets an action in a project (0: on the
// system) through to the rules.
func (l *Limit) allows(project int64, action string) bool {
	if l == nil {
		return true
	}
	if l.ReadOnly && action != "read" && action != "list" && action != "pull" {
		return false
	}
	return l.Projects == nil || slices.Contains(l.Projects, project)
}

// Limited gives p as a personal access token with the limit knows it. A limit
// that takes nothing away stays in the principal all the same: no token may
// manage its user's credentials.
func (p Principal) Limited(l Limit) Principal {
	l.Sysadmin = false
	if l.ReadOnly || l.Projects != nil {
		l.Sysadmin, p.Sysadmin = p.Sysadmin, false
	}
	p.Limit = &l
	return p
}
