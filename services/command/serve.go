package command

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/appliance/health"
	"berth/appliance/logger"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/unit"
	"berth/services/artifact"
	"berth/services/audit"
	"berth/services/core"
	"berth/services/database"
	"berth/services/jobs"
	"berth/services/metric"
	"berth/services/registry"
	"berth/services/retention"
	"berth/services/token"
	"berth/services/upkeep"
)

// A service runs until its context ends, calls ready once it can be used, and
// leaves nothing behind. All four are run the same way by their own commands
// and by `berth up`.
type service struct {
	name  string
	about string
	run   func(ctx context.Context, p *process, ready func()) error
	// probe is a path that the service answers without the database, by which
	// the watchdog knows that it lives; that nothing is there is an answer, too. ""
	// for one that serves nothing.
	probe string
}

func services() []service {
	return []service{
		{"registry", "Serve the OCI Distribution API, with the front door in the same process", runRegistry, "/v2/"},
		{"token", "Serve the token service, the only one that can read the signing keys", runToken, "/service/alive"},
		{"core", "Serve Harbor's REST API", runCore, "/api/v2.0/ping"},
		{"jobs", "Run background jobs: audit trail, garbage collection, verification", runJobs, ""},
	}
}

// logService needs no database, and outlives the others where they share a
// process: `berth up` starts it by itself.
func logService() service {
	return service{"logs", "Collect, keep and forward log messages", runLogs, "/v1/stats"}
}

// serviceCommands are `berth registry`, `berth token` and so on: what a systemd
// unit runs. That of the log service is `berth logs serve`.
func (a *app) serviceCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, svc := range services() {
		list = append(list, a.serviceCommand(svc.name, svc))
	}
	return list
}

func (a *app) serviceCommand(use string, svc service) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: svc.about, Args: cobra.NoArgs, GroupID: "run",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.settings(c)
			if err != nil {
				return err
			}
			return a.serve(c.Context(), s, svc)
		},
	}
	a.settingFlags(c)
	a.listenFlags(c)
	return c
}

// serve runs one service for systemd: READY once it is up, the watchdog while
// it lives, STOPPING when it is asked to end.
func (a *app) serve(ctx context.Context, s setting.Settings, svc service) error {
	if err := prepareDirs(s); err != nil {
		return err
	}
	p := newProcess(a.stderr, s, svc.name)
	unit.LimitMemory(p.log)
	defer p.start(ctx)()
	stopLooking, err := p.startLooking(ctx, svc.name)
	if err != nil {
		return err
	}
	defer stopLooking()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return svc.run(ctx, p, func() {
			p.log.Info("ready")
			unit.Ready("serving")
		})
	})
	g.Go(func() error { return unit.Watchdog(ctx, func(ctx context.Context) error { return alive(ctx, s, svc) }) })
	g.Go(func() error { <-ctx.Done(); unit.Stopping(); return nil })
	return ignoreCanceled(g.Wait())
}

// alive asks a service for anything. Every answer will do, an error too: what it
// depends on may be down, and restarting the service would not help that.
func alive(ctx context.Context, s setting.Settings, svc service) error {
	if svc.probe == "" {
		return nil
	}
	network, address, url := "unix", s.Socket(svc.name), "http://"+svc.name+svc.probe
	transport := &http.Transport{DisableKeepAlives: true}
	if svc.name == "registry" {
		network, address = "tcp", firstOf(s.HTTPS, s.HTTP)
		if s.HTTPS != "" {
			url = "https://" + svc.name + svc.probe
			// The question is whether it answers, not who it is: it is ourselves.
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		}
	}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", health.UserAgent)
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// poolSizes: together they stay below the private cluster's max_connections.
const (
	registryConns = 24
	tokenConns    = 8
	coreConns     = 12
	jobsConns     = 12
)

func runToken(ctx context.Context, p *process, ready func()) error {
	n, err := openMigrated(ctx, p.settings, p.log, tokenConns, p.options("token", database.IndexProbes)...)
	if err != nil {
		return err
	}
	defer n.close()
	key, err := secret.LoadKey(keyFile(p.settings, tokenKey))
	if err != nil {
		return err
	}
	svc, err := token.New(ctx, token.Options{Pool: n.pool, Key: key, Accounts: n.accounts, Projects: n.projects, Configuration: n.configuration, Log: p.log, Metrics: p.meter("token"), Tracer: p.spans.Tracer("token")})
	if err != nil {
		return err
	}
	n.measure(p.meter("token"))
	n.accounts.Measure(p.meter("token"))
	l, err := unit.Listen(ctx, "token", "unix", p.settings.Socket("token"), 0o660)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return svc.Run(ctx) })
	n.follow(ctx, g)
	g.Go(func() error { return serveHTTP(ctx, l, svc, p.log) })
	ready()
	return g.Wait()
}

