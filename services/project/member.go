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

// Member is a user with a role in a project.
type Member struct {
	ID        int64
	ProjectID int64
	UserID    int64
	Username  string
	Role      access.Role
}

const memberColumns = `m.id, m.project_id, m.user_id, u.username, m.role`

func scanMember(row pgx.CollectableRow) (m Member, err error) {
	err = row.Scan(&m.ID, &m.ProjectID, &m.UserID, &m.Username, &m.Role)
	return m, err
}

// Members gives a page of a project's members whose name contains the given
// text.
func (s *Store) Members(ctx context.Context, project int64, name string, q query.Query) (query.Page[Member], error) {
	var w query.Where
	w.And("m.project_id = %s", project)
	if name != "" {
		w.And("strpos(lower(u.username), lower(%s)) > 0", name)
	}
	const from = ` FROM project_members m JOIN users u ON u.id = m.user_id`
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*)"+from+w.String(),
		"SELECT "+memberColumns+from+w.String()+q.OrderBy(nil, "u.username")+q.Limit(), w.Args, scanMember)
	return page, database.Fault(err)
}

// Member gives one member of a project.
func (s *Store) Member(ctx context.Context, project, id int64) (Member, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT `+memberColumns+` FROM project_members m JOIN users u ON u.id = m.user_id
		WHERE m.project_id = $1 AND m.id = $2`, project, id)
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
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			SELECT id, username FROM users WHERE CASE WHEN $1::bigint > 0 THEN id = $1 ELSE lower(username) = lower($2) END`,
			userID, username).Scan(&userID, &username)
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.NotFound, "user %s is not found", username)
		}
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `
			INSERT INTO project_members (project_id, user_id, role) VALUES ($1, $2, $3) RETURNING id`,
			t.ProjectID, userID, role).Scan(&id); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, memberEvent("create", t, username))
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
		UPDATE project_members m SET role = $3, updated_at = now() FROM users u
		WHERE u.id = m.user_id AND m.project_id = $1 AND m.id = $2 RETURNING u.username`, role)
}

// RemoveMember takes a member out of a project.
func (s *Store) RemoveMember(ctx context.Context, t access.Target, id int64) error {
	return s.changeMember(ctx, t, id, "delete", `
		DELETE FROM project_members m USING users u
		WHERE u.id = m.user_id AND m.project_id = $1 AND m.id = $2 RETURNING u.username`)
}

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
	rows, err := s.pool.Query(ctx, `SELECT project_id FROM project_members WHERE user_id = $1 AND role = $2`, userID(p), access.ProjectAdmin)
	if err != nil {
		return nil, database.Fault(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	return ids, database.Fault(err)
}
