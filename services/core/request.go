package core

import (
	"cmp"
	"context"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/services/access"
	"berth/services/event"
)

// request is an HTTP request, who makes it, and what it is about.
type request struct {
	*http.Request
	principal access.Principal
	target    access.Target // the project in the path; zero on routes without one
	csrf      string        // a token for a form, on routes below /c/
}

// maxRequestID is how long an id from outside may be.
const maxRequestID = 128

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// answer finds out who asks and passes the request to its route.
func (a *API) answer(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > maxRequestID {
		id = uuid.NewString()
	}
	w.Header().Set("X-Request-Id", id)
	about := logger.RequestOf(r.Context())
	if about == nil { // not served by a socket of ours
		about = &logger.Request{}
		r = r.WithContext(logger.WithRequest(r.Context(), about))
	}
	about.ID = id
	source := sourceOf(r)
	tidy(r)
	if guarded(r) {
		if err := a.guard(w, r); err != nil {
			a.turnAway(w, r, err)
			return
		}
	}
	p, err := a.authenticate(r, source)
	if err != nil {
		a.turnAway(w, r, err)
		return
	}
	about.User = p.Name
	ctx := event.With(r.Context(), event.Origin{User: p.Name, Source: source, RequestID: id, Trace: a.Tracer.Parent(r.Context())})
	r = r.WithContext(context.WithValue(ctx, principalKey{}, p))
	a.mux.ServeHTTP(w, r)
}

// turnAway refuses a request that does not get to a route, which would count it.
func (a *API) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	a.early.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.refuse(w, r, err) })).ServeHTTP(w, r)
}

type principalKey struct{}

// sourceOf gives the client's address, which the front door puts last.
func sourceOf(r *http.Request) string {
	forwarded := r.Header.Get("X-Forwarded-For")
	if i := strings.LastIndexByte(forwarded, ','); i >= 0 {
		forwarded = forwarded[i+1:]
	}
	return strings.TrimSpace(forwarded)
}

// authenticate says who asks: by a name with a password, by an ID token of the
// OIDC provider, or else by a session.
// As in Harbor, whoever is not known, for lack of credentials or by wrong ones,
// is anonymous: the route then decides.
func (a *API) authenticate(r *http.Request, source string) (access.Principal, error) {
	if username, password, ok := r.BasicAuth(); ok && username != "" {
		p, err := a.Accounts.Authenticate(r.Context(), username, password, source)
		if !fault.Is(err, fault.Unauthenticated) {
			return p, err
		}
	}
	if raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		p, err := a.bearer(r, raw)
		if !fault.Is(err, fault.Unauthenticated) {
			return p, err
		}
	}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return access.Principal{}, nil
	}
	idle, err := a.idleTime(r)
	if err != nil {
		return access.Principal{}, err
	}
	found, _, err := a.Sessions.Find(r.Context(), c.Value, idle)
	if err != nil || !found.LDAP {
		return found.Principal, err
	}
	// Whoever leaves the directory loses the session, too.
	p, ok, err := a.Accounts.Recheck(r.Context(), found.Principal)
	if !ok {
		return access.Principal{}, err
	}
	return p, err
}

// bearer takes ID tokens of the OIDC provider, as Harbor does. The registry's own
// tokens are none: they say what may be done on /v2/, and nothing else.
func (a *API) bearer(r *http.Request, raw string) (access.Principal, error) {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil || settings.AuthMode != "oidc_auth" {
		return access.Principal{}, cmp.Or(err, error(fault.New(fault.Unauthenticated, "unauthorized")))
	}
	subIss, err := a.OIDC.Verify(r.Context(), raw)
	if err != nil {
		return access.Principal{}, err
	}
	return a.Accounts.BearerOIDC(r.Context(), subIss)
}

// tidy removes what Harbor overlooks in paths: doubled slashes and one at the
// end. The mux would redirect, and clients do not follow with a body.
func tidy(r *http.Request) {
	escaped := r.URL.EscapedPath()
	clean := path.Clean("/" + escaped)
	if clean == escaped {
		return
	}
	u := *r.URL
	u.RawPath = clean
	u.Path = unescape(clean)
	r.URL = &u
}

// require asks access whether the caller may do something.
func (r *request) require(t access.Target, resource, action string) error {
	if access.May(r.principal, t, resource, action) {
		return nil
	}
	return r.denied()
}

// denied is the answer to whoever may not: whether the thing exists stays hidden.
func (r *request) denied() error {
	if r.principal.Kind == access.Anonymous {
		return fault.New(fault.Unauthenticated, "unauthorized")
	}
	return fault.New(fault.Forbidden, "forbidden")
}

// hidden turns a project that does not exist into one that the caller may not
// see. Only a system administrator is told the difference.
func (r *request) hidden(err error) error {
	if fault.Is(err, fault.NotFound) && !r.principal.Sysadmin {
		return r.denied()
	}
	return err
}

// findProject resolves a project's name or id, as the caller sees it. A number
// is an id, unless the client says that it is a name.
func (a *API) findProject(r *request, nameOrID string) (t access.Target, err error) {
	id, notNumber := strconv.ParseInt(nameOrID, 10, 64)
	if notNumber == nil && !isTrue(r.Header.Get("X-Is-Resource-Name")) {
		t, err = a.Projects.TargetByID(r.Context(), r.principal, id)
	} else {
		t, err = a.Projects.Target(r.Context(), r.principal, nameOrID)
	}
	return t, r.hidden(err)
}

func isTrue(s string) bool {
	b, err := strconv.ParseBool(s)
	return err == nil && b
}
