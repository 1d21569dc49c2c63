package session

import (
	"crypto/subtle"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"

	"berth/appliance/durable"
	"berth/appliance/secret"
)

// guesses is how many wrong codes there may be, from all addresses together,
// before there is a new one. That locks nobody out who sees the VM's console.
const guesses = 20

// Code is the one-time code of the setup: whoever reaches port 5480 first must not
// own the appliance, so the code is where only vCenter's users look. It is for
// concurrent use.
type Code struct {
	path  string
	mu    sync.Mutex
	wrong int
}

// NewCode is the code in a file, which need not be there.
func NewCode(path string) *Code { return &Code{path: path} }

// Ensure makes a code if there is none.
func (c *Code) Ensure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.read(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.make()
}

func (c *Code) make() error {
	c.wrong = 0
	return durable.WriteFile(c.path, []byte(letters(secret.Random(12))+"\n"), 0o600)
}

// letters is a code that is read from a screen and typed: capitals and digits in
// groups of four, 48 bits of it or more.
func letters(s secret.Text) string {
	u := strings.ToUpper(s.Reveal())
	return u[:4] + "-" + u[4:8] + "-" + u[8:]
}

// Remove ends the code.
func (c *Code) Remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Read gives the code; fs.ErrNotExist: there is none.
func (c *Code) Read() (secret.Text, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read()
}

func (c *Code) read() (secret.Text, error) {
	b, err := os.ReadFile(c.path)
	if err == nil && len(strings.TrimSpace(string(b))) < 8 {
		return "", fs.ErrNotExist // cut off by a crash
	}
	return secret.Text(strings.TrimSpace(string(b))), err
}

// check compares a code as people type it: small letters and blanks do not matter.
func (c *Code) check(typed secret.Text) (bool, error) {
	if c == nil {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	code, err := c.read()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	plain := func(t secret.Text) []byte {
		return []byte(strings.NewReplacer("-", "", " ", "").Replace(strings.ToUpper(t.Reveal())))
	}
	if subtle.ConstantTimeCompare(plain(code), plain(typed)) == 1 {
		c.wrong = 0
		return true, nil
	}
	if c.wrong++; c.wrong >= guesses {
		return false, c.make()
	}
	return false, nil
}
