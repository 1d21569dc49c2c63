// Package guestinfo reads and writes the variables that a virtual machine shares
// with vSphere, through VMware's tool in the guest; no login is needed for it.
//
// Every process in the guest can read these variables, and so can whoever may see
// the virtual machine in vCenter: only what is public is published.
package guestinfo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"berth/appliance/fault"
)

// ErrUnavailable says that there are no such variables here: the tool is not
// installed, this is no virtual machine of VMware's, or the host forbids it.
var ErrUnavailable = errors.New("guestinfo is not available on this machine")

const (
	timeout = 10 * time.Second
	maxRead = 17 << 20
	// MaxValue is how many bytes Set takes: one argument of a program has at most
	// 128 KiB (execve(2), MAX_ARG_STRLEN).
	MaxValue = 120 << 10
)

// A Client calls the tool.
type Client struct{ tool string }

// New makes a client. tool is the path of vmware-rpctool or vmtoolsd; empty:
// whichever is there.
func New(tool string) *Client { return &Client{tool} }

// Get reads a variable. One that is not set, or empty, is a fault.NotFound.
func (c *Client) Get(ctx context.Context, key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	out, err := c.call(ctx, "info-get "+key)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", key, err)
	}
	if strings.TrimSpace(out) == "" {
		return "", fault.New(fault.NotFound, "%s is not set", key)
	}
	return strings.TrimSuffix(out, "\n"), nil
}

// Set writes a variable. The value stands in the tool's argument list, where the
// whole guest can see it, as it can see the variable itself: it must be public.
func (c *Client) Set(ctx context.Context, key, value string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue || strings.ContainsRune(value, 0) {
		return fault.New(fault.Invalid, "a variable has at most %d bytes, and none is zero", MaxValue).On(key)
	}
	if _, err := c.call(ctx, "info-set "+key+" "+value); err != nil {
		return fmt.Errorf("cannot set %s: %w", key, err)
	}
	return nil
}

func checkKey(key string) error {
	ok := strings.HasPrefix(key, "guestinfo.") && len(key) <= 128
	for _, c := range []byte(key) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0)
	}
	if !ok {
		return fault.New(fault.Invalid, "%.60q is not the name of a variable", key)
	}
	return nil
}

// path finds the tool.
func (c *Client) path() (string, error) {
	if c.tool != "" {
		return exec.LookPath(c.tool)
	}
	for _, name := range []string{"/usr/bin/vmware-rpctool", "/usr/bin/vmtoolsd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

func (c *Client) call(ctx context.Context, request string) (string, error) {
	path, err := c.path()
	if err != nil {
		return "", ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	args := []string{request}
	if filepath.Base(path) == "vmtoolsd" {
		args = []string{"--cmd", request}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second // a child of the tool that keeps the pipe open
	out, complaint := &limited{max: maxRead}, &limited{max: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, complaint
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fault.Wrap(fault.Unavailable, ctx.Err(), "%s did not answer within %v", filepath.Base(path), timeout)
	case out.full:
		return "", fault.New(fault.TooLarge, "the variable has more than %d MiB", maxRead>>20)
	case err == nil:
		return out.String(), nil
	case strings.Contains(complaint.String()+out.tail(), "No value found"):
		return "", fault.New(fault.NotFound, "it is not set")
	case errors.As(err, new(*exec.ExitError)) && strings.HasPrefix(request, "info-set "):
		// The complaint is not passed on: it may repeat the request.
		return "", fault.New(fault.Unavailable, "%s refused: %v", filepath.Base(path), err).
			WithHint("the host may forbid it (isolation.tools.setinfo.disable)")
	}
	return "", fmt.Errorf("%w: %s: %w", ErrUnavailable, filepath.Base(path), err)
}

// limited keeps the first max bytes. It has no other method than Write: a
// bytes.Buffer would be filled past the limit through its ReadFrom.
type limited struct {
	b    bytes.Buffer
	max  int
	full bool
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.b.Len(); len(p) > room {
		l.full = true
		l.b.Write(p[:room])
		return len(p), nil // the tool is not to die of it in the middle of a line
	}
	return l.b.Write(p)
}

func (l *limited) String() string { return l.b.String() }

// tail is the end of what was written, as far as a complaint goes.
func (l *limited) tail() string { return string(l.b.Bytes()[max(0, l.b.Len()-200):]) }
