package account

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/directory"
	"berth/services/query"
)

// GroupType says where a user group comes from, with Harbor's ids.
type GroupType int16

// Harbor's types of groups.
const (
	LDAPGroup GroupType = 1
	HTTPGroup GroupType = 2
	OIDCGroup GroupType = 3
)

// Group is a group of users that a directory or a provider keeps. Berth knows
// its name and, since each user's last login, who is in it.
type Group struct {
	ID               int64
	Name             string
	Type             GroupType
	LDAPDN           string // of an LDAP group
	Created, Updated time.Time
}

const groupColumns = `id, name, type, ldap_dn, created_at, updated_at`

func scanGroup(row pgx.CollectableRow) (g Group, err error) {
	err = row.Scan(&g.ID, &g.Name, &g.Type, &g.LDAPDN, &g.Created, &g.Updated)
	return g, err
}

var groupFields = query.Columns{
	"id": {SQL: "id", Type: query.Number}, "groupname": {SQL: "name"}, "name": {SQL: "name"},
	"grouptype": {SQL: "type", Type: query.Number}, "ldapgroupdn": {SQL: "ldap_dn"},
	"creationtime": {SQL: "created_at", Type: query.Moment}, "updatetime": {SQL: "updated_at", Type: query.Moment},
}

// ListGroups gives a page of user groups; name, unless empty, is part of theirs,
// and dn the whole of an LDAP group's.
func (s *Store) ListGroups(ctx context.Context, name, dn string, q query.Query) (query.Page[Group], error) {
	var w query.Where
	if name != "" {
		w.And("strpos(lower(name), lower(%s)) > 0", name)
	}
	if dn != "" {
		key, err := directory.NormalDN(dn)
		if err != nil {
			return query.Page[Group]{}, onField(err, "ldap_group_dn")
		}
		w.And("ldap_key = %s", key)
	}
	if err := w.Terms(q.Terms, groupFields); err != nil {
		return query.Page[Group]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*) FROM user_groups"+w.String(),
		"SELECT "+groupColumns+" FROM user_groups"+w.String()+q.OrderBy(groupFields, "name, id")+q.Limit(), w.Args, scanGroup)
	return page, database.Fault(err)
}

// Group gives a user group by id.
func (s *Store) Group(ctx context.Context, id int64) (Group, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+groupColumns+` FROM user_groups WHERE id = $1`, id)
	if err != nil {
		return Group{}, database.Fault(err)
	}
	g, err := pgx.CollectExactlyOneRow(rows, scanGroup)
	return g, groupFault(err, id)
}

func groupFault(err error, id int64) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "user group %d not found", id)
	}
	return database.Fault(err)
}

// check accepts a group that somebody wants to make, and gives the key that an
// LDAP group is known by.
func (g *Group) check() (key *string, err error) {
	g.Name, g.LDAPDN = strings.TrimSpace(g.Name), strings.TrimSpace(g.LDAPDN)
	switch g.Type {
	case LDAPGroup:
		normal, err := directory.NormalDN(g.LDAPDN)
		if err != nil {
			return nil, onField(err, "ldap_group_dn")
		}
		if g.Name == "" {
			g.Name = directory.FirstValue(g.LDAPDN)
		}
		key = &normal
	case HTTPGroup, OIDCGroup:
		g.LDAPDN = ""
	default:
		return nil, fault.New(fault.Invalid, "no user group has the type %d", g.Type).On("group_type").WithHint("1 LDAP, 2 HTTP, 3 OIDC")
	}
	return key, checkGroupName(g.Name)
}

func checkGroupName(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.Invalid, "a user group's name has 1 to 255 characters, none of them a control character").On("group_name")
	}
	return nil
}

func onField(err error, field string) error {
	if f := fault.Of(err); f.Kind == fault.Invalid {
		return f.On(field)
	}
	return err
}

// CreateGroup makes a user group and gives its id.
func (s *Store) CreateGroup(ctx context.Context, g Group) (id int64, err error) {
	key, err := g.check()
	if err != nil {
		return 0, err
	}
	err = s.pool.QueryRow(ctx, `INSERT INTO user_groups (name, type, ldap_dn, ldap_key) VALUES ($1, $2, $3, $4) RETURNING id`,
		g.Name, g.Type, g.LDAPDN, key).Scan(&id)
	if database.Code(err) == database.UniqueViolation {
		return 0, fault.New(fault.Conflict, "the user group %s already exists", g.Name)
	}
	return id, database.Fault(err)
}

// EnsureGroup gives the id of a user group, which it makes if there is none yet.
func (s *Store) EnsureGroup(ctx context.Context, g Group) (id int64, err error) {
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		ids, err := ensureGroups(ctx, tx, []Group{g})
		if err == nil {
			id = ids[0]
		}
		return err
	})
	return id, database.Fault(err)
}

// ensureGroups gives the ids of groups, and makes those that there are none of.
// A group keeps the name that it was first known by, or was given.
func ensureGroups(ctx context.Context, tx pgx.Tx, groups []Group) ([]int64, error) {
	ids := make([]int64, 0, len(groups))
	for _, g := range groups {
		key, err := g.check()
		if err != nil {
			return nil, err
		}
		find, args := `SELECT id FROM user_groups WHERE ldap_key = $1`, []any{key}
		if g.Type != LDAPGroup {
			find, args = `SELECT id FROM user_groups WHERE type = $1 AND name = $2 AND type <> 1`, []any{g.Type, g.Name}
		}
		var id int64
		err = tx.QueryRow(ctx, find, args...).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			if _, err := tx.Exec(ctx, `INSERT INTO user_groups (name, type, ldap_dn, ldap_key) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
				g.Name, g.Type, g.LDAPDN, key); err != nil {
				return nil, err
			}
			err = tx.QueryRow(ctx, find, args...).Scan(&id) // ours, or that of who was faster
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// RenameGroup changes the name that a user group is shown under.
func (s *Store) RenameGroup(ctx context.Context, id int64, name string) error {
	name = strings.TrimSpace(name)
	if err := checkGroupName(name); err != nil {
		return err
	}
	err := s.pool.QueryRow(ctx, `UPDATE user_groups SET name = $2, updated_at = now() WHERE id = $1 RETURNING id`, id, name).Scan(&id)
	if database.Code(err) == database.UniqueViolation {
		return fault.New(fault.Conflict, "the user group %s already exists", name)
	}
	return groupFault(err, id)
}

// DeleteGroup removes a user group, and with it the rights that it gave.
func (s *Store) DeleteGroup(ctx context.Context, id int64) error {
	err := s.pool.QueryRow(ctx, `DELETE FROM user_groups WHERE id = $1 RETURNING id`, id).Scan(&id)
	return groupFault(err, id)
}
