package command

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/appliance/unit"
	"berth/services/database"
	"berth/services/debug"
	"berth/services/outbound"
	"berth/services/trace"
)

// meter gives what a service of this process registers its metrics with; nil if
// there are none.
func (p *process) meter(service string) prometheus.Registerer { return p.metrics.Service(service) }

// orBerth is the label of what belongs to a process with all services.
func orBerth(service string) string { return cmp.Or(service, "berth") }

// options are those of a service's connections to the database.
func (p *process) options(service string, more ...database.Option) []database.Option {
	return append(more, database.Trace(p.spans.Tracer(service).Queries()))
}

// startLooking opens the metrics' port and the debug socket, and serves them
// until stop; it begins to send spans. service is "" for a process with all of them, which has the first
// port and the socket debug.sock; a service of its own has its place in
// setting.MetricsPorts, and debug.sock in a directory of its own.
func (p *process) startLooking(ctx context.Context, service string) (stop func(), err error) {
	if p.spans, err = p.openSpans(ctx, service); err != nil {
		return nil, err
	}
	o := debug.Options{Level: p.level}
	var port net.Listener
	if p.metrics != nil {
		o.Metrics = p.metrics.Handler()
		if port, err = p.listenMetrics(ctx, service); err != nil {
			return nil, err
		}
	}
	path := debugSocket(p.settings, service)
	var socket net.Listener
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
		socket, err = unit.Listen(ctx, "debug", "unix", path, 0o600)
	}
	if err != nil {
		if port != nil {
			port.Close()
		}
		return nil, err
	}
	p.measure(service)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	if port != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", o.Metrics)
		g.Go(func() error { return serveHTTP(ctx, port, mux, p.log) })
	}
	g.Go(func() error { return serveHTTP(ctx, socket, debug.Handler(o), p.log) })
	g.Go(func() error { return p.spans.Run(ctx) })
	return func() {
		cancel()
		if err := g.Wait(); err != nil {
			p.log.Error("metrics or the debug socket could not be served to the end", "err", err)
		}
	}, nil
}

// openSpans begins to send spans to where the settings say, through the proxy if that
// is for it; nil if they say nothing. The log service has no requests to follow.
func (p *process) openSpans(ctx context.Context, service string) (*trace.Exporter, error) {
	if p.settings.Traces == "" || service == logService().name {
		return nil, nil
	}
	o := trace.Options{Endpoint: p.settings.Traces, Log: p.log, Metrics: p.meter(orBerth(service))}
	proxy, err := proxyOf(p.settings)
	if err != nil {
		return nil, err
	}
	if proxy != nil { // the collector's address is the administrator's, and may be anywhere
		d := outbound.Dialer{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, Proxy: proxy}
		if o.Client, err = d.Client(outbound.Options{Timeout: trace.SendTime}); err != nil {
			return nil, err
		}
	}
	return trace.Open(ctx, o)
}

// measure registers what belongs to the process. service is "" for one with all.
func (p *process) measure(service string) {
	if p.metrics == nil || p.sink == nil {
		return
	}
	promauto.With(p.meter(orBerth(service))).NewCounterFunc(prometheus.CounterOpts{Name: "berth_log_lines_dropped_total",
		Help: "Lines of this process's log that had no room while the log service did not take them."}, func() float64 { return float64(p.sink.Dropped()) })
}

// debugSocket is the path of a process's debug socket. That of a service is in a
// directory where the others cannot write (a unit's RuntimeDirectory).
func debugSocket(s setting.Settings, service string) string {
	if service == "" {
		return filepath.Join(s.Run, "debug.sock")
	}
	return filepath.Join(s.Run, service, "debug.sock")
}

// defaultMetrics is where metrics are unless the settings say otherwise.
const defaultMetrics = "127.0.0.1:9180"

// metricsAddress is where a process serves its metrics, and whether the settings
// insist on it.
func metricsAddress(s setting.Settings, service string) (address string, must bool) {
	address, must = defaultMetrics, false
	if s.Metrics != "" {
		address, must = s.Metrics, true
	}
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.Atoi(port)
	if at := slices.Index(setting.MetricsPorts(), service); err == nil && bad == nil && at > 0 && n > 0 {
		address = net.JoinHostPort(host, strconv.Itoa(n+at))
	}
	return address, must
}

// listenMetrics opens the metrics' port; nil if another program has the usual one.
func (p *process) listenMetrics(ctx context.Context, service string) (net.Listener, error) {
	address, must := metricsAddress(p.settings, service)
	l, err := unit.Listen(ctx, "metrics", "tcp", address, 0)
	if err == nil {
		p.log.Info("serving metrics", "address", l.Addr().String())
		return l, nil
	}
	if !must {
		p.log.Warn("there are no metrics: another program has their port; name another one in the setting metrics", "address", address, "err", err)
		return nil, nil
	}
	return nil, fault.Wrap(fault.Precondition, err, "cannot serve metrics on %s", address).On("metrics").
		WithHint("another program may have the port: choose another address, or \"off\" (ss -ltnp shows who it is)")
}
