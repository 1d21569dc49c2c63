package access_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/services/access"
)

// letters is the shorthand of the tables in testdata, which were copied from
// the notes on Harbor's behaviour and not from this package.
var letters = map[rune]string{'C': "create", 'R': "read", 'U': "update", 'D': "delete", 'L': "list"}

// actions spells a cell such as "CRL pull push" out.
func actions(cell string) []string {
	var all []string
	for _, word := range strings.Fields(cell) {
		if strings.ToUpper(word) != word {
			all = append(all, word)
			continue
		}
		for _, l := range word {
			if a, ok := letters[l]; ok {
				all = append(all, a)
			}
		}
	}
	return all
}

// column is a column of testdata/roles.md: who it is about.
type column struct {
	name   string
	role   access.Role // 0: anyone on a public project
	rights map[access.Pair]bool
}

func readRoles(t testing.TB) ([]column, map[access.Pair]bool) {
	t.Helper()
	text, err := os.ReadFile("testdata/roles.md")
	if err != nil {
		t.Fatal(err)
	}
	columns := []column{
		{"projectAdmin", access.ProjectAdmin, map[access.Pair]bool{}},
		{"maintainer", access.Maintainer, map[access.Pair]bool{}},
		{"developer", access.Developer, map[access.Pair]bool{}},
		{"guest", access.Guest, map[access.Pair]bool{}},
		{"limitedGuest", access.LimitedGuest, map[access.Pair]bool{}},
		{"public", 0, map[access.Pair]bool{}},
	}
	every := map[access.Pair]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		resource, _, _ := strings.Cut(cells[0], " (")
		if resource == "(project itself)" {
			resource = "project"
		}
		for i, cell := range cells[1:] {
			if strings.HasPrefix(cell, "same") {
				cell = cells[1]
			}
			for _, a := range actions(cell) {
				columns[i].rights[access.Pair{Resource: resource, Action: a}] = true
				every[access.Pair{Resource: resource, Action: a}] = true
			}
		}
	}
	if len(every) != 75 {
		t.Fatalf("read %d pairs from testdata/roles.md", len(every))
	}
	return columns, every
}

// TestMatrix asks every role for every action on every resource, in a private
// and in a public project, and for things that do not exist.
func TestMatrix(t *testing.T) {
	columns, every := readRoles(t)
	stranger := columns[len(columns)-1].rights
	resources, verbs := map[string]bool{"nonsense": true, "": true}, map[string]bool{"scanner-pull": true, "nonsense": true, "": true}
	for p := range every {
		resources[p.Resource], verbs[p.Action] = true, true
	}
	for _, c := range columns[:len(columns)-1] {
		for resource := range resources {
			for verb := range verbs {
				pair := access.Pair{Resource: resource, Action: verb}
				user := access.Principal{Kind: access.User, ID: 7, Name: "u"}
				private := access.Target{ProjectID: 3, Project: "p", Roles: []access.Role{c.role}}
				open := private
				open.Public = true
				check(t, c.name+", private", user, private, pair, c.rights[pair])
				check(t, c.name+", public", user, open, pair, c.rights[pair] || stranger[pair])
				check(t, "anonymous, private", access.Principal{}, access.Target{ProjectID: 3, Project: "p"}, pair, false)
				check(t, "anonymous, public", access.Principal{}, access.Target{ProjectID: 3, Project: "p", Public: true}, pair, stranger[pair])
				// Roles in a target are the asking user's: nobody else gains from them.
				check(t, "anonymous with roles", access.Principal{}, private, pair, false)
				check(t, "user, system", user, access.Target{}, pair, false)
				check(t, "user with roles, system", user, access.Target{Roles: []access.Role{c.role}, Public: true}, pair, false)
			}
		}
	}
}

func check(t *testing.T, who string, p access.Principal, target access.Target, pair access.Pair, want bool) {
	t.Helper()
	if got := access.May(p, target, pair.Resource, pair.Action); got != want {
		t.Errorf("%s: %s:%s is %v, want %v", who, pair.Resource, pair.Action, got, want)
	}
}

// Several roles are the union of each; an unknown role is none.
func TestRolesUnite(t *testing.T) {
	u := access.Principal{Kind: access.User, ID: 1, Name: "u"}
	both := access.Target{ProjectID: 1, Project: "p", Roles: []access.Role{access.LimitedGuest, access.Developer}}
	check(t, "limited guest and developer", u, both, access.Pair{Resource: "repository", Action: "push"}, true)
	check(t, "limited guest and developer", u, both, access.Pair{Resource: "artifact", Action: "delete"}, false)
	for _, r := range []access.Role{0, 6, 8, -1} {
		check(t, fmt.Sprintf("role %d", r), u, access.Target{ProjectID: 1, Roles: []access.Role{r}}, access.Pair{Resource: "repository", Action: "pull"}, false)
	}
}

