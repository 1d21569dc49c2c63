package backoff

import (
	"fmt"
	"testing"
	"time"
)

func TestBackoffGrowsAndForgives(t *testing.T) {
	b, a := New(), Attempt{"admin", "10.0.0.1"}
	now := time.Unix(1e9, 0)
	fail := func() {
		t.Helper()
		if wait := b.Begin(a, now); wait != 0 {
			t.Fatalf("must wait %s", wait)
		}
		b.End(a, false, false, now)
	}
	for range freeFailures {
		fail()
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		fail()
		if got := b.Begin(a, now); got != want*time.Second {
			t.Fatalf("wait %s, want %d s", got, want)
		}
		if got := b.Waiting(Attempt{"admin", "10.0.0.2"}, now); got != 0 {
			t.Fatalf("another source waits %s", got)
		}
		now = now.Add(want * time.Second)
	}
	now = now.Add(time.Hour)
	fail()
	if got := b.Waiting(a, now); got != 0 {
		t.Errorf("an hour later still %s", got)
	}
	b.Begin(a, now)
	b.End(a, true, false, now)
	if len(b.attempts) != 0 {
		t.Errorf("success leaves %d attempts", len(b.attempts))
	}
}

func TestBackoffBoundsParallelGuesses(t *testing.T) {
	b, a, now := New(), Attempt{"admin", "10.0.0.1"}, time.Unix(1e9, 0)
	through := 0
	for range 50 {
		if b.Begin(a, now) == 0 {
			through++
		}
	}
	if through != maxPending {
		t.Errorf("%d guesses at once, want %d", through, maxPending)
	}
}

func TestBackoffIsBounded(t *testing.T) {
	b, now := New(), time.Unix(1e9, 0)
	for i := range 2 * maxAttempts {
		a := Attempt{fmt.Sprint(i), "s"}
		b.Begin(a, now)
		b.End(a, false, false, now)
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
