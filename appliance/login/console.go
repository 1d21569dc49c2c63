package login

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"berth/appliance/durable"
	"berth/appliance/secret"
)

// WritePassword keeps a password as a hash (secret.Hash) in a file of its own,
// mode 0600: that of the console. It must be as CheckStrength wants it.
func WritePassword(path string, p secret.Text) error {
	if err := CheckStrength(p); err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(secret.Hash(p)+"\n"), 0o600)
}

// VerifyPassword reports whether that is the password whose hash is in the file.
// No file means that there is no password yet: then none is right, and the answer
// takes as long as with one.
func VerifyPassword(path string, p secret.Text) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, err := secret.Matches(secret.Decoy(), p)
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("cannot read a password's hash: %w", err)
	}
	return secret.Matches(strings.TrimSpace(string(b)), p)
}
