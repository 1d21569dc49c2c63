package account

import (
	"context"
	"crypto/subtle"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/directory"
)

// The sources of users.
const (
	Local = "local"
	LDAP  = "ldap"
	OIDC  = "oidc"
)

// sourceOf gives the source of the users of an authentication mode; "" for modes
// that Berth keeps the settings of, and nothing else.
func sourceOf(mode string) string {
	return map[string]string{"db_auth": Local, "ldap_auth": LDAP, "oidc_auth": OIDC}[mode]
}

// How long what a directory said is remembered. It tells of no change, so that
// is how long a user stays who was removed there, and how long a password counts
// as wrong that has become right.
const (
	rememberExternal = time.Minute
	rememberRefusal  = 10 * time.Second
)

// known is a user as a login finds him.
type known struct {
	principal access.Principal
	source    string
	password  string // hash; "" = none
	cliSecret []byte // sealed; nil = none
}

const knownColumns = `u.id, u.username, u.sysadmin OR u.admin_by_group, u.source,
	ARRAY(SELECT m.group_id FROM user_group_members m WHERE m.user_id = u.id)`

func (s *Store) mode(ctx context.Context) (string, error) {
	if s.settings == nil {
		return "db_auth", nil
	}
	settings, err := s.settings.Current(ctx)
	return settings.AuthMode, err
}

// find looks a user up. As in Harbor, the e-mail address will do as well; a user
// name goes first.
func (s *Store) find(ctx context.Context, username string) (k known, ok bool, err error) {
	k.principal.Kind = access.User
	p := &k.principal
	err = s.pool.QueryRow(ctx, `
		SELECT `+knownColumns+`, u.password, o.cli_secret FROM users u LEFT JOIN oidc_users o ON o.user_id = u.id
		WHERE lower(u.username) = lower($1) OR lower(u.email) = lower($1)
		ORDER BY lower(u.username) = lower($1) DESC LIMIT 1`, username).
		Scan(&p.ID, &p.Name, &p.Sysadmin, &k.source, &p.Groups, &k.password, &k.cliSecret)
	if errors.Is(err, pgx.ErrNoRows) {
		return known{}, false, nil
	}
	return k, err == nil, err
}

// verifyUser checks a user's password where it is kept.
func (s *Store) verifyUser(ctx context.Context, username, password string) (verdict, error) {
	if isToken(password) {
		return s.verifyToken(ctx, username, password)
	}
	mode, err := s.mode(ctx)
	if err != nil {
		return verdict{}, err
	}
	k, found, err := s.find(ctx, username)
	if err != nil {
		return verdict{}, err
	}
	source := k.source
	if !found {
		source = sourceOf(mode)
	}
	name := username
	if found {
		name = k.principal.Name
	}
	v := verdict{account: userAccount(name), principal: k.principal}
	switch {
	case source == Local: // the first administrator among them, in every mode
		v.ok, err = s.hasher.verify(ctx, k.password, password)
		return v, err
	case sourceOf(mode) == "":
		return verdict{}, unsupportedMode(mode)
	case source != sourceOf(mode):
		return v, nil // left over from another mode
	case source == LDAP:
		// Who is known here by what was typed as an e-mail address may be another
		// than the directory knows by it as a name: the name goes first there, too.
		if !strings.EqualFold(name, username) {
			other, err := s.verifyLDAP(ctx, verdict{account: userAccount(username)}, username, password)
			if err != nil || other.ok {
				return other, err
			}
		}
		return s.verifyLDAP(ctx, v, name, password)
	case found:
		return s.verifyCLISecret(v, k, password)
	}
	return v, nil
}

func unsupportedMode(mode string) error {
	return fault.New(fault.Unauthenticated, "nobody but the first administrator can log in: the authentication mode %s is not supported", mode).
		WithHint("set auth_mode to db_auth, ldap_auth or oidc_auth")
}

// verifyLDAP asks the directory, and takes over what it says of the user.
func (s *Store) verifyLDAP(ctx context.Context, v verdict, username, password string) (verdict, error) {
	person, err := s.directory.Login(ctx, username, password)
	if fault.Is(err, fault.Unauthenticated) {
		v.expires = time.Now().Add(rememberRefusal)
		return v, nil
	}
	if err != nil {
		return verdict{}, unasked(err)
	}
	p, err := s.onboard(ctx, fromDirectory(person))
	return verdict{account: userAccount(p.Name), principal: p, ok: err == nil, expires: time.Now().Add(rememberExternal)}, err
}

// unasked is what a stranger learns of a directory that cannot be asked; the
// rest is for the log.
func unasked(err error) error {
	return fault.Wrap(fault.Unavailable, err, "the user directory cannot be asked").WithHint("an administrator finds the reason in the log, or with the LDAP test in the settings")
}

func fromDirectory(p directory.Person) External {
	e := External{Source: LDAP, Username: p.Username, Email: p.Email, Realname: p.Realname, DN: p.DN, Admin: p.Admin}
	for _, g := range p.Groups {
		e.Groups = append(e.Groups, Group{Name: g.Name, Type: LDAPGroup, LDAPDN: g.DN})
	}
	return e
}

// verifyCLISecret checks what an OIDC user's docker logs in with.
func (s *Store) verifyCLISecret(v verdict, k known, password string) (verdict, error) {
	if k.cliSecret == nil {
		return v, nil
	}
	plain, err := s.key.Open(cliSecretPurpose, k.cliSecret)
	if err != nil {
		return verdict{}, err
	}
	v.ok = subtle.ConstantTimeCompare(plain, []byte(password)) == 1
	v.principal = v.principal.Limited(access.Limit{})
	return v, nil
}

// refresh asks the directory about a user who has come with another secret than
// the password there: whoever is gone there is gone here, and groups are as they
// are now. While the directory is away, what the last login said holds.
func (s *Store) refresh(ctx context.Context, p access.Principal) (access.Principal, bool, error) {
	person, err := s.directory.Find(ctx, p.Name)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Unauthenticated):
		return p, false, nil
	case err != nil:
		return p, true, nil
	}
	p, err = s.onboard(ctx, fromDirectory(person))
	return p, err == nil, err
}

// Recheck asks the directory, once in a while, about a user whom a session knows:
// ok is false when the directory's user is gone. Others are given back as they are.
func (s *Store) Recheck(ctx context.Context, p access.Principal) (_ access.Principal, ok bool, err error) {
	k := s.credential("\x00session", p.Name) // nobody's name
	if v, known := s.cache.get(k, time.Now()); known {
		return v.principal, v.ok, nil
	}
	checked, err, _ := s.flights.Do(string(k[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
		defer cancel()
		mode, err := s.mode(ctx)
		if err != nil {
			return verdict{}, err
		}
		version := s.cache.version()
		v := verdict{account: userAccount(p.Name), principal: p, ok: mode == "ldap_auth", expires: time.Now().Add(rememberExternal)}
		if v.ok {
			if v.principal, v.ok, err = s.refresh(ctx, p); err != nil {
				return verdict{}, err
			}
		}
		s.cache.put(k, v, version, time.Now())
		return v, nil
	})
	v, _ := checked.(verdict)
	return v.principal, v.ok, err
}
