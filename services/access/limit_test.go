package access_test

import (
	"testing"

	"berth/services/access"
)

// A personal access token has its user's rights and none more, whatever it says.
func TestLimit(t *testing.T) {
	_, every := readRoles(t)
	in, out := access.Target{ProjectID: 1, Project: "in", Roles: []access.Role{access.ProjectAdmin}}, access.Target{ProjectID: 2, Project: "out", Roles: []access.Role{access.ProjectAdmin}}
	user := access.Principal{Kind: access.User, ID: 7, Name: "u"}
	admin := access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}
	for _, who := range []access.Principal{user, admin} {
		for _, l := range []access.Limit{{}, {ReadOnly: true}, {Projects: []int64{1}}, {ReadOnly: true, Projects: []int64{1}}, {Projects: []int64{}}, {Sysadmin: true}} {
			token := who.Limited(l)
			for p := range every {
				for _, target := range []access.Target{in, out, {}} {
					looks := p.Action == "read" || p.Action == "list" || p.Action == "pull"
					there := l.Projects == nil || len(l.Projects) == 1 && target.ProjectID == 1
					want := access.May(who, target, p.Resource, p.Action) && (looks || !l.ReadOnly) && there
					check(t, "token", token, target, p, want)
				}
			}
		}
	}
	if access.MayCreateProject(user.Limited(access.Limit{ReadOnly: true}), true) || access.MayCreateProject(user.Limited(access.Limit{Projects: []int64{1}}), true) || !access.MayCreateProject(user.Limited(access.Limit{}), true) {
		t.Error("creating projects does not follow the limit")
	}
	if n := testing.AllocsPerRun(100, func() { access.May(user.Limited(access.Limit{}), in, "repository", "pull") }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
