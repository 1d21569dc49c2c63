package server

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"berth/agent/api"
	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/rest"
)

// route is a row of the API's table.
type route struct {
	method, path string // below api.Prefix
	policy       policy
	// change is what the audit trail calls it; "" for what changes nothing.
	change   string
	summary  string
	endpoint endpoint
}

// policy says who may call a route. The zero policy admits nobody.
type policy uint8

const (
	nobody policy = iota
	anybody
	setup // whoever answers the questions of the first boot, and administrators
	admin // the console's administrator, and root
)

// String says who may call a route, in the API's document.
func (p policy) String() string {
	switch p {
	case anybody:
		return "Anyone, logged in or not."
	case setup:
		return "Whoever has the setup code, and administrators."
	case admin:
		return "Administrators."
	}
	return "Nobody."
}

// caller is who asks.
type caller struct {
	user    string // admin, root, setup; "" = a stranger
	address string // where from: an address, or "unix socket"
	over    netip.Addr
	local   bool             // over the unix socket, whose mode admits root alone
	session *session.Session // nil if it is none of a browser
}

// admit lets the caller through or says why not.
func (a *API) admit(p policy, c caller) error {
	switch {
	case p == anybody,
		p == setup && c.user != "",
		p == admin && (c.user == session.Admin || c.user == session.Root):
		return nil
	case c.user == "":
		return fault.New(fault.Unauthenticated, "log in first").WithHint("send the name admin and the console's password by basic authentication, or POST %s/sessions", api.Prefix)
	}
	return fault.New(fault.Forbidden, "the setup's session may not do this").WithHint("log in as admin")
}

// request is what a handler gets beside its argument.
type request struct {
	*http.Request
	writer http.ResponseWriter
	caller caller
	detail string // for the audit trail: what was changed, without secrets
	target string
}

// note tells the audit trail what the change was about.
func (r *request) note(target, detail string) { r.target, r.detail = target, detail }

// endpoint is a handler, with its types for the OpenAPI document.
type endpoint struct {
	in, out    reflect.Type
	parameters []rest.Parameter
	call       func(a *API, r *request) (any, error)
}

// handle makes an endpoint of a handler: a method that takes a struct of
// parameters and gives a value to reply with.
func handle[In, Out any](f func(*API, *request, In) (Out, error)) endpoint {
	in := reflect.TypeFor[In]()
	ps := rest.Parameters(in)
	return endpoint{in, reflect.TypeFor[Out](), ps, func(a *API, r *request) (any, error) {
		var argument In
		if err := bind(ps, r, reflect.ValueOf(&argument).Elem()); err != nil {
			return nil, err
		}
		return f(a, r, argument)
	}}
}

// none is the argument of handlers without parameters.
type none struct{}

// changeTime is how long a change may take: longer than what a part of it may, of
// which the longest is the check of a file system that is to grow.
const changeTime = 40 * time.Minute

// serve is the way of every request: access, parameters, handler, trail, reply.
func (a *API) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		c, err := a.identify(hr)
		if err == nil {
			err = a.admit(rt.policy, c)
		}
		r := &request{Request: hr, writer: w, caller: c}
		if err != nil {
			if rt.change != "" && c.user != "" {
				a.record(rt, r, err)
			}
			a.refuse(w, hr, err)
			return
		}
		if rt.change != "" {
			// A change that has begun is made, or taken back, as a whole, also if who wants it
			// presses Ctrl-C meanwhile or closes the browser.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(hr.Context()), changeTime)
			defer cancel()
			r.Request = hr.WithContext(ctx)
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(changeTime)) // not for every kind of writer
		}
		v, err := rt.endpoint.call(a, r)
		if rt.change != "" {
			a.record(rt, r, err)
		}
		if err != nil {
			a.refuse(w, hr, err)
			return
		}
		a.reply(w, hr, v)
	})
}

// record puts a change into the audit trail, whether it was made or refused. A
// stranger who was told to wait, or has not even named himself, has done nothing: he
// must not push out of the trail what others have done.
func (a *API) record(rt route, r *request, err error) {
	if fault.Is(err, fault.TooMany) || r.caller.user == "" {
		return
	}
	e := api.Event{User: r.caller.user, From: r.caller.address, Action: rt.change, Target: r.target, Detail: r.detail, Result: "ok"}
	if err != nil {
		e.Result = outcome(err)
	}
	a.o.Trail.Add(e)
}

// outcome is why a change was not made. The field stands behind the text: what
// follows "password:" would be taken for one.
func outcome(err error) string {
	if u, ok := errors.AsType[*rest.Unprocessable](err); ok {
		return u.Text
	}
	f := fault.Of(err)
	if f.Field != "" {
		return f.Text + " (" + f.Field + ")"
	}
	return f.Text
}

// noRoute answers for paths that are not in the table, and for methods that a
// path has not.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := *r
		probe.Method = method
		if _, pattern := a.mux.Handler(&probe); strings.Contains(pattern, " ") {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		a.refuse(w, r, fault.New(fault.NotFound, "there is nothing at %s", r.URL.Path).WithHint("%s/openapi.json says what there is", api.Prefix))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeErrors(w, http.StatusMethodNotAllowed, api.Fault{Kind: "unsupported", Text: "the method " + r.Method + " is not for this path", Hint: "there are " + strings.Join(allowed, ", ")})
}
