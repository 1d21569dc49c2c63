// Package proxy is Berth's front door: the one place where clients come in.
//
// It ends TLS, finds out who is calling from where, gives every request an id,
// refuses what is malformed, bounds what a client may hold (connections, time
// without progress, headers), writes the access log, and passes requests on:
//
//	/v2, /v2/…         the registry, a handler in this same process: blob bytes
//	                   take no hop, and the kernel can send files (sendfile)
//	/service/token     the token service, on a unix socket
//	everything else    core, on a unix socket: /api, /c and the web UI
//
// The headers X-Forwarded-* and X-Berth-* that arrive behind it are its own
// words: what clients send under these names is removed.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"berth/appliance/logger"
	"berth/services/trace"
)

// The limits on what one client may hold. There is no limit on the time that a
// whole request takes, since blobs are as large as they are; see progress.go.
const (
	headerTimeout   = 10 * time.Second // for TLS and the request's headers
	idleTimeout     = 2 * time.Minute  // between requests
	maxHeaderBytes  = 64 << 10
	defaultMaxConns = 20_000
	grace           = 10 * time.Second // for requests under way when we are asked to stop
)

// Options are what a Door needs. The zero value of the others is good.
type Options struct {
	Registry    http.Handler // answers /v2
	TokenSocket string       // path of the token service's unix socket
	CoreSocket  string       // path of core's

	// Certificate is needed for entrances with TLS.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// HTTP2 offers it to clients. It doubles the CPU time of bulk transfer, so
	// it is off.
	HTTP2 bool
	// RedirectTo is the HTTPS port to which entrances without TLS send every
	// request. 0 means that they serve.
	RedirectTo int
	// TrustedProxies may say in X-Forwarded-For, -Proto and -Host on whose
	// behalf they call.
	TrustedProxies []netip.Prefix
	// MaxConns is how many connections may be open; more wait to be accepted.
	// Default 20,000.
	MaxConns int
	// AccessLog gets one line of JSON for each request. nil = none.
	AccessLog io.Writer
	// Sink gets a message for each request. nil = none.
	Sink *logger.Sink
	Log  *slog.Logger // required
	// Metrics is where the door registers its own; nil = nowhere.
	Metrics prometheus.Registerer
	// Tracer makes a span of each request; nil = none.
	Tracer *trace.Tracer
}

// Door is the front door. It is an http.Handler, so that tests need no socket.
type Door struct {
	options Options
	token   http.Handler
	core    http.Handler
	access  *accessLog // nil = none
	slots   chan struct{}
	meters  meters
}

// New makes a door. Run opens it.
func New(o Options) *Door {
	if o.MaxConns <= 0 {
		o.MaxConns = defaultMaxConns
	}
	d := &Door{
		options: o,
		token:   newBackend("the token service", o.TokenSocket, o),
		core:    newBackend("the API", o.CoreSocket, o),
		slots:   make(chan struct{}, o.MaxConns),
	}
	if o.AccessLog != nil || o.Sink != nil {
		d.access = newAccessLog(o.AccessLog, o.Sink, o.Log)
	}
	d.meters = newMeters(o.Metrics, d)
	return d
}

// Entrance is one socket to serve.
type Entrance struct {
	Listener net.Listener
	TLS      bool
}

// Run serves all entrances until ctx ends. Then it accepts no more, lets the
// requests under way end within ten seconds, and cuts off what remains.
func (d *Door) Run(ctx context.Context, entrances ...Entrance) error {
	logCtx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	var logging errgroup.Group
	if d.access != nil {
		logging.Go(func() error { d.access.run(logCtx); return nil })
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, e := range entrances {
		g.Go(func() error { return d.serve(ctx, e) })
	}
	err := g.Wait()
	stopLog() // only now, so that the last requests are in the log
	return errors.Join(err, logging.Wait())
}

func (d *Door) serve(ctx context.Context, e Entrance) error {
	srv := &http.Server{
		Handler:           d.handler(e),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         d.releaseSlot,
		ErrorLog:          slog.NewLogLogger(d.options.Log.Handler(), slog.LevelDebug), // strangers' broken handshakes
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(d.options.HTTP2 && e.TLS)
	l := limited{e.Listener, d.slots, ctx.Done()}
	failed := make(chan error, 1)
	go func() {
		if e.TLS {
			srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: d.options.Certificate}
			failed <- srv.ServeTLS(l, "", "")
			return
		}
		failed <- srv.Serve(l)
	}()
	select {
	case err := <-failed:
		if ctx.Err() == nil {
			return fmt.Errorf("cannot serve %s: %w", e.Listener.Addr(), err)
		}
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		d.options.Log.Warn("requests were cut off at shutdown", "address", e.Listener.Addr().String(), "err", err)
		return srv.Close()
	}
	return nil
}

// handler is the door itself, or a sign that points to the one with TLS.
func (d *Door) handler(e Entrance) http.Handler {
	if !e.TLS && d.options.RedirectTo != 0 {
		return http.HandlerFunc(d.redirect)
	}
	return d
}

// limited holds back connections beyond a number. It hands out connections as
// they are: wrapped ones would cost sendfile. So it is the server that tells
// when one has ended (releaseSlot).
type limited struct {
	net.Listener
	slots   chan struct{}
	stopped <-chan struct{}
}

func (l limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.stopped:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
	}
	return c, err
}

func (d *Door) releaseSlot(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		<-d.slots
	}
}

// ServeHTTP takes one request through the door.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(w, r)
	id := d.identify(x, r)
	w.Header()["X-Request-Id"] = id
	x.request.ID = id[0]
	r = r.WithContext(logger.WithRequest(r.Context(), &x.request))
	bad := unclean(r)
	kind := classMalformed
	if !bad {
		kind = classOf(r.URL.Path)
	}
	route := d.meters[kind]
	route.Begin()
	r, span := d.options.Tracer.Request(r, classNames[kind])
	defer func() {
		x.end()
		span.Answered(x.status)
		route.End(r.Method, x.status, time.Since(x.start), x.body.read.Load(), x.written)
		if d.access != nil && !ownQuestion(x, r) {
			d.access.add(x, r)
		}
	}()
	if bad {
		refuse(x, http.StatusBadRequest, "BAD_REQUEST", "the path is malformed")
		return
	}
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/v2/") || path == "/v2":
		d.options.Registry.ServeHTTP(x, r)
	case kind == classToken:
		d.token.ServeHTTP(x, r)
	default:
		d.core.ServeHTTP(x, r)
	}
}

// redirect sends a client to the entrance with TLS.
func (d *Door) redirect(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "" || strings.Trim(host, hostCharacters) != "" || unclean(r) {
		refuse(w, http.StatusBadRequest, "BAD_REQUEST", "the request names no host")
		return
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if d.options.RedirectTo != 443 {
		host = fmt.Sprintf("%s:%d", host, d.options.RedirectTo)
	}
	// 308 keeps the method; clients that follow it send their body again.
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusPermanentRedirect)
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:"
