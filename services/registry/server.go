// Package registry is the OCI Distribution Specification 1.1 over HTTP: what
// `docker push` and `docker pull` talk to.
//
// A request is routed by hand, its caller's rights are looked up (a verified
// token costs one map read), and a handler makes one call of services/artifact
// (what exists) and at most one of services/blob (bytes). It keeps nothing but
// caches: all that was acknowledged is in the database and in the blob store.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/services/access"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/event"
	"berth/services/reference"
	"berth/services/trace"
)

// Options configure a Server.
type Options struct {
	Artifacts  *artifact.Store
	Blobs      *blob.Store
	Auth       Authenticator
	SessionKey []byte // authenticates upload sessions; the same on every node
	Pulls      func(PullRecord)
	Log        *slog.Logger
	Tracer     *trace.Tracer // nil = none
	// Closed says why nothing may be written for now: a Forbidden fault, or what
	// kept it from finding out. It is asked on every write, so it answers from
	// memory. Nil, as its answer too, means that writing is allowed.
	Closed func(ctx context.Context) error
}

// Authenticator says what a request may do.
type Authenticator interface {
	// Identify reads the Authorization header. Errors: Unauthenticated (who is
	// not known, or a token is bad), TooMany, Unavailable.
	Identify(ctx context.Context, r *http.Request) (Identity, error)
}

// Identity is who asks, and what that caller may do.
type Identity struct {
	User      string // "" = anonymous
	Request   string // id of the request that got the token, if there is one
	Anonymous bool   // no Authorization header at all
	Basic     bool   // a name and a password came, not a token
	// May gives the actions allowed in a repository.
	// Errors: NotFound (no such project), Unavailable.
	May func(ctx context.Context, repo string) (Actions, error)
	// MayTag gives the actions that are allowed on one tag of a repository, or on
	// all at once (access.EveryTag). Nil: the same as May, which gives those that
	// are allowed on some tag. Errors: as May.
	MayTag  func(ctx context.Context, repo, tag string) (Actions, error)
	Catalog bool // may list all repositories
}

// PullRecord is one pull of a manifest, for counts and the audit trail.
type PullRecord struct {
	ManifestID, RepoID int64
	Repo, Tag, Digest  string
	Origin             event.Origin
}

// Server is the registry's http.Handler for /v2/.
type Server struct {
	Options
	ended *otter.Cache[uuid.UUID, struct{}] // sessions that this process has seen end
}

// New makes a Server.
func New(o Options) (*Server, error) {
	if o.Pulls == nil {
		o.Pulls = func(PullRecord) {}
	}
	ended, err := otter.New(&otter.Options[uuid.UUID, struct{}]{
		MaximumSize: 20_000, ExpiryCalculator: otter.ExpiryWriting[uuid.UUID, struct{}](time.Hour),
	})
	return &Server{o, ended}, err
}

// call is one request on its way through a handler.
type call struct {
	request
	w    http.ResponseWriter
	r    *http.Request
	who  Identity
	may  Actions
	args url.Values // parsed when a handler needs it
}

func (c *call) query() url.Values {
	if c.args == nil {
		c.args = c.r.URL.Query()
	}
	return c.args
}

var apiVersion = []string{"registry/2.0"}

// ServeHTTP answers everything at and below /v2/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Docker-Distribution-Api-Version"] = apiVersion
	req, err := route(r.URL.Path)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	c := &call{request: req, w: w, r: r}
	span := s.begin(c)
	if err = s.authorise(c); err == nil {
		err = s.dispatch(c)
	}
	if err != nil && !errors.Is(err, errAnswered) {
		s.fail(w, c.r, err)
	}
	span.End(err)
}

// endNames are the endpoints' names in spans.
var endNames = [...]string{endBase: "base", endCatalog: "catalog", endTags: "tags", endReferrers: "referrers", endManifest: "manifest",
	endBlob: "blob", endUploads: "uploads", endUpload: "upload"}

// begin makes a span of what a request does, if there is anybody to look at it.
func (s *Server) begin(c *call) *trace.Span {
	if s.Tracer == nil {
		return nil
	}
	ctx, span := s.Tracer.Start(c.r.Context(), endNames[c.end])
	span.String("berth.repository", c.name)
	if c.end == endManifest || c.end == endBlob || c.end == endReferrers { // not an upload: its session's name is a right to go on with it
		span.String("berth.reference", c.arg)
	}
	c.r = c.r.WithContext(ctx)
	return span
}

func (s *Server) dispatch(c *call) error {
	switch c.end {
	case endBase:
		return s.base(c)
	case endCatalog:
		return s.catalog(c)
	case endTags:
		return s.tags(c)
	case endReferrers:
		return s.referrers(c)
	case endManifest:
		switch c.r.Method {
		case http.MethodPut:
			return s.putManifest(c)
		case http.MethodDelete:
			return s.deleteManifest(c)
		}
		return s.getManifest(c)
	case endBlob:
		if c.r.Method == http.MethodDelete {
			return s.deleteBlob(c)
		}
		return s.getBlob(c)
	case endUploads:
		return s.beginUpload(c)
	}
	return s.upload(c)
}

