package faults

import (
	"crypto/ed25519"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"berth/appliance/secret"
	"berth/services/token"
	"berth/tests/berthtest"
)

// Clocks of two nodes may differ by a minute. Beyond that a token is refused, with words that name the clock, and a
// client that asks for a new one gets on. (libfaketime cannot set Berth's own clock: Go asks the kernel, not libc. So
// the token is what is shifted, signed with the real key.)
func TestClocksDiffer(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	s.CreateProject(t, "clock", false)
	db := connect(t, database(s))
	seal, err := secret.LoadKey(filepath.Join(s.Dir, "keys", "token.key"))
	if err != nil {
		t.Fatal(err)
	}
	var kid string
	var sealed []byte
	if err := db.QueryRow(t.Context(), `SELECT kid, sealed_key FROM signing_keys ORDER BY signs_from LIMIT 1`).Scan(&kid, &sealed); err != nil {
		t.Fatal(err)
	}
	seed, err := seal.Open("token signing key", sealed)
	if err != nil {
		t.Fatal(err)
	}
	// issue is what a token service would, whose clock is off by so much.
	issue := func(off time.Duration) string {
		now := time.Now().Add(off)
		j := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
			"iss": token.Issuer, "aud": token.Audience, "sub": "admin", "jti": berthtest.Name(),
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(30 * time.Minute).Unix(),
			"access": []token.Access{{Type: "repository", Name: "clock/app", Actions: []string{"pull", "push"}}},
		})
		j.Header["kid"] = kid
		raw, err := j.SignedString(ed25519.NewKeyFromSeed(seed))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	// try sends a token and gets no other one when it is refused.
	try := func(raw string) *berthtest.Reply {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v2/clock/app/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+raw)
		resp, err := s.Client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return &berthtest.Reply{Response: resp, Data: data}
	}
	for _, tc := range []struct {
		off  time.Duration
		want string // "" = accepted
	}{
		{0, ""},
		{50 * time.Second, ""},
		{-30*time.Minute - 50*time.Second, ""},
		{2 * time.Minute, "clocks"},
		{24 * time.Hour, "clocks"},
		{-32 * time.Minute, "expired"},
		{-24 * time.Hour, "expired"},
	} {
		got := try(issue(tc.off))
		if tc.want == "" {
			if got.StatusCode != 202 {
				t.Errorf("token service %v off: %s %s, want it accepted", tc.off, got.Status, got.Data)
			}
			continue
		}
		if got.StatusCode != 401 || got.Code() != "UNAUTHORIZED" || !strings.Contains(string(got.Data), tc.want) {
			t.Errorf("token service %v off: %s %s, want 401 that speaks of %q", tc.off, got.Status, got.Data, tc.want)
		}
		if !strings.HasPrefix(got.Header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("token service %v off: no challenge by which to get a new token: %q", tc.off, got.Header.Get("WWW-Authenticate"))
		}
	}

	// A token that expires while the registry remembers it is refused from then on.
	short := issue(-31*time.Minute + 3*time.Second) // expires in three seconds, leeway included
	if got := try(short); got.StatusCode != 202 {
		t.Fatalf("a token before it expires: %s %s", got.Status, got.Data)
	}
	waitFor(t, 6*time.Second, "the token is refused", func() bool {
		return try(short).StatusCode == 401
	})
}
