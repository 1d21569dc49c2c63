package project

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
)

// Member is a user or a group with a role in a project.
type Member struct {
	ID        int64
	ProjectID int64
	Group     bool
	EntityID  int64  // of the user or the group
	Name      string // the user's or the group's
	Role      access.Role
}

const (
	memberColumns = `m.id, m.project_id, m.group_id IS NOT NULL, coalesce(m.user_id, m.group_id), ` + memberName + `, m.role`
	memberTables  = ` FROM project_members m LEFT JOIN users u ON u.id = m.user_id LEFT JOIN user_groups g ON g.id = m.group_id`
	memberName    = `coalesce(u.username, g.name)`
)

func scanMember(row pgx.CollectableRow) (m Member, err error) {
	err = row.Scan(&m.ID, &m.ProjectID, &m.Group, &m.EntityID, &m.Name, &m.Role)
	return m, err
}

// Members gives a page of a project's members whose name contains the given
// text.
func (s *Store) Members(ctx context.Context, project int64, name string, q query.Query) (query.Page[Member], error) {
	var w query.Where
	w.And("m.project_id = %s", project)
	if name != "" {
		w.And("strpos(lower("+memberName+"), lower(%s)) > 0", name)
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*)"+memberTables+w.String(),
		"SELECT "+memberColumns+memberTables+w.String()+q.OrderBy(nil, memberName+", m.id")+q.Limit(), w.Args, scanMember)
	return page, database.Fault(err)
}

// Member gives one member of a project.
func (s *Store) Member(ctx context.Context, project, id int64) (Member, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT `+memberColumns+memberTables+` WHERE m.project_id = $1 AND m.id = $2`, project, id)
	if err != nil {
		return Member{}, database.Fault(err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, scanMember)
	return m, memberFault(err, id)
}

func memberFault(err error, id int64) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "project member %d not found", id)
	}
	return database.Fault(err)
}

// AddMember gives a user, named by id or else by user name, a role in a project.
func (s *Store) AddMember(ctx context.Context, t access.Target, userID int64, username string, role access.Role) (id int64, err error) {
	if err := checkRole(role); err != nil {
		return 0, err
	}
	return s.addMember(ctx, t, "user_id", role, func(tx pgx.Tx) (int64, string, error) {
		err := tx.QueryRow(ctx, `
			SELECT id, username FROM users WHERE CASE WHEN $1::bigint > 0 THEN id = $1 ELSE lower(username) = lower($2) END`,
			userID, username).Scan(&userID, &username)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, "", fault.New(fault.NotFound, "user %s is not found", username)
		}
		return userID, username, err
	})
}

// AddGroup gives a user group, named by id, a role in a project.
func (s *Store) AddGroup(ctx context.Context, t access.Target, groupID int64, role access.Role) (id int64, err error) {
	if err := checkRole(role); err != nil {
		return 0, err
	}
	return s.addMember(ctx, t, "group_id", role, func(tx pgx.Tx) (int64, string, error) {
		var name string
		err := tx.QueryRow(ctx, `SELECT name FROM user_groups WHERE id = $1`, groupID).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, "", fault.New(fault.NotFound, "user group %d is not found", groupID)
		}
		return groupID, name, err
	})
}

// addMember makes what find finds a member, by the column that it goes into.
func (s *Store) addMember(ctx context.Context, t access.Target, column string, role access.Role, find func(pgx.Tx) (int64, string, error)) (id int64, err error) {
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		entity, name, err := find(tx)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `
			INSERT INTO project_members (project_id, `+column+`, role) VALUES ($1, $2, $3) RETURNING id`,
			t.ProjectID, entity, role).Scan(&id); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, memberEvent("create", t, name))
	})
	switch database.Code(err) {
	case database.UniqueViolation:
		return 0, fault.New(fault.Conflict, "The project member specified already exist")
	case database.ForeignKeyViolation:
		return 0, fault.New(fault.NotFound, "project %s not found", t.Project)
	}
	return id, database.Fault(err)
}

func checkRole(r access.Role) error {
	if r.Valid() {
		return nil
	}
	return fault.New(fault.Invalid, "no role has the id %d", r).On("role_id").
		WithHint("1 project admin, 2 developer, 3 guest, 4 maintainer, 5 limited guest")
}

// SetRole changes a member's role.
func (s *Store) SetRole(ctx context.Context, t access.Target, id int64, role access.Role) error {
	if err := checkRole(role); err != nil {
		return err
	}
	return s.changeMember(ctx, t, id, "update", `
		UPDATE project_members m SET role = $3, updated_at = now() WHERE m.project_id = $1 AND m.id = $2 RETURNING `+nameOfMember, role)
}

// RemoveMember takes a member out of a project.
func (s *Store) RemoveMember(ctx context.Context, t access.Target, id int64) error {
	return s.changeMember(ctx, t, id, "delete", `
		DELETE FROM project_members m WHERE m.project_id = $1 AND m.id = $2 RETURNING `+nameOfMember)
}

// nameOfMember is memberName where there are no joins.
const nameOfMember = `coalesce((SELECT username FROM users WHERE id = m.user_id), (SELECT name FROM user_groups WHERE id = m.group_id))`

func (s *Store) changeMember(ctx context.Context, t access.Target, id int64, operation, sql string, args ...any) error {
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var name string
		if err := tx.QueryRow(ctx, sql, append([]any{t.ProjectID, id}, args...)...).Scan(&name); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, memberEvent(operation, t, name))
	})
	return memberFault(err, id)
}

func memberEvent(operation string, t access.Target, name string) event.Event {
	return event.Event{Operation: operation, ResourceType: "member", Resource: name, ProjectID: t.ProjectID, Success: true,
		Description: operation + " member: " + name + " of project " + t.Project}
}

// Administered lists the projects whose audit trail p may read as a member.
func (s *Store) Administered(ctx context.Context, p access.Principal) ([]int64, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT DISTINCT m.project_id FROM project_members m
		WHERE (m.user_id = $1 OR m.group_id = ANY($2)) AND m.role = $3 AND ($4::bigint[] IS NULL OR m.project_id = ANY($4))`, userID(p), groups(p), access.ProjectAdmin, limit(p))
	if err != nil {
		return nil, database.Fault(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return ids, database.Fault(err)
}

// limit are the only projects that there are for p, or nil.
func limit(p access.Principal) []int64 {
	if p.Limit == nil {
		return nil
	}
	return p.Limit.Projects
}
