package token

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/account"
	"berth/services/configuration"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/project"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

type bench struct {
	t    *testing.T
	pool *pgxpool.Pool
	svc  *Service
	now  time.Time
}

const password = "Correct-Horse7"

// setup makes a service with users admin and dev (a developer in p), the public
// project library and the private project p.
func setup(t *testing.T) *bench {
	t.Helper()
	pool := dbtest.New(t)
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	key := secret.NewKey(make([]byte, 32))
	accounts, projects := account.New(pool, key, outbox), project.New(pool, outbox)
	ctx := t.Context()
	if _, err := accounts.EnsureAdmin(ctx, password); err != nil {
		t.Fatal(err)
	}
	if err := projects.EnsureLibrary(ctx); err != nil {
		t.Fatal(err)
	}
	admin := access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}
	if _, err := projects.Create(ctx, admin, "p", project.Settings{Metadata: map[string]string{"public": "false"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.CreateUser(ctx, account.NewUser{Username: "dev", Password: password, Profile: account.Profile{Email: "dev@example.org", Realname: "dev"}}); err != nil {
		t.Fatal(err)
	}
	target, err := projects.Target(ctx, admin, "p")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := projects.AddMember(ctx, target, 0, "dev", access.Developer); err != nil {
		t.Fatal(err)
	}
	svc, err := New(ctx, Options{Pool: pool, Key: secret.NewKey([]byte(strings.Repeat("t", 32))), Accounts: accounts, Projects: projects, Configuration: configuration.New(pool, key, outbox), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, pool, svc, time.Now()}
}

func (b *bench) get(user, pass string, q url.Values) (int, Token, http.Header) {
	b.t.Helper()
	r := httptest.NewRequest("GET", "/service/token?"+q.Encode(), nil)
	if user != "" {
		r.SetBasicAuth(user, pass)
	}
	w := httptest.NewRecorder()
	b.svc.ServeHTTP(w, r)
	var tok Token
	if w.Code == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &tok); err != nil {
			b.t.Fatal(err)
		}
	}
	return w.Code, tok, w.Header()
}

func (b *bench) verifier() *Verifier {
	v, err := NewVerifier(b.pool, func() time.Time { return b.now })
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func ask(scopes ...string) url.Values { return url.Values{"service": {Audience}, "scope": scopes} }

// Granted is what was asked for and is allowed, resource by resource.
func TestGrants(t *testing.T) {
	t.Parallel()
	b := setup(t)
	v := b.verifier()
	for _, tt := range []struct {
		user, scope string
		want        []string
	}{
		{"admin", "repository:p/x:pull", []string{"pull"}},
		{"admin", "repository:p/x:*", []string{"pull", "push", "delete"}},
		{"admin", "registry:catalog:*", []string{"*"}},
		{"dev", "registry:catalog:*", []string{}},
		{"dev", "repository:p/x:pull,push,delete", []string{"pull", "push"}},
		{"dev", "repository:library/x:pull,push", []string{"pull"}},
		{"dev", "repository:nosuch/x:pull", []string{}},
		{"dev", "repository:one:pull", []string{}},
		{"dev", "repository(plugin):p/x:pull", []string{"pull"}},
		{"dev", "unknown:p/x:pull", []string{}},
		{"", "repository:library/x:pull,push", []string{"pull"}},
		{"", "repository:p/x:pull", []string{}},
	} {
		code, tok, _ := b.get(tt.user, password, ask(tt.scope))
		if code != 200 {
			t.Errorf("%s %s: status %d", tt.user, tt.scope, code)
			continue
		}
		got, err := v.Verify(t.Context(), tok.Token)
		if err != nil {
			t.Errorf("%s %s: %v", tt.user, tt.scope, err)
			continue
		}
		slices.Sort(got.Access[0].Actions)
		slices.Sort(tt.want)
		if got.User != tt.user || !slices.Equal(got.Access[0].Actions, tt.want) {
			t.Errorf("%q %s: got %+v, want %v", tt.user, tt.scope, got, tt.want)
		}
	}
	_, tok, _ := b.get("dev", password, ask("repository:p/x:pull repository:library/y:pull", "repository:p/x:push"))
	got, err := v.Verify(t.Context(), tok.AccessToken)
	if err != nil || len(got.Access) != 2 || len(got.Access[0].Actions) != 2 {
		t.Errorf("several scopes: got %+v, %v", got, err)
	}
}

// What is asked wrongly is refused in words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if code, _, _ := b.get("", "", url.Values{"service": {Audience}}); code != 401 {
		t.Errorf("anonymous without scope: %d, want 401", code)
	}
	if code, _, h := b.get("dev", "Wrong-Horse7", ask("repository:library/x:pull")); code != 401 || h.Get("WWW-Authenticate") == "" {
		t.Errorf("a wrong password: %d, want 401 with a challenge", code)
	}
	if code, _, _ := b.get("dev", password, url.Values{"service": {"another"}}); code != 400 {
		t.Errorf("another service: %d, want 400", code)
	}
	if code, _, _ := b.get("dev", password, ask("nonsense")); code != 400 {
		t.Errorf("a bad scope: %d, want 400", code)
	}
	r := httptest.NewRequest("GET", "/service/token?service="+Audience, nil)
	r.Header.Set("Authorization", "Basic !!!")
	w := httptest.NewRecorder()
	if b.svc.ServeHTTP(w, r); w.Code != 401 {
		t.Errorf("a bad header: %d, want 401", w.Code)
	}
}

