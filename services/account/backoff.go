package account

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Backoff is the cause of a TooMany fault: how long the caller has to wait.
type Backoff struct{ Wait time.Duration }

func (b *Backoff) Error() string { return fmt.Sprintf("%s left to wait", b.Wait.Round(time.Second)) }

const (
	freeFailures = 3                // wrong passwords that cost nothing
	maxWait      = 30 * time.Second // after that: 1, 2, 4 … s up to this
	forgiveAfter = 2 * time.Minute  // for one failure
	maxAttempts  = 16384            // pairs of account and source that are remembered
	maxPending   = 4                // different passwords of one pair checked at once
)

// attempt is who tries to log in as whom. Counting the pair keeps a stranger
// from locking an administrator out who is somewhere else.
type attempt struct{ account, source string }

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

// backoff slows guessing down.
type backoff struct {
	mu       sync.Mutex
	attempts map[attempt]*failures
}

func newBackoff() *backoff { return &backoff{attempts: map[attempt]*failures{}} }

// begin asks to check a password, and gives how long to wait first. If that is
// zero, end must follow.
func (b *backoff) begin(a attempt, now time.Time) time.Duration {
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

// end tells how the check that begin let through came out. unknown means that
// it could not be done.
func (b *backoff) end(a attempt, ok, unknown bool, now time.Time) {
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

// waiting gives how long a pair has to wait, without asking for a check.
func (b *backoff) waiting(a attempt, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.attempts[a]; f != nil {
		return max(0, f.until.Sub(now))
	}
	return 0
}

// makeRoom drops pairs that need not wait, or else any.
func (b *backoff) makeRoom(now time.Time) {
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
