// Package access decides who may do what. May is the one place that answers;
// the registry, the token service and the REST API all ask it.
package access

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

// Principal is who asks. The zero Principal is anonymous.
type Principal struct {
	Kind        Kind
	ID          int64  // of the user or robot
	Name        string // what it logged in with; "" = anonymous
	Sysadmin    bool
	Permissions []Permission // a robot's
}

// Permission is one block of a robot's rights, in the form of Harbor's API.
type Permission struct {
	Kind      string `json:"kind"`      // "project" or "system"
	Namespace string `json:"namespace"` // a project's name, "*" for all, "/" for the system
	Access    []Pair `json:"access"`
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
}
