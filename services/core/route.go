package core

import (
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"berth/appliance/fault"
	"berth/appliance/rest"
	"berth/services/access"
	"berth/services/reference"
)

// route is a row of the API's table.
type route struct {
	method, path string
	policy       policy
	summary      string
	endpoint     endpoint
}

// policy says who may call a route. The zero policy admits nobody.
type policy struct {
	kind             admission
	resource, action string
}

type admission uint8

const (
	nobody     admission = iota
	anybody              // also anonymous; the handler shows each caller what that caller may see
	signedIn             // whoever has logged in; the handler asks further
	bySystem             // whoever has the right on the system
	byProject            // whoever has the right in the project that the path names
	bySelf               // the user that the path names, or whoever has the right on the system
	bySysadmin           // system administrators, whatever rights a robot was given
)

func open() policy  { return policy{kind: anybody} }
func login() policy { return policy{kind: signedIn} }
func system(resource, action string) policy {
	return policy{bySystem, resource, action}
}
func sysadmins() policy { return policy{kind: bySysadmin} }
func inProject(resource, action string) policy {
	return policy{byProject, resource, action}
}
func self(resource, action string) policy {
	return policy{bySelf, resource, action}
}

// admit lets the caller through or says why not. It finds the project that the
// path names.
func (a *API) admit(p policy, r *request) error {
	switch p.kind {
	case anybody:
		return nil
	case signedIn:
		if r.principal.Kind != access.Anonymous {
			return nil
		}
	case bySystem:
		return r.require(access.Target{}, p.resource, p.action)
	case bySysadmin:
		if r.principal.Sysadmin {
			return nil
		}
	case bySelf:
		id, err := strconv.ParseInt(r.PathValue("user_id"), 10, 64)
		if err == nil && r.principal.Kind == access.User && r.principal.ID == id {
			// A personal access token may look at its user and no more, an
			// administrator's neither: else a stolen one could not be revoked for good.
			if r.principal.Limit != nil && p.action != "read" {
				return r.denied()
			}
			return nil
		}
		return r.require(access.Target{}, p.resource, p.action)
	case byProject:
		var err error
		if name := r.PathValue("project_name"); name != "" {
			r.target, err = a.Projects.Target(r.Context(), r.principal, unescape(name))
			err = r.hidden(err)
		} else {
			r.target, err = a.findProject(r, unescape(r.PathValue("project_name_or_id")))
		}
		if err != nil {
			return err
		}
		r.narrow()
		return r.require(r.target, p.resource, p.action)
	}
	return r.denied()
}

// narrow makes the target what the path names within the project, which robots
// may be limited to.
func (r *request) narrow() {
	r.target.Repository = unescape(r.PathValue("repository_name"))
	r.target.Tag = unescape(r.PathValue("tag_name"))
	if ref := unescape(r.PathValue("reference")); r.target.Tag == "" && !reference.IsDigest(ref) {
		r.target.Tag = ref
	}
}

// onTag is require for another tag of the repository in the path.
func (r *request) onTag(tag, resource, action string) error {
	t := r.target
	t.Tag = tag
	return r.require(t, resource, action)
}

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
		if err := bind(ps, r.Request, reflect.ValueOf(&argument).Elem()); err != nil {
			return nil, err
		}
		return f(a, r, argument)
	}}
}

// none is the argument of handlers without parameters.
type none struct{}

// serve is the way of every request: access, parameters, handler, reply.
func (a *API) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		a.Tracer.Name(hr, rt.path)
		p, _ := hr.Context().Value(principalKey{}).(access.Principal)
		r := &request{Request: hr, principal: p, csrf: w.Header().Get(csrfHeader)}
		if err := a.admit(rt.policy, r); err != nil {
			a.refuse(w, hr, err)
			return
		}
		if err := a.writable(rt, r); err != nil {
			a.refuse(w, hr, err)
			return
		}
		v, err := rt.endpoint.call(a, r)
		if err != nil {
			a.refuse(w, hr, err)
			return
		}
		a.reply(w, hr, v)
	})
}

// errReadOnly marks the refusal of a write while the system is read-only.
var errReadOnly = errors.New("read-only")

// writable refuses writes while the system is read-only. People can log in and
// out all the same, and administrators end it.
func (a *API) writable(rt route, r *request) error {
	if rt.method == http.MethodGet || rt.method == http.MethodHead || strings.HasPrefix(rt.path, "/c/") || rt.path == v2+"/configurations" {
		return nil
	}
	s, err := a.Configuration.Current(r.Context())
	if err == nil && s.ReadOnly {
		err = fault.Wrap(fault.Forbidden, errReadOnly, "the system is read-only for now").WithHint("a system administrator can change the setting read_only")
	}
	return err
}

// noRoute answers for paths that are not in the table, and for methods that a
// path has not.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := *r
		probe.Method = method
		if _, pattern := a.mux.Handler(&probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		refusal(w, http.StatusNotFound, "NOT_FOUND", "path "+r.URL.Path+" was not found")
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	refusal(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED",
		"method "+r.Method+" is not allowed, but ["+strings.Join(allowed, ",")+"] are")
}
