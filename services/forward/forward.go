// Package forward sends log messages on to collectors: over UDP, TCP or TLS, as
// RFC 5424 or JSON.
//
// The queue is the log store itself: a collector is a position in it, kept in a
// file, and a limit. So a message is written once, however many collectors there
// are and however long they are away.
//
// Syslog knows no acknowledgement. A message counts as delivered once the
// collector's TCP has acknowledged it and the connection has lived on for two
// seconds (see journey). When a connection is lost, all that is not delivered in
// that sense is sent again: repeated rather than lost. Each message carries its
// number in the store, [meta sequenceId], by which repetitions are known.
//
// What a full queue or the store's own limits push out is counted, and the
// collector is told how many messages it lacks.
package forward

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/services/segment"
)

// Store is what messages are read from: *segment.Store.
type Store interface {
	First() uint64
	End() uint64
	// Read calls f for the records from a Seq on, in order and without those that
	// are not there any more.
	Read(ctx context.Context, from uint64, max int, f func(*segment.Record) error) (next uint64, err error)
	// Wait returns when there is a record with that Seq or a greater one.
	Wait(ctx context.Context, from uint64) error
	// Waiting is how much there is from a Seq on, bytes before compression.
	Waiting(from uint64) (messages, bytes int64)
}

// Options are what a Forwarder works with.
type Options struct {
	Store Store
	// Dir is where positions are kept, NAME.position. It is made if it is missing.
	Dir        string
	Collectors []setting.Forward
	// Host is the name of this machine in messages that have none; "" asks the system.
	Host string
	// Log hears when a collector is lost and found. It may lead to Store.
	Log *slog.Logger
}

// Forwarder feeds all collectors.
type Forwarder struct {
	collectors []*collector
}

// New makes a Forwarder, to be called before new messages come into the store: a
// collector that is new here begins at its end, and positions beyond its end,
// which a power cut can leave behind, are set back to it. Positions of
// collectors that are no longer named are removed. Errors: Invalid for settings,
// and those of the file system.
func New(o Options) (*Forwarder, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname() // without: a nil value in the message
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make the directory for collectors' positions")
	}
	f := &Forwarder{}
	for i := range o.Collectors {
		c, err := newCollector(o, o.Collectors[i])
		if err != nil {
			return nil, err
		}
		f.collectors = append(f.collectors, c)
	}
	return f, f.forget(o.Dir)
}

// forget removes the positions of collectors that are not there any more: one
// that comes back after a month begins anew.
func (f *Forwarder) forget(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot read the directory of collectors' positions")
	}
	for _, e := range entries {
		name, ours := strings.CutSuffix(e.Name(), positionSuffix)
		if !ours || f.find(name) != nil {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fault.Wrap(fault.Internal, err, "cannot remove the position of a former collector")
		}
	}
	return nil
}

func (f *Forwarder) find(name string) *collector {
	for _, c := range f.collectors {
		if c.set.Name == name {
			return c
		}
	}
	return nil
}

// Run feeds the collectors until ctx ends. Then it waits two seconds at most for
// each to take what it was sent, and keeps the positions. No collector holds up
// another one.
func (f *Forwarder) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, c := range f.collectors {
		all.Go(func() { c.run(ctx) })
	}
	<-ctx.Done()
	all.Wait()
	return nil
}

// Status says of each collector how it does, in the order of the settings.
func (f *Forwarder) Status() []Status {
	list := make([]Status, 0, len(f.collectors))
	for _, c := range f.collectors {
		list = append(list, c.status())
	}
	return list
}

// Test sends a message to a collector over a connection of its own and says what
// happened, in words. Errors: NotFound, and Unavailable or Invalid with what is
// wrong and what to do about it.
func (f *Forwarder) Test(ctx context.Context, name string) (answer string, err error) {
	c := f.find(name)
	if c == nil {
		return "", fault.New(fault.NotFound, "there is no collector %q", name).WithHint("logs.forward in the settings names the collectors")
	}
	return c.test(ctx)
}
