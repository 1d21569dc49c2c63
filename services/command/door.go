package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/appliance/cert"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/health"
	"berth/appliance/setting"
	"berth/appliance/unit"
	"berth/services/core"
	"berth/services/immutability"
	"berth/services/label"
	"berth/services/logs"
	"berth/services/metric"
	"berth/services/proxy"
	"berth/services/quota"
	"berth/services/retention"
	"berth/services/session"
	"berth/services/upkeep"
)

// frontDoor opens the sockets that the settings ask for and serves them.
func frontDoor(ctx context.Context, p *process, registry http.Handler, ready func()) error {
	s, log := p.settings, p.log
	o := proxy.Options{
		Registry: registry, TokenSocket: s.Socket("token"), CoreSocket: s.Socket("core"),
		MaxConns: s.MaxConnections, TrustedProxies: prefixes(s.TrustedProxies), Log: log, Metrics: p.meter("proxy"), Tracer: p.spans.Tracer("proxy"),
	}
	g, ctx := errgroup.WithContext(ctx)
	var entrances []proxy.Entrance
	if s.HTTPS != "" {
		certificates, err := certificates(s, log)
		if err != nil {
			return err
		}
		g.Go(func() error { return certificates.Run(ctx) })
		g.Go(func() error { return renew(ctx, s, certificates, log) })
		o.Certificate = certificates.GetCertificate
		metric.Certificate(p.meter("proxy"), func() time.Time { return certificates.Certificate().Leaf.NotAfter })
		l, err := listen(ctx, "https", s.HTTPS)
		if err != nil {
			return err
		}
		entrances = append(entrances, proxy.Entrance{Listener: l, TLS: true})
		if s.RedirectHTTP {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			o.RedirectTo, _ = strconv.Atoi(port)
		}
	}
	if s.HTTP != "" {
		l, err := listen(ctx, "http", s.HTTP)
		if err != nil {
			return err
		}
		entrances = append(entrances, proxy.Entrance{Listener: l})
	}
	lines, err := accessLog(s)
	if err != nil {
		return err
	}
	if lines != nil {
		defer lines.Close()
		o.AccessLog = lines
	}
	if s.AccessLog != "off" {
		o.Sink = p.sink
	}
	door := proxy.New(o)
	g.Go(func() error { return door.Run(ctx, entrances...) })
	ready()
	return g.Wait()
}

// listen takes systemd's socket of that name, or opens one.
func listen(ctx context.Context, name, address string) (net.Listener, error) {
	l, err := unit.Listen(ctx, name, "tcp", address, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Precondition, err, "cannot listen on %s", address).On("--" + name).
			WithHint("another program may have the port: choose another address, or stop it")
	}
	return l, nil
}

func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		} else if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// certificates makes what is missing and watches the files, so that a new
// certificate is served without a restart.
func certificates(s setting.Settings, log *slog.Logger) (*cert.Reloader, error) {
	if s.Certificate != "" {
		return cert.NewReloader(s.Certificate, s.PrivateKey, log)
	}
	if err := ensureCertificate(s, log); err != nil {
		return nil, err
	}
	return cert.NewReloader(filepath.Join(s.TLS(), cert.ServerFile), filepath.Join(s.TLS(), cert.KeyFile), log)
}

// ensureCertificate has a server certificate for every name that clients may
// use, and the CA where users find it.
func ensureCertificate(s setting.Settings, log *slog.Logger) error {
	made, err := cert.Ensure(s.TLS(), certificateNames(s))
	if err != nil {
		return err
	}
	if made.Changed != "" {
		log.Info("made a server certificate", "reason", made.Changed, "fingerprint", cert.Fingerprint(made.Certificate),
			"until", made.Certificate.NotAfter.Format(time.DateOnly))
	}
	ca, err := os.ReadFile(filepath.Join(s.TLS(), cert.CAFile))
	if err != nil {
		return nil // the certificate was supplied, and its CA is the administrator's business
	}
	if have, err := os.ReadFile(s.CA()); err == nil && string(have) == string(ca) {
		return nil
	}
	return durable.WriteFile(s.CA(), ca, 0o644)
}

func certificateNames(s setting.Settings) []string {
	names := append([]string{}, s.Hostnames...)
	if host, _, err := net.SplitHostPort(s.HTTPS); err == nil {
		if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
			names = append(names, host)
		}
	}
	if h, err := os.Hostname(); err == nil {
		if hostOK(h) {
			names = append(names, h)
		}
	}
	return names
}

