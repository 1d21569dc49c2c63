// Package core serves the REST API: Harbor's v2.0 at /api/v2.0, and what Harbor
// lacks at /api/berth/v1.
//
// The whole API is the table in routes.go. A row names the method, the path, who
// may call it, and the handler, whose argument and result types are the wire
// format; the OpenAPI document is made from the same rows. A request goes
//
//	front door ► Handler (request id, who asks) ► route (access, parameters)
//	  ► handler (one domain call) ► reply or fault
//
// Handlers hold no rules of their own: the domain packages do. Faults are
// rendered in reply.go alone.
//
// Core listens on a unix socket behind the front door, whose X-Forwarded-For and
// X-Request-Id it believes.
//
// # Where we differ from Harbor on purpose
//
//   - Who may not call a route learns so before its parameters are looked at:
//     401 and 403 come before 422.
//   - A role that does not exist is 400, not 409.
//   - Sessions are made at login, under a new id, and by nothing else. A new
//     password ends them.
//   - An OIDC user's CLI secret does not end with the provider's tokens, and is
//     shown to its owner alone. Neither it nor a personal access token changes its
//     own user's credentials.
//   - A local user's name is never taken over by an LDAP user of that name.
//   - A list without pages (page_size 0 or less) has no link to a next page.
//   - A key of a project's metadata that is set is kept, also if it was not
//     added before.
//   - A robot with user:update neither makes system administrators nor sets
//     their passwords.
//   - Deleting a user leaves the user's projects without an owner; the last
//     system administrator can neither be deleted nor demoted (412).
//   - A wrong password costs the same source alone a wait (429, Retry-After), and
//     nobody else; a wrong one repeated costs nothing.
//   - The audit trail is counted up to 10,000 entries, and no page has more.
//   - HEAD works wherever GET does.
//   - A webhook's policy has one execution for an event, with a task for each
//     target; deleting a repository is one event that lists its artifacts.
//   - Stopping has happened when the answer comes; a job type or worker pool that
//     does not exist is 404.
//   - Robots say when they were last used.
package core

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"berth/appliance/health"
	"berth/appliance/secret"
	"berth/services/account"
	"berth/services/artifact"
	"berth/services/configuration"
	"berth/services/directory"
	"berth/services/immutability"
	"berth/services/label"
	"berth/services/logs"
	"berth/services/metric"
	"berth/services/oidc"
	"berth/services/outbound"
	"berth/services/project"
	"berth/services/quota"
	"berth/services/retention"
	"berth/services/session"
	"berth/services/task"
	"berth/services/trace"
	"berth/services/upkeep"
	"berth/services/webhook"
)

// Options are what the API works with.
type Options struct {
	Pool      *pgxpool.Pool
	Accounts  *account.Store
	Projects  *project.Store
	Artifacts *artifact.Store
	Log       *slog.Logger
	// Metrics is where the API registers its own; nil = nowhere.
	Metrics prometheus.Registerer
	// Tracer makes spans; nil = none.
	Tracer *trace.Tracer
	// Configuration has what administrators change while Berth runs.
	Configuration *configuration.Store
	// Directory is the LDAP directory that the settings name.
	Directory *directory.Client
	// OIDC is the provider that the settings name.
	OIDC *oidc.Client
	// Dialer connects to what administrators name: directories, OIDC providers.
	Dialer *outbound.Dialer
	// Sessions are the browsers'.
	Sessions *session.Store
	// Tasks are what runs in the background, and Upkeep what of it Berth does on itself.
	Tasks  *task.Store
	Upkeep *upkeep.Store
	// Webhooks tell others what happens in projects.
	Webhooks *webhook.Store
	// Logs asks the log service; nil if it is turned off.
	Logs *logs.Client
	// Key signs what browsers keep for us. Nodes that share a database share it.
	Key secret.Key

	// Labels, Quotas, Immutability and Retention have the labels and rules of projects.
	Labels       *label.Store
	Retention    *retention.Store
	Quotas       *quota.Store
	Immutability *immutability.Store

	// Checks are the components that GET /health asks.
	Checks []health.Check
	// OpenBlob opens a blob's bytes by storage key; images' configurations are read with it.
	OpenBlob func(ctx context.Context, key string) (io.ReadCloser, error)
	// Volume gives the size and the free space of the blob store; nil when it has no end.
	Volume func() (total, free uint64, err error)
	// CA gives the PEM of the certificate authority that clients should trust, or nothing.
	CA func() ([]byte, error)
	// ExternalURL is where clients find this Berth: https://registry.example.com.
	ExternalURL string
	// StorageName is the blob store's kind: filesystem, s3.
	StorageName string
}

// API answers the REST API.
type API struct {
	Options
	mux     *http.ServeMux
	openAPI []byte
	icons   icons
	csrfKey []byte
	meters  *metric.HTTP
	early   *metric.Route // what is refused before it has a route
	well    lastHealth
	handler http.Handler // answer, in spans
}

// New makes the API.
func New(o Options) (*API, error) {
	if o.Pool == nil || o.Accounts == nil || o.Projects == nil || o.Artifacts == nil || o.Configuration == nil || o.Sessions == nil || o.OpenBlob == nil ||
		o.Directory == nil || o.OIDC == nil || o.Dialer == nil || o.Labels == nil || o.Retention == nil || o.Quotas == nil || o.Immutability == nil {
		return nil, errors.New("cannot make the REST API without its database, accounts, projects, artifacts, configuration, directory, sessions, rules and blobs")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{Options: o, mux: http.NewServeMux(), csrfKey: o.Key.For("csrf tokens"), meters: metric.NewHTTP(o.Metrics, metric.Small)}
	for _, rt := range routes {
		a.mux.Handle(rt.method+" "+rt.path, a.meters.Route(rt.path).Serve(a.serve(rt)))
	}
	a.mux.Handle("/", a.meters.Route("none").Serve(http.HandlerFunc(a.noRoute)))
	docs, err := docsPage()
	if err != nil {
		return nil, err
	}
	pages := a.meters.Route("pages")
	a.mux.Handle("GET /{$}", pages.Serve(http.HandlerFunc(a.front)))
	a.mux.Handle("GET /api/docs", pages.Serve(docs))
	a.mux.Handle("GET /api/docs/{file}", pages.Serve(docs))
	if a.icons, err = loadIcons(); err != nil {
		return nil, err
	}
	a.handler = o.Tracer.Handler("api", http.HandlerFunc(a.answer))
	a.early = a.meters.Route("refused")
	a.measureHealth(o.Metrics)
	a.openAPI, err = document()
	return a, err
}
