package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"berth/appliance/backoff"
	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/database"
)

// verifyTimeout bounds a check that no longer has the caller's own context.
const verifyTimeout = 30 * time.Second

// Authenticate says who logs in with a user name (or e-mail address, or robot's
// name) and a password from source, the client's address. The faults are
// Unauthenticated, which tells nothing of the reason, and TooMany, whose cause
// is a *Backoff, after too many wrong passwords from that source.
func (s *Store) Authenticate(ctx context.Context, username, password, source string) (access.Principal, error) {
	p, repeated, err := s.authenticate(ctx, username, password, source)
	s.logins.note(repeated, err)
	return p, err
}

// authenticate is Authenticate; repeated says that this credential was refused
// before.
func (s *Store) authenticate(ctx context.Context, username, password, source string) (p access.Principal, repeated bool, err error) {
	if !utf8.ValidString(username) || strings.ContainsRune(username, 0) {
		return p, false, wrong() // nobody's name, and PostgreSQL would refuse it as text
	}
	k := s.credential(username, password)
	who := backoff.On(username, source)
	now := time.Now()
	v, known := s.cache.get(k, now)
	s.hits.Note(known)
	if known && !v.ok {
		return p, true, wrong() // the caller has been told before: no new guess
	}
	// This comes before a good verdict is used: a hit would tell a guess that it is right.
	if wait := s.backoff.Waiting(who, now); wait > 0 {
		return p, false, tooMany(wait)
	}
	if !known {
		if v, err = s.check(ctx, k, who, username, password); err != nil {
			return p, false, err
		}
	}
	if !v.ok {
		return p, false, wrong()
	}
	switch p = v.principal; {
	case p.Kind == access.Robot:
		s.noteUse(used{"robots", p.ID}, now)
	case p.Limit != nil && p.Limit.Token != 0:
		s.noteUse(used{"access_tokens", p.Limit.Token}, now)
	}
	return p, false, nil
}

// credential is the name under which a verdict is remembered. It is keyed by a
// random key of this process, so that a memory dump is no list of hashes to try
// passwords against elsewhere.
func (s *Store) credential(username, password string) (c credential) {
	h := hmac.New(sha256.New, s.process)
	h.Write([]byte(username))
	h.Write([]byte{0})
	h.Write([]byte(password))
	h.Sum(c[:0])
	return c
}

// check verifies a credential and remembers the verdict. Callers that come with
// the same credential from the same source meanwhile share the work, which
// hence does not end with the first caller's request.
func (s *Store) check(ctx context.Context, k credential, who backoff.Attempt, username, password string) (verdict, error) {
	flight := s.flights.DoChan(string(k[:])+who.Source, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
		defer cancel()
		if wait := s.backoff.Begin(who, time.Now()); wait > 0 {
			return verdict{}, tooMany(wait)
		}
		version := s.cache.version()
		v, err := s.verify(ctx, username, password)
		s.backoff.End(who, v.ok, err != nil, time.Now())
		if err != nil {
			return verdict{}, database.Fault(err)
		}
		s.cache.put(k, v, version, time.Now())
		return v, nil
	})
	select {
	case r := <-flight:
		if r.Err != nil {
			return verdict{}, r.Err
		}
		return r.Val.(verdict), nil
	case <-ctx.Done():
		return verdict{}, ctx.Err()
	}
}

func wrong() error {
	return fault.New(fault.Unauthenticated, "the user name or the password is wrong")
}

func tooMany(wait time.Duration) error {
	return fault.Wrap(fault.TooMany, &Backoff{wait}, "too many wrong passwords for this account from this address").
		WithHint("try again in %d s", int(math.Ceil(wait.Seconds())))
}

// verify looks the account up and compares.
func (s *Store) verify(ctx context.Context, username, password string) (verdict, error) {
	prefix, err := s.robotPrefix(ctx)
	if err != nil {
		return verdict{}, err
	}
	if login, ok := strings.CutPrefix(username, prefix); ok {
		return s.verifyRobot(ctx, prefix, login, password)
	}
	return s.verifyUser(ctx, username, password)
}

