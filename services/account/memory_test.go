package account

import (
	"context"
	"fmt"
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

func TestBackoffGrowsAndForgives(t *testing.T) {
	b, a := newBackoff(), attempt{"admin", "10.0.0.1"}
	now := time.Unix(1e9, 0)
	fail := func() {
		t.Helper()
		if wait := b.begin(a, now); wait != 0 {
			t.Fatalf("must wait %s", wait)
		}
		b.end(a, false, false, now)
	}
	for range freeFailures {
		fail()
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		fail()
		if got := b.begin(a, now); got != want*time.Second {
			t.Fatalf("wait %s, want %d s", got, want)
		}
		if got := b.waiting(attempt{"admin", "10.0.0.2"}, now); got != 0 {
			t.Fatalf("another source waits %s", got)
		}
		now = now.Add(want * time.Second)
	}
	now = now.Add(time.Hour)
	fail()
	if got := b.waiting(a, now); got != 0 {
		t.Errorf("an hour later still %s", got)
	}
	b.begin(a, now)
	b.end(a, true, false, now)
	if len(b.attempts) != 0 {
		t.Errorf("success leaves %d attempts", len(b.attempts))
	}
}

func TestBackoffBoundsParallelGuesses(t *testing.T) {
	b, a, now := newBackoff(), attempt{"admin", "10.0.0.1"}, time.Unix(1e9, 0)
	through := 0
	for range 50 {
		if b.begin(a, now) == 0 {
			through++
		}
	}
	if through != maxPending {
		t.Errorf("%d guesses at once, want %d", through, maxPending)
	}
}

func TestBackoffIsBounded(t *testing.T) {
	b, now := newBackoff(), time.Unix(1e9, 0)
	for i := range 2 * maxAttempts {
		a := attempt{fmt.Sprint(i), "s"}
		b.begin(a, now)
		b.end(a, false, false, now)
	}
	if len(b.attempts) > maxAttempts {
		t.Errorf("%d attempts", len(b.attempts))
	}
}

func TestSourceKey(t *testing.T) {
	for in, want := range map[string]string{"10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3", "2001:db8::1": "2001:db8::/64", "2001:db8:0:0:ffff::2": "2001:db8::/64", "fe80::1%eth0": "fe80::/64", "console": "console", "": ""} {
		if got := sourceKey(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
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
