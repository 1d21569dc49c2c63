package account

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
	"berth/services/reference"
)

// Robot is an account for a program.
type Robot struct {
	ID               int64
	Name             string // what it logs in with
	Description      string
	Level            string // "project" or "system"
	ProjectID        int64  // of a project's robot
	Permissions      []access.Permission
	Duration         int       // days; -1 = never expires
	Expires          time.Time // zero = never
	Disabled         bool
	CreatorType      string // "local" (a user) or "robot"
	CreatorID        int64
	Created, Updated time.Time
	LastUsed         time.Time // zero = never
	OldSecretUntil   time.Time // zero, or past: only one secret works
}

// NewRobot is what a robot is made from.
type NewRobot struct {
	Name        string
	Description string
	Level       string
	Permissions []access.Permission
	Duration    int
	Disabled    bool
	Secret      string // "" = make one
}

// RobotChange is what may be changed of a robot.
type RobotChange struct {
	Description string
	Permissions []access.Permission
	Duration    int
	Disabled    bool
}

const robotColumns = `r.id, r.login, r.description, r.project_id, r.permissions, r.duration, r.expires_at, r.disabled,
	r.creator_type, r.creator_id, r.created_at, r.updated_at, r.last_used_at, r.old_secret_until`

var robotFields = query.Columns{
	"id": {SQL: "r.id", Type: query.Number}, "name": {SQL: "r.login"}, "description": {SQL: "r.description"},
	"projectid": {SQL: "r.project_id", Type: query.Number}, "disabled": {SQL: "r.disabled", Type: query.Bool},
	"duration": {SQL: "r.duration", Type: query.Number}, "expiresat": {SQL: "r.expires_at", Type: query.Moment},
	"creationtime": {SQL: "r.created_at", Type: query.Moment}, "updatetime": {SQL: "r.updated_at", Type: query.Moment},
	"level": {SQL: "CASE WHEN r.project_id IS NULL THEN 'system' ELSE 'project' END"},
}

func scanRobot(prefix string) pgx.RowToFunc[Robot] {
	return func(row pgx.CollectableRow) (r Robot, err error) {
		var project *int64
		var expires, used, old *time.Time
		err = row.Scan(&r.ID, &r.Name, &r.Description, &project, &r.Permissions, &r.Duration, &expires, &r.Disabled,
			&r.CreatorType, &r.CreatorID, &r.Created, &r.Updated, &used, &old)
		r.Name, r.Level = prefix+r.Name, "system"
		if project != nil {
			r.Level, r.ProjectID = "project", *project
		}
		if expires != nil {
			r.Expires = *expires
		}
		if used != nil {
			r.LastUsed = *used
		}
		if old != nil {
			r.OldSecretUntil = *old
		}
		return r, err
	}
}

// ListRobots gives a page of robots. The terms may name Level and ProjectID;
// without a level it lists the system's robots, as Harbor does.
func (s *Store) ListRobots(ctx context.Context, q query.Query) (query.Page[Robot], error) {
	prefix, err := s.robotPrefix(ctx)
	if err != nil {
		return query.Page[Robot]{}, database.Fault(err)
	}
	var w query.Where
	if !hasField(q.Terms, "level") {
		w.And("r.project_id IS NULL")
	}
	if err := w.Terms(q.Terms, robotFields); err != nil {
		return query.Page[Robot]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*) FROM robots r"+w.String(),
		"SELECT "+robotColumns+" FROM robots r"+w.String()+q.OrderBy(robotFields, "r.login")+q.Limit(), w.Args, scanRobot(prefix))
	return page, database.Fault(err)
}

func hasField(terms []query.Term, field string) bool {
	for _, t := range terms {
		if t.Field == field {
			return true
		}
	}
	return false
}

// Robot gives a robot by id.
func (s *Store) Robot(ctx context.Context, id int64) (Robot, error) {
	prefix, err := s.robotPrefix(ctx)
	if err != nil {
		return Robot{}, database.Fault(err)
	}
	rows, err := s.pool.Query(ctx, `SELECT `+robotColumns+` FROM robots r WHERE r.id = $1`, id)
	if err != nil {
		return Robot{}, database.Fault(err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanRobot(prefix))
	return r, robotFault(err, id)
}

func robotFault(err error, id int64) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "robot %d not found", id)
	}
	return database.Fault(err)
}

