package directory

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/fault"
)

// The bounds of a walk through groups in groups.
const (
	maxDepth  = 16
	maxGroups = 2000
	perAsk    = 50 // groups of one level that are asked about together
)

// groupsOf gives a person's groups by normal DN: those that list the person as a
// member, in one search, and those that the person's entry lists.
func (c *Client) groupsOf(s Settings, l *conn, p Person, listed map[string]bool) (map[string]Group, error) {
	found := map[string]Group{}
	if s.GroupBaseDN == "" {
		return found, nil
	}
	if err := s.groupsWith(l, found, s.memberFilters(p.DN, p.Username)); err != nil {
		return nil, err
	}
	if err := c.listedGroups(s, l, found, listed); err != nil {
		return nil, err
	}
	if s.Nested == Walk {
		return found, s.walk(l, found)
	}
	return found, nil
}

// memberFilters are the ways in which groups name their members: by DN
// (groupOfNames, groupOfUniqueNames, Active Directory) or by login name
// (posixGroup).
func (s Settings) memberFilters(dn, username string) []string {
	if s.Nested == InChain {
		return []string{equal("member:"+inChain+":", dn)}
	}
	filters := []string{equal("member", dn), equal("uniqueMember", dn)}
	if username != "" {
		filters = append(filters, equal("memberUid", username))
	}
	return filters
}

// groupsWith adds the groups that one of the filters matches.
func (s Settings) groupsWith(l *conn, found map[string]Group, filters []string) error {
	r, err := s.search(l, s.GroupBaseDN, s.GroupScope, maxGroups, and(s.GroupFilter, or(filters)), s.groupAttributes())
	if err != nil {
		return &stageError{"group base", err}
	}
	for _, e := range r.Entries {
		if normal, err := NormalDN(e.DN); err == nil {
			found[normal] = s.group(e)
		}
	}
	return nil
}

func (s Settings) groupAttributes() []string {
	if s.GroupAttribute == "" {
		return []string{"1.1"} // none (RFC 4511 §4.5.1.8)
	}
	return []string{s.GroupAttribute}
}

func (s Settings) group(e *ldap.Entry) Group {
	g := Group{DN: e.DN}
	if s.GroupAttribute != "" {
		g.Name = first(e, s.GroupAttribute)
	}
	if g.Name == "" {
		g.Name = FirstValue(e.DN)
	}
	return g
}

// listedGroups adds the groups of an entry's own list that lie where groups are
// and match their filter. What a DN turned out to be is remembered: people
// share groups.
func (c *Client) listedGroups(s Settings, l *conn, found map[string]Group, listed map[string]bool) error {
	base, err := NormalDN(s.GroupBaseDN)
	if err != nil {
		return fault.Of(err).On("ldap_group_base_dn")
	}
	lookups := 0
	for _, dn := range slices.Sorted(maps.Keys(listed)) {
		if _, has := found[dn]; has || !below(dn, base) {
			continue
		}
		known, ok := c.recall(s, dn)
		if !ok {
			if lookups++; lookups > maxLookups {
				return nil
			}
			if known.group, err = s.groupByDN(l, dn); err != nil {
				return err
			}
			c.remember(s, dn, known.group)
		}
		if known.group != nil {
			found[dn] = *known.group
		}
	}
	return nil
}

// groupByDN reads one group; nil if it is none, or does not match the filter.
func (s Settings) groupByDN(l *conn, dn string) (*Group, error) {
	r, err := s.search(l, dn, ldap.ScopeBaseObject, 1, and(s.GroupFilter), s.groupAttributes())
	switch c := code(err); {
	case err == nil && len(r.Entries) == 1:
		g := s.group(r.Entries[0])
		return &g, nil
	case err == nil, c == ldap.LDAPResultNoSuchObject, c == ldap.LDAPResultReferral, c == ldap.LDAPResultInvalidDNSyntax:
		return nil, nil
	}
	return nil, &stageError{"group base", err}
}

func (c *Client) recall(s Settings, dn string) (remembered, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.groups[dn]
	return r, ok && time.Now().Before(r.expires) && c.pool != nil && c.pool.settings == s
}

func (c *Client) remember(s Settings, dn string, g *Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool == nil || c.pool.settings != s {
		return // asked under settings that are gone
	}
	if len(c.groups) >= maxRemembered {
		clear(c.groups)
	}
	c.groups[dn] = remembered{g, time.Now().Add(rememberGroups)}
}

