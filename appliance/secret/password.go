package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of new password hashes: OWASP's smallest argon2id, for an appliance
// with 2 CPUs must bear a storm of logins. Old hashes carry their own.
const (
	memoryKiB = 19 * 1024
	passes    = 2
	threads   = 1
)

// Decoy is a hash that nobody has the password of, and that costs as much to
// check as a real one: for names that do not exist.
func Decoy() string {
	return phc{memoryKiB, passes, threads, make([]byte, 16), make([]byte, 32)}.String()
}

// Hash gives a password's argon2id hash (RFC 9106) in the PHC string format, with
// a fresh salt. It takes 19 MiB and some 20 ms: whoever serves strangers lets only
// a few in at a time.
func Hash(password Text) string {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails (crypto/rand, Go 1.24)
	sum := argon2.IDKey([]byte(password), salt, passes, memoryKiB, threads, 32)
	return phc{memoryKiB, passes, threads, salt, sum}.String()
}

// Matches reports whether stored is the password's hash. An error means that
// stored is not what Hash makes.
func Matches(stored string, password Text) (bool, error) {
	p, err := parsePHC(stored)
	if err != nil {
		return false, err
	}
	sum := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.threads, uint32(len(p.sum)))
	return subtle.ConstantTimeCompare(sum, p.sum) == 1, nil
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
	unusable := errors.New("cannot use a stored password hash: not argon2id in PHC form")
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
