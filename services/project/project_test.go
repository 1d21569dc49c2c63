package project_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/database"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/project"
	"berth/services/query"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

type bundle struct {
	*project.Store
	pool              *pgxpool.Pool
	root, anna, other access.Principal
}

func setup(t *testing.T) bundle {
	t.Helper()
	t.Parallel()
	pool := dbtest.New(t)
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	b := bundle{Store: project.New(pool, outbox), pool: pool}
	for _, u := range []struct {
		p    *access.Principal
		name string
		root bool
	}{{&b.root, "admin", true}, {&b.anna, "anna", false}, {&b.other, "other", false}} {
		*u.p = access.Principal{Kind: access.User, Name: u.name, Sysadmin: u.root}
		if err := pool.QueryRow(t.Context(), `INSERT INTO users (username, sysadmin) VALUES ($1, $2) RETURNING id`, u.name, u.root).Scan(&u.p.ID); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b bundle) create(t *testing.T, p access.Principal, name string, public bool) int64 {
	t.Helper()
	id, err := b.Create(t.Context(), p, name, project.Settings{Metadata: map[string]string{"public": fmt.Sprint(public)}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// repository makes a repository as the registry would: with content, or with
// nothing left but the recycle bin.
func (b bundle) repository(t *testing.T, projectID int64, name string, content bool) {
	t.Helper()
	if _, err := b.pool.Exec(t.Context(), `INSERT INTO repositories (project_id, name, has_manifests) VALUES ($1, $2, $3)`, projectID, name, content); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v, want a fault %q", err, kind)
	}
}

func TestTarget(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.create(t, b.anna, "p", true)
	got, err := b.Target(ctx, b.anna, "p")
	if err != nil || got.ProjectID != id || got.Project != "p" || !got.Public || len(got.Roles) != 1 || got.Roles[0] != access.ProjectAdmin {
		t.Errorf("%+v, %v", got, err)
	}
	// A robot that happens to have the id of a member has no role.
	for _, p := range []access.Principal{{}, b.other, {Kind: access.Robot, ID: b.anna.ID}} {
		if got, err := b.TargetByID(ctx, p, id); err != nil || len(got.Roles) != 0 {
			t.Errorf("%+v: %+v, %v", p, got, err)
		}
	}
	_, err = b.Target(ctx, b.root, "nosuch")
	want(t, err, fault.NotFound)
	_, err = b.TargetByID(ctx, b.root, 99)
	want(t, err, fault.NotFound)
}

func TestCreate(t *testing.T) {
	b, ctx := setup(t), t.Context()
	limit := int64(1 << 30)
	id, err := b.Create(ctx, b.anna, "p", project.Settings{Metadata: map[string]string{"auto_scan": "true", "public": "true"}, StorageLimit: &limit,
		Allowlist: &project.Allowlist{Items: []project.AllowedCVE{{ID: "CVE-2026-1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Project(ctx, b.anna, id)
	if err != nil || p.Name != "p" || p.OwnerID != b.anna.ID || p.OwnerName != "anna" || !p.Public || p.StorageLimit != limit ||
		p.Metadata["auto_scan"] != "true" || p.Metadata["public"] != "true" || len(p.Allowlist.Items) != 1 || len(p.Roles) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = b.Create(ctx, b.root, "p", project.Settings{})
	want(t, err, fault.Conflict)
	for _, name := range []string{"", "Bad", "a/b", "a..b", "-a", strings.Repeat("a", 256)} {
		_, err = b.Create(ctx, b.root, name, project.Settings{})
		want(t, err, fault.Invalid)
	}
	zero := int64(0)
	for _, set := range []project.Settings{{Metadata: map[string]string{"foo": "true"}}, {Metadata: map[string]string{"public": "maybe"}},
		{Metadata: map[string]string{"severity": "awful"}}, {StorageLimit: &zero},
		{Allowlist: &project.Allowlist{Items: []project.AllowedCVE{{ID: "x y"}}}}} {
		_, err = b.Create(ctx, b.root, "q", set)
		want(t, err, fault.Invalid)
	}
	// A robot's project belongs to the administrator.
	id, err = b.Create(ctx, access.Principal{Kind: access.Robot, ID: b.anna.ID}, "robots", project.Settings{})
	if p, err2 := b.Project(ctx, b.root, id); err != nil || err2 != nil || p.OwnerID != b.root.ID {
		t.Errorf("%+v, %v, %v", p, err, err2)
	}
}

func TestList(t *testing.T) {
	b, ctx := setup(t), t.Context()
	b.create(t, b.anna, "a-private", false)
	b.create(t, b.anna, "a-public", true)
	b.create(t, b.other, "o-private", false)
	robot := func(namespace string) access.Principal {
		return access.Principal{Kind: access.Robot, Permissions: []access.Permission{{Kind: "project", Namespace: namespace, Access: []access.Pair{{Resource: "repository", Action: "pull"}}}}}
	}
	for name, c := range map[string]struct {
		p       access.Principal
		q, want string
	}{
		"sysadmin":       {b.root, "", "a-private a-public o-private"},
		"member":         {b.anna, "", "a-private a-public"},
		"stranger":       {b.other, "", "a-public o-private"},
		"anonymous":      {access.Principal{}, "", "a-public"},
		"private only":   {b.anna, "public=false", "a-private"},
		"anonymous, too": {access.Principal{}, "public=false", ""},
		"by owner":       {b.root, "owner=other", "o-private"},
		"contains":       {b.root, "name=~PRIV", "a-private o-private"},
		"robot of one":   {robot("o-private"), "", "a-public o-private"},
		"robot of all":   {robot("*"), "", "a-private a-public o-private"},
	} {
		terms, err := query.Parse(c.q)
		if err != nil {
			t.Fatal(err)
		}
		page, err := b.List(ctx, c.p, query.Query{Terms: terms})
		var got []string
		for _, p := range page.Items {
			got = append(got, p.Name)
		}
		if err != nil || strings.Join(got, " ") != c.want || page.Total != len(got) {
			t.Errorf("%s: %v of %d, %v; want %s", name, got, page.Total, err, c.want)
		}
	}
	page, err := b.List(ctx, b.root, query.Query{Page: 2, Size: 2, Sort: query.ParseSort("-name")})
	if err != nil || page.Total != 3 || len(page.Items) != 1 || page.Items[0].Name != "a-private" {
		t.Errorf("%+v, %v", page, err)
	}
	c, err := b.Counts(ctx, b.anna)
	if err != nil || c != (project.Counts{PublicProjects: 1, PrivateProjects: 1}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestUpdate(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.create(t, b.anna, "p", false)
	if err := b.Update(ctx, id, project.Settings{Metadata: map[string]string{"public": "true", "severity": "high"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Update(ctx, id, project.Settings{Metadata: map[string]string{"auto_scan": "true"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteMetadata(ctx, id, "severity"); err != nil {
		t.Fatal(err)
	}
	got, err := b.Metadata(ctx, id)
	if fmt.Sprint(got) != "map[auto_scan:true public:true]" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	want(t, b.DeleteMetadata(ctx, id, "public"), fault.Invalid)
	want(t, b.Update(ctx, 99, project.Settings{}), fault.NotFound)
}

func TestDelete(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.create(t, b.anna, "p", false)
	b.repository(t, id, "p/full", true)
	want(t, b.Delete(ctx, id), fault.Precondition)
	if ok, why, err := b.Deletable(ctx, id); ok || why == "" || err != nil {
		t.Errorf("%v, %q, %v", ok, why, err)
	}
	if _, err := b.pool.Exec(ctx, `UPDATE repositories SET has_manifests = false`); err != nil {
		t.Fatal(err)
	}
	if ok, _, err := b.Deletable(ctx, id); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	b.robot(t, "sys", nil, `[{"kind":"project","namespace":"p","access":[{"resource":"repository","action":"pull"}]},{"kind":"project","namespace":"q","access":[{"resource":"repository","action":"pull"}]}]`)
	b.robot(t, "p+r", &id, `[{"kind":"project","namespace":"p","access":[]}]`)
	if err := b.Delete(ctx, id); err != nil {
		t.Fatal(err)
	}
	// A later project of the name owes the old one's robots nothing.
	if got := b.robots(t); got != "sys:q" {
		t.Errorf("robots %s", got)
	}
	want(t, b.Delete(ctx, id), fault.NotFound)
}

func (b bundle) robot(t *testing.T, login string, projectID *int64, permissions string) {
	t.Helper()
	if _, err := b.pool.Exec(t.Context(), `INSERT INTO robots (name, login, project_id, secret_hash, permissions) VALUES ('r', $1, $2, '', $3)`, login, projectID, permissions); err != nil {
		t.Fatal(err)
	}
}

// robots lists logins and the namespaces that they have permissions in.
func (b bundle) robots(t *testing.T) (s string) {
	t.Helper()
	err := b.pool.QueryRow(t.Context(), `
		SELECT coalesce(string_agg(login || ':' || (SELECT coalesce(string_agg(x->>'namespace', ','), '') FROM jsonb_array_elements(permissions) x), ' ' ORDER BY login), '')
		FROM robots`).Scan(&s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRename(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.create(t, b.anna, "old", false)
	b.create(t, b.anna, "taken", false)
	b.repository(t, id, "old/app", true)
	b.repository(t, id, "old/old/deep", true)
	b.robot(t, "old+r", &id, `[{"kind":"project","namespace":"old","access":[]}]`)
	b.robot(t, "sys", nil, `[{"kind":"project","namespace":"*","access":[]},{"kind":"project","namespace":"old","access":[]}]`)
	want(t, b.Rename(ctx, id, "taken"), fault.Conflict)
	want(t, b.Rename(ctx, id, "Bad"), fault.Invalid)
	want(t, b.Rename(ctx, 99, "x"), fault.NotFound)
	want(t, b.Rename(ctx, id, strings.Repeat("x", 250)), fault.Invalid)
	if err := b.Rename(ctx, id, "renamed"); err != nil {
		t.Fatal(err)
	}
	var names string
	if err := b.pool.QueryRow(ctx, `SELECT string_agg(name, ' ' ORDER BY name) FROM repositories`).Scan(&names); err != nil || names != "renamed/app renamed/old/deep" {
		t.Errorf("repositories %s, %v", names, err)
	}
	if got := b.robots(t); got != "renamed+r:renamed sys:*,renamed" {
		t.Errorf("robots %s", got)
	}
	if _, err := b.Target(ctx, b.anna, "renamed"); err != nil {
		t.Error(err)
	}
}

// A push that runs beside a project's deletion either makes the project
// undeletable or fails; it never leaves a repository without a project.
func TestDeleteBesidePush(t *testing.T) {
	b, ctx := setup(t), t.Context()
	for i := range 20 {
		id := b.create(t, b.anna, fmt.Sprintf("p%d", i), false)
		var pushed, deleted error
		var wg sync.WaitGroup
		wg.Go(func() {
			pushed = database.InTx(ctx, b.pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO repositories (project_id, name, has_manifests) VALUES ($1, $2, true)`, id, fmt.Sprintf("p%d/app", i))
				return err
			})
		})
		wg.Go(func() { deleted = b.Delete(context.WithoutCancel(ctx), id) })
		wg.Wait()
		if (pushed == nil) == (deleted == nil) {
			t.Errorf("push: %v; delete: %v", pushed, deleted)
		}
	}
}

func TestMembers(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.create(t, b.anna, "p", false)
	target := access.Target{ProjectID: id, Project: "p"}
	mid, err := b.AddMember(ctx, target, 0, "other", access.Developer)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.AddMember(ctx, target, b.other.ID, "", access.Guest)
	want(t, err, fault.Conflict)
	_, err = b.AddMember(ctx, target, 0, "nosuch", access.Guest)
	want(t, err, fault.NotFound)
	_, err = b.AddMember(ctx, target, 0, "admin", 9)
	want(t, err, fault.Invalid)
	_, err = b.AddMember(ctx, access.Target{ProjectID: 99, Project: "x"}, b.root.ID, "", access.Guest)
	want(t, err, fault.NotFound)

	if err := b.SetRole(ctx, target, mid, access.Maintainer); err != nil {
		t.Error(err)
	}
	m, err := b.Member(ctx, id, mid)
	if err != nil || m.Name != "other" || m.EntityID != b.other.ID || m.Role != access.Maintainer {
		t.Errorf("%+v, %v", m, err)
	}
	page, err := b.Members(ctx, id, "OTH", query.Query{Page: 1, Size: 10})
	if err != nil || page.Total != 1 || page.Items[0].ID != mid {
		t.Errorf("%+v, %v", page, err)
	}
	// A member is found in its own project only.
	_, err = b.Member(ctx, b.create(t, b.anna, "q", false), mid)
	want(t, err, fault.NotFound)
	want(t, b.SetRole(ctx, access.Target{ProjectID: 99}, mid, access.Guest), fault.NotFound)
	sum, err := b.Summary(ctx, id)
	if err != nil || sum.Members[access.ProjectAdmin] != 1 || sum.Members[access.Maintainer] != 1 || sum.StorageLimit != -1 {
		t.Errorf("%+v, %v", sum, err)
	}
	if err := b.RemoveMember(ctx, target, mid); err != nil {
		t.Error(err)
	}
	want(t, b.RemoveMember(ctx, target, mid), fault.NotFound)
}

func TestEnsureLibrary(t *testing.T) {
	b, ctx := setup(t), t.Context()
	for range 2 {
		if err := b.EnsureLibrary(ctx); err != nil {
			t.Fatal(err)
		}
	}
	p, err := b.Project(ctx, b.root, 1)
	if err != nil || p.Name != "library" || !p.Public || p.OwnerName != "admin" || len(p.Roles) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	if id := b.create(t, b.anna, "next", false); id != 2 {
		t.Errorf("the next project has id %d", id)
	}
}

// A user has the roles of the user's groups, too: at the token service, in
// lists, and where a project's audit trail is read.
func TestGroupMembers(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.create(t, b.root, "p", false)
	b.create(t, b.root, "q", false)
	target := access.Target{ProjectID: id, Project: "p"}
	var group int64
	if err := b.pool.QueryRow(ctx, `INSERT INTO user_groups (name, type) VALUES ('ops', 3) RETURNING id`).Scan(&group); err != nil {
		t.Fatal(err)
	}
	mid, err := b.AddGroup(ctx, target, group, access.ProjectAdmin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.AddGroup(ctx, target, group, access.Guest)
	want(t, err, fault.Conflict)
	_, err = b.AddGroup(ctx, target, 99, access.Guest)
	want(t, err, fault.NotFound)
	if _, err := b.AddMember(ctx, target, b.anna.ID, "", access.Guest); err != nil {
		t.Fatal(err)
	}
	m, err := b.Member(ctx, id, mid)
	if err != nil || !m.Group || m.EntityID != group || m.Name != "ops" {
		t.Errorf("%+v, %v", m, err)
	}
	anna := b.anna
	anna.Groups = []int64{group, 77}
	got, err := b.Target(ctx, anna, "p")
	if err != nil || fmt.Sprint(got.Roles) != "[guest projectAdmin]" {
		t.Errorf("%v, %v", got.Roles, err)
	}
	p, err := b.Project(ctx, anna, id)
	if err != nil || len(p.Roles) != 2 {
		t.Errorf("%v, %v", p.Roles, err)
	}
	other := b.other
	other.Groups = anna.Groups
	for name, c := range map[string]struct {
		p    access.Principal
		want string
	}{"by group": {other, "[p]"}, "by neither": {b.other, "[]"}, "a robot": {access.Principal{Kind: access.Robot, Groups: anna.Groups}, "[]"},
		"a token for q": {other.Limited(access.Limit{Projects: []int64{id + 1}}), "[]"}, "an administrator's token for q": {b.root.Limited(access.Limit{Projects: []int64{id + 1}}), "[q]"}} {
		page, err := b.List(ctx, c.p, query.Query{})
		names := []string{}
		for _, p := range page.Items {
			names = append(names, p.Name)
		}
		if fmt.Sprint(names) != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
	if ids, err := b.Administered(ctx, other); fmt.Sprint(ids) != fmt.Sprint([]int64{id}) || err != nil {
		t.Errorf("%v, %v", ids, err)
	}
	if err := b.SetRole(ctx, target, mid, access.Developer); err != nil {
		t.Error(err)
	}
	page, err := b.Members(ctx, id, "OP", query.Query{})
	if err != nil || page.Total != 1 || page.Items[0].Role != access.Developer {
		t.Errorf("%+v, %v", page, err)
	}
	if err := b.RemoveMember(ctx, target, mid); err != nil {
		t.Error(err)
	}
}