func openMigrated(ctx context.Context, s setting.Settings, log *slog.Logger, conns int, options ...database.Option) (*node, error) {
	n, err := openNode(ctx, s, log, conns, options...)
	if err != nil {
		return nil, err
	}
	if err := n.migrate(ctx); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// openAll is openMigrated for services that need blobs, too. The caller closes
// both.
func openAll(ctx context.Context, s setting.Settings, log *slog.Logger, conns int, options ...database.Option) (*node, stores, error) {
	n, err := openMigrated(ctx, s, log, conns, options...)
	if err != nil {
		return nil, stores{}, err
	}
	st, err := n.stores(ctx)
	if err != nil {
		n.close()
	}
	return n, st, err
}

func runCore(ctx context.Context, p *process, ready func()) error {
	n, st, err := openAll(ctx, p.settings, p.log, coreConns, p.options("core")...)
	if err != nil {
		return err
	}
	defer n.close()
	defer st.blobs.Close()
	o := coreOptions(n, st)
	o.Metrics, o.Tracer = p.meter("core"), p.spans.Tracer("core")
	n.measure(o.Metrics)
	n.accounts.Measure(o.Metrics)
	api, err := core.New(o)
	if err != nil {
		return err
	}
	l, err := unit.Listen(ctx, "core", "unix", p.settings.Socket("core"), 0o660)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	n.follow(ctx, g, st.artifacts.Channel())
	g.Go(func() error { return api.Sessions.Run(ctx) })
	g.Go(func() error { return serveHTTP(ctx, l, api, p.log) })
	ready()
	return g.Wait()
}

func runJobs(ctx context.Context, p *process, ready func()) error {
	n, st, err := openAll(ctx, p.settings, p.log, jobsConns, p.options("jobs")...)
	if err != nil {
		return err
	}
	defer n.close()
	defer st.blobs.Close()
	hooks := n.webhooks()
	hooks.Tracer = p.spans.Tracer("jobs")
	deliveries, err := hooks.Kinds()
	if err != nil {
		return err
	}
	var linked *audit.Chain
	if p.settings.AuditChain {
		linked = n.chain()
	}
	n.measure(p.meter("jobs"))
	svc, err := jobs.New(jobs.Options{
		Pool: n.pool, Artifacts: st.artifacts, Blobs: st.blobs, Tasks: n.tasks, Log: p.log, Metrics: p.meter("jobs"), Tracer: p.spans.Tracer("jobs"),
		Kinds: append(deliveries, upkeep.Collector(st.artifacts, st.blobs.Delete), upkeep.Purger(n.pool, n.chain()),
			retention.New(n.pool, n.outbox, n.tasks).Kind(st.artifacts)),
		Consumers: []jobs.Consumer{hooks.Consume}, AuditRules: n.auditRules, AuditChain: linked,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	n.follow(ctx, g)
	g.Go(func() error { return svc.Run(ctx) })
	ready()
	return g.Wait()
}

// auditRules are the settings of the audit trail.
func (n *node) auditRules(ctx context.Context) (audit.Rules, error) {
	s, err := n.configuration.Current(ctx)
	disabled := strings.FieldsFunc(s.DisabledAuditEvents, func(r rune) bool { return r == ',' || r == ' ' })
	return audit.Rules{Disabled: disabled, Endpoint: s.AuditEndpoint, SkipDatabase: s.SkipAuditDatabase}, err
}

func runRegistry(ctx context.Context, p *process, ready func()) error {
	n, st, err := openAll(ctx, p.settings, p.log, registryConns, p.options("registry", database.IndexProbes)...)
	if err != nil {
		return err
	}
	defer n.close()
	defer st.blobs.Close()
	verifier, err := token.NewVerifier(n.pool, nil)
	if err != nil {
		return err
	}
	n.measure(p.meter("registry"))
	n.accounts.Measure(p.meter("registry"))
	metric.Caches(p.meter("registry"), st.artifacts.Caches())
	metric.Caches(p.meter("registry"), map[string]*metric.Hits{"tokens": &verifier.Hits})
	n.measureVolumes(p.meter("registry"))
	pulls := artifact.NewPulls(st.artifacts)
	handler, err := registry.New(registry.Options{
		Artifacts: st.artifacts, Blobs: st.blobs, SessionKey: n.key.For("upload sessions"), Log: p.log, Tracer: p.spans.Tracer("registry"), Closed: newClosure(n).closed,
		Auth: &registry.Auth{Tokens: verifier, Accounts: n.accounts, Projects: n.projects},
		Pulls: func(p registry.PullRecord) {
			pulls.Add(p.ManifestID, p.RepoID, p.Repo, p.Tag, p.Digest, p.Origin)
		},
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	n.follow(ctx, g, st.artifacts.Channel())
	g.Go(func() error { return pulls.Run(ctx, 10*time.Second) })
	g.Go(func() error { return frontDoor(ctx, p.as("proxy"), handler, ready) })
	return g.Wait()
}

// serveHTTP serves one listener until ctx ends, then lets requests finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: logger.Requests(h), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return unit.Serve(ctx, srv, l, 10*time.Second)
}