// The OAuth2 form, as containerd sends it.
func TestPost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	post := func(form url.Values) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/service/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		b.svc.ServeHTTP(w, r)
		return w
	}
	form := url.Values{"grant_type": {"password"}, "service": {Audience}, "client_id": {"containerd"}, "username": {"dev"}, "password": {password}, "scope": {"repository:p/x:pull"}}
	var tok Token
	if w := post(form); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &tok) != nil || tok.AccessToken == "" || tok.ExpiresIn != 1800 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	form.Set("grant_type", "refresh_token")
	if w := post(form); w.Code != 400 {
		t.Errorf("another grant: %d, want 400", w.Code)
	}
}

// Forged, foreign, altered and untimely tokens are refused; a token that was
// good is looked at again when the clock has moved.
func TestVerify(t *testing.T) {
	t.Parallel()
	b := setup(t)
	v := b.verifier()
	_, tok, _ := b.get("dev", password, ask("repository:p/x:pull"))
	good := tok.Token
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	altered := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), `"pull"`, `"push"`, 1)))
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, &claims{Iss: Issuer, Aud: Audience, Exp: time.Now().Add(time.Hour).Unix()}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	hmac, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, &claims{Iss: Issuer, Aud: Audience, Exp: time.Now().Add(time.Hour).Unix()}).SignedString([]byte("k"))
	for name, bad := range map[string]string{
		"altered": parts[0] + "." + altered + "." + parts[2], "unsigned": none, "signed with a shared key": hmac,
		"cut": good[:len(good)-4], "empty": "", "huge": strings.Repeat("x", maxToken+1), "dots": "..",
	} {
		if _, err := v.Verify(t.Context(), bad); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b.now = time.Now().Add(32 * time.Minute) // past its end and the leeway
	if _, err := v.Verify(t.Context(), good); !fault.Is(err, fault.Unauthenticated) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: got %v", err)
	}
	b.now = time.Now().Add(-10 * time.Minute) // the clock was set back
	if _, err := v.Verify(t.Context(), good); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("not valid yet: got %v", err)
	}
	b.now = time.Now()
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Errorf("good again: %v", err)
	}
}

// A key changes while tokens of the old one are about: both verify, and a
// verifier that has never heard of the new one learns it.
func TestRotation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	v := b.verifier()
	_, old, _ := b.get("dev", password, ask("repository:p/x:pull"))
	if _, err := v.Verify(t.Context(), old.Token); err != nil {
		t.Fatal(err)
	}
	// Retire the key as time would.
	if _, err := b.pool.Exec(t.Context(), `UPDATE signing_keys SET signs_from = now() - interval '40 days', retires_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	if err := b.svc.keys.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, fresh, _ := b.get("dev", password, ask("repository:p/x:pull"))
	kid := func(tok string) string {
		t, _, _ := jwt.NewParser().ParseUnverified(tok, &claims{})
		return t.Header["kid"].(string)
	}
	if kid(old.Token) == kid(fresh.Token) {
		t.Fatal("the key did not change")
	}
	b.now = b.now.Add(rereadKeys + time.Second)
	for name, tok := range map[string]string{"old": old.Token, "new": fresh.Token} {
		if _, err := v.Verify(context.Background(), tok); err != nil {
			t.Errorf("%s token: %v", name, err)
		}
	}
}

// With another key file the service makes a new key instead of failing, and old
// tokens stay good.
func TestLostKeyFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, old, _ := b.get("dev", password, ask("repository:p/x:pull"))
	o := b.svc.Options
	o.Key = secret.NewKey([]byte(strings.Repeat("z", 32)))
	svc, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b.svc = svc
	code, fresh, _ := b.get("dev", password, ask("repository:p/x:pull"))
	v := b.verifier()
	_, e1 := v.Verify(t.Context(), old.Token)
	_, e2 := v.Verify(t.Context(), fresh.Token)
	if code != 200 || e1 != nil || e2 != nil {
		t.Errorf("status %d, old %v, new %v", code, e1, e2)
	}
}

func FuzzScopes(f *testing.F) {
	f.Add("repository:library/app:pull,push registry:catalog:*")
	f.Add("repository(x):host:5000/a/b:pull")
	f.Add(":::,,,")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseScopes([]string{s})
		if err == nil && len(list) > maxScopes {
			t.Errorf("%d scopes", len(list))
		}
		for _, sc := range list {
			if sc.Type == "" || len(sc.Actions) > 16 {
				t.Errorf("%q gave %+v", s, sc)
			}
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("eyJhbGciOiJFZERTQSJ9.e30.AA")
	f.Add("a.b.c")
	v, err := NewVerifier(nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	v.read = time.Now().Add(-time.Second) // keys were read a moment ago, and there are none
	f.Fuzz(func(t *testing.T, raw string) {
		v.read = time.Now().Add(-time.Second)
		if _, err := v.Verify(context.Background(), raw); err == nil {
			t.Errorf("%q was accepted", raw)
		}
	})
}
