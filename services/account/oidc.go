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
)

// OIDCMeta is what Berth keeps of an OIDC user: who it is at its provider, and
// the secret that stands in for a password where there is no browser. The secret
// is the user's for good: it does not end with the provider's tokens.
type OIDCMeta struct {
	ID, UserID       int64
	SubIss           string // subject and issuer, one after the other, as Harbor has it
	Secret           secret.Text
	Created, Updated time.Time
}

const cliSecretPurpose = "oidc cli secret"

// OIDCMeta gives what is kept of an OIDC user. Fault: NotFound for any other.
func (s *Store) OIDCMeta(ctx context.Context, user int64) (m OIDCMeta, err error) {
	var sealed []byte
	err = s.pool.QueryRow(ctx, `SELECT id, user_id, subiss, cli_secret, created_at, updated_at FROM oidc_users WHERE user_id = $1`, user).
		Scan(&m.ID, &m.UserID, &m.SubIss, &sealed, &m.Created, &m.Updated)
	if errors.Is(err, pgx.ErrNoRows) {
		return m, fault.New(fault.NotFound, "user %d is no OIDC user", user)
	}
	if err != nil {
		return m, database.Fault(err)
	}
	plain, err := s.key.Open(cliSecretPurpose, sealed)
	m.Secret = secret.Text(plain)
	return m, err
}

// SetCLISecret gives an OIDC user another CLI secret: the given one, or one that
// is made. Faults: Precondition for any other user, Invalid for a weak secret.
func (s *Store) SetCLISecret(ctx context.Context, user int64, text string) error {
	if text == "" {
		text = secret.Random(32).Reveal()
	}
	if err := CheckStrength(text); err != nil {
		return onField(err, "secret")
	}
	var name string
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `
			UPDATE oidc_users o SET cli_secret = $2, updated_at = now() FROM users u WHERE u.id = o.user_id AND o.user_id = $1 RETURNING u.username`,
			user, s.key.Seal(cliSecretPurpose, []byte(text))).Scan(&name); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, userEvent("update", name))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.Precondition, "only users who log in with OIDC have a CLI secret").WithHint("others have a password, and personal access tokens")
	}
	if err == nil {
		s.forget(userAccount(name))
	}
	return database.Fault(err)
}

// BearerOIDC gives the principal of an OIDC user who comes with a token of the
// provider instead of a password, as the last login left him. Fault:
// Unauthenticated if nobody is known by the subject and issuer.
func (s *Store) BearerOIDC(ctx context.Context, subIss string) (access.Principal, error) {
	p := access.Principal{Kind: access.User}
	var source string
	err := s.pool.QueryRow(ctx, `SELECT `+knownColumns+` FROM oidc_users o JOIN users u ON u.id = o.user_id WHERE o.subiss = $1`, subIss).
		Scan(&p.ID, &p.Name, &p.Sysadmin, &source, &p.Groups)
	if errors.Is(err, pgx.ErrNoRows) {
		return access.Principal{}, fault.New(fault.Unauthenticated, "the user has never logged in here").WithHint("log in with a browser first")
	}
	return p.Limited(access.Limit{}), database.Fault(err)
}

// LoginOIDC refreshes the user whom a provider has sent, and gives the principal.
// subIss is subject and issuer. Fault: NotFound if nobody is known by it yet.
func (s *Store) LoginOIDC(ctx context.Context, subIss string, e External) (p access.Principal, err error) {
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// The name at the provider may change; here it stays.
		err := tx.QueryRow(ctx, `SELECT u.username FROM oidc_users o JOIN users u ON u.id = o.user_id WHERE o.subiss = $1`, subIss).Scan(&e.Username)
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.NotFound, "the user is not known yet")
		}
		if err != nil {
			return err
		}
		p, err = s.onboardIn(ctx, tx, e)
		return err
	})
	return p, database.Fault(err)
}

// OnboardOIDC makes the user whom a provider has sent for the first time. Faults:
// Conflict if the name is taken, Invalid if it cannot be one.
func (s *Store) OnboardOIDC(ctx context.Context, subIss string, e External) (p access.Principal, err error) {
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var taken bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users WHERE lower(username) = lower($1))`, e.Username).Scan(&taken); err != nil {
			return err
		}
		if taken {
			return nameTaken(e.Username)
		}
		p, err = s.onboardIn(ctx, tx, e)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO oidc_users (user_id, subiss, cli_secret) VALUES ($1, $2, $3)`,
			p.ID, subIss, s.key.Seal(cliSecretPurpose, []byte(secret.Random(32).Reveal())))
		return err
	})
	if database.Code(err) == database.UniqueViolation { // somebody was faster
		err = nameTaken(e.Username)
	}
	return p, database.Fault(err)
}

func nameTaken(name string) error {
	return fault.New(fault.Conflict, "user %s already exists", name).On("username").WithHint("choose another name")
}
