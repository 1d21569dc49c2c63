package command

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"berth/appliance/fault"
	"berth/services/configuration"
)

// closureLasts is how long what was found of the read-only file is believed.
const closureLasts = time.Second

// closureText is how much of the read-only file is read, in bytes.
const closureText = 1024

// closure knows whether the registry refuses pushes, and why: because the agent
// has made the read-only file, or because an administrator has said so.
type closure struct {
	file          string
	configuration *configuration.Store

	mu     sync.Mutex
	looked time.Time
	fault  *fault.Error // of the file; nil = there is none
}

func newClosure(n *node) *closure {
	return &closure{file: n.settings.ReadOnlyFile(), configuration: n.configuration}
}

// closed is for registry.Options.
func (c *closure) closed(ctx context.Context) error {
	if f := c.byFile(time.Now()); f != nil {
		return f
	}
	s, err := c.configuration.Current(ctx)
	if err == nil && s.ReadOnly {
		err = fault.New(fault.Forbidden, "the registry is read-only for now").WithHint("pulls go on; try again when an administrator has ended the maintenance")
	}
	return err
}

// byFile looks for the file, at most once in closureLasts.
func (c *closure) byFile(now time.Time) *fault.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.looked); age < 0 || age >= closureLasts {
		c.looked, c.fault = now, readClosure(c.file)
	}
	return c.fault
}

// readClosure gives what is to be said while the file is there; nil if it is not.
// That it cannot be read is no reason to go on writing: it is there.
func readClosure(file string) *fault.Error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var text []byte
	if err == nil {
		defer f.Close()
		text, _ = io.ReadAll(io.LimitReader(f, closureText))
	}
	reason := strings.TrimSpace(printable(string(text)))
	if reason == "" {
		reason = "this machine says so"
	}
	return fault.New(fault.Forbidden, "the registry is read-only for now: %s", reason).WithHint("pulls go on; an administrator must see to it")
}
