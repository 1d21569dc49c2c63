package account_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/account"
	"berth/services/configuration"
	"berth/services/directory"
	"berth/services/directory/slapdtest"
	"berth/services/event"
)

// configured is a store in an authentication mode, with a directory if ldap_auth.
type configured struct {
	bundle
	settings *configuration.Store
	slapd    *slapdtest.Server
}

func configure(t *testing.T, mode string) configured {
	t.Helper()
	t.Parallel()
	c := configured{bundle: setup(t)}
	outbox, err := event.NewOutbox(c.pool)
	if err != nil {
		t.Fatal(err)
	}
	c.settings = configuration.New(c.pool, secret.NewKey(make([]byte, 32)), outbox)
	people := directory.New(func(ctx context.Context) (directory.Settings, error) {
		s, err := c.settings.Current(ctx)
		return directory.From(s), err
	}, (&net.Dialer{}).DialContext)
	t.Cleanup(people.Close)
	c.Consult(c.settings, people)
	c.set(t, map[string]any{"auth_mode": mode})
	if mode == "ldap_auth" {
		c.slapd = slapdtest.Start(t)
		c.set(t, map[string]any{"ldap_url": c.slapd.URL, "ldap_base_dn": slapdtest.People, "ldap_uid": "uid",
			"ldap_search_dn": slapdtest.SearchDN, "ldap_search_password": slapdtest.Password, "ldap_timeout": 3,
			"ldap_group_base_dn": slapdtest.Groups, "ldap_group_admin_dn": "cn=admins,ou=other," + slapdtest.Base})
	}
	return c
}

func (c configured) set(t *testing.T, values map[string]any) {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	var change configuration.Change
	if err := json.Unmarshal(text, &change); err != nil {
		t.Fatal(err)
	}
	if err := c.settings.Update(t.Context(), change); err != nil {
		t.Fatal(err)
	}
}

// fresh is another process on the same database: it remembers nothing.
func (c configured) fresh(t *testing.T) configured {
	t.Helper()
	outbox, err := event.NewOutbox(c.pool)
	if err != nil {
		t.Fatal(err)
	}
	people := directory.New(func(ctx context.Context) (directory.Settings, error) {
		s, err := c.settings.Current(ctx)
		return directory.From(s), err
	}, (&net.Dialer{}).DialContext)
	t.Cleanup(people.Close)
	c.Store = account.New(c.pool, secret.NewKey(make([]byte, 32)), outbox)
	c.Consult(c.settings, people)
	return c
}

func (c configured) groupNames(t *testing.T, p access.Principal) (names []string) {
	t.Helper()
	for _, id := range p.Groups {
		g, err := c.Group(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, g.Name)
	}
	return names
}

func TestLDAPUsers(t *testing.T) {
	c, ctx := configure(t, "ldap_auth"), t.Context()
	p, err := c.Authenticate(ctx, "Anna", slapdtest.Password, "10.0.0.1")
	if err != nil || p.Name != "anna" || !p.Sysadmin || fmt.Sprint(c.groupNames(t, p)) != "[developers]" {
		t.Fatalf("%+v, %v", p, err)
	}
	u, err := c.User(ctx, p.ID)
	if err != nil || u.Email != "anna@example.com" || u.Realname != "The anna" || u.Source != account.LDAP || !u.AdminByGroup || u.Sysadmin {
		t.Errorf("%+v, %v", u, err)
	}
	if !slices.Contains(c.events(t), "create user anna") {
		t.Errorf("events %v", c.events(t))
	}
	for user, password := range map[string]string{"anna": "wrong", "ben": "", "nobody": "Reader12345", "twin": slapdtest.Password, "*": slapdtest.Password, "o'neill (x)*": "x"} {
		_, err := c.Authenticate(ctx, user, password, "10.0.0.2")
		want(t, err, fault.Unauthenticated)
	}
	// The e-mail address will do as well, unless it is somebody's name there.
	if byMail, err := c.Authenticate(ctx, "anna@example.com", slapdtest.Password, "10.0.0.5"); err != nil || byMail.ID != p.ID {
		t.Errorf("%+v, %v", byMail, err)
	}
	c.slapd.Person(t, "anna@example.com", slapdtest.People)
	if other, err := c.fresh(t).Authenticate(ctx, "anna@example.com", slapdtest.Password, "10.0.0.5"); err != nil || other.Name != "anna@example.com" {
		t.Errorf("%+v, %v", other, err)
	}
	// The first administrator's password is here, whatever the directory has.
	c.slapd.Person(t, "admin", slapdtest.People)
	_, err = c.Authenticate(ctx, "admin", slapdtest.Password, "10.0.0.3")
	want(t, err, fault.Unauthenticated)
	if p, err := c.Authenticate(ctx, "admin", password, "10.0.0.3"); err != nil || p.ID != 1 || !p.Sysadmin {
		t.Errorf("%+v, %v", p, err)
	}
	// Password and profile are the directory's.
	want(t, c.ResetPassword(ctx, u.ID, "Another12345"), fault.Forbidden)
	want(t, c.UpdateUser(ctx, u.ID, account.Profile{Email: "x@example.com", Realname: "x"}), fault.Forbidden)
	// A local user's name is not taken over.
	c.user(t, "ben")
	_, err = c.Authenticate(ctx, "ben", slapdtest.Password, "10.0.0.4")
	want(t, err, fault.Unauthenticated)
}

