package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/database"
	"berth/services/event"
)

// Token is a personal access token: it stands in for its user's password where
// clients log in, for a time, and with no more than the user's rights.
type Token struct {
	ID       int64
	Name     string
	ReadOnly bool
	Projects []string // the only projects that it is for; nil = all
	Created  time.Time
	Expires  time.Time // zero = never
	LastUsed time.Time // zero = never
}

// NewToken is what a token is made from.
type NewToken struct {
	Name     string
	ReadOnly bool
	Days     int // how long it lives; -1 = for ever
}

// A token's secret is tokenPrefix and random characters: it can be told from a
// password without asking anybody, and found by scanners of source code.
const (
	tokenPrefix = "bpat_"
	tokenRandom = 40
	maxTokens   = 100 // of one user
	maxDays     = 3650
)

func isToken(password string) bool {
	return strings.HasPrefix(password, tokenPrefix) && len(password) == len(tokenPrefix)+tokenRandom
}

func (s *Store) tokenHash(text string) []byte {
	h := hmac.New(sha256.New, s.tokens)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// verifyToken checks a token, whose user the caller has to name.
func (s *Store) verifyToken(ctx context.Context, username, text string) (verdict, error) {
	v := verdict{account: userAccount(username)}
	p := access.Principal{Kind: access.User}
	var limit access.Limit
	var source string
	var expires *time.Time
	err := s.pool.QueryRow(ctx, `
		SELECT `+knownColumns+`, t.id, t.read_only, t.project_ids, t.expires_at FROM access_tokens t JOIN users u ON u.id = t.user_id
		WHERE t.secret_hash = $1 AND (lower(u.username) = lower($2) OR lower(u.email) = lower($2))`, s.tokenHash(text), username).
		Scan(&p.ID, &p.Name, &p.Sysadmin, &source, &p.Groups, &limit.Token, &limit.ReadOnly, &limit.Projects, &expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return v, nil
	}
	if err != nil {
		return verdict{}, err
	}
	v.account = userAccount(p.Name)
	if expires != nil {
		if v.expires = *expires; !time.Now().Before(v.expires) {
			return verdict{account: v.account}, nil
		}
	}
	mode, err := s.mode(ctx)
	if err != nil || source != Local && source != sourceOf(mode) {
		return verdict{account: v.account}, err
	}
	v.ok = true
	if source == LDAP {
		if p, v.ok, err = s.refresh(ctx, p); err != nil {
			return verdict{}, err
		}
		if soon := time.Now().Add(rememberExternal); v.expires.IsZero() || v.expires.After(soon) {
			v.expires = soon
		}
	}
	v.principal = p.Limited(limit)
	return v, nil
}

// Tokens lists a user's tokens.
func (s *Store) Tokens(ctx context.Context, user int64) ([]Token, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT id, name, read_only, CASE WHEN project_ids IS NOT NULL THEN
			ARRAY(SELECT p.name FROM projects p WHERE p.id = ANY(project_ids) ORDER BY p.name) END, created_at, expires_at, last_used_at
		FROM access_tokens WHERE user_id = $1 ORDER BY name`, user)
	if err != nil {
		return nil, database.Fault(err)
	}
	tokens, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Token, err error) {
		var expires, used *time.Time
		err = row.Scan(&t.ID, &t.Name, &t.ReadOnly, &t.Projects, &t.Created, &expires, &used)
		if expires != nil {
			t.Expires = *expires
		}
		if used != nil {
			t.LastUsed = *used
		}
		return t, err
	})
	return tokens, database.Fault(err)
}

// CreateToken makes a token for a user, and gives its id and its secret, which
// nobody can find out again. projects are the ids of the only projects that it
// is for, which the user must be able to see; nil = all. Faults: Invalid, Conflict, Precondition.
func (s *Store) CreateToken(ctx context.Context, user access.Principal, n NewToken, projects []int64) (id int64, text secret.Text, err error) {
	n.Name = strings.TrimSpace(n.Name)
	switch {
	case n.Name == "" || len(n.Name) > 100:
		return 0, "", fault.New(fault.Invalid, "name has 1 to 100 characters").On("name")
	case n.Days == 0 || n.Days < -1 || n.Days > maxDays:
		return 0, "", fault.New(fault.Invalid, "it is a number of days up to %d, or -1 for ever", maxDays).On("duration")
	}
	text = secret.Text(tokenPrefix + secret.Random(tokenRandom).Reveal())
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var count int
		if err := tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM access_tokens WHERE user_id = u.id) FROM users u WHERE u.id = $1 FOR UPDATE`, user.ID).Scan(&count); err != nil {
			return err
		}
		if count >= maxTokens {
			return fault.New(fault.Precondition, "a user has at most %d tokens", maxTokens).WithHint("delete some first")
		}
		err := tx.QueryRow(ctx, `
			INSERT INTO access_tokens (user_id, name, secret_hash, read_only, project_ids, expires_at)
			VALUES ($1, $2, $3, $4, $5, CASE WHEN $6::integer > 0 THEN now() + $6::integer * interval '1 day' END) RETURNING id`,
			user.ID, n.Name, s.tokenHash(text.Reveal()), n.ReadOnly, projects, n.Days).Scan(&id)
		if err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, tokenEvent("create", user.Name, n.Name))
	})
	if database.Code(err) == database.UniqueViolation {
		return 0, "", fault.New(fault.Conflict, "a token of this name already exists")
	}
	return id, text, database.Fault(err)
}

// DeleteToken revokes a user's token: it is refused from now on.
func (s *Store) DeleteToken(ctx context.Context, user, id int64) error {
	var owner, name string
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `
			DELETE FROM access_tokens t USING users u WHERE u.id = t.user_id AND t.user_id = $1 AND t.id = $2 RETURNING u.username, t.name`, user, id).
			Scan(&owner, &name); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, tokenEvent("delete", owner, name))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "token %d not found", id)
	}
	if err == nil {
		s.forget(userAccount(owner))
	}
	return database.Fault(err)
}

// tokenEvent is an update of the user, as the audit trail's types have it.
func tokenEvent(operation, user, name string) event.Event {
	return event.Event{Operation: "update", ResourceType: "user", Resource: user, Success: true,
		Description: operation + " access token: " + name + " of " + user}
}
