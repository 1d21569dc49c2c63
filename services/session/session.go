// Package session keeps people logged in whose browsers cannot send a password
// with each request.
//
// A session is a row that a login makes, and nothing else does: requests without
// a cookie leave no trace. Its id is 32 random bytes which only the cookie has;
// the table holds a keyed hash. It ends after the configured time without use,
// after twelve hours in any case, with its user, and with the user's password.
// Who a session's user is, and what the user may do, is read each time.
package session

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/database"
	"berth/services/event"
)

const (
	longest    = 12 * time.Hour  // a session's life, used or not, unless the configured one is longer
	perUser    = 64              // sessions of one user; the oldest give way
	slideEvery = time.Minute     // how exact the time without use is: a use within it writes nothing
	purgeEvery = 5 * time.Minute // rows that have expired mean nothing, and only take up room
	idBytes    = 32
)

// Store is the sessions in the database.
type Store struct {
	pool   *pgxpool.Pool
	key    secret.Key
	outbox *event.Outbox
}

// New makes a store. One process should have its Run running.
func New(pool *pgxpool.Pool, key secret.Key, outbox *event.Outbox) *Store {
	return &Store{pool, key, outbox}
}

// Session is a session in use.
type Session struct {
	Principal access.Principal
	OIDC      bool // an OIDC provider knows of it, too
	LDAP      bool // the user is a directory's
}

// hash is the name that an id is kept under; ids that are none have no session.
func (s *Store) hash(id string) ([]byte, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(raw) != idBytes {
		return nil, false
	}
	h := hmac.New(sha256.New, s.key.For("session id"))
	h.Write(raw)
	return h.Sum(nil), true
}

// Begin makes a session for who has just logged in, and gives its id. idle is
// how long it lives without use. idToken is an OIDC user's, for the provider's
// logout; "" otherwise.
func (s *Store) Begin(ctx context.Context, who access.Principal, idle time.Duration, idToken secret.Text) (secret.Text, error) {
	raw := make([]byte, idBytes)
	rand.Read(raw) // never fails (crypto/rand, Go 1.24)
	id := base64.RawURLEncoding.EncodeToString(raw)
	hash, _ := s.hash(id)
	var sealed []byte
	if idToken != "" {
		sealed = s.key.Seal("oidc id token", []byte(idToken.Reveal()))
	}
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
			DELETE FROM sessions WHERE id_hash IN (SELECT id_hash FROM sessions WHERE user_id = $1 ORDER BY expires_at DESC OFFSET $2)`,
			who.ID, perUser-1); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO sessions (id_hash, user_id, expires_at, ends_at, oidc_token) VALUES ($1, $2, now() + $3, now() + $4, $5)`,
			hash, who.ID, idle, max(longest, idle), sealed); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, loginEvent("login", who.Name, true))
	})
	return secret.Text(id), database.Fault(err)
}

// Failed tells of a login that came to nothing.
func (s *Store) Failed(ctx context.Context, name string) error {
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		return s.outbox.Add(ctx, tx, loginEvent("login", name, false))
	}))
}

func loginEvent(operation, name string, ok bool) event.Event {
	return event.Event{Operation: operation, ResourceType: "user", Resource: name, User: name, Success: ok, Description: operation + " user: " + name}
}

// Find gives the session of an id, and moves its end on. ok is false if there is
// none, or none any more.
func (s *Store) Find(ctx context.Context, id string, idle time.Duration) (found Session, ok bool, err error) {
	hash, ok := s.hash(id)
	if !ok {
		return Session{}, false, nil
	}
	var left time.Duration
	p := &found.Principal
	p.Kind = access.User
	err = s.pool.QueryRow(ctx, `
		SELECT u.id, u.username, u.sysadmin OR u.admin_by_group, ARRAY(SELECT group_id FROM user_group_members m WHERE m.user_id = u.id),
			s.oidc_token IS NOT NULL, u.source = 'ldap', s.expires_at - now()
		FROM sessions s JOIN users u ON u.id = s.user_id
		WHERE s.id_hash = $1 AND s.expires_at > now() AND s.ends_at > now()`, hash).
		Scan(&p.ID, &p.Name, &p.Sysadmin, &p.Groups, &found.OIDC, &found.LDAP, &left)
	if errors.Is(err, pgx.ErrNoRows) {
		return Session{}, false, nil
	}
	// Also when the configured time has become shorter.
	if err == nil && (idle-left).Abs() > slideEvery {
		_, err = s.pool.Exec(ctx, `UPDATE sessions SET expires_at = least(now() + $2, ends_at) WHERE id_hash = $1`, hash, idle)
	}
	return found, err == nil, database.Fault(err)
}

// End ends a session, if there is one of that id. For an OIDC user's it gives
// the id token that the provider wants to see.
func (s *Store) End(ctx context.Context, id string) (idToken secret.Text, err error) {
	hash, ok := s.hash(id)
	if !ok {
		return "", nil
	}
	var name string
	var sealed []byte
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `
			DELETE FROM sessions s USING users u WHERE u.id = s.user_id AND s.id_hash = $1 RETURNING u.username, s.oidc_token`, hash).
			Scan(&name, &sealed); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, loginEvent("logout", name, true))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil || sealed == nil {
		return "", database.Fault(err)
	}
	plain, err := s.key.Open("oidc id token", sealed)
	return secret.Text(plain), err
}

// Run removes sessions that have expired, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	ticks := time.NewTicker(purgeEvery)
	defer ticks.Stop()
	for {
		if err := s.Purge(ctx); err != nil && !database.Down(err) && ctx.Err() == nil {
			return fmt.Errorf("cannot remove expired sessions: %w", err)
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Purge removes sessions, and logins under way, that have expired.
func (s *Store) Purge(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM pending_logins WHERE expires_at < now()`); err != nil {
		return err
	}
	_, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE expires_at < now() OR ends_at < now()`)
	return err
}
