// Package session keeps people logged in at the console (:5480) whose browsers
// cannot send a password with each request.
//
// There are three users: admin, who has the console's password; root, who has the
// machine's; and setup, who has the code that the VM's console shows during the
// first boot and may do nothing but answer its questions. A session's id is 32
// random bytes that only the cookie has; the file holds their hash, so that the
// agent may restart and its file may be read. A session ends after half an hour
// without a request, after twelve hours in any case, and with its user's password.
package session

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"berth/appliance/backoff"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// The users.
const (
	Admin = "admin" // the console's password
	Root  = "root"  // the machine's
	Setup = "setup" // the code from the VM's console
)

const (
	idle    = 30 * time.Minute
	longest = 12 * time.Hour
	most    = 64 // sessions at a time; the oldest give way
	idBytes = 32
	// Cookie is the cookie's name. Browsers take it over TLS alone, from this very
	// host, and for all its paths (RFC 6265bis section 4.1.3).
	Cookie = "__Host-berth-console"
	// checks is how many passwords are checked at a time: each takes 19 MiB.
	checks = 4
)

// Session is one that has not ended.
type Session struct {
	ID      secret.Text `json:"-"`
	User    string      `json:"user"`
	CSRF    string      `json:"-"` // what a page of ours sends with each change
	Address string      `json:"address"`
	Begun   time.Time   `json:"begun"`
	Seen    time.Time   `json:"seen"`
	Hash    string      `json:"hash"` // of ID
}

// Ends is when the session ends if it is not used before.
func (s *Session) Ends() time.Time {
	end := s.Seen.Add(idle)
	if last := s.Begun.Add(longest); last.Before(end) {
		return last
	}
	return end
}

// Options are what a Store needs.
type Options struct {
	// File is where sessions survive a restart.
	File string
	// Verify reports whether a password is the user's (admin or root).
	Verify func(ctx context.Context, user string, password secret.Text) (bool, error)
	// Code lets people in during the first boot; nil: there is none.
	Code *Code
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Store is all sessions. It is for concurrent use.
type Store struct {
	o       Options
	backoff *backoff.Backoff
	turns   chan struct{}

	mu       sync.Mutex
	sessions map[string]*Session // by hash
}

// New reads the file, if there is one. A broken one means that everybody logs in
// again.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{o: o, backoff: backoff.New(), turns: make(chan struct{}, checks), sessions: map[string]*Session{}}
	b, err := os.ReadFile(o.File)
	var list []*Session
	if err == nil && json.Unmarshal(b, &list) == nil {
		for _, one := range list {
			if one != nil && len(one.Hash) == 2*sha256.Size && len(s.sessions) < most {
				s.sessions[one.Hash] = one
			}
		}
	}
	return s
}

// Login makes a session for who has the password. The faults are Unauthenticated,
// which tells nothing of the reason, and TooMany after too many wrong passwords
// for this user from this address; its cause is a *Wait.
func (s *Store) Login(ctx context.Context, user string, password secret.Text, address string) (*Session, error) {
	if err := s.Check(ctx, user, password, address); err != nil {
		return nil, err
	}
	return s.begin(user, address), nil
}

// LoginByCode makes a session of the user setup.
func (s *Store) LoginByCode(ctx context.Context, code secret.Text, address string) (*Session, error) {
	if err := s.CheckCode(ctx, code, address); err != nil {
		return nil, err
	}
	return s.begin(Setup, address), nil
}

// Check is Login without a session: for programs that send a password with each
// request.
func (s *Store) Check(ctx context.Context, user string, password secret.Text, address string) error {
	return s.attempt(ctx, user, address, func() (bool, error) {
		// A name that is none takes as long as one that is.
		if user != Admin && user != Root {
			_, err := secret.Matches(secret.Decoy(), password)
			return false, err
		}
		return s.o.Verify(ctx, user, password)
	})
}

// CheckCode is LoginByCode without a session.
func (s *Store) CheckCode(ctx context.Context, code secret.Text, address string) error {
	return s.attempt(ctx, Setup, address, func() (bool, error) { return s.o.Code.check(code) })
}

// Wait is the cause of a TooMany fault: how long the caller has to wait.
type Wait struct{ For time.Duration }

func (w *Wait) Error() string { return fmt.Sprintf("%s left to wait", w.For.Round(time.Second)) }