// A system administrator may do everything but pass a scanner's policies.
func TestSysadmin(t *testing.T) {
	_, every := readRoles(t)
	system, project := access.Grantable()
	root := access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}
	for p := range every {
		check(t, "sysadmin", root, access.Target{ProjectID: 1, Project: "p"}, p, true)
	}
	for _, p := range slices.Concat(system, project) {
		check(t, "sysadmin", root, access.Target{}, p, true)
	}
	check(t, "sysadmin", root, access.Target{ProjectID: 1}, access.Pair{Resource: "repository", Action: "scanner-pull"}, false)
}

func readGrants(t testing.TB) (system, project map[access.Pair]bool) {
	t.Helper()
	text, err := os.ReadFile("testdata/grants.txt")
	if err != nil {
		t.Fatal(err)
	}
	system, project = map[access.Pair]bool{}, map[access.Pair]bool{}
	into := project
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"), line == "[project]":
			continue
		case line == "[system]":
			into = system
			continue
		}
		resource, cell, _ := strings.Cut(line, " ")
		for _, a := range actions(cell) {
			into[access.Pair{Resource: resource, Action: a}] = true
		}
	}
	return system, project
}

func TestGrantable(t *testing.T) {
	wantSystem, wantProject := readGrants(t)
	system, project := access.Grantable()
	for name, c := range map[string]struct {
		got  []access.Pair
		want map[access.Pair]bool
	}{"system": {system, wantSystem}, "project": {project, wantProject}} {
		if len(c.got) != len(c.want) || len(c.got) != 70 {
			t.Errorf("%s: %d pairs, want %d, and Harbor lists 70", name, len(c.got), len(c.want))
		}
		for _, p := range c.got {
			if !c.want[p] {
				t.Errorf("%s: %v is not Harbor's", name, p)
			}
		}
	}
}

// A robot has exactly the pairs of the blocks for the namespace, and what
// anyone has on a public project.
func TestRobots(t *testing.T) {
	pull, push := access.Pair{Resource: "repository", Action: "pull"}, access.Pair{Resource: "repository", Action: "push"}
	list := access.Pair{Resource: "project", Action: "list"}
	robot := access.Principal{Kind: access.Robot, ID: 1, Name: "robot$r", Permissions: []access.Permission{
		{Kind: "project", Namespace: "a", Access: []access.Pair{pull, push}},
		{Kind: "project", Namespace: "*", Access: []access.Pair{pull}},
		{Kind: "system", Namespace: "/", Access: []access.Pair{list}},
	}}
	a := access.Target{ProjectID: 1, Project: "a"}
	b := access.Target{ProjectID: 2, Project: "b", Roles: []access.Role{access.ProjectAdmin}}
	check(t, "named project", robot, a, push, true)
	check(t, "every project", robot, b, pull, true)
	check(t, "another project", robot, b, push, false)
	check(t, "roles are not a robot's", robot, b, access.Pair{Resource: "artifact", Action: "delete"}, false)
	check(t, "system", robot, access.Target{}, list, true)
	check(t, "system pair in a project", robot, a, list, false)
	check(t, "project pair on the system", robot, access.Target{}, pull, false)
	check(t, "public project", robot, access.Target{ProjectID: 3, Project: "c", Public: true}, access.Pair{Resource: "tag", Action: "list"}, true)

	tricky := access.Principal{Kind: access.Robot, Permissions: []access.Permission{
		{Kind: "system", Namespace: "*", Access: []access.Pair{list}},
		{Kind: "project", Namespace: "/", Access: []access.Pair{pull}},
		{Kind: "project", Namespace: "", Access: []access.Pair{push}},
	}}
	check(t, "system *", tricky, access.Target{}, list, false)
	check(t, "project /", tricky, a, pull, false)
	check(t, "project without a name", tricky, a, push, false)

	user := robot
	user.Kind = access.User
	check(t, "permissions are a robot's alone", user, a, push, false)
}