// CreateRobot makes a robot on behalf of creator, and gives its secret, which
// cannot be had again. A robot can give only what it has itself.
func (s *Store) CreateRobot(ctx context.Context, creator access.Principal, n NewRobot) (Robot, secret.Text, error) {
	if err := n.check(creator); err != nil {
		return Robot{}, "", err
	}
	password, err := newSecret(n.Secret)
	if err != nil {
		return Robot{}, "", err
	}
	prefix, err := s.robotPrefix(ctx)
	if err != nil {
		return Robot{}, "", database.Fault(err)
	}
	var r Robot
	login := n.Name
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		projects, err := lockProjects(ctx, tx, n.Permissions)
		if err != nil {
			return err
		}
		var project *int64
		if n.Level == "project" {
			name := n.Permissions[0].Namespace
			id := projects[name]
			project, login = &id, name+"+"+n.Name
		}
		rows, err := tx.Query(ctx, `
			INSERT INTO robots AS r (name, login, project_id, description, secret_hash, permissions, duration, expires_at,
				disabled, creator_type, creator_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7::integer,
				CASE WHEN $7 > 0 THEN now() + make_interval(days => $7) END, $8, $9, $10)
			RETURNING `+robotColumns,
			n.Name, login, project, n.Description, s.secretHash(password), n.Permissions, n.Duration,
			n.Disabled, creatorType(creator), creator.ID)
		if err != nil {
			return err
		}
		if r, err = pgx.CollectExactlyOneRow(rows, scanRobot(prefix)); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, robotEvent("create", r))
	})
	if database.Code(err) == database.UniqueViolation {
		return Robot{}, "", fault.New(fault.Conflict, "robot account %s already exists", login)
	}
	if err == nil {
		s.forget(robotAccount(login))
	}
	return r, secret.Text(password), database.Fault(err)
}

func (n NewRobot) check(creator access.Principal) error {
	if err := reference.CheckProject(n.Name); err != nil { // robots' names follow the same rule
		return fault.New(fault.Invalid, "robot name is not in lower case or contains illegal characters").On("name")
	}
	if err := checkDuration(n.Duration); err != nil {
		return err
	}
	if err := access.CheckPermissions(n.Level, n.Permissions); err != nil {
		return err
	}
	return checkCovered(creator, n.Permissions)
}

// maxDuration keeps the expiry within what a timestamp can say.
const maxDuration = 36500

func checkDuration(days int) error {
	if days == -1 || days > 0 && days <= maxDuration {
		return nil
	}
	return fault.New(fault.Invalid, "bad duration %d: it is a number of days, or -1 for ever", days).On("duration")
}

func checkCovered(creator access.Principal, blocks []access.Permission) error {
	if creator.Kind == access.Robot && !access.Covers(creator, blocks) {
		return fault.New(fault.Forbidden, "a robot can give only permissions that it has").On("permissions")
	}
	return nil
}

func creatorType(p access.Principal) string {
	if p.Kind == access.Robot {
		return "robot"
	}
	return "local"
}

func newSecret(asked string) (string, error) {
	if asked == "" {
		return secret.Random(32).Reveal(), nil
	}
	return asked, CheckStrength(asked)
}

// lockProjects gives the ids of the projects that permissions name, and keeps
// them from being deleted or renamed until the transaction ends: a robot must
// not get rights in a later project of the same name.
func lockProjects(ctx context.Context, tx pgx.Tx, blocks []access.Permission) (map[string]int64, error) {
	ids := map[string]int64{}
	for _, b := range blocks {
		if b.Kind != "project" || b.Namespace == "*" {
			continue
		}
		var id int64
		err := tx.QueryRow(ctx, `SELECT id FROM projects WHERE name = $1 FOR SHARE`, b.Namespace).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, fault.New(fault.NotFound, "project %s not found", b.Namespace)
		}
		if err != nil {
			return nil, err
		}
		ids[b.Namespace] = id
	}
	return ids, nil
}

