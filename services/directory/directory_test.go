package directory_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/services/directory"
	"berth/services/directory/slapdtest"
)

func settings(s *slapdtest.Server) directory.Settings {
	return directory.Settings{
		URL: s.URL, Verify: true, CA: s.CA, SearchDN: slapdtest.SearchDN, SearchPassword: slapdtest.Password,
		BaseDN: slapdtest.People, UID: "uid", Scope: 2, Timeout: 3 * time.Second,
		GroupBaseDN: slapdtest.Groups, GroupAttribute: "cn", GroupScope: 2, Membership: "memberOf",
		AdminDN: "CN=admins, OU=other," + slapdtest.Base,
	}
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// client asks the server with settings that the test may change.
func client(t *testing.T, s *directory.Settings) *directory.Client {
	c := directory.New(func(context.Context) (directory.Settings, error) { return *s, nil }, dial)
	t.Cleanup(c.Close)
	return c
}

func groups(p directory.Person) string {
	var names []string
	for _, g := range p.Groups {
		names = append(names, g.Name)
	}
	return strings.Join(names, " ")
}

func want(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(directory.Message(err), text) {
		t.Errorf("got %v (%s), want a fault %q with %q", err, directory.Message(err), kind, text)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	server := slapdtest.Start(t)
	for name, url := range map[string]string{"plain": server.URL, "StartTLS": server.URL, "LDAPS": server.TLS} {
		t.Run(name, func(t *testing.T) {
			s := settings(server)
			s.URL, s.StartTLS = url, name == "StartTLS"
			c, ctx := client(t, &s), t.Context()
			p, err := c.Login(ctx, "ANNA", slapdtest.Password)
			if err != nil || p.Username != "anna" || p.Email != "anna@example.com" || p.Realname != "The anna" || p.DN != slapdtest.PersonDN("anna") || !p.Admin || groups(p) != "developers" {
				t.Errorf("%+v, %v", p, err)
			}
			for user, password := range map[string]string{"anna": "wrong", "ben": "", "nobody": "x", "": "x", "*": slapdtest.Password, "anna)(uid=*": slapdtest.Password, "twin": slapdtest.Password, "an\x00na": "x"} {
				_, err := c.Login(ctx, user, password)
				want(t, err, fault.Unauthenticated, "")
			}
			// After a wrong password the connection is nobody's, and is bound again.
			p, err = c.Login(ctx, "o'neill (x)*", slapdtest.Password)
			if err != nil || p.Admin || groups(p) != "" {
				t.Errorf("%+v, %v", p, err)
			}
			if p, err := c.Login(ctx, "carl", slapdtest.Password); err != nil || groups(p) != "unix" {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	server := slapdtest.Start(t)
	s := settings(server)
	c, ctx := client(t, &s), t.Context()
	check := func(why, user, names string, admin bool) {
		t.Helper()
		p, err := c.Login(ctx, user, slapdtest.Password)
		if err != nil || groups(p) != names || p.Admin != admin {
			t.Errorf("%s: %q, admin %v, %v; want %q, %v", why, groups(p), p.Admin, err, names, admin)
		}
	}
	check("direct", "ben", "developers", false)
	s.Nested = directory.Walk
	check("nested, in a circle", "ben", "developers everyone staff", false)
	server.Group(t, "deep-admins", "ou=other,"+slapdtest.Base, "cn=everyone,"+slapdtest.Groups)
	s.AdminDN = "cn=deep-admins,ou=other," + slapdtest.Base
	check("administrator by a nested group", "ben", "developers everyone staff", true)
	s.Nested, s.AdminDN = directory.Direct, "cn=gone,"+slapdtest.Groups
	check("no such group of administrators", "anna", "developers", false)
	s.GroupFilter = "(cn=dev*)"
	check("filter that matches", "ben", "developers", false)
	s.GroupFilter = "cn=other"
	check("filter that does not", "ben", "", false)
	s.GroupFilter, s.Membership = "", ""
	check("without the entry's list", "ben", "developers", false)
	s.GroupBaseDN = ""
	check("without groups", "ben", "", false)
	s.GroupBaseDN, s.GroupAttribute = slapdtest.Groups, ""
	check("names by DN", "ben", "developers", false)
	// A change in the directory is seen at the next login.
	server.Change(t, "cn=developers,"+slapdtest.Groups, "member", slapdtest.PersonDN("anna"))
	check("left the group", "ben", "", false)
	s.Membership = "description"
	server.Change(t, slapdtest.PersonDN("dora"), "description", "CN=Staff,"+slapdtest.Groups, "cn=lost,"+slapdtest.Groups, "cn=admins,ou=other,"+slapdtest.Base, "no dn")
	for range 2 { // the second from memory
		check("by the entry's list alone", "dora", "staff", false)
	}
	s.AdminDN = "cn=admins,ou=other," + slapdtest.Base
	check("administrator by the entry's list", "dora", "staff", true)
}

func TestSearch(t *testing.T) {
	t.Parallel()
	server := slapdtest.Start(t)
	s := settings(server)
	c, ctx := client(t, &s), t.Context()
	if all, err := c.Search(ctx, ""); err != nil || len(all) != 7 {
		t.Errorf("%v, %v", all, err)
	}
	if one, err := c.Search(ctx, "ben"); err != nil || len(one) != 1 || one[0].Email != "ben@example.com" {
		t.Errorf("%v, %v", one, err)
	}
	if none, err := c.Search(ctx, "b*"); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
	if p, err := c.Find(ctx, "anna"); err != nil || groups(p) != "developers" {
		t.Errorf("%v, %v", p, err)
	}
	_, err := c.Find(ctx, "nobody")
	want(t, err, fault.NotFound, "nobody")
	found, err := c.SearchGroups(ctx, "DEV")
	if err != nil || len(found) != 1 || found[0].DN != "cn=developers,"+slapdtest.Groups {
		t.Errorf("%v, %v", found, err)
	}
	if g, err := c.Group(ctx, "CN=staff,"+slapdtest.Groups); err != nil || g.Name != "staff" {
		t.Errorf("%v, %v", g, err)
	}
	_, err = c.Group(ctx, "cn=gone,"+slapdtest.Groups)
	want(t, err, fault.NotFound, "gone")
	_, err = c.Group(ctx, "gone")
	want(t, err, fault.Invalid, "not a distinguished name")
}

// What is wrong with the settings is said by name.
func TestPing(t *testing.T) {
	t.Parallel()
	server := slapdtest.Start(t)
	if err := directory.Ping(t.Context(), settings(server), dial); err != nil {
		t.Errorf("good settings: %s", directory.Message(err))
	}
	host := strings.TrimPrefix(server.URL, "ldap://")
	for name, c := range map[string]struct {
		change func(*directory.Settings)
		kind   fault.Kind
		text   string
	}{
		"no address":        {func(s *directory.Settings) { s.URL = "" }, fault.Invalid, "ldap_url: it must be"},
		"no scheme's":       {func(s *directory.Settings) { s.URL = "http://x" }, fault.Invalid, "ldap_url: it must be"},
		"no such name":      {func(s *directory.Settings) { s.URL = "ldap://no.such.name.invalid" }, fault.Unavailable, "cannot be resolved"},
		"nobody there":      {func(s *directory.Settings) { s.URL = "ldap://127.0.0.1:1" }, fault.Unavailable, "refuses connections"},
		"TLS on plain":      {func(s *directory.Settings) { s.URL = "ldaps://" + host }, fault.Unavailable, "TLS"},
		"plain on TLS":      {func(s *directory.Settings) { s.URL = "ldap://" + strings.TrimPrefix(server.TLS, "ldaps://") }, fault.Unavailable, "use ldaps://"},
		"unknown CA":        {func(s *directory.Settings) { s.URL, s.CA = server.TLS, "" }, fault.Unavailable, "not trusted"},
		"unknown CA, later": {func(s *directory.Settings) { s.StartTLS, s.CA = true, "" }, fault.Unavailable, "not trusted"},
		"CA is no PEM":      {func(s *directory.Settings) { s.URL, s.CA = server.TLS, "x" }, fault.Invalid, "ldap_ca_certificate"},
		"another name":      {func(s *directory.Settings) { s.URL = server.Other }, fault.Unavailable, "is for other names (localhost"},
		"wrong password":    {func(s *directory.Settings) { s.SearchPassword = "x" }, fault.Invalid, "ldap_search_dn: the search DN or its password is wrong"},
		"no such DN":        {func(s *directory.Settings) { s.SearchDN = "cn=x," + slapdtest.Base }, fault.Invalid, "ldap_search_dn: the search DN or its password is wrong"},
		"DN is none":        {func(s *directory.Settings) { s.SearchDN = "reader" }, fault.Invalid, "search DN"},
		"no password":       {func(s *directory.Settings) { s.SearchPassword = "" }, fault.Invalid, "ldap_search_password: the search DN has no password"},
		"anonymous":         {func(s *directory.Settings) { s.SearchDN, s.SearchPassword = "", "" }, fault.Invalid, "ldap_base_dn"},
		"no base":           {func(s *directory.Settings) { s.BaseDN = "" }, fault.Invalid, "ldap_base_dn"},
		"base is gone":      {func(s *directory.Settings) { s.BaseDN = "ou=x," + slapdtest.Base }, fault.Invalid, "ldap_base_dn: the base DN \"ou=x,dc=example,dc=com\" does not exist"},
		"base is none":      {func(s *directory.Settings) { s.BaseDN = "people" }, fault.Invalid, "ldap_base_dn: \"people\" is not"},
		"filter":            {func(s *directory.Settings) { s.Filter = "(cn=" }, fault.Invalid, "ldap_filter: the filter \"(cn=\" cannot be read"},
		"group filter":      {func(s *directory.Settings) { s.GroupFilter = ")" }, fault.Invalid, "ldap_group_search_filter"},
		"group base":        {func(s *directory.Settings) { s.GroupBaseDN = "ou=x," + slapdtest.Base }, fault.Invalid, "ldap_group_base_dn"},
		"admin group":       {func(s *directory.Settings) { s.AdminDN = "x" }, fault.Invalid, "ldap_group_admin_dn"},
	} {
		t.Run(name, func(t *testing.T) {
			s := settings(server)
			c.change(&s)
			want(t, directory.Ping(t.Context(), s, dial), c.kind, c.text)
		})
	}
	s := settings(server)
	s.URL, s.CA, s.Verify = server.Other, "", false
	if err := directory.Ping(t.Context(), s, dial); err != nil {
		t.Errorf("without verifying: %s", directory.Message(err))
	}
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return l.Addr().String()
}

// A directory that does not answer costs the configured time, and not more.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	address := silent(t)
	for name, s := range map[string]directory.Settings{"plain": {URL: "ldap://" + address}, "StartTLS": {URL: "ldap://" + address, StartTLS: true}, "LDAPS": {URL: "ldaps://" + address}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.BaseDN, s.UID, s.Timeout = "dc=x", "uid", 300*time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := directory.Ping(ctx, s, dial)
			if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
				t.Errorf("%v", err)
			}
			// Nor does a caller wait who has gone.
			s.Timeout = time.Hour
			c := client(t, &s)
			gone, leave := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer leave()
			if _, err := c.Login(gone, "anna", "x"); err == nil {
				t.Error("somebody has logged in")
			}
		})
	}
}

// A directory that does not answer keeps a storm of logins waiting once, not each.
func TestSilentServerAndManyLogins(t *testing.T) {
	t.Parallel()
	for scheme, text := range map[string]string{"ldaps://": "does not begin TLS", "ldap://": "does not answer within 1s"} {
		s := directory.Settings{URL: scheme + silent(t), BaseDN: "dc=x", UID: "uid", Timeout: time.Second}
		c := client(t, &s)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a second each would be more
		defer cancel()
		var all sync.WaitGroup
		for range 400 {
			all.Go(func() {
				_, err := c.Login(ctx, "anna", "x")
				want(t, err, fault.Unavailable, text)
			})
		}
		all.Wait()
	}
}

// Connections that a restart of the directory has cut are replaced, and while it
// is away it is said so.
func TestRestart(t *testing.T) {
	t.Parallel()
	server := slapdtest.Start(t)
	s := settings(server)
	c, ctx := client(t, &s), t.Context()
	for range 3 {
		if _, err := c.Login(ctx, "anna", slapdtest.Password); err != nil {
			t.Fatal(err)
		}
		server.Stop()
		_, err := c.Login(ctx, "anna", slapdtest.Password)
		want(t, err, fault.Unavailable, "refuses connections")
		server.Resume(t)
	}
	if _, err := c.Login(ctx, "anna", slapdtest.Password); err != nil {
		t.Error(err)
	}
}

// However many log in at once, connections are few, and nobody is taken for
// somebody else on a shared one.
func TestPool(t *testing.T) {
	t.Parallel()
	server := slapdtest.Start(t)
	s := settings(server)
	var opened atomic.Int64
	c := directory.New(func(context.Context) (directory.Settings, error) { return s, nil }, func(ctx context.Context, network, address string) (net.Conn, error) {
		opened.Add(1)
		return dial(ctx, network, address)
	})
	t.Cleanup(c.Close)
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			name, password := []string{"anna", "ben", "carl"}[i%3], slapdtest.Password
			if i%4 == 0 {
				password = "wrong"
			}
			p, err := c.Login(t.Context(), name, password)
			if password == "wrong" && !fault.Is(err, fault.Unauthenticated) || password != "wrong" && (err != nil || p.Username != name) {
				t.Errorf("%s: %+v, %v", name, p, err)
			}
		})
	}
	all.Wait()
	if n := opened.Load(); n > 8 {
		t.Errorf("%d connections", n)
	}
}