// hostOK keeps a machine's odd own name from spoiling the certificate.
func hostOK(h string) bool {
	s := setting.Default()
	s.Hostnames = []string{h}
	return s.Check() == nil
}

// renew looks daily whether the certificate ends soon.
func renew(ctx context.Context, s setting.Settings, certificates *cert.Reloader, log *slog.Logger) error {
	if s.Certificate != "" {
		return nil
	}
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err := ensureCertificate(s, log)
			if err == nil {
				err = certificates.Reload()
			}
			if err != nil {
				log.Error("cannot renew the certificate", "err", err)
			}
		}
	}
}

// accessLog opens the file that the settings name for the access log; nil = none.
func accessLog(s setting.Settings) (io.WriteCloser, error) {
	switch s.AccessLog {
	case "", "off":
		return nil, nil
	case "-":
		return os.NewFile(uintptr(2), "/dev/stderr"), nil
	}
	return openRotating(s.AccessLog, accessLogSize)
}

// accessLogSize is how large the access log grows before it is put aside; one
// old file is kept.
const accessLogSize = 64 << 20

// rotating is a file that does not grow without end.
type rotating struct {
	f    *os.File
	size int64
	max  int64
}

func openRotating(path string, limit int64) (*rotating, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot open the access log").On("access_log")
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &rotating{f, info.Size(), limit}, nil
}

// Write appends whole lines. It is called by one goroutine.
func (r *rotating) Write(p []byte) (int, error) {
	if r.size > 0 && r.size+int64(len(p)) > r.max {
		if err := r.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := r.f.Write(p)
	r.size += int64(n)
	return n, err
}

func (r *rotating) rotate() error {
	name := r.f.Name()
	if err := os.Rename(name, name+".1"); err != nil {
		return fmt.Errorf("cannot put the access log aside: %w", err)
	}
	next, err := openRotating(name, r.max)
	if err != nil {
		return err
	}
	r.f.Close()
	*r = *next
	return nil
}

// Close closes the file.
func (r *rotating) Close() error { return r.f.Close() }

// coreOptions put the REST API together.
func coreOptions(n *node, st stores) core.Options {
	s := n.settings
	o := core.Options{
		Pool: n.pool, Accounts: n.accounts, Projects: n.projects, Artifacts: st.artifacts, Configuration: n.configuration,
		Labels: label.New(n.pool, n.outbox), Retention: retention.New(n.pool, n.outbox, n.tasks),
		Quotas: quota.New(n.pool, n.outbox), Immutability: immutability.New(n.pool, n.outbox),
		Directory: n.directory, OIDC: n.oidc(), Dialer: n.dialer(), Sessions: session.New(n.pool, n.key, n.outbox), Key: n.key, Log: n.log,
		Tasks: n.tasks, Upkeep: upkeep.New(n.pool, n.tasks), Webhooks: n.webhooks(),
		ExternalURL: publicURL(s), StorageName: "filesystem",
		OpenBlob: func(ctx context.Context, key string) (io.ReadCloser, error) { return st.blobs.Open(ctx, key) },
		CA:       func() ([]byte, error) { return os.ReadFile(s.CA()) },
		// Harbor's names, and the storage: without it no push and no pull works.
		Checks: []health.Check{
			{Name: "core", DependsOn: []string{"database"}},
			{Name: "database", Probe: databaseProbe(n.pool, s.Database == "")},
			{Name: "registry", DependsOn: []string{"database", "storage"}, Probe: health.Answers("tcp", firstOf(s.HTTPS, s.HTTP)), Hint: unitHint("registry")},
			{Name: "token", DependsOn: []string{"database"}, Probe: health.Answers("unix", s.Socket("token")), Hint: unitHint("token")},
			{Name: "jobservice", DependsOn: []string{"database"}, Probe: jobsProbe(n.pool), Hint: unitHint("jobs")},
			{Name: "storage", Probe: storageProbe(st.blobs, s.StorageDir())},
		},
	}
	if !s.Logs.Off {
		o.Logs = logs.NewClient(s.Socket("logs"))
	}
	if s.StorageDir() == "" {
		o.StorageName = "s3"
		return o
	}
	o.Volume = func() (total, free uint64, err error) {
		f, t, err := st.blobs.Free(context.Background())
		return uint64(t), uint64(f), err
	}
	return o
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
