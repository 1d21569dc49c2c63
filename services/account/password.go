package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"berth/appliance/fault"
)

// The cost of new password hashes: OWASP's smallest argon2id, for an appliance
// with 2 CPUs must bear a storm of logins. Old hashes carry their own.
const (
	memoryKiB = 19 * 1024
	passes    = 2
	threads   = 1
)

// maxQueue is how many logins may wait for their turn at hashing.
const maxQueue = 256

// hasher computes argon2id for a few callers at a time, so that a storm of
// logins costs time and not memory.
type hasher struct {
	turns   chan struct{}
	waiting atomic.Int64
	decoy   string // the hash that an unknown user's password is checked against
}

func newHasher() *hasher {
	h := &hasher{turns: make(chan struct{}, min(4, max(2, runtime.GOMAXPROCS(0))))}
	h.decoy = phc{memoryKiB, passes, threads, make([]byte, 16), make([]byte, 32)}.String()
	return h
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
	salt := make([]byte, 16)
	rand.Read(salt)
	sum := argon2.IDKey([]byte(password), salt, passes, memoryKiB, threads, 32)
	return phc{memoryKiB, passes, threads, salt, sum}.String(), nil
}

// verify reports whether stored is the password's hash. No stored hash (an
// unknown user, or one without a password) takes as long as a wrong password.
func (h *hasher) verify(ctx context.Context, stored, password string) (bool, error) {
	known := stored != ""
	if !known {
		stored = h.decoy
	}
	p, err := parsePHC(stored)
	if err != nil {
		return false, err
	}
	done, err := h.take(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	sum := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.threads, uint32(len(p.sum)))
	return subtle.ConstantTimeCompare(sum, p.sum) == 1 && known, nil
}

// phc is an argon2id hash with its parameters, which are written in the PHC
// string format: $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>.
type phc struct {
	memory, passes uint32
	threads        uint8
	salt, sum      []byte
}

func (p phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.passes, p.threads,
		b64.EncodeToString(p.salt), b64.EncodeToString(p.sum))
}

func parsePHC(s string) (p phc, err error) {
	unusable := fmt.Errorf("cannot use a stored password hash: not argon2id in PHC form")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, unusable
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.threads); err != nil {
		return p, unusable
	}
	var saltErr, sumErr error
	p.salt, saltErr = base64.RawStdEncoding.DecodeString(parts[4])
	p.sum, sumErr = base64.RawStdEncoding.DecodeString(parts[5])
	// A hash from an import must not make one login take the machine.
	if saltErr != nil || sumErr != nil || len(p.sum) < 16 || p.passes < 1 || p.threads < 1 || p.passes > 16 || p.memory > 256*1024 {
		return p, unusable
	}
	return p, nil
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
