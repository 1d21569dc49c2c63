package session_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// clock is a time that the test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func setup(t *testing.T) (*session.Store, *session.Code, *clock, session.Options) {
	t.Helper()
	c := &clock{time.Unix(1_800_000_000, 0)}
	code := session.NewCode(filepath.Join(t.TempDir(), "code"))
	o := session.Options{
		File: filepath.Join(t.TempDir(), "sessions.json"), Code: code, Now: c.Now,
		Verify: func(_ context.Context, user string, password secret.Text) (bool, error) {
			return password == secret.Text(user+"-secret"), nil
		},
	}
	return session.New(o), code, c, o
}

// browser keeps the cookie of a session and asks with it.
func browser(s *session.Session) *http.Request {
	w := httptest.NewRecorder()
	session.SetCookie(w, s)
	r := httptest.NewRequest("GET", "https://berth.example/", nil)
	for _, c := range w.Result().Cookies() {
		r.AddCookie(c)
	}
	return r
}

func TestSessionLives(t *testing.T) {
	t.Parallel()
	s, _, c, o := setup(t)
	made, err := s.Login(t.Context(), "admin", "admin-secret", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	r := browser(made)
	found, ok := s.Of(r)
	if !ok || found.User != "admin" || !found.Authentic(made.CSRF) || found.Authentic("") || found.Authentic("x") {
		t.Errorf("found %+v, %v", found, ok)
	}
	// It survives a restart, and its file holds nothing to log in with.
	if _, ok := session.New(o).Of(r); !ok {
		t.Error("a restart ends the session")
	}
	b, err := os.ReadFile(o.File)
	if err != nil || strings.Contains(string(b), made.ID.Reveal()) || strings.Contains(string(b), made.CSRF) {
		t.Errorf("the file has what the cookie has: %v %s", err, b)
	}
	// Half an hour without use ends it; use puts that off, for twelve hours.
	for range 27 {
		c.now = c.now.Add(26 * time.Minute)
		if _, ok := s.Of(r); !ok {
			t.Fatalf("ended after %s of use", c.now.Sub(made.Begun))
		}
	}
	c.now = made.Begun.Add(12 * time.Hour)
	if _, ok := s.Of(r); ok {
		t.Error("older than twelve hours")
	}
	made, _ = s.Login(t.Context(), "admin", "admin-secret", "192.0.2.1")
	c.now = c.now.Add(30 * time.Minute)
	if _, ok := s.Of(browser(made)); ok {
		t.Error("not used for half an hour")
	}
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	s, _, c, _ := setup(t)
	login := func(user string) (*session.Session, *http.Request) {
		c.now = c.now.Add(time.Second)
		made, err := s.Login(t.Context(), user, secret.Text(user+"-secret"), "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		return made, browser(made)
	}
	_, a := login("admin")
	keep, b := login("admin")
	_, root := login("root")
	s.EndAll("admin", keep)
	for i, one := range []struct {
		r    *http.Request
		want bool
	}{{a, false}, {b, true}, {root, true}} {
		if _, ok := s.Of(one.r); ok != one.want {
			t.Errorf("session %d: %v, want %v", i, ok, one.want)
		}
	}
	w := httptest.NewRecorder()
	s.End(w, b)
	if _, ok := s.Of(b); ok || !strings.Contains(w.Header().Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("not ended: %v", w.Header())
	}
	// There are never more than a bounded number.
	for range 100 {
		login("admin")
	}
	if _, ok := s.Of(root); ok {
		t.Error("the oldest did not give way")
	}
}

// A stranger who guesses slows down himself, and never the administrator.
func TestGuessing(t *testing.T) {
	t.Parallel()
	s, _, c, _ := setup(t)
	held := false
	for range 10 {
		_, err := s.Login(t.Context(), "admin", "wrong", "192.0.2.66")
		if wait, ok := errors.AsType[*session.Wait](err); ok && fault.Is(err, fault.TooMany) && wait.For > 0 {
			held = true
		} else if !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("got %v", err)
		}
	}
	if !held {
		t.Error("ten guesses at once")
	}
	if _, err := s.Login(t.Context(), "admin", "admin-secret", "192.0.2.1"); err != nil {
		t.Errorf("the administrator elsewhere: %v", err)
	}
	c.now = c.now.Add(time.Minute)
	if _, err := s.Login(t.Context(), "admin", "admin-secret", "192.0.2.66"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
	for _, user := range []string{"", "nobody", "setup"} {
		if _, err := s.Login(t.Context(), user, secret.Text(user+"-secret"), "192.0.2.9"); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%q: %v", user, err)
		}
	}
}

func TestCode(t *testing.T) {
	t.Parallel()
	s, code, c, _ := setup(t)
	if _, err := s.LoginByCode(t.Context(), "", "192.0.2.1"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("no code, yet %v", err)
	}
	if err := code.Ensure(); err != nil {
		t.Fatal(err)
	}
	first, err := code.Read()
	if err != nil || len(first) != 14 {
		t.Fatalf("%q, %v", first.Reveal(), err)
	}
	typed := secret.Text(strings.ToLower(strings.ReplaceAll(first.Reveal(), "-", " ")))
	made, err := s.LoginByCode(t.Context(), typed, "192.0.2.1")
	if err != nil || made.User != session.Setup {
		t.Errorf("%+v, %v", made, err)
	}
	if err := code.Ensure(); err != nil {
		t.Fatal(err)
	}
	if again, _ := code.Read(); again != first {
		t.Error("Ensure makes another code")
	}
	// After some wrong ones there is another; the right one of before is no more.
	for i := range 20 {
		c.now = c.now.Add(time.Hour)
		if _, err := s.LoginByCode(t.Context(), "WRONG-WRONG", "192.0.2.66"); err == nil {
			t.Fatalf("guess %d: let in", i)
		}
	}
	if second, err := code.Read(); err != nil || second == first {
		t.Errorf("still %q, %v", second.Reveal(), err)
	}
	if err := code.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoginByCode(t.Context(), first, "192.0.2.1"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("removed, yet %v", err)
	}
}