// UpdateRobot changes a robot on behalf of p. A changed duration counts from
// the robot's making.
func (s *Store) UpdateRobot(ctx context.Context, p access.Principal, id int64, c RobotChange) error {
	if err := checkDuration(c.Duration); err != nil {
		return err
	}
	old, err := s.Robot(ctx, id)
	if err != nil {
		return err
	}
	if err := access.CheckPermissions(old.Level, c.Permissions); err != nil {
		return err
	}
	if err := checkCovered(p, c.Permissions); err != nil {
		return err
	}
	return s.changeRobot(ctx, id, "update", func(tx pgx.Tx) (string, error) {
		projects, err := lockProjects(ctx, tx, c.Permissions)
		if err != nil {
			return "", err
		}
		if old.Level == "project" && projects[c.Permissions[0].Namespace] != old.ProjectID {
			return "", fault.New(fault.Invalid, "a robot stays in its project").On("permissions")
		}
		return `UPDATE robots r SET description = $2, permissions = $3, duration = $4::integer, disabled = $5, updated_at = now(),
			expires_at = CASE WHEN $4 > 0 THEN r.created_at + make_interval(days => $4) END
			WHERE r.id = $1 RETURNING ` + robotColumns, nil
	}, c.Description, c.Permissions, c.Duration, c.Disabled)
}

// MaxOverlap is how long a robot's old secret may work beside its new one.
const MaxOverlap = 30 * 24 * time.Hour

// SetRobotSecret gives a robot a new secret: the asked one, or one made here,
// which it returns. The old one ends after overlap, so that it can be changed
// everywhere meanwhile; one that was older ends at once.
func (s *Store) SetRobotSecret(ctx context.Context, id int64, asked string, overlap time.Duration) (secret.Text, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return "", fault.New(fault.Invalid, "the old secret can work for up to %d hours beside the new one", int(MaxOverlap.Hours())).On("overlap_hours")
	}
	password, err := newSecret(asked)
	if err != nil {
		return "", err
	}
	err = s.changeRobot(ctx, id, "update", statement(`
		UPDATE robots r SET secret_hash = $2, updated_at = now(),
			old_secret_hash = CASE WHEN $3 > interval '0' THEN r.secret_hash END, old_secret_until = CASE WHEN $3 > interval '0' THEN now() + $3 END
		WHERE r.id = $1 RETURNING `+robotColumns), s.secretHash(password), overlap)
	if asked != "" {
		return "", err
	}
	return secret.Text(password), err
}

// DeleteRobot removes a robot.
func (s *Store) DeleteRobot(ctx context.Context, id int64) error {
	return s.changeRobot(ctx, id, "delete", statement(`DELETE FROM robots r WHERE r.id = $1 RETURNING `+robotColumns))
}

func statement(sql string) func(pgx.Tx) (string, error) {
	return func(pgx.Tx) (string, error) { return sql, nil }
}

// changeRobot runs one statement on one robot and tells of it.
func (s *Store) changeRobot(ctx context.Context, id int64, operation string, sql func(pgx.Tx) (string, error), args ...any) error {
	prefix, err := s.robotPrefix(ctx)
	if err != nil {
		return database.Fault(err)
	}
	var login string
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		statement, err := sql(tx)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, statement, append([]any{id}, args...)...)
		if err != nil {
			return err
		}
		r, err := pgx.CollectExactlyOneRow(rows, scanRobot(prefix))
		if err != nil {
			return err
		}
		login = r.Name[len(prefix):]
		return s.outbox.Add(ctx, tx, robotEvent(operation, r))
	})
	if err == nil {
		s.forget(robotAccount(login))
	}
	return robotFault(err, id)
}

func robotEvent(operation string, r Robot) event.Event {
	return event.Event{Operation: operation, ResourceType: "robot", Resource: r.Name, Success: true, ProjectID: r.ProjectID,
		Description: operation + " robot: " + r.Name}
}
