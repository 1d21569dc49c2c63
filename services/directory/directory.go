// Package directory asks an LDAP directory or Active Directory who a user is,
// whether the password is right, and which groups the user is in.
//
// A user's entry is searched by the account that the settings name, and then
// the directory is asked to bind as that entry with the password: the password
// is known to nobody else. An empty password never gets that far, since many
// servers take a bind with a name and no password for an anonymous one
// (RFC 4513 §5.1.2). Whatever comes from outside is escaped in filters; a name
// that more than one entry has is nobody's; referrals are not followed.
//
// Connections are few, pooled, and checked after a pause. When the settings
// change the pool is made anew, and what was remembered of groups is dropped.
package directory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/fault"
)

// Person is a user as the directory knows him.
type Person struct {
	DN       string
	Username string // the login name, as the directory writes it
	Realname string
	Email    string
	Groups   []Group
	Admin    bool // in the group of system administrators
}

// Group is a group of the directory.
type Group struct{ DN, Name string }

// ErrUnknown is the cause of a fault NotFound: no entry has the name.
var ErrUnknown = errors.New("no such entry")

// Client asks the directory that the settings name at that time.
type Client struct {
	current func(context.Context) (Settings, error)
	dial    Dial

	mu     sync.Mutex
	pool   *pool
	groups map[string]remembered // by normal DN; of the pool's settings
}

// remembered is what a DN in a person's list of groups has turned out to be.
type remembered struct {
	group   *Group // nil: no group that counts
	expires time.Time
}

const (
	rememberGroups = 5 * time.Minute
	maxRemembered  = 10_000
	maxLookups     = 200 // groups of one person that are looked up one by one
	listLimit      = 500 // entries of a list that a person looks at
)

// New makes a client. current gives the settings, which may change at any time.
func New(current func(context.Context) (Settings, error), dial Dial) *Client {
	return &Client{current: current, dial: dial, groups: map[string]remembered{}}
}

// Close ends the connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool != nil {
		c.pool.close()
		c.pool = nil
	}
}

// do runs f on a connection to the present directory.
func (c *Client) do(ctx context.Context, f func(Settings, *conn) error) error {
	s, err := c.current(ctx)
	if err != nil {
		return err
	}
	if s.URL == "" || s.BaseDN == "" {
		return fault.New(fault.Precondition, "the LDAP directory is not set up").WithHint("set ldap_url and ldap_base_dn")
	}
	p := c.poolFor(s)
	return p.settings.explain(p.do(ctx, func(l *conn) error { return f(p.settings, l) }))
}

func (c *Client) poolFor(s Settings) *pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := newPool(s, c.dial)
	if c.pool == nil || c.pool.settings != wanted.settings {
		if c.pool != nil {
			c.pool.close()
		}
		c.pool = wanted
		clear(c.groups)
	}
	return c.pool
}

// Login gives the person that a name and a password are right for. Faults:
// Unauthenticated if they are not; Unavailable, Precondition or Invalid if the
// directory cannot be asked, in words for administrators.
func (c *Client) Login(ctx context.Context, username, password string) (found Person, err error) {
	if password == "" {
		return Person{}, refused(nil)
	}
	err = c.do(ctx, func(s Settings, l *conn) error {
		entry, err := s.person(l, username)
		if fault.Is(err, fault.NotFound) {
			return refused(err)
		}
		if err != nil {
			return err
		}
		l.searcher = false
		if err := l.Bind(entry.DN, password); err != nil {
			if broken(err) {
				return &stageError{"search", err}
			}
			return refused(err) // wrong, expired, locked: the directory's word, whatever its reason
		}
		if err := s.bind(l.Conn); err != nil {
			return &stageError{"bind", err}
		}
		l.searcher = true
		found, err = c.describe(s, l, entry, username)
		return err
	})
	return found, err
}

func refused(err error) error {
	return fault.Wrap(fault.Unauthenticated, err, "the user name or the password is wrong")
}

