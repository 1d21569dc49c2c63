package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/agent/bundle"
	"berth/agent/client"
	"berth/agent/console"
	"berth/agent/machine"
	"berth/agent/server"
	"berth/agent/session"
	"berth/agent/trail"
	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/appliance/setting"
	"berth/appliance/unit"
)

// daemon is where a daemon keeps its things and listens.
type daemon struct {
	root   string // before all paths; "" is the machine's own
	socket string
	listen string
	system machine.System
	// listening is told the console's address; nil: nobody is.
	listening func(address string)
}

func (a *app) serveCommand() *cobra.Command {
	d := daemon{listen: ":" + strconv.Itoa(setting.ConsolePort)}
	c := &cobra.Command{
		Use: "serve", Short: "Run the agent (berth-agent.service does)", Args: cobra.NoArgs, GroupID: "run",
		RunE: func(c *cobra.Command, _ []string) error {
			live, err := machine.NewLive(c.Context(), logger.New(logger.Options{Component: "agent", Stderr: a.stderr}))
			if err != nil {
				return err
			}
			defer live.Close()
			d.socket, d.system = a.socket, live
			return a.serve(c.Context(), d)
		},
	}
	c.Flags().StringVar(&d.listen, "listen", d.listen, "`address` of the console, host:port")
	return c
}

// serve runs the daemon until ctx ends: READY once the socket is there, the
// watchdog while it lives, STOPPING when it is asked to end.
func (a *app) serve(ctx context.Context, d daemon) error {
	state := filepath.Join(d.root, setting.StateDir)
	for _, dir := range []string{state, filepath.Join(d.root, setting.AgentRunDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fault.Wrap(fault.Invalid, err, "cannot make the agent's directories").WithHint("run it as root")
		}
	}
	if err := os.MkdirAll(filepath.Dir(d.socket), 0o755); err != nil {
		return fmt.Errorf("cannot make the directory of the socket: %w", err)
	}
	sink := logger.NewSink(filepath.Join(d.root, setting.RunDir, "syslog.sock"))
	log := logger.New(logger.Options{Component: "agent", Stderr: a.stderr, Sink: sink})
	unit.LimitMemory(log)
	code := session.NewCode(filepath.Join(d.root, setting.AgentRunDir, "setup-code"))
	m := machine.New(machine.Options{Root: d.root, System: d.system, Code: code, Log: log})
	sessions := session.New(session.Options{File: filepath.Join(state, "sessions.json"), Verify: m.Verify, Code: code})
	changes := trail.New(filepath.Join(state, "audit.jsonl"), log)
	bundles, err := bundle.New(filepath.Join(state, "bundles"), m.Sources, log)
	if err != nil {
		return err
	}
	pages, err := console.Handler(console.Options{Agent: client.New(d.socket), Sessions: sessions, Trail: changes, Log: log})
	if err != nil {
		return err
	}
	s, err := server.New(server.Options{Machine: m, Sessions: sessions, Trail: changes, Bundles: bundles, Log: log, Pages: pages})
	if err != nil {
		return err
	}
	certificates, err := m.ConsoleCertificate(ctx)
	if err != nil {
		return err
	}
	local, err := unit.Listen(ctx, "agent", "unix", d.socket, 0o600)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return sink.Run(ctx) })
	g.Go(func() error { return certificates.Run(ctx) })
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return serveHTTP(ctx, local, s.Local(), log) })
	g.Go(func() error { return serveConsole(ctx, d, certificates, s.Remote(), log) })
	g.Go(func() error { return unit.Watchdog(ctx, s.Alive) })
	g.Go(func() error { <-ctx.Done(); unit.Stopping(); return nil })
	log.Info("ready", "socket", d.socket, "listen", d.listen)
	unit.Ready("serving")
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// retry is how long the console's port is waited for between two attempts.
const retry = 5 * time.Second

// serveConsole serves HTTPS. That it cannot listen ends nothing: the socket, by
// which it can be repaired, works all the same.
func serveConsole(ctx context.Context, d daemon, certificates *machine.ConsoleCertificate, h http.Handler, log *slog.Logger) error {
	for told := false; ; told = true {
		l, err := unit.Listen(ctx, "console", "tcp", d.listen, 0)
		if err == nil {
			if d.listening != nil {
				d.listening(l.Addr().String())
			}
			return serveHTTP(ctx, certificates.Listen(limitListener(l, consoleConnections, connectionsOfOne)), h, log)
		}
		if !told {
			log.Error("cannot serve the console; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// How many connections the console has at a time: in all, and from one place, so
// that nobody keeps the others out by holding all there are.
const (
	consoleConnections = 256
	connectionsOfOne   = 64
)

// serveHTTP serves one listener until ctx ends, then lets requests finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 32}, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return unit.Serve(ctx, srv, l, 5*time.Second)
}
