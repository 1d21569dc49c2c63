// Package logs is the log service: it takes in the messages of every part of the
// machine, keeps them in compressed segments, answers queries, and forwards to
// collectors.
//
//	services ── syslog.sock ─┐
//	others ── UDP, TCP 1514 ─┼─► intake ──► segment.Store ──► forward ──► collectors
//	journald ── journalctl ──┘                    └─► logs.sock: queries, tails
//
// The intake cleans (times that cannot be, what looks like a secret) and limits
// (each component to its rate). Nobody waits for it for long: senders have
// bounded room, and count what does not fit.
package logs

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/appliance/unit"
	"berth/services/forward"
	"berth/services/segment"
)

// Options configure a Service.
type Options struct {
	Dir      string           // of the segments, positions and cursors; made if it is missing
	Settings setting.Logs     // sizes, limits, listeners, collectors
	Intake   string           // unix socket for messages, stream
	API      string           // unix socket for queries
	Log      *slog.Logger     // its own lines; they may come back to it
	Now      func() time.Time // nil = time.Now
	// Journal has arguments for journalctl that say which journal is followed, for
	// tests. Nil is the machine's own, if Settings.Journal says so.
	Journal []string
}

// Service is the log service.
type Service struct {
	Options
	Store   *segment.Store
	Port    net.Addr // of the listeners by UDP and TCP once Run is ready; nil if there are none
	Forward *forward.Forwarder
	intake  *intake
	journal *journal // nil = not followed
}

// reportEvery is how often the service tells what it had to drop.
const reportEvery = 10 * time.Second

// New opens the store. Errors: Invalid, Precondition (another process has it).
func New(o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	store, err := segment.Open(o.Dir, segment.Options{MaxBytes: o.Settings.Size(), MaxAge: o.Settings.Age(), Log: o.Log})
	if err != nil {
		return nil, err
	}
	s := &Service{Options: o, Store: store, intake: newIntake(store, o)}
	s.Forward, err = forward.New(forward.Options{Store: store, Dir: filepath.Join(o.Dir, "collectors"), Collectors: o.Settings.Forward, Log: o.Log})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if o.Settings.Journal == "on" || o.Settings.Journal != "off" && (available() || o.Journal != nil) {
		s.journal = &journal{in: s.intake, file: cursorFile(o.Dir), args: o.Journal, log: o.Log}
	}
	return s, nil
}

func newIntake(store Store, o Options) *intake {
	return &intake{store: store, limits: newLimits(o.Settings.PerSecond()), log: o.Log, now: o.Now}
}

// Counts are what has come in since the start.
func (s *Service) Counts() Counts { return s.intake.counts() }

// Run serves until ctx ends, stores what has arrived until then, and closes the
// store. ready is called when messages are taken.
func (s *Service) Run(ctx context.Context, ready func()) error {
	// The store outlives those that write to it and read it.
	stopStore := background(ctx, s.Store.Run)
	stopForward := background(ctx, s.Forward.Run)
	err := s.serve(ctx, ready)
	return errors.Join(err, stopForward(), stopStore(), s.Store.Close())
}

// background runs f until stop is called, which gives its error.
func background(ctx context.Context, f func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() error { cancel(); return <-done }
}

func (s *Service) serve(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	own, err := unit.Listen(ctx, "syslog", "unix", s.Intake, 0o660)
	if err != nil {
		return err
	}
	g.Go(func() error { return s.intake.accept(ctx, own, "") })
	if err := s.answer(ctx, g); err != nil {
		own.Close()
		return err
	}
	if err := s.listen(ctx, g); err != nil {
		own.Close()
		return err
	}
	if s.journal != nil {
		g.Go(func() error { return s.journal.run(ctx) })
	}
	g.Go(func() error { return s.intake.report(ctx, reportEvery) })
	ready()
	return g.Wait()
}

// usualAddress is where syslog is listened to if the settings do not say.
const usualAddress = "127.0.0.1:1514"

// listen opens the ports for those that know nothing but syslog. That another
// program has the usual one is no reason not to start.
func (s *Service) listen(ctx context.Context, g *errgroup.Group) error {
	address, asked := s.Settings.Listen, s.Settings.Listen != ""
	if address == "off" {
		return nil
	}
	if !asked {
		address = usualAddress
	}
	tcp, udp, err := open(ctx, address)
	if err != nil && !asked {
		s.Log.Warn("another program has the port for syslog messages; only the unix socket is open", "address", address, "err", err)
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot listen for syslog messages on %s", address).On("logs.listen").
			WithHint("another program may have the port: choose another address, or off")
	}
	s.Port = tcp.Addr()
	g.Go(func() error { return s.intake.accept(ctx, tcp, "tcp") })
	g.Go(func() error { return s.intake.datagrams(ctx, udp) })
	return nil
}

// open has both protocols on one port, also if that is 0.
func open(ctx context.Context, address string) (net.Listener, net.PacketConn, error) {
	tcp, err := unit.Listen(ctx, "syslog-tcp", "tcp", address, 0)
	if err != nil {
		return nil, nil, err
	}
	var c net.ListenConfig
	udp, err := c.ListenPacket(ctx, "udp", tcp.Addr().String())
	if err != nil {
		tcp.Close()
	}
	return tcp, udp, err
}