func TestCheckPermissions(t *testing.T) {
	pull := []access.Pair{{Resource: "repository", Action: "pull"}}
	list := []access.Pair{{Resource: "project", Action: "list"}}
	block := func(kind, namespace string, pairs []access.Pair) access.Permission {
		return access.Permission{Kind: kind, Namespace: namespace, Access: pairs}
	}
	for name, c := range map[string]struct {
		level  string
		blocks []access.Permission
		ok     bool
	}{
		"project":                     {"project", []access.Permission{block("project", "p", pull)}, true},
		"system":                      {"system", []access.Permission{block("system", "/", list), block("project", "*", pull)}, true},
		"unknown level":               {"galaxy", []access.Permission{block("project", "p", pull)}, false},
		"no block":                    {"system", nil, false},
		"two blocks":                  {"project", []access.Permission{block("project", "p", pull), block("project", "q", pull)}, false},
		"every project":               {"project", []access.Permission{block("project", "*", pull)}, false},
		"system block":                {"project", []access.Permission{block("system", "/", list)}, false},
		"system pair in a project":    {"system", []access.Permission{block("project", "p", list)}, false},
		"project pair on the system":  {"system", []access.Permission{block("system", "/", pull)}, false},
		"no access":                   {"system", []access.Permission{block("system", "/", nil)}, false},
		"project with system's space": {"system", []access.Permission{block("project", "/", pull)}, false},
		"unknown kind":                {"system", []access.Permission{block("cluster", "x", pull)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := access.CheckPermissions(c.level, c.blocks)
			if c.ok && err != nil || !c.ok && !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCovers(t *testing.T) {
	pull := []access.Pair{{Resource: "repository", Action: "pull"}}
	named := []access.Permission{{Kind: "project", Namespace: "a", Access: pull}}
	all := []access.Permission{{Kind: "project", Namespace: "*", Access: pull}}
	for name, c := range map[string]struct {
		has, wants []access.Permission
		want       bool
	}{
		"same":           {named, named, true},
		"all for one":    {all, named, true},
		"one for all":    {named, all, false},
		"another action": {all, []access.Permission{{Kind: "project", Namespace: "a", Access: []access.Pair{{Resource: "repository", Action: "push"}}}}, false},
		"another kind":   {all, []access.Permission{{Kind: "system", Namespace: "/", Access: pull}}, false},
	} {
		if got := access.Covers(access.Principal{Kind: access.Robot, Permissions: c.has}, c.wants); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestActions(t *testing.T) {
	user := access.Principal{Kind: access.User, ID: 1}
	in := func(public bool, roles ...access.Role) access.Target {
		return access.Target{ProjectID: 1, Project: "p", Public: public, Roles: roles}
	}
	scanner := access.Principal{Kind: access.Robot, Permissions: []access.Permission{{Kind: "project", Namespace: "p",
		Access: []access.Pair{{Resource: "repository", Action: "scanner-pull"}, {Resource: "repository", Action: "pull"}}}}}
	for name, c := range map[string]struct {
		p    access.Principal
		t    access.Target
		want string
	}{
		"maintainer":        {user, in(false, access.Maintainer), "pull push delete"},
		"developer":         {user, in(false, access.Developer), "pull push"},
		"limited guest":     {user, in(false, access.LimitedGuest), "pull"},
		"stranger, private": {user, in(false), ""},
		"anonymous, public": {access.Principal{}, in(true), "pull"},
		"sysadmin":          {access.Principal{Kind: access.User, Sysadmin: true}, in(false), "pull push delete"},
		"no project":        {access.Principal{Kind: access.User, Sysadmin: true}, access.Target{}, ""},
		"scanner":           {scanner, in(false), "pull scanner-pull"},
	} {
		if got := strings.Join(access.Actions(c.p, c.t), " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	reader := access.Principal{Kind: access.Robot, Permissions: []access.Permission{{Kind: "system", Namespace: "/", Access: []access.Pair{{Resource: "catalog", Action: "read"}}}}}
	if got := access.CatalogActions(reader); !slices.Equal(got, []string{"*"}) {
		t.Errorf("catalog robot: %v", got)
	}
	if got := access.CatalogActions(user); got != nil {
		t.Errorf("catalog user: %v", got)
	}
}

// What GET /users/current/permissions shows a stranger of a public project, as
// a Harbor was seen to answer it.
func TestHeld(t *testing.T) {
	want := "project:read repository:list repository:pull scan:read scanner:read tag:list accessory:list artifact:read artifact:list artifact-addition:read label:read label:list"
	var got []string
	for _, p := range access.Held(access.Principal{Kind: access.User, ID: 9}, access.Target{ProjectID: 1, Public: true}) {
		got = append(got, p.Resource+":"+p.Action)
	}
	wantAll := strings.Fields(want)
	slices.Sort(got)
	slices.Sort(wantAll)
	if !slices.Equal(got, wantAll) {
		t.Errorf("got  %v\nwant %v", got, wantAll)
	}
}

func TestMayCreateProject(t *testing.T) {
	user, root := access.Principal{Kind: access.User}, access.Principal{Kind: access.User, Sysadmin: true}
	robot := access.Principal{Kind: access.Robot}
	maker := access.Principal{Kind: access.Robot, Permissions: []access.Permission{{Kind: "system", Namespace: "/", Access: []access.Pair{{Resource: "project", Action: "create"}}}}}
	for _, c := range []struct {
		p        access.Principal
		everyone bool
		want     bool
	}{{user, true, true}, {user, false, false}, {root, false, true}, {robot, true, false}, {maker, false, true}, {access.Principal{}, true, false}} {
		if got := access.MayCreateProject(c.p, c.everyone); got != c.want {
			t.Errorf("%+v, everyone %v: %v, want %v", c.p, c.everyone, got, c.want)
		}
	}
}

func TestMayAllocatesNothing(t *testing.T) {
	p := access.Principal{Kind: access.User, ID: 1}
	target := access.Target{ProjectID: 1, Project: "p", Roles: []access.Role{access.Developer}}
	if n := testing.AllocsPerRun(100, func() {
		access.May(p, target, "repository", "push")
		access.Actions(p, target)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMay(b *testing.B) {
	p := access.Principal{Kind: access.User, ID: 1}
	t := access.Target{ProjectID: 1, Project: "p", Roles: []access.Role{access.Developer}}
	b.ReportAllocs()
	for b.Loop() {
		access.May(p, t, "repository", "push")
	}
}

// A block's patterns limit what it gives to repositories and tags; without
// patterns, and for everybody else, nothing changes.
func TestPatterns(t *testing.T) {
	t.Parallel()
	pair := func(resource, action string) access.Pair { return access.Pair{Resource: resource, Action: action} }
	robot := access.Principal{Kind: access.Robot, Permissions: []access.Permission{
		{Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull"), pair("artifact", "list")}, Repositories: []string{"a/**", "b"}},
		{Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "push"), pair("tag", "create")}, Tags: []string{"v*"}},
		{Kind: "project", Namespace: "p", Access: []access.Pair{pair("label", "list")}},
	}}
	if err := access.CheckPermissions("project", robot.Permissions); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		repository, tag, resource, action string
		want                              bool
	}{
		{"a/x", "", "repository", "pull", true}, {"b", "", "repository", "pull", true}, {"c", "", "repository", "pull", false},
		{"", "", "repository", "pull", false}, {"", "", "artifact", "list", false}, {"a/x/y", "latest", "artifact", "list", true},
		{"c", "", "repository", "push", true}, {"c", "v1", "repository", "push", true}, {"c", "latest", "repository", "push", false},
		{"c", access.EveryTag, "repository", "push", false}, {"c", "x", "tag", "create", false},
		{"", "", "label", "list", true}, {"c", "x", "label", "list", true},
	} {
		target := access.Target{ProjectID: 1, Project: "p", Repository: c.repository, Tag: c.tag}
		if got := access.May(robot, target, c.resource, c.action); got != c.want {
			t.Errorf("%s %s on %q:%q: %v", c.resource, c.action, c.repository, c.tag, got)
		}
	}
	grants := access.TagGrants(robot, access.Target{ProjectID: 1, Project: "p", Public: true, Repository: "c"})
	if len(grants) != 1 || len(grants[0].Actions) != 1 || grants[0].Actions[0] != "push" {
		t.Errorf("grants %v", grants)
	}
	for name, b := range map[string]access.Permission{
		"tags on a member":          {Kind: "project", Namespace: "p", Access: []access.Pair{pair("member", "list")}, Tags: []string{"v*"}},
		"repositories on a system":  {Kind: "system", Namespace: "/", Access: []access.Pair{pair("catalog", "read")}, Repositories: []string{"*"}},
		"tags on a whole deletion":  {Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "delete")}, Tags: []string{"v*"}},
		"a malformed pattern":       {Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull")}, Repositories: []string{"[a"}},
		"an empty pattern":          {Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull")}, Repositories: []string{""}},
		"more patterns than may be": {Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull")}, Tags: make([]string, 21)},
	} {
		if access.CheckPermissions("system", []access.Permission{b}) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	maker := access.Principal{Kind: access.Robot, Permissions: []access.Permission{
		{Kind: "project", Namespace: "*", Access: []access.Pair{pair("repository", "pull")}, Repositories: []string{"a/**", "b"}}}}
	for want, patterns := range map[bool][]string{true: {"b"}, false: nil} {
		if got := access.Covers(maker, []access.Permission{{Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull")}, Repositories: patterns}}); got != want {
			t.Errorf("a robot limited to a/** and b may give rights on %v: %v", patterns, got)
		}
	}
}