// Whatever a name holds, the filter that it is put into means the same.
func FuzzLoginName(f *testing.F) {
	for _, name := range []string{"anna", "*", "anna)(uid=*", `a\2a`, "\x00", "(|(uid=*))", "ä", "\xff"} {
		f.Add(name)
	}
	server := slapdtest.Start(f)
	s := settings(server)
	c := directory.New(func(context.Context) (directory.Settings, error) { return s, nil }, dial)
	f.Cleanup(c.Close)
	f.Fuzz(func(t *testing.T, name string) {
		p, err := c.Find(t.Context(), name)
		if err == nil && !strings.EqualFold(strings.Join(strings.Fields(p.Username), " "), strings.Join(strings.Fields(name), " ")) {
			t.Errorf("%q found %q", name, p.Username)
		}
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%q: %v", name, err)
		}
	})
}

// How long a login takes when the directory is on the same machine.
func BenchmarkLogin(b *testing.B) {
	server := slapdtest.Start(b)
	s := settings(server)
	c := directory.New(func(context.Context) (directory.Settings, error) { return s, nil }, dial)
	defer c.Close()
	for b.Loop() {
		if _, err := c.Login(b.Context(), "anna", slapdtest.Password); err != nil {
			b.Fatal(fmt.Sprint(err))
		}
	}
}