// What the directory says anew counts from the next login that asks it.
func TestLDAPRefresh(t *testing.T) {
	c, ctx := configure(t, "ldap_auth"), t.Context()
	login := func() access.Principal {
		t.Helper()
		p, err := c.fresh(t).Authenticate(ctx, "anna", slapdtest.Password, "10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := login()
	c.slapd.Change(t, "cn=admins,ou=other,"+slapdtest.Base, "member", slapdtest.PersonDN("ben"))
	c.slapd.Change(t, "cn=developers,"+slapdtest.Groups, "member", slapdtest.PersonDN("ben"))
	c.slapd.Group(t, "new", slapdtest.Groups, slapdtest.PersonDN("anna"))
	c.slapd.Change(t, slapdtest.PersonDN("anna"), "mail", "not an address")
	p := login()
	if p.ID != first.ID || p.Sysadmin || fmt.Sprint(c.groupNames(t, p)) != "[new]" {
		t.Errorf("%+v, groups %v", p, c.groupNames(t, p))
	}
	if u, err := c.User(ctx, p.ID); err != nil || u.Email != "" || u.AdminByGroup {
		t.Errorf("%+v, %v", u, err)
	}
	// Somebody else's e-mail address is not taken, and keeps nobody out.
	c.slapd.Change(t, slapdtest.PersonDN("anna"), "mail", "ben@example.com")
	if _, err := c.Authenticate(ctx, "ben", slapdtest.Password, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	login()
	// Nothing new writes nothing.
	var before, after string
	const stamp = `SELECT string_agg(xmin::text, ' ' ORDER BY id) FROM users`
	for _, into := range []*string{&before, &after} {
		if err := c.pool.QueryRow(ctx, stamp).Scan(into); err != nil {
			t.Fatal(err)
		}
		login()
	}
	// The row is locked during a login, which may show in xmax but not in xmin.
	if before != after {
		t.Errorf("rows written: %s, then %s", before, after)
	}
}

// While the directory is away its users cannot log in, nobody is told that a
// password is wrong, and nobody has to wait for it afterwards.
func TestLDAPAway(t *testing.T) {
	c, ctx := configure(t, "ldap_auth"), t.Context()
	if _, err := c.Authenticate(ctx, "anna", slapdtest.Password, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	fresh := c.fresh(t)
	c.slapd.Stop()
	for range 6 {
		_, err := fresh.Authenticate(ctx, "anna", slapdtest.Password, "10.0.0.1")
		want(t, err, fault.Unavailable)
	}
	if _, err := fresh.Authenticate(ctx, "admin", password, "10.0.0.1"); err != nil {
		t.Error(err)
	}
	c.slapd.Resume(t)
	if _, err := fresh.Authenticate(ctx, "anna", slapdtest.Password, "10.0.0.1"); err != nil {
		t.Error(err)
	}
}

// Many first logins at once make one user and one of each group.
func TestLDAPFirstLogins(t *testing.T) {
	c, ctx := configure(t, "ldap_auth"), t.Context()
	var all sync.WaitGroup
	stores := []configured{c, c.fresh(t), c.fresh(t)}
	for i := range 12 {
		all.Go(func() {
			name := []string{"anna", "ben"}[i%2]
			if p, err := stores[i%3].Authenticate(ctx, name, slapdtest.Password, fmt.Sprintf("10.0.1.%d", i)); err != nil || len(p.Groups) != 1 {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	all.Wait()
	var users, groups int
	if err := c.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM user_groups)`).Scan(&users, &groups); err != nil || users != 3 || groups != 1 {
		t.Errorf("%d users, %d groups, %v", users, groups, err)
	}
}

func TestModes(t *testing.T) {
	for mode, hint := range map[string]string{"http_auth": "not supported", "uaa_auth": "not supported", "oidc_auth": "wrong"} {
		t.Run(mode, func(t *testing.T) {
			c := configure(t, mode)
			if _, err := c.Authenticate(t.Context(), "admin", password, "10.0.0.1"); err != nil {
				t.Error(err)
			}
			_, err := c.Authenticate(t.Context(), "anna", password, "10.0.0.1")
			want(t, err, fault.Unauthenticated)
			if text := fault.Of(err).Text; !strings.Contains(text, hint) {
				t.Errorf("%s", text)
			}
		})
	}
}

func (c configured) token(t *testing.T, p access.Principal, n account.NewToken, projects ...int64) (int64, string) {
	t.Helper()
	id, text, err := c.CreateToken(t.Context(), p, n, projects)
	if err != nil {
		t.Fatal(err)
	}
	return id, text.Reveal()
}

func TestTokens(t *testing.T) {
	c, ctx := configure(t, "db_auth"), t.Context()
	anna := access.Principal{Kind: access.User, ID: c.user(t, "anna"), Name: "anna"}
	c.user(t, "ben")
	reader, text := c.token(t, anna, account.NewToken{Name: "reader", ReadOnly: true, Days: 30})
	p, err := c.Authenticate(ctx, "anna", text, "10.0.0.1")
	if err != nil || p.ID != anna.ID || p.Limit == nil || !p.Limit.ReadOnly || p.Limit.Projects != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	if p, err := c.Authenticate(ctx, "anna@example.com", text, "10.0.0.1"); err != nil || p.ID != anna.ID {
		t.Errorf("%+v, %v", p, err)
	}
	for user, password := range map[string]string{"ben": text, "admin": text, "anna": text[:len(text)-1] + "!", "nobody": text} {
		_, err := c.Authenticate(ctx, user, password, "10.0.0.9")
		want(t, err, fault.Unauthenticated)
	}
	_, _, err = c.CreateToken(ctx, anna, account.NewToken{Name: "reader", Days: 1}, nil)
	want(t, err, fault.Conflict)
	for _, n := range []account.NewToken{{Days: 1}, {Name: "x"}, {Name: "x", Days: -2}, {Name: "x", Days: 99999}} {
		_, _, err = c.CreateToken(ctx, anna, n, nil)
		want(t, err, fault.Invalid)
	}
	// An administrator's narrowed token is no administrator's.
	root := access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}
	_, narrow := c.token(t, root, account.NewToken{Name: "narrow", Days: -1}, 7)
	if p, err := c.Authenticate(ctx, "admin", narrow, "10.0.0.1"); err != nil || p.Sysadmin || !access.May(p, access.Target{ProjectID: 7}, "artifact", "delete") || access.May(p, access.Target{}, "user", "list") {
		t.Errorf("%+v, %v", p, err)
	}
	_, wide := c.token(t, root, account.NewToken{Name: "wide", Days: -1})
	if p, err := c.Authenticate(ctx, "admin", wide, "10.0.0.1"); err != nil || !p.Sysadmin || p.Limit == nil {
		t.Errorf("%+v, %v", p, err)
	}
	list, err := c.Tokens(ctx, anna.ID)
	if err != nil || len(list) != 1 || list[0].ID != reader || !list[0].ReadOnly || list[0].Projects != nil || time.Until(list[0].Expires) < 29*24*time.Hour {
		t.Errorf("%+v, %v", list, err)
	}
	// Revoked, expired, or its user gone: refused at once.
	want(t, c.DeleteToken(ctx, 1, reader), fault.NotFound)
	if err := c.DeleteToken(ctx, anna.ID, reader); err != nil {
		t.Fatal(err)
	}
	_, err = c.Authenticate(ctx, "anna", text, "10.0.0.1")
	want(t, err, fault.Unauthenticated)
	_, old := c.token(t, anna, account.NewToken{Name: "old", Days: 1})
	if _, err := c.pool.Exec(ctx, `UPDATE access_tokens SET expires_at = now() - interval '1 s' WHERE name = 'old'`); err != nil {
		t.Fatal(err)
	}
	_, err = c.Authenticate(ctx, "anna", old, "10.0.0.1")
	want(t, err, fault.Unauthenticated)
	var shown bool
	if err := c.pool.QueryRow(ctx, `SELECT coalesce(bool_or(t::text LIKE '%bpat_%'), false) FROM access_tokens t`).Scan(&shown); err != nil || shown {
		t.Errorf("the table shows a secret: %v", err)
	}
}

// A token of a directory's user ends with the user there, and follows its groups.
func TestLDAPTokens(t *testing.T) {
	c, ctx := configure(t, "ldap_auth"), t.Context()
	p, err := c.Authenticate(ctx, "ben", slapdtest.Password, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	_, text := c.token(t, p, account.NewToken{Name: "ci", Days: 30})
	use := func() (access.Principal, error) { return c.fresh(t).Authenticate(ctx, "ben", text, "10.0.0.1") }
	c.slapd.Group(t, "later", slapdtest.Groups, slapdtest.PersonDN("ben"))
	if p, err := use(); err != nil || fmt.Sprint(c.groupNames(t, p)) != "[developers later]" || p.Limit == nil {
		t.Errorf("%+v, %v", p, err)
	}
	c.slapd.Stop()
	if p, err := use(); err != nil || len(p.Groups) != 2 {
		t.Errorf("while the directory is away: %+v, %v", p, err)
	}
	c.slapd.Resume(t)
	c.slapd.Delete(t, slapdtest.PersonDN("ben"))
	_, err = use()
	want(t, err, fault.Unauthenticated)
}

func TestOIDCUsers(t *testing.T) {
	c, ctx := configure(t, "oidc_auth"), t.Context()
	e := account.External{Source: account.OIDC, Username: "anna", Email: "anna@example.com", Realname: "Anna", Groups: []account.Group{{Name: "ops", Type: account.OIDCGroup}}}
	_, err := c.LoginOIDC(ctx, "1https://idp", e)
	want(t, err, fault.NotFound)
	p, err := c.OnboardOIDC(ctx, "1https://idp", e)
	if err != nil || p.Name != "anna" || len(p.Groups) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = c.OnboardOIDC(ctx, "2https://idp", e)
	want(t, err, fault.Conflict)
	e.Username, e.Groups, e.Admin = "renamed", nil, true
	if again, err := c.LoginOIDC(ctx, "1https://idp", e); err != nil || again.ID != p.ID || again.Name != "anna" || len(again.Groups) != 0 || !again.Sysadmin {
		t.Errorf("%+v, %v", again, err)
	}
	m, err := c.OIDCMeta(ctx, p.ID)
	if err != nil || m.SubIss != "1https://idp" || len(m.Secret.Reveal()) != 32 {
		t.Fatalf("%+v, %v", m, err)
	}
	if got, err := c.Authenticate(ctx, "anna", m.Secret.Reveal(), "10.0.0.1"); err != nil || got.ID != p.ID || got.Limit == nil || !got.Sysadmin {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.SetCLISecret(ctx, p.ID, "MyOwn12345"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Authenticate(ctx, "anna", m.Secret.Reveal(), "10.0.0.1")
	want(t, err, fault.Unauthenticated)
	if _, err := c.Authenticate(ctx, "anna", "MyOwn12345", "10.0.0.1"); err != nil {
		t.Error(err)
	}
	want(t, c.SetCLISecret(ctx, p.ID, "weak"), fault.Invalid)
	want(t, c.SetCLISecret(ctx, 1, "MyOwn12345"), fault.Precondition)
	_, err = c.OIDCMeta(ctx, 1)
	want(t, err, fault.NotFound)
}
