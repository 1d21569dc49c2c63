// Package backoff slows the guessing of passwords down, and locks nobody out.
//
// What it counts is the pair of an account and the place that somebody tries from:
// a stranger who guesses makes only himself wait, never an administrator who is
// somewhere else.
package backoff

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	freeFailures = 3                // wrong passwords that cost nothing
	maxWait      = 30 * time.Second // after that: 1, 2, 4 … s up to this
	forgiveAfter = 2 * time.Minute  // for one failure
	maxAttempts  = 16384            // pairs of account and source that are remembered
	maxPending   = 4                // different passwords of one pair checked at once
)

// Attempt is who tries to log in as whom.
type Attempt struct{ Account, Source string }

// On is an attempt on an account from an address.
func On(account, source string) Attempt { return Attempt{strings.ToLower(account), sourceKey(source)} }

// sourceKey groups the addresses that one stranger may have: in IPv6 a whole /64.
func sourceKey(source string) string {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return source
	}
	if addr = addr.Unmap(); addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

type failures struct {
	count   int
	last    time.Time
	until   time.Time
	pending int
}

// Backoff remembers who has guessed how often. It forgets what is old, and holds a
// bounded number of pairs.
type Backoff struct {
	mu       sync.Mutex
	attempts map[Attempt]*failures
}

// New makes one that remembers nothing yet.
func New() *Backoff { return &Backoff{attempts: map[Attempt]*failures{}} }

// Begin asks to check a password, and gives how long to wait first. If that is
// zero, End must follow.
func (b *Backoff) Begin(a Attempt, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.attempts[a]
	if f == nil {
		if len(b.attempts) >= maxAttempts {
			b.makeRoom(now)
		}
		f = &failures{}
		b.attempts[a] = f
	}
	if wait := f.until.Sub(now); wait > 0 {
		return wait
	}
	if f.pending >= maxPending {
		return time.Second
	}
	f.pending++
	return 0
}

// End tells how the check that Begin let through came out. unknown means that
// it could not be done.
func (b *Backoff) End(a Attempt, ok, unknown bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.attempts[a]
	if f == nil {
		return
	}
	f.pending--
	switch {
	case unknown:
	case ok:
		if f.pending == 0 {
			delete(b.attempts, a)
		} else {
			*f = failures{pending: f.pending}
		}
	default:
		f.fail(now)
	}
}

func (f *failures) fail(now time.Time) {
	if f.count > 0 {
		f.count = max(0, f.count-int(now.Sub(f.last)/forgiveAfter))
	}
	f.count++
	f.last = now
	if over := f.count - freeFailures; over > 0 {
		f.until = now.Add(min(maxWait, time.Second<<min(over-1, 10)))
	}
}

// Waiting gives how long a pair has to wait, without asking for a check.
func (b *Backoff) Waiting(a Attempt, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.attempts[a]; f != nil {
		return max(0, f.until.Sub(now))
	}
	return 0
}

// makeRoom drops pairs that need not wait, or else any.
func (b *Backoff) makeRoom(now time.Time) {
	for a, f := range b.attempts {
		if f.pending == 0 && now.Sub(f.last) > forgiveAfter*time.Duration(f.count) {
			delete(b.attempts, a)
		}
	}
	for a, f := range b.attempts { // in random order
		if len(b.attempts) < maxAttempts*15/16 {
			return
		}
		if f.pending == 0 {
			delete(b.attempts, a)
		}
	}
}
