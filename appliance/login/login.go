// Package login is how people get into the machine: root's password, the
// password of the appliance console, and SSH.
//
// One rule for passwords holds everywhere (CheckStrength), so that what the form
// in vCenter or a wizard takes is never refused later. There are no default
// passwords, and a password does not end by itself.
package login

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"berth/appliance/fault"
	"berth/appliance/secret"
)

// toolTime is how long one of the distribution's programs may take.
const toolTime = time.Minute

// The limits of a password's length: Harbor's.
const (
	minCharacters = 8
	maxBytes      = 128
)

// CheckStrength accepts a password for root, the console or the registry's
// administrator: Harbor's rule (8 to 128 characters, an upper-case letter, a
// lower-case letter and a digit), and nothing that cannot be typed, for such a
// character has come with a paste and would be missed at the next login.
func CheckStrength(p secret.Text) error {
	s := p.Reveal()
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Invalid, format, args...).On("password").
			WithHint("a password has %d to %d characters, with at least one upper-case letter, one lower-case letter and one digit of A-Z, a-z and 0-9",
				minCharacters, maxBytes)
	}
	switch {
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return wrong("the password has a character that cannot be typed, such as a line break or a tab")
	case utf8.RuneCountInString(s) < minCharacters:
		return wrong("the password is shorter than %d characters", minCharacters)
	case len(s) > maxBytes:
		return wrong("the password is longer than %d characters (letters outside of ASCII count as two or more)", maxBytes)
	}
	for _, need := range []struct{ of, name string }{
		{"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "upper-case letter"}, {"abcdefghijklmnopqrstuvwxyz", "lower-case letter"}, {"0123456789", "digit"},
	} {
		if !strings.ContainsAny(s, need.of) {
			return wrong("the password has no %s", need.name)
		}
	}
	return nil
}

// Accounts are the users of the operating system below a root directory.
type Accounts struct{ root string }

// In gives the accounts of the system below root; "" or "/" is this machine's.
func In(root string) Accounts { return Accounts{filepath.Clean("/" + root)} }

// SetPassword gives an account of this machine a password (In("/").SetPassword).
func SetPassword(ctx context.Context, user string, p secret.Text) error {
	return In("/").SetPassword(ctx, user, p)
}

// Verify reports whether that is the password of an account of this machine.
func Verify(ctx context.Context, user string, p secret.Text) (bool, error) {
	return In("/").Verify(ctx, user, p)
}

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// SetPassword gives an account a password, and ends whatever expiry it had.
//
// It is chpasswd with a method named, which leaves PAM out: PAM's rules and
// dictionaries differ by distribution, and have refused at first boot what a
// wizard had taken.
func (a Accounts) SetPassword(ctx context.Context, user string, p secret.Text) error {
	if err := CheckStrength(p); err != nil {
		return err
	}
	if !userName.MatchString(user) {
		return fault.New(fault.Invalid, "%q is not the name of an account", user).On("user")
	}
	line := []byte(user + ":" + p.Reveal() + "\n")
	// yescrypt is what the distributions hash with today; where chpasswd or the
	// C library does not know it, SHA-512 with 100 times its usual rounds.
	err := a.run(ctx, line, "/usr/sbin/chpasswd", "--crypt-method", "YESCRYPT")
	if err != nil && ctx.Err() == nil {
		err = a.run(ctx, line, "/usr/sbin/chpasswd", "--crypt-method", "SHA512", "--sha-rounds", "500000")
	}
	if err != nil {
		return fmt.Errorf("cannot set the password of %s: %w", user, err)
	}
	return a.SetExpiry(ctx, user, 0)
}

// SetExpiry says after how many days an account wants a new password; 0 is
// never, which SetPassword sets too.
func (a Accounts) SetExpiry(ctx context.Context, user string, days int) error {
	if !userName.MatchString(user) || days < 0 || days > 9999 {
		return fault.New(fault.Invalid, "an expiry is 0 to 9999 days").On("days")
	}
	limit := "99999"
	if days > 0 {
		limit = fmt.Sprint(days)
	}
	err := a.run(ctx, nil, "/usr/bin/chage", "--mindays", "0", "--maxdays", limit, "--inactive", "-1", "--expiredate", "-1", user)
	if err != nil {
		return fmt.Errorf("cannot set when the password of %s ends: %w", user, err)
	}
	return nil
}

// authErr is PAM's PAM_AUTH_ERR, with which unix_chkpwd refuses a password.
const authErr = 7

// Verify reports whether that is the password of an account. An account that is
// locked, is not there or has no password has none that is right.
//
// It asks unix_chkpwd, which pam_unix itself uses: it knows all hashes that
// passwd may have written, and there is no PAM conversation to go astray.
func (a Accounts) Verify(ctx context.Context, user string, p secret.Text) (bool, error) {
	// It reads up to a zero byte, and no password that we have set is longer.
	if !userName.MatchString(user) || p == "" || len(p) > 4*maxBytes || strings.ContainsRune(p.Reveal(), 0) {
		return false, nil
	}
	err := a.run(ctx, []byte(p.Reveal()+"\x00"), "/usr/sbin/unix_chkpwd", user, "nonull")
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return true, nil
	case failed && exit.Exited() && exit.ExitCode() >= authErr: // or PAM_USER_UNKNOWN and its like
		return false, nil
	}
	return false, fmt.Errorf("cannot check the password of %s: %w", user, err)
}

// run runs one of the system's programs below the root directory with no
// environment but a path. What it complains of is in the error; it is given
// nothing secret but by its standard input.
func (a Accounts) run(ctx context.Context, stdin []byte, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(stdin)
	if a.root != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: a.root}
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	err := cmd.Run()
	if text := strings.TrimSpace(complaint.String()); err != nil && text != "" {
		return fmt.Errorf("%w: %.300q", err, text)
	}
	return err
}
