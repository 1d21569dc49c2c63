package cert

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/durable"
	"berth/appliance/fault"
)

// The pair that is served is changed in one step, so that no crash leaves a
// certificate without its key: each pair has a directory of its own, and a link
// says which one counts.
//
//	server.crt -> pair/server.crt     what the services' settings name
//	server.key -> pair/server.key
//	pair       -> pair-2754016353     replaced by rename(2)
//	previous   -> pair-…              what was served before; older ones are removed
const (
	currentLink  = "pair"
	previousLink = "previous"
	pairPrefix   = "pair-"
)

// An Option changes how a pair is kept, made or looked at.
type Option func(*options)

type options struct {
	group string
	names []string
	ecdsa bool
	now   time.Time
}

func optionsOf(list []Option) options {
	o := options{now: time.Now()}
	for _, set := range list {
		set(&o)
	}
	return o
}

// KeyGroup lets a group of the operating system read the server's key (mode 0640),
// which is the owner's alone otherwise.
func KeyGroup(name string) Option { return func(o *options) { o.group = name } }

// ForNames are the names and addresses that clients use: Supply and Inspect warn
// of those that the certificate does not have.
func ForNames(names ...string) Option { return func(o *options) { o.names = names } }

// ECDSA makes Request use a P-256 key instead of RSA.
func ECDSA() Option { return func(o *options) { o.ecdsa = true } }

// lockTime is how long another process may keep the directory: as long as a key of
// RSA takes on a slow machine.
const lockTime = 20 * time.Second

// lock keeps other processes from changing dir, which it makes if need be: first
// boot and the agent begin at the same time.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the certificate directory: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the certificate directory: %w", err)
	}
	for end := time.Now().Add(lockTime); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // which unlocks it
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			f.Close()
			return nil, fault.Wrap(fault.Conflict, err, "another program changes the certificates").WithHint("try again in a minute")
		}
	}
}

// install makes a pair the one that is served, and keeps the one before.
func install(dir string, certPEM, keyPEM []byte, o options) error {
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return fmt.Errorf("cannot serve a certificate with a key that is not its own: %w", err)
	}
	to, err := os.MkdirTemp(dir, pairPrefix+"*")
	if err == nil {
		err = os.Chmod(to, 0o755)
	}
	if err != nil {
		return fmt.Errorf("cannot keep a certificate: %w", err)
	}
	err = durable.WriteFile(filepath.Join(to, KeyFile), keyPEM, 0o600)
	if err == nil {
		err = o.grant(filepath.Join(to, KeyFile))
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(to, ServerFile), certPEM, 0o644)
	}
	if err != nil {
		os.RemoveAll(to)
		return err
	}
	return activate(dir, filepath.Base(to))
}

// activate lets the links lead to a pair's directory, and removes the directories
// that neither link leads to any more.
func activate(dir, name string) error {
	before, _ := os.Readlink(filepath.Join(dir, currentLink))
	if before != "" && before != name {
		if err := link(dir, previousLink, before); err != nil {
			return err
		}
	}
	if err := link(dir, currentLink, name); err != nil {
		return err
	}
	for _, file := range []string{KeyFile, ServerFile} {
		if err := link(dir, file, filepath.Join(currentLink, file)); err != nil {
			return err
		}
	}
	return sweep(dir)
}

// link makes or replaces a symbolic link, in one step.
func link(dir, name, target string) error {
	path := filepath.Join(dir, name)
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	draft := filepath.Join(dir, ".link-"+name)
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot keep a certificate: %w", err)
	}
	if err := os.Symlink(target, draft); err != nil {
		return fmt.Errorf("cannot keep a certificate: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("cannot keep a certificate: %w", err)
	}
	return durable.SyncDir(dir)
}

// sweep removes pairs that are neither served nor the previous one: older ones, and
// those that a crash left before they counted.
func sweep(dir string) error {
	current, _ := os.Readlink(filepath.Join(dir, currentLink))
	previous, _ := os.Readlink(filepath.Join(dir, previousLink))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot look for old certificates: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), pairPrefix) && e.Name() != current && e.Name() != previous {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("cannot remove an old certificate: %w", err)
			}
		}
	}
	return nil
}

// Revert serves the pair again that was served before the present one, which then
// is the previous one. Without one, the fault is NotFound.
func Revert(dir string, opts ...Option) (Result, error) {
	unlock, err := lock(dir)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	previous, err := os.Readlink(filepath.Join(dir, previousLink))
	if err != nil {
		return Result{}, fault.New(fault.NotFound, "there is no previous certificate")
	}
	if _, err := loadPair(filepath.Join(dir, previous), ServerFile, KeyFile); err != nil {
		return Result{}, fault.Wrap(fault.Precondition, err, "the previous certificate cannot be used")
	}
	if err := activate(dir, previous); err != nil {
		return Result{}, err
	}
	return Look(dir, opts...)
}

// grant gives the key's file to the group that may read it.
func (o options) grant(path string) error {
	if o.group == "" {
		return nil
	}
	g, err := user.LookupGroup(o.group)
	if err != nil {
		return fmt.Errorf("cannot give the certificate's key to the group %s: %w", o.group, err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("cannot give the certificate's key to the group %s: %w", o.group, err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("cannot give the certificate's key to the group %s: %w", o.group, err)
	}
	return os.Chmod(path, 0o640)
}