// authorise finds out who asks and whether they may. A refusal carries the
// challenge that tells clients where to get a token, and for what scope.
func (s *Server) authorise(c *call) error {
	need, ask, ok := c.needs(c.r.Method)
	if !ok {
		c.w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE")
		return methodFault
	}
	var err error
	if c.who, err = s.Auth.Identify(c.r.Context(), c.r); err != nil {
		if fault.Is(err, fault.Unauthenticated) {
			s.challenge(c, ask)
		}
		return err
	}
	if about := logger.RequestOf(c.r.Context()); about != nil {
		about.User, about.TokenRequest = c.who.User, c.who.Request
	}
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		c.r = c.r.WithContext(event.With(c.r.Context(), s.origin(c)))
	}
	switch c.end {
	case endBase:
		if c.who.Anonymous {
			s.challenge(c, 0)
			return fault.New(fault.Unauthenticated, "authentication is required")
		}
		return nil
	case endCatalog:
		if !c.who.Catalog {
			s.challenge(c, ask)
			return fault.New(fault.Unauthenticated, "unauthorized to list repositories").
				WithHint("only a system administrator may; a user's own repositories are in the REST API")
		}
		return nil
	}
	if c.who.Anonymous {
		// Public or not, a request without credentials is told where to get an
		// anonymous token: clients that have credentials only then send them.
		s.challenge(c, ask)
		return denied(c.name, need)
	}
	if c.may, err = c.who.May(c.r.Context(), c.name); err != nil {
		if fault.Is(err, fault.NotFound) {
			// Harbor answers 401 for a project that does not exist.
			c.w.Header()["Www-Authenticate"] = []string{""}
			return fault.New(fault.Unauthenticated, "%s", fault.Of(err).Text).WithHint("create the project first, or check its name")
		}
		return err
	}
	if c.may&need == 0 {
		s.challenge(c, ask)
		return denied(c.name, need)
	}
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return nil
	}
	return s.writable(c.r.Context())
}

// origin is what events say of the request.
func (s *Server) origin(c *call) event.Origin {
	return event.Origin{User: c.who.User, Source: source(c.r), RequestID: c.r.Header.Get("X-Request-Id"), TokenRequest: c.who.Request,
		Trace: s.Tracer.Parent(c.r.Context())}
}

// writable refuses writes while the registry is read-only.
func (s *Server) writable(ctx context.Context) error {
	if s.Closed == nil {
		return nil
	}
	return s.Closed(ctx)
}

// onTags refuses what the caller may do in the repository, but not with these
// tags: a robot's rights can be limited to patterns of tags.
func (c *call) onTags(need Actions, tags ...string) error {
	if c.who.MayTag == nil {
		return nil
	}
	for _, tag := range tags {
		may, err := c.who.MayTag(c.r.Context(), c.name, tag)
		if err != nil {
			return err
		}
		if may&need != 0 {
			continue
		}
		what := "the tag " + tag
		if tag == access.EveryTag {
			what = "a whole artifact"
		}
		return fault.New(fault.Forbidden, "%s is limited to tags that match a pattern, and may not %s %s of %s", c.who.User, need, what, c.name).
			WithHint("the robot's permissions name the patterns")
	}
	return nil
}

var methodFault = &fault.Error{Kind: fault.Unsupported, Text: "the method is not allowed here"}

func denied(repo string, need Actions) error {
	return fault.New(fault.Unauthenticated, "unauthorized to access repository: %s, action: %s", repo, need)
}

// challenge sets WWW-Authenticate as the Docker token specification and Harbor
// do: Bearer, unless the caller tried a password.
func (s *Server) challenge(c *call, ask Actions) {
	h := c.w.Header()
	if c.who.Basic || strings.HasPrefix(c.r.Header.Get("Authorization"), "Basic ") {
		h["Www-Authenticate"] = []string{`Basic realm="harbor"`}
		return
	}
	var b strings.Builder
	b.WriteString(`Bearer realm="`)
	b.WriteString(scheme(c.r))
	b.WriteString("://")
	b.WriteString(safeHost(c.r.Host))
	b.WriteString(`/service/token",service="harbor-registry"`)
	switch {
	case c.end == endCatalog:
		b.WriteString(`,scope="registry:catalog:*"`)
	case c.name != "" && ask != 0:
		b.WriteString(`,scope="repository:` + c.name + ":" + ask.String())
		if from := c.mountSource(); from != "" {
			b.WriteString(" repository:" + from + ":pull")
		}
		b.WriteString(`"`)
	}
	if c.r.Header.Get("Authorization") != "" {
		b.WriteString(`,error="insufficient_scope"`)
	}
	h["Www-Authenticate"] = []string{b.String()}
}

// mountSource is the repository that a mount request names, if it is a name.
func (c *call) mountSource() string {
	if c.end != endUploads || c.r.URL.RawQuery == "" {
		return ""
	}
	from := c.query().Get("from")
	if c.query().Get("mount") == "" || reference.CheckName(from) != nil {
		return ""
	}
	return from
}

// safeHost keeps a stranger's Host header from ending the quoted string.
func safeHost(host string) string {
	return strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || r < '!' || r > '~' {
			return -1
		}
		return r
	}, host)
}

func scheme(r *http.Request) string {
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		return "https"
	}
	return "http"
}

// source is the client's address without its port.
func source(r *http.Request) string {
	if i := strings.LastIndexByte(r.RemoteAddr, ':'); i > 0 {
		return strings.Trim(r.RemoteAddr[:i], "[]")
	}
	return r.RemoteAddr
}

func (s *Server) base(c *call) error {
	reply(c.w, http.StatusOK, "application/json", []byte("{}"))
	return nil
}

func reply(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body)
}

// empty answers without a body.
func empty(w http.ResponseWriter, status int) {
	w.Header()["Content-Length"] = []string{"0"}
	w.WriteHeader(status)
}

// notModified reports whether the client has the representation already.
func notModified(r *http.Request, etag string) bool {
	match := r.Header.Get("If-None-Match")
	if match == "" {
		return false
	}
	for part := range strings.SplitSeq(match, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == "*" || strings.Trim(part, `"`) == etag {
			return true
		}
	}
	return false
}

// cacheable marks content that is named by its hash.
func cacheable(h http.Header, d string) {
	h["Docker-Content-Digest"] = []string{d}
	h["Etag"] = []string{`"` + d + `"`}
}