// Find gives the person of a login name. Faults: NotFound, and those of a
// directory that cannot be asked.
func (c *Client) Find(ctx context.Context, username string) (found Person, err error) {
	err = c.do(ctx, func(s Settings, l *conn) error {
		entry, err := s.person(l, username)
		if err != nil {
			return err
		}
		found, err = c.describe(s, l, entry, username)
		return err
	})
	return found, err
}

// Search lists people without their groups: the one of a login name, or all (up
// to 500) for "".
func (c *Client) Search(ctx context.Context, username string) (found []Person, err error) {
	err = c.do(ctx, func(s Settings, l *conn) error {
		match := "(" + s.UID + "=*)"
		if username != "" {
			match = equal(s.UID, username)
		}
		r, err := s.search(l, s.BaseDN, s.Scope, listLimit, and(s.Filter, match), s.personAttributes())
		if err != nil {
			return &stageError{"base", err}
		}
		for _, e := range r.Entries {
			found = append(found, s.describe(e, username))
		}
		return nil
	})
	return found, err
}

// person finds the one entry of a login name.
func (s Settings) person(l *conn, username string) (*ldap.Entry, error) {
	if username == "" {
		return nil, unknown(username)
	}
	r, err := s.search(l, s.BaseDN, s.Scope, 2, and(s.Filter, equal(s.UID, username)), s.personAttributes())
	switch {
	case err != nil:
		return nil, &stageError{"base", err}
	case len(r.Entries) == 0:
		return nil, unknown(username)
	case len(r.Entries) > 1:
		return nil, fault.New(fault.Unauthenticated, "several entries of the directory have this name").WithHint("make ldap_filter or ldap_base_dn narrower")
	}
	return r.Entries[0], nil
}

func unknown(username string) error {
	return fault.Wrap(fault.NotFound, ErrUnknown, "the directory has no user %s", username)
}

// search asks once. What a size limit leaves out is left out.
func (s Settings) search(l *conn, base string, scope, limit int, filter string, attributes []string) (*ldap.SearchResult, error) {
	r, err := l.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, limit, int(s.Timeout/time.Second), false, filter, attributes, nil))
	if code(err) == ldap.LDAPResultSizeLimitExceeded && r != nil {
		err = nil
	}
	return r, err
}

func (s Settings) personAttributes() []string {
	all := []string{s.UID, "uid", "cn", "displayName", "mail", "email"}
	if s.Membership != "" {
		all = append(all, s.Membership) // by name, for it is often an operational attribute
	}
	return all
}

// describe reads an entry. asked is the name that it was found by.
func (s Settings) describe(e *ldap.Entry, asked string) Person {
	p := Person{DN: e.DN, Username: first(e, s.UID), Email: strings.TrimSpace(first(e, "mail", "email")), Realname: first(e, "displayName", "cn")}
	for _, v := range e.GetEqualFoldAttributeValues(s.UID) {
		if strings.EqualFold(v, asked) {
			p.Username = v
		}
	}
	return p
}

func first(e *ldap.Entry, attributes ...string) string {
	for _, a := range attributes {
		if v := e.GetEqualFoldAttributeValue(a); v != "" {
			return v
		}
	}
	return ""
}

// describe reads an entry, and asks for the groups.
func (c *Client) describe(s Settings, l *conn, e *ldap.Entry, asked string) (Person, error) {
	p := s.describe(e, asked)
	listed := map[string]bool{} // the entry's own list, normal
	if s.Membership != "" {
		for _, dn := range e.GetEqualFoldAttributeValues(s.Membership) {
			if normal, err := NormalDN(dn); err == nil {
				listed[normal] = true
			}
		}
	}
	found, err := c.groupsOf(s, l, p, listed)
	if err != nil {
		return p, err
	}
	for _, g := range found {
		p.Groups = append(p.Groups, g)
	}
	slices.SortFunc(p.Groups, func(a, b Group) int { return strings.Compare(a.DN, b.DN) })
	if s.AdminDN != "" {
		p.Admin, err = s.isAdmin(l, p, found, listed)
	}
	return p, err
}
