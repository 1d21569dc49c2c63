package account

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/appliance/fault"
	"berth/services/access"
)

func TestPHC(t *testing.T) {
	h := newHasher()
	stored, err := h.hash(t.Context(), "Harbor12345")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(stored, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("not PHC: %s", stored)
	}
	for password, want := range map[string]bool{"Harbor12345": true, "harbor12345": false, "": false} {
		if got, err := h.verify(t.Context(), stored, password); err != nil || got != want {
			t.Errorf("%q: %v, %v", password, got, err)
		}
	}
	// Nobody has the decoy's password, nor the empty one.
	for _, password := range []string{"", "Harbor12345"} {
		if ok, err := h.verify(t.Context(), "", password); ok || err != nil {
			t.Errorf("no hash: %q: %v, %v", password, ok, err)
		}
	}
}

// A storm of logins waits in a bounded queue; the rest is told to come back.
func TestHasherBoundsTheStorm(t *testing.T) {
	h := newHasher()
	var held []func()
	for range cap(h.turns) {
		done, err := h.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, done)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxQueue {
		wg.Go(func() { h.take(ctx) })
	}
	for h.waiting.Load() < maxQueue {
		time.Sleep(time.Millisecond)
	}
	if _, err := h.take(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	cancel()
	wg.Wait()
	for _, done := range held {
		done()
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache()
		good := verdict{account: "user a", principal: access.Principal{ID: 1}, ok: true}
		has := func(k byte) bool { _, ok := c.get(credential{k}, time.Now()); return ok }

		c.put(credential{1}, good, c.version(), time.Now())
		time.Sleep(rememberForDeaf)
		if has(1) {
			t.Error("remembered for long while changes are not heard of")
		}
		c.hearing()
		c.put(credential{1}, good, c.version(), time.Now())
		c.put(credential{2}, verdict{account: "user b"}, c.version(), time.Now())
		time.Sleep(rememberFor - time.Second)
		if !has(1) || !has(2) {
			t.Error("forgotten too early")
		}
		c.forget("user a")
		if has(1) || !has(2) {
			t.Error("forgot the wrong account")
		}
		stale := c.version()
		c.forget("user zzz")
		c.put(credential{3}, good, stale, time.Now())
		if has(3) {
			t.Error("remembered what may have been read before a change")
		}
		soon := good
		soon.expires = time.Now().Add(time.Second)
		c.put(credential{4}, soon, c.version(), time.Now())
		time.Sleep(time.Second)
		if has(4) {
			t.Error("remembered a robot past its expiry")
		}
		for i := range 3 * maxRemembered {
			c.put(credential{9, byte(i), byte(i >> 8)}, good, c.version(), time.Now())
		}
		if len(c.good) > maxRemembered {
			t.Errorf("%d credentials remembered", len(c.good))
		}
		c.deaf()
		if len(c.good)+len(c.bad) != 0 {
			t.Error("remembered across a lost connection")
		}
	})
}
