package account

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/database"
)

// External is what a directory or a provider says of a user.
type External struct {
	Source   string // LDAP or OIDC
	Username string
	Email    string
	Realname string
	DN       string // an LDAP user's entry
	Groups   []Group
	Admin    bool // a group makes the user system administrator
}

// onboard makes or refreshes the user that a source speaks of, with its groups,
// and gives the principal. Faults: Forbidden if the name is a user's of another
// source; Invalid if Berth can have no such name.
func (s *Store) onboard(ctx context.Context, e External) (p access.Principal, err error) {
	for range 2 {
		err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
			p, err = s.onboardIn(ctx, tx, e)
			return err
		})
		if database.Code(err) != database.UniqueViolation {
			break
		}
		e.Email = "" // somebody else has got the address meanwhile
	}
	return p, database.Fault(err)
}

func (s *Store) onboardIn(ctx context.Context, tx pgx.Tx, e External) (access.Principal, error) {
	e.tidy()
	p := access.Principal{Kind: access.User}
	if err := s.ensureUser(ctx, tx, &e, &p); err != nil {
		return p, err
	}
	if err := s.applyProfile(ctx, tx, e, &p); err != nil {
		return p, err
	}
	return p, joinGroups(ctx, tx, &p, e.Groups)
}

// tidy leaves out what Berth cannot keep; nobody is kept out for it.
func (e *External) tidy() {
	e.Username, e.Email, e.Realname = strings.TrimSpace(e.Username), strings.TrimSpace(e.Email), strings.TrimSpace(e.Realname)
	if len(e.Email) > 255 || !emailForm.MatchString(e.Email) {
		e.Email = ""
	}
	e.Realname = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, e.Realname)
	if len(e.Realname) > 255 {
		e.Realname = strings.ToValidUTF8(e.Realname[:255], "")
	}
	e.Groups = slices.DeleteFunc(slices.Clone(e.Groups), func(g Group) bool { _, err := g.check(); return err != nil })
}

// ensureUser finds the user's row, or makes it.
func (s *Store) ensureUser(ctx context.Context, tx pgx.Tx, e *External, p *access.Principal) error {
	var source string
	find := func() error {
		return tx.QueryRow(ctx, `SELECT id, username, source FROM users WHERE lower(username) = lower($1) FOR UPDATE`, e.Username).
			Scan(&p.ID, &p.Name, &source)
	}
	err := find()
	if errors.Is(err, pgx.ErrNoRows) {
		if err := checkName("username", e.Username); err != nil {
			return err
		}
		tag, insertErr := tx.Exec(ctx, `INSERT INTO users (username, source) VALUES ($1, $2) ON CONFLICT DO NOTHING`, e.Username, e.Source)
		if insertErr != nil {
			return insertErr
		}
		if tag.RowsAffected() == 1 {
			if err := s.outbox.Add(ctx, tx, userEvent("create", e.Username)); err != nil {
				return err
			}
		}
		err = find()
	}
	if err == nil && source != e.Source {
		err = fault.New(fault.Forbidden, "the user name %s belongs to another user here", e.Username).WithHint("an administrator has to delete that user first")
	}
	return err
}

// applyProfile takes over what has changed, and only that: a change makes every
// process forget what it remembers of the user.
func (s *Store) applyProfile(ctx context.Context, tx pgx.Tx, e External, p *access.Principal) error {
	_, err := tx.Exec(ctx, `
		UPDATE users u SET email = n.email, realname = n.realname, directory_dn = n.dn, admin_by_group = n.admin, updated_at = now()
		FROM (SELECT CASE WHEN $2 <> '' AND NOT EXISTS (SELECT FROM users o WHERE lower(o.email) = lower($2) AND o.id <> $1) THEN $2 END AS email,
			$3::text AS realname, $4::text AS dn, $5::boolean AS admin) AS n
		WHERE u.id = $1 AND (u.email, u.realname, u.directory_dn, u.admin_by_group) IS DISTINCT FROM (n.email, n.realname, n.dn, n.admin)`,
		p.ID, e.Email, e.Realname, e.DN, e.Admin)
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, `SELECT sysadmin OR admin_by_group FROM users WHERE id = $1`, p.ID).Scan(&p.Sysadmin)
}

// joinGroups makes the user a member of these groups and of no others.
func joinGroups(ctx context.Context, tx pgx.Tx, p *access.Principal, groups []Group) (err error) {
	if p.Groups, err = ensureGroups(ctx, tx, groups); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM user_group_members WHERE user_id = $1 AND group_id <> ALL($2)`, p.ID, p.Groups); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO user_group_members (user_id, group_id) SELECT $1, unnest($2::bigint[]) ON CONFLICT DO NOTHING`, p.ID, p.Groups)
	return err
}

// Import makes a user of the directory's before its first login. Faults: NotFound;
// Precondition if the users are not a directory's.
func (s *Store) Import(ctx context.Context, username string) error {
	mode, err := s.mode(ctx)
	if err != nil {
		return err
	}
	if mode != "ldap_auth" {
		return fault.New(fault.Precondition, "the authentication mode is %s, not ldap_auth", mode)
	}
	person, err := s.directory.Find(ctx, username)
	if err != nil {
		return err
	}
	_, err = s.onboard(ctx, fromDirectory(person))
	return err
}
