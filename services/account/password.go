package account

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"

	"berth/appliance/fault"
	"berth/appliance/secret"
)

// maxQueue is how many logins may wait for their turn at hashing.
const maxQueue = 256

// hasher computes argon2id for a few callers at a time, so that a storm of
// logins costs time and not memory.
type hasher struct {
	turns   chan struct{}
	waiting atomic.Int64
}

func newHasher() *hasher {
	return &hasher{turns: make(chan struct{}, min(4, max(2, runtime.GOMAXPROCS(0))))}
}

// take waits for a turn; done ends it.
func (h *hasher) take(ctx context.Context) (done func(), err error) {
	if h.waiting.Add(1) > maxQueue {
		h.waiting.Add(-1)
		return nil, fault.New(fault.Unavailable, "too many logins at once").WithHint("try again in a moment")
	}
	defer h.waiting.Add(-1)
	select {
	case h.turns <- struct{}{}:
		return func() { <-h.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hash gives a new password's hash in PHC form.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	done, err := h.take(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return secret.Hash(secret.Text(password)), nil
}

// verify reports whether stored is the password's hash. No stored hash (an
// unknown user, or one without a password) takes as long as a wrong password.
func (h *hasher) verify(ctx context.Context, stored, password string) (bool, error) {
	known := stored != ""
	if !known {
		stored = secret.Decoy()
	}
	done, err := h.take(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	ok, err := secret.Matches(stored, secret.Text(password))
	return ok && known, err
}

// CheckStrength accepts a password or secret by Harbor's rule.
func CheckStrength(password string) error {
	const upper, lower, digit = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
	if len(password) >= 8 && len(password) <= 128 && strings.ContainsAny(password, upper) &&
		strings.ContainsAny(password, lower) && strings.ContainsAny(password, digit) {
		return nil
	}
	return fault.New(fault.Invalid, "a password or secret has 8 to 128 characters, with at least one upper-case letter, one lower-case letter and one digit").
		On("password")
}