func (s *Store) attempt(ctx context.Context, user, address string, verify func() (bool, error)) error {
	who := backoff.On(user, address)
	if user != Admin && user != Root && user != Setup {
		who = backoff.On("", address) // names that strangers think up take no room
	}
	if wait := s.backoff.Begin(who, s.o.Now()); wait > 0 {
		what := "passwords"
		if user == Setup {
			what = "codes"
		}
		return fault.Wrap(fault.TooMany, &Wait{wait}, "too many wrong %s from this address", what).
			WithHint("try again in %s", wait.Round(time.Second))
	}
	ok, err := s.inTurn(ctx, verify)
	s.backoff.End(who, ok, err != nil, s.o.Now())
	switch {
	case err != nil:
		return fault.Wrap(fault.Unavailable, err, "the password cannot be checked now")
	case !ok && user == Setup:
		return fault.New(fault.Unauthenticated, "the code is wrong").WithHint("it is on the VM's console; after some wrong tries there is a new one")
	case !ok:
		return fault.New(fault.Unauthenticated, "the name or the password is wrong")
	}
	return nil
}

func (s *Store) inTurn(ctx context.Context, verify func() (bool, error)) (bool, error) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
		return verify()
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *Store) begin(user, address string) *Session {
	raw := make([]byte, idBytes)
	rand.Read(raw) // never fails (crypto/rand, Go 1.24)
	id := base64.RawURLEncoding.EncodeToString(raw)
	now := s.o.Now()
	made := &Session{User: user, Address: address, Begun: now, Seen: now, Hash: hash(id)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purge(now)
	for len(s.sessions) >= most {
		oldest := slices.MinFunc(s.list(), func(a, b *Session) int { return a.Seen.Compare(b.Seen) })
		delete(s.sessions, oldest.Hash)
	}
	s.sessions[made.Hash] = made
	s.save()
	return made.with(id)
}

// with is a copy for whoever has the cookie.
func (s *Session) with(id string) *Session {
	c := *s
	c.ID, c.CSRF = secret.Text(id), token(id)
	return &c
}

func hash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// token is what a page shows that it has been given the session's pages.
func token(id string) string {
	m := hmac.New(sha256.New, []byte(id))
	m.Write([]byte("berth console csrf"))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// Of gives the session of a request's cookie, and moves its end on.
func (s *Store) Of(r *http.Request) (*Session, bool) { return s.of(r, true) }

// Peek is Of for a request that a page makes by itself, without anybody there: the
// session ends when it would have.
func (s *Store) Peek(r *http.Request) (*Session, bool) { return s.of(r, false) }

func (s *Store) of(r *http.Request, used bool) (*Session, bool) {
	c, err := r.Cookie(Cookie)
	if err != nil {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, now := s.sessions[hash(c.Value)], s.o.Now()
	if found == nil || !now.Before(found.Ends()) {
		return nil, false
	}
	if used {
		found.Seen = now
	}
	return found.with(c.Value), true
}

// Authentic reports whether a token is the one of the session.
func (s *Session) Authentic(csrf string) bool {
	return subtle.ConstantTimeCompare([]byte(csrf), []byte(s.CSRF)) == 1
}

// SetCookie gives the browser the session.
func SetCookie(w http.ResponseWriter, s *Session) {
	http.SetCookie(w, &http.Cookie{Name: Cookie, Value: s.ID.Reveal(), Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteStrictMode, Expires: s.Begun.Add(longest)})
}

// End ends the session of a request, and takes its cookie back.
func (s *Store) End(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: Cookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
	c, err := r.Cookie(Cookie)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[hash(c.Value)] != nil {
		delete(s.sessions, hash(c.Value))
		s.save()
	}
}

// EndAll ends the sessions of a user, whose password has changed, but not that of
// except (nil: none).
func (s *Store) EndAll(user string, except *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, one := range s.sessions {
		if one.User == user && (except == nil || except.Hash != key) {
			delete(s.sessions, key)
		}
	}
	s.save()
}

func (s *Store) purge(now time.Time) {
	for key, one := range s.sessions {
		if !now.Before(one.Ends()) {
			delete(s.sessions, key)
		}
	}
}

func (s *Store) list() []*Session {
	list := make([]*Session, 0, len(s.sessions))
	for _, one := range s.sessions {
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b *Session) int { return a.Begun.Compare(b.Begun) })
	return list
}

// save writes the file. A full disk must not keep the administrator out who is to
// make room: then the sessions live until the agent restarts, and none comes back
// that has ended.
func (s *Store) save() {
	if s.o.File == "" {
		return
	}
	b, err := json.Marshal(s.list())
	if err == nil {
		err = durable.WriteFile(s.o.File, b, 0o600)
	}
	if err != nil {
		os.Remove(s.o.File)
	}
}