func (s *Store) verifyRobot(ctx context.Context, prefix, login, password string) (verdict, error) {
	v := verdict{account: robotAccount(login), principal: access.Principal{Kind: access.Robot, Name: prefix + login}}
	var (
		ofProject, disabled bool
		stored, old         []byte
		expires, oldUntil   *time.Time
	)
	err := s.pool.QueryRow(ctx, `
		SELECT id, project_id IS NOT NULL, secret_hash, old_secret_hash, old_secret_until, permissions, expires_at, disabled
		FROM robots WHERE login = $1`, login).
		Scan(&v.principal.ID, &ofProject, &stored, &old, &oldUntil, &v.principal.Permissions, &expires, &disabled)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return verdict{}, err
	}
	hash, now := s.secretHash(password), time.Now()
	v.ok = subtle.ConstantTimeCompare(hash, stored) == 1 && !disabled
	if !v.ok && !disabled && oldUntil != nil && now.Before(*oldUntil) && subtle.ConstantTimeCompare(hash, old) == 1 {
		v.ok, v.expires = true, *oldUntil
	}
	if expires != nil {
		if v.expires.IsZero() || expires.Before(v.expires) {
			v.expires = *expires
		}
		v.ok = v.ok && now.Before(*expires)
	}
	if !v.ok {
		// An expiry in the past would make the verdict forgotten at once.
		return verdict{account: v.account}, nil
	}
	if ofProject {
		impliedPull(v.principal.Permissions)
	}
	return v, nil
}

// impliedPull adds pull to push: as in Harbor, the robot of a project that may
// push may pull.
func impliedPull(blocks []access.Permission) {
	pull, push := access.Pair{Resource: "repository", Action: "pull"}, access.Pair{Resource: "repository", Action: "push"}
	for i, b := range blocks {
		if slices.Contains(b.Access, push) && !slices.Contains(b.Access, pull) {
			blocks[i].Access = append(b.Access, pull)
		}
	}
}

func (s *Store) secretHash(secret string) []byte {
	h := hmac.New(sha256.New, s.robots)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

// defaultRobotPrefix starts robots' names unless the configuration says otherwise.
const defaultRobotPrefix = "robot$"

func (s *Store) robotPrefix(ctx context.Context) (string, error) {
	var prefix string
	err := s.pool.QueryRow(ctx, `SELECT value #>> '{}' FROM configurations WHERE key = 'robot_name_prefix'`).Scan(&prefix)
	if errors.Is(err, pgx.ErrNoRows) {
		return defaultRobotPrefix, nil
	}
	return prefix, err
}

// useInterval is how often uses are written down, all at once.
const useInterval = 30 * time.Second

// used is what was used: a row of robots or of access_tokens.
type used struct {
	table string
	id    int64
}

func (s *Store) noteUse(what used, now time.Time) {
	s.usedMu.Lock()
	defer s.usedMu.Unlock()
	s.used[what] = now
}

// WriteUses writes down when robots and tokens were last used, until ctx ends.
func (s *Store) WriteUses(ctx context.Context) error {
	ticks := time.NewTicker(useInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			if err := s.flushUses(ctx); err != nil && !database.Down(err) && ctx.Err() == nil {
				return fmt.Errorf("cannot write down when robots and tokens were last used: %w", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			s.flushUses(last) // it is a convenience, not worth a failed stop
			return nil
		}
	}
}

func (s *Store) flushUses(ctx context.Context) error {
	s.usedMu.Lock()
	uses := s.used
	s.used = map[used]time.Time{}
	s.usedMu.Unlock()
	for _, table := range []string{"robots", "access_tokens"} {
		var ids []int64
		var times []time.Time
		for what, at := range uses {
			if what.table == table {
				ids, times = append(ids, what.id), append(times, at)
			}
		}
		if len(ids) == 0 {
			continue
		}
		if _, err := s.pool.Exec(ctx, `
			UPDATE `+table+` r SET last_used_at = u.at
			FROM unnest($1::bigint[], $2::timestamptz[]) AS u (id, at) WHERE r.id = u.id`, ids, times); err != nil {
			return err
		}
	}
	return nil
}

// Backoff is the cause of a TooMany fault: how long the caller has to wait.
type Backoff struct{ Wait time.Duration }

func (b *Backoff) Error() string { return fmt.Sprintf("%s left to wait", b.Wait.Round(time.Second)) }
