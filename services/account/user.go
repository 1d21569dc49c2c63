package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
)

// User is a person's account.
type User struct {
	ID                        int64
	Username, Email, Realname string
	Comment                   string
	Sysadmin                  bool
	AdminByGroup              bool   // system administrator for as long as a group says so
	Source                    string // Local, LDAP or OIDC
	Created, Updated          time.Time
}

// Profile is what a person says about himself.
type Profile struct{ Email, Realname, Comment string }

// NewUser is what a user is made from.
type NewUser struct {
	Username string
	Profile
	Password string
}

const userColumns = `id, username, coalesce(email, ''), realname, comment, sysadmin, admin_by_group, source, created_at, updated_at`

func scanUser(row pgx.CollectableRow) (u User, err error) {
	err = row.Scan(&u.ID, &u.Username, &u.Email, &u.Realname, &u.Comment, &u.Sysadmin, &u.AdminByGroup, &u.Source, &u.Created, &u.Updated)
	return u, err
}

var userFields = query.Columns{
	"userid": {SQL: "id", Type: query.Number}, "id": {SQL: "id", Type: query.Number},
	"username": {SQL: "username"}, "email": {SQL: "email"}, "realname": {SQL: "realname"}, "comment": {SQL: "comment"},
	"sysadminflag": {SQL: "sysadmin", Type: query.Bool},
	"creationtime": {SQL: "created_at", Type: query.Moment}, "updatetime": {SQL: "updated_at", Type: query.Moment},
}

// ListUsers gives a page of users. As in Harbor, the first administrator is no
// user to be managed and is left out.
func (s *Store) ListUsers(ctx context.Context, q query.Query) (query.Page[User], error) {
	var w query.Where
	w.And("id <> 1")
	if err := w.Terms(q.Terms, userFields); err != nil {
		return query.Page[User]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*) FROM users"+w.String(),
		"SELECT "+userColumns+" FROM users"+w.String()+q.OrderBy(userFields, "username")+q.Limit(), w.Args, scanUser)
	return page, database.Fault(err)
}

// User gives a user by id.
func (s *Store) User(ctx context.Context, id int64) (User, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, id)
	return oneUser(rows, err, fmt.Sprintf("%d", id))
}

// UserByName gives a user by name.
func (s *Store) UserByName(ctx context.Context, name string) (User, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+userColumns+` FROM users WHERE lower(username) = lower($1)`, name)
	return oneUser(rows, err, name)
}

// Exists reports whether a user name (target "username") or an e-mail address
// (target "email") is taken.
func (s *Store) Exists(ctx context.Context, target, value string) (taken bool, err error) {
	column, ok := map[string]string{"username": "username", "email": "email"}[target]
	if !ok {
		return false, fault.New(fault.Invalid, "it must be username or email, not %q", target).On("target")
	}
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users WHERE lower(`+column+`) = lower($1))`, value).Scan(&taken)
	return taken, database.Fault(err)
}

func oneUser(rows pgx.Rows, err error, who string) (User, error) {
	if err != nil {
		return User{}, database.Fault(err)
	}
	u, err := pgx.CollectExactlyOneRow(rows, scanUser)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, fault.New(fault.NotFound, "user %s not found", who)
	}
	return u, database.Fault(err)
}

// CreateUser makes a user and gives its id.
func (s *Store) CreateUser(ctx context.Context, n NewUser) (id int64, err error) {
	if err := errors.Join(checkName("username", n.Username), n.Profile.check()); err != nil {
		return 0, err
	}
	if err := CheckStrength(n.Password); err != nil {
		return 0, err
	}
	hash, err := s.hasher.hash(ctx, n.Password)
	if err != nil {
		return 0, err
	}
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `
			INSERT INTO users (username, email, realname, comment, password) VALUES ($1, $2, $3, $4, $5) RETURNING id`,
			n.Username, n.Email, n.Realname, n.Comment, hash).Scan(&id); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, userEvent("create", n.Username))
	})
	if database.Code(err) == database.UniqueViolation {
		return 0, fault.New(fault.Conflict, "user %s or email %s already exists", n.Username, n.Email)
	}
	return id, database.Fault(err)
}

// UpdateUser changes a user's profile.
func (s *Store) UpdateUser(ctx context.Context, id int64, p Profile) error {
	if err := p.check(); err != nil {
		return err
	}
	if u, err := s.User(ctx, id); err != nil || u.Source != Local {
		return cmp.Or(err, elsewhere(u.Username))
	}
	err := s.changeUser(ctx, id, "update", `
		UPDATE users SET email = $2, realname = $3, comment = $4, updated_at = now() WHERE id = $1 RETURNING username`,
		p.Email, p.Realname, p.Comment)
	if database.Code(err) == database.UniqueViolation {
		return fault.New(fault.Conflict, "email %s already exists", p.Email)
	}
	return err
}

// SetSysadmin makes a user a system administrator, or no longer one. The last
// one stays.
func (s *Store) SetSysadmin(ctx context.Context, id int64, sysadmin bool) error {
	return s.changeUser(ctx, id, "update", `
		UPDATE users SET sysadmin = $2, updated_at = now() WHERE id = $1 RETURNING username`, sysadmin)
}

// DeleteUser removes a user, who thereby leaves all projects. Projects that the
// user owned stay, without an owner. The last system administrator stays.
func (s *Store) DeleteUser(ctx context.Context, id int64) error {
	return s.changeUser(ctx, id, "delete", `DELETE FROM users WHERE id = $1 RETURNING username`)
}

// changeUser runs one statement on one user, tells of it, and makes sure that
// there still is a system administrator.
func (s *Store) changeUser(ctx context.Context, id int64, operation, sql string, args ...any) error {
	var name string
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// Two administrators who depose each other at the same time must wait for each other.
		var admins int
		if err := tx.QueryRow(ctx, `
			SELECT count(*) FROM (SELECT FROM users WHERE sysadmin ORDER BY id FOR UPDATE) AS locked`).Scan(&admins); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, sql, append([]any{id}, args...)...).Scan(&name); err != nil {
			return err
		}
		var left bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users WHERE sysadmin)`).Scan(&left); err != nil {
			return err
		}
		if admins > 0 && !left {
			return fault.New(fault.Precondition, "%s is the last system administrator", name).
				WithHint("make another user system administrator first")
		}
		return s.outbox.Add(ctx, tx, userEvent(operation, name))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "user %d not found", id)
	}
	if err == nil {
		s.forget(userAccount(name))
	}
	return database.Fault(err)
}