// walk adds the groups that the found ones are members of, and so on. A group
// that was seen is not asked about again, so that circles end.
func (s Settings) walk(l *conn, found map[string]Group) error {
	level := slices.Sorted(maps.Keys(found))
	for depth := 0; depth < maxDepth && len(level) > 0 && len(found) < maxGroups; depth++ {
		above := map[string]Group{}
		for chunk := range slices.Chunk(level, perAsk) {
			var filters []string
			for _, dn := range chunk {
				filters = append(filters, s.memberFilters(found[dn].DN, "")...)
			}
			if err := s.groupsWith(l, above, filters); err != nil {
				return err
			}
		}
		level = level[:0]
		for dn, g := range above {
			if _, seen := found[dn]; !seen {
				found[dn] = g
				level = append(level, dn)
			}
		}
	}
	return nil
}

// isAdmin reports whether a person is in the group of administrators, which
// need not lie where other groups do.
func (s Settings) isAdmin(l *conn, p Person, found map[string]Group, listed map[string]bool) (bool, error) {
	admin, err := NormalDN(s.AdminDN)
	if err != nil {
		return false, fault.Of(err).On("ldap_group_admin_dn")
	}
	if _, in := found[admin]; in || listed[admin] {
		return true, nil
	}
	filters := s.memberFilters(p.DN, p.Username)
	if s.Nested == Walk {
		for _, g := range found {
			filters = append(filters, s.memberFilters(g.DN, "")...)
		}
	}
	for chunk := range slices.Chunk(filters, 3*perAsk) {
		r, err := s.search(l, s.AdminDN, ldap.ScopeBaseObject, 1, or(chunk), []string{"1.1"})
		switch c := code(err); {
		case err == nil && len(r.Entries) == 1:
			return true, nil
		case err != nil && c != ldap.LDAPResultNoSuchObject:
			return false, &stageError{"group base", err}
		}
	}
	return false, nil
}

// SearchGroups lists groups (up to 500) whose name contains a text.
func (c *Client) SearchGroups(ctx context.Context, name string) (found []Group, err error) {
	err = c.do(ctx, func(s Settings, l *conn) error {
		if s.GroupBaseDN == "" {
			return fault.New(fault.Precondition, "the directory's groups are not set up").WithHint("set ldap_group_base_dn")
		}
		match, attribute := "", s.GroupAttribute
		if attribute == "" {
			attribute = "cn"
		}
		if name != "" {
			match = "(" + attribute + "=*" + ldap.EscapeFilter(name) + "*)"
		}
		r, err := s.search(l, s.GroupBaseDN, s.GroupScope, listLimit, and(s.GroupFilter, match), s.groupAttributes())
		if err != nil {
			return &stageError{"group base", err}
		}
		for _, e := range r.Entries {
			found = append(found, s.group(e))
		}
		return nil
	})
	return found, err
}

// Group gives the group of a DN. Faults: NotFound; Invalid if it is no DN.
func (c *Client) Group(ctx context.Context, dn string) (found Group, err error) {
	if _, err := NormalDN(dn); err != nil {
		return Group{}, err
	}
	err = c.do(ctx, func(s Settings, l *conn) error {
		g, err := s.groupByDN(l, dn)
		if err == nil && g == nil {
			return fault.Wrap(fault.NotFound, ErrUnknown, "the directory has no group %s", dn)
		}
		if g != nil {
			found = *g
		}
		return err
	})
	return found, err
}

// Ping tries settings from the first to the last step: address, connection, TLS,
// the search account, base DNs, filters. Its fault names the one that is wrong.
func Ping(ctx context.Context, s Settings, dial Dial) error {
	if err := s.check(); err != nil {
		return err
	}
	p := newPool(s, dial)
	defer p.close()
	s = p.settings
	return s.explain(p.do(ctx, func(l *conn) error {
		_, err := s.search(l, s.BaseDN, ldap.ScopeBaseObject, 1, "(objectClass=*)", []string{"1.1"})
		if err != nil {
			return &stageError{"base", err}
		}
		if _, err := s.search(l, s.BaseDN, s.Scope, 1, and(s.Filter), []string{"1.1"}); err != nil && code(err) != ldap.LDAPResultSizeLimitExceeded {
			return &stageError{"base", err}
		}
		if s.GroupBaseDN == "" {
			return nil
		}
		_, err = s.search(l, s.GroupBaseDN, ldap.ScopeBaseObject, 1, "(objectClass=*)", []string{"1.1"})
		if err != nil {
			return &stageError{"group base", err}
		}
		return nil
	}))
}
