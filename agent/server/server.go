// Package server is the agent's REST API: one table of routes (routes.go), each
// with who may call it, and all that is between a socket and a handler.
//
// It has two entrances. The unix socket is for root alone, by its mode: the
// command line and the screen on tty1 use it. HTTPS on port 5480 is for everybody
// who can reach it, so that each request is known by a password, or by a browser's
// session whose token it must carry; wrong passwords slow down whoever tries them,
// and nobody else.
//
// Handlers hold no rules: those are in package machine.
package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"

	"berth/agent/api"
	"berth/agent/bundle"
	"berth/agent/machine"
	"berth/agent/session"
	"berth/agent/trail"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// Options are what an API needs.
type Options struct {
	Machine  *machine.Machine
	Sessions *session.Store
	Trail    *trail.Trail
	Bundles  *bundle.Store
	Log      *slog.Logger
	// Pages are the console's for browsers, at every path that is not the API's;
	// nil: a short text in their place.
	Pages http.Handler
}

// API serves the table of routes.
type API struct {
	o      Options
	mux    *http.ServeMux
	origin *http.CrossOriginProtection
}

// New makes an API.
func New(o Options) (*API, error) {
	a := &API{o: o, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection()}
	for _, rt := range routes() {
		a.mux.Handle(rt.method+" "+api.Prefix+rt.path, a.serve(rt))
	}
	docs, err := docsPage()
	if err != nil {
		return nil, err
	}
	a.mux.Handle("GET /api/docs/{file...}", docs)
	a.mux.Handle("GET /api/docs", http.RedirectHandler("/api/docs/", http.StatusMovedPermanently))
	a.mux.HandleFunc("/api/", a.noRoute)
	if o.Pages == nil {
		o.Pages = http.HandlerFunc(bare)
	}
	a.mux.Handle("/", o.Pages)
	return a, nil
}

// bare is what a browser sees of an agent without pages.
func bare(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("Berth: the appliance's console. The API is described at /api/docs/.\n"))
}

type localKey struct{}

// Local is the handler for the unix socket.
func (a *API) Local() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), localKey{}, true)))
	})
}

// policyForAPI lets a browser do nothing with an answer of the API but read it.
// Pages set their own.
const policyForAPI = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"

// Remote is the handler for HTTPS.
func (a *API) Remote() http.Handler {
	guarded := a.origin.Handler(a.mux)
	a.origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, fault.New(fault.Forbidden, "the request comes from another site's page"))
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Content-Security-Policy", policyForAPI)
		h.Set("Cache-Control", "no-store")
		// No Strict-Transport-Security: with a certificate of our own CA it would take
		// from the administrator the browser's way past the first warning.
		guarded.ServeHTTP(w, r)
	})
}

// identify says who asks.
func (a *API) identify(r *http.Request) (caller, error) {
	if local, _ := r.Context().Value(localKey{}).(bool); local {
		return onBehalf(r), nil
	}
	c := caller{address: hostOf(r.RemoteAddr)}
	if at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		c.over = addrOf(at.String())
	}
	if user, password, ok := r.BasicAuth(); ok {
		if err := a.o.Sessions.Check(r.Context(), user, secret.Text(password), c.address); err != nil {
			if fault.Is(err, fault.Unauthenticated) {
				a.o.Trail.Add(api.Event{User: user, From: c.address, Action: "log in", Result: "the name or the password is wrong"})
			}
			return c, err
		}
		c.user = user
		return c, nil
	}
	s, ok := a.o.Sessions.Of(r)
	if !ok {
		return c, nil
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !s.Authentic(r.Header.Get(api.CSRFHeader)) {
		return c, fault.New(fault.Forbidden, "the token of the session is missing or wrong").On(api.CSRFHeader).
			WithHint("send the csrf of the session in this header")
	}
	c.user, c.session = s.User, s
	return c, nil
}

// The headers by which a program of root's says for whom it asks: the console's
// pages, for who is logged in at them. Over HTTPS they mean nothing.
const (
	BehalfUser    = "Berth-User"
	BehalfAddress = "Berth-Address"
	BehalfOver    = "Berth-Over"
)

func onBehalf(r *http.Request) caller {
	c := caller{user: session.Root, address: "unix socket", local: true}
	if user := r.Header.Get(BehalfUser); user == session.Admin || user == session.Root || user == session.Setup {
		c.user, c.local = user, false
		c.address = r.Header.Get(BehalfAddress)
		c.over = addrOf(r.Header.Get(BehalfOver))
	}
	return c
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	return host
}

// addrOf reads host:port or an address, without its zone; the zero value if it is
// none.
func addrOf(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