// ChangePassword sets a user's own password, given the old one.
func (s *Store) ChangePassword(ctx context.Context, id int64, old, password string) error {
	return another(s.setPassword(ctx, id, &old, password))
}

// ResetPassword sets a user's password on an administrator's word.
func (s *Store) ResetPassword(ctx context.Context, id int64, password string) error {
	return another(s.setPassword(ctx, id, nil, password))
}

// EnsurePassword is ResetPassword for who may have done it before: nothing is changed,
// and nothing is wrong, if the user has the password already.
func (s *Store) EnsurePassword(ctx context.Context, id int64, password string) (changed bool, err error) {
	return s.setPassword(ctx, id, nil, password)
}

// another refuses a new password that is the old one.
func another(changed bool, err error) error {
	if err == nil && !changed {
		return fault.New(fault.Invalid, "the new password is the old one").On("new_password")
	}
	return err
}

// setPassword changes nothing if the password is the one that the user has.
func (s *Store) setPassword(ctx context.Context, id int64, old *string, password string) (changed bool, err error) {
	var name, source, stored string
	err = s.pool.QueryRow(ctx, `SELECT username, source, password FROM users WHERE id = $1`, id).Scan(&name, &source, &stored)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, fault.New(fault.NotFound, "user %d not found", id)
	}
	if err != nil {
		return false, database.Fault(err)
	}
	if source != Local {
		return false, elsewhere(name)
	}
	if old != nil {
		ok, err := s.hasher.verify(ctx, stored, *old)
		if err != nil {
			return false, err
		}
		if !ok {
			return false, fault.New(fault.Forbidden, "the current password is wrong").On("old_password")
		}
	}
	if err := CheckStrength(password); err != nil {
		return false, err
	}
	if same, err := s.hasher.verify(ctx, stored, password); err != nil || same {
		return false, err
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return false, err
	}
	err = s.changeUser(ctx, id, "update", `
		UPDATE users SET password = $2, updated_at = now() WHERE id = $1 RETURNING username`, hash)
	return err == nil, err
}

// Empty reports whether there are no users at all, not even admin.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	var empty bool
	err := s.pool.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM users)`).Scan(&empty)
	return empty, database.Fault(err)
}

// EnsureAdmin makes the user admin, with id 1, if there are no users at all. It
// reports whether it did.
func (s *Store) EnsureAdmin(ctx context.Context, password string) (created bool, err error) {
	if empty, err := s.Empty(ctx); err != nil || !empty {
		return false, err // a later start need not know the first password
	}
	if err := CheckStrength(password); err != nil {
		return false, err
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return false, err
	}
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// Nodes that start together must not both find the table empty.
		if _, err := tx.Exec(ctx, `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO users (id, username, realname, comment, password, sysadmin)
			SELECT 1, 'admin', 'system admin', 'admin user', $1, true WHERE NOT EXISTS (SELECT FROM users)`, hash)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		created = true
		if _, err := tx.Exec(ctx, `SELECT setval(pg_get_serial_sequence('users', 'id'), 1)`); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, userEvent("create", "admin"))
	})
	return created && err == nil, database.Fault(err)
}

// elsewhere is why a user cannot be changed here.
func elsewhere(name string) error {
	return fault.New(fault.Forbidden, "user %s is kept elsewhere: password and profile are changed in the LDAP directory or at the OIDC provider", name)
}

func userEvent(operation, name string) event.Event {
	return event.Event{Operation: operation, ResourceType: "user", Resource: name, Success: true,
		Description: operation + " user: " + name}
}

var emailForm = regexp.MustCompile(`^[^\s@,;:"<>()\[\]\\]+@[^\s@,;:"<>()\[\]\\]+\.[A-Za-z0-9-]{2,63}$`)

// illegal are the characters that Harbor's names must not have; a robot's
// prefix usually has one of them, so that no user can be taken for a robot.
const illegal = ",~#$%"

func checkName(field, name string) error {
	if name == "" || len(name) > 255 {
		return fault.New(fault.Invalid, "%s has 1 to 255 characters", field).On(field)
	}
	if strings.ContainsAny(name, illegal) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.Invalid, "%s must not have any of %s, control characters, or blanks at its ends", field, illegal).On(field)
	}
	return nil
}

func (p Profile) check() error {
	switch {
	case p.Email == "":
		return fault.New(fault.Invalid, "email can't be empty").On("email")
	case len(p.Email) > 255 || !emailForm.MatchString(p.Email):
		return fault.New(fault.Invalid, "this is no e-mail address").On("email")
	case len([]rune(p.Comment)) > 30:
		return fault.New(fault.Invalid, "comment has at most 30 characters").On("comment")
	}
	return checkName("realname", p.Realname)
}
