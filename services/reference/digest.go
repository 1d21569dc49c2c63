package reference

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"berth/appliance/fault"
)

// Algorithm names a digest's hash. Its value is the first byte of a digest in
// the database, so it never changes.
type Algorithm byte

// The algorithms that the OCI Image Specification registers.
const (
	SHA256 Algorithm = 1
	SHA512 Algorithm = 2
)

// Size is the hash's length in bytes.
func (a Algorithm) Size() int {
	if a == SHA512 {
		return sha512.Size
	}
	return sha256.Size
}

func (a Algorithm) String() string {
	if a == SHA512 {
		return "sha512"
	}
	return "sha256"
}

// New starts a hash.
func (a Algorithm) New() hash.Hash {
	if a == SHA512 {
		return sha512.New()
	}
	return sha256.New()
}

// ParseAlgorithm reads "sha256" or "sha512".
func ParseAlgorithm(s string) (Algorithm, error) {
	switch s {
	case "sha256":
		return SHA256, nil
	case "sha512":
		return SHA512, nil
	}
	return 0, fault.New(fault.Unsupported, "the digest algorithm %s is not supported", quote(s)).On("digest").
		WithHint("use sha256 or sha512")
}

// Digest names content by its hash. The zero Digest names nothing. It is
// comparable and makes a good map key.
type Digest struct {
	algorithm Algorithm
	sum       [sha512.Size]byte
}

// ParseDigest reads "sha256:<64 hex>" or "sha512:<128 hex>", in lower case.
func ParseDigest(s string) (Digest, error) {
	name, hexsum, ok := strings.Cut(s, ":")
	if !ok {
		return Digest{}, invalidDigest(s)
	}
	a, err := ParseAlgorithm(name)
	if err != nil {
		return Digest{}, err
	}
	if len(hexsum) != 2*a.Size() {
		return Digest{}, invalidDigest(s)
	}
	d := Digest{algorithm: a}
	for i := 0; i < len(hexsum); i += 2 {
		hi, lo := nibble(hexsum[i]), nibble(hexsum[i+1])
		if hi > 15 || lo > 15 {
			return Digest{}, invalidDigest(s)
		}
		d.sum[i/2] = hi<<4 | lo
	}
	return d, nil
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

func invalidDigest(s string) error {
	return fault.New(fault.Invalid, "%s is not a digest", quote(s)).On("digest").
		WithHint("a digest is sha256: and 64 hexadecimal digits in lower case, or sha512: and 128")
}

// IsDigest reports whether a manifest's reference is meant as a digest: a tag
// cannot hold ':'.
func IsDigest(reference string) bool { return strings.IndexByte(reference, ':') >= 0 }

// FromHash gives the digest of what h has hashed.
func FromHash(a Algorithm, h hash.Hash) Digest {
	d := Digest{algorithm: a}
	h.Sum(d.sum[:0])
	return d
}

// Of hashes b.
func Of(a Algorithm, b []byte) Digest {
	d := Digest{algorithm: a}
	if a == SHA512 {
		d.sum = sha512.Sum512(b)
		return d
	}
	sum := sha256.Sum256(b)
	copy(d.sum[:], sum[:])
	return d
}

// FromBytes reads a digest as the database has it: the algorithm's byte, then the hash.
func FromBytes(b []byte) (Digest, error) {
	if len(b) == 0 || (Algorithm(b[0]) != SHA256 && Algorithm(b[0]) != SHA512) || len(b) != 1+Algorithm(b[0]).Size() {
		return Digest{}, fmt.Errorf("cannot read a stored digest of %d bytes", len(b))
	}
	d := Digest{algorithm: Algorithm(b[0])}
	copy(d.sum[:], b[1:])
	return d, nil
}

// Bytes is what the database stores.
func (d Digest) Bytes() []byte {
	return append([]byte{byte(d.algorithm)}, d.sum[:d.algorithm.Size()]...)
}

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d.algorithm == 0 }

// Algorithm is the digest's hash.
func (d Digest) Algorithm() Algorithm { return d.algorithm }

// Hex is the hash in hexadecimal.
func (d Digest) Hex() string { return hex.EncodeToString(d.sum[:d.algorithm.Size()]) }

func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	size := d.algorithm.Size()
	buf := make([]byte, 7+2*size)
	copy(buf, d.algorithm.String())
	buf[6] = ':'
	hex.Encode(buf[7:], d.sum[:size])
	return string(buf)
}

// MarshalText writes the usual form; UnmarshalText reads it.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDigest does.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}
