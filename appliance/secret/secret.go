// Package secret has the type that every password, key and token is carried
// in, and the key file from which the others are derived.
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"berth/appliance/durable"
)

// Text is a secret that prints, logs and marshals as "redacted".
type Text string

func (Text) String() string               { return "redacted" }
func (Text) GoString() string             { return "redacted" }
func (Text) LogValue() slog.Value         { return slog.StringValue("redacted") }
func (Text) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// Reveal gives the secret itself, to whoever must use it.
func (t Text) Reveal() string { return string(t) }

const alphabet = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// Random makes a secret of n characters out of 57 that are hard to confuse.
// It has at least one lower-case letter, one upper-case letter and one digit
// (Harbor's password rule); n is at least 8.
func Random(n int) Text {
	n = max(n, 8)
	for {
		var b strings.Builder
		buf := make([]byte, 1)
		for b.Len() < n {
			rand.Read(buf)                     // never fails (crypto/rand, Go 1.24)
			if int(buf[0]) < len(alphabet)*4 { // a multiple of len, so that no character is likelier
				b.WriteByte(alphabet[int(buf[0])%len(alphabet)])
			}
		}
		s := b.String()
		if strings.ContainsAny(s, "abcdefghijkmnopqrstuvwxyz") && strings.ContainsAny(s, "ABCDEFGHJKLMNPQRSTUVWXYZ") && strings.ContainsAny(s, "23456789") {
			return Text(s)
		}
	}
}

// Key is 32 random bytes kept in a file. Purposes get keys of their own by
// HKDF (RFC 5869), so that one purpose's key says nothing of another's.
type Key struct{ master []byte }

// LoadKey reads the key file at path, or makes one (mode 0600) if there is
// none. Nodes that share a database must share this file.
func LoadKey(path string) (Key, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, 32)
		rand.Read(b)
		err = durable.WriteFile(path, []byte(hex.EncodeToString(b)+"\n"), 0o600)
		return Key{b}, err
	}
	if err != nil {
		return Key{}, fmt.Errorf("cannot read the key file: %w", err)
	}
	master, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(master) != 32 {
		return Key{}, fmt.Errorf("cannot use the key file %s: it must hold 64 hexadecimal digits", path)
	}
	return Key{master}, nil
}

// NewKey makes a key from 32 bytes that the caller has.
func NewKey(master []byte) Key { return Key{master} }

// For derives the 32-byte key of one purpose.
func (k Key) For(purpose string) []byte {
	b, err := hkdf.Key(sha256.New, k.master, nil, "berth "+purpose, 32)
	if err != nil {
		panic(err) // only for lengths over 255 hashes
	}
	return b
}

// Seal encrypts and authenticates plain for a purpose (AES-256-GCM, random nonce first).
func (k Key) Seal(purpose string, plain []byte) []byte {
	return k.gcm(purpose).Seal(nil, nil, plain, []byte(purpose))
}

// Open undoes Seal. It fails if the key or the purpose differs or a bit changed.
func (k Key) Open(purpose string, sealed []byte) ([]byte, error) {
	b, err := k.gcm(purpose).Open(nil, nil, sealed, []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("cannot open a sealed secret (%s): the key file is another one than it was sealed with", purpose)
	}
	return b, nil
}

func (k Key) gcm(purpose string) cipher.AEAD {
	block, err := aes.NewCipher(k.For("seal " + purpose))
	if err != nil {
		panic(err) // the key is always 32 bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}
