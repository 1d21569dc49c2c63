package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// newBackend passes requests on to a service on a unix socket.
func newBackend(name, socket string, o Options) http.Handler {
	log := o.Log
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:        128,
		MaxIdleConnsPerHost: 128,
		IdleConnTimeout:     90 * time.Second, // less than a backend's own, which then never closes under a request
		DisableCompression:  true,
	}
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			// Host stays the client's: URLs in answers are made of it.
			p.SetURL(&url.URL{Scheme: "http", Host: "backend"})
			p.Out.Host = p.In.Host
			// A client can have any header removed by naming it in Connection.
			for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id"} {
				p.Out.Header[name] = p.In.Header[name]
			}
			o.Tracer.Pass(p.In.Context(), p.Out.Header)
		},
		Transport:    transport,
		BufferPool:   &copyBuffers{},
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: backendFailed(name, log),
	}
}

// backendFailed answers for a service that does not.
func backendFailed(name string, log *slog.Logger) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if r.Context().Err() != nil {
			w.WriteHeader(statusClientGone)
			return
		}
		status := http.StatusBadGateway
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EAGAIN) {
			status = http.StatusServiceUnavailable // it is down, or starting
		}
		log.ErrorContext(r.Context(), "a service does not answer", "backend", name, "err", err)
		w.Header().Set("Retry-After", "5")
		refuse(w, status, "UNAVAILABLE", name+" does not answer; try again in a few seconds")
	}
}

// statusClientGone is for the access log (nginx's number for it); nobody is
// there to read it.
const statusClientGone = 499

// copyBuffers are what answers are copied through.
type copyBuffers struct{ pool sync.Pool }

type copyBuffer = [32 << 10]byte

func (c *copyBuffers) Get() []byte {
	if b, ok := c.pool.Get().(*copyBuffer); ok {
		return b[:]
	}
	return new(copyBuffer)[:]
}

func (c *copyBuffers) Put(b []byte) { c.pool.Put((*copyBuffer)(b)) }
