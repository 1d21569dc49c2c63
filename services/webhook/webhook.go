// Package webhook tells others what happens in a project, by HTTP.
//
// A policy names the types of events and the targets. The jobs service hands
// every event to Store.Consume, which starts an execution for each policy that
// wants it, once for each (event, policy) however often the event comes, with a
// task for each target; Store.Kinds are what delivers them. Since events are
// written in the transaction of what they tell of, nothing is told that did not
// happen, and nothing is forgotten. The order of deliveries is not promised.
//
// Targets are sealed in the database: what is in an address or in a header lets
// its holder post somewhere. Connections go through package outbound.
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/configuration"
	"berth/services/database"
	"berth/services/outbound"
	"berth/services/query"
	"berth/services/task"
	"berth/services/trace"
)

// EventTypes are what a policy can name.
func EventTypes() []string {
	return []string{"PUSH_ARTIFACT", "PULL_ARTIFACT", "DELETE_ARTIFACT", "QUOTA_EXCEED", "QUOTA_WARNING",
		"SCANNING_FAILED", "SCANNING_STOPPED", "SCANNING_COMPLETED", "REPLICATION", "TAG_RETENTION"}
}

// The kinds of targets, and the formats of what an HTTP target is sent.
const (
	HTTP        = "http"
	Slack       = "slack"
	Default     = "Default"
	CloudEvents = "CloudEvents"
)

// Target is where a policy's deliveries go.
type Target struct {
	Type           string `json:"type"`
	Address        string `json:"address"`
	AuthHeader     string `json:"auth_header,omitempty"` // sent as Authorization, as it is
	SkipCertVerify bool   `json:"skip_cert_verify"`
	PayloadFormat  string `json:"payload_format,omitempty"` // of HTTP targets
	// Secret signs what is sent: HMAC-SHA256, in the header X-Berth-Signature-256.
	Secret string `json:"secret,omitempty"`
}

// Policy says who is told of what.
type Policy struct {
	ID          int64
	ProjectID   int64
	Name        string
	Description string
	EventTypes  []string
	Targets     []Target
	Enabled     bool
	Created     time.Time
	Updated     time.Time
}

// Options are what a Store works with.
type Options struct {
	Pool          *pgxpool.Pool
	Key           secret.Key // seals targets
	Tasks         *task.Store
	Configuration *configuration.Store
	Dialer        *outbound.Dialer
	// Host is what images' names begin with: registry.example.com:8443.
	Host string
	// Backoff is the wait after the n-th failed try; nil is 5 and 30 seconds.
	Backoff func(n int) time.Duration
	// Timeout bounds one try; 0 is 5 s. Harbor has 3.
	Timeout time.Duration
	// Tracer makes spans of deliveries; nil = none.
	Tracer *trace.Tracer
}

// Store keeps policies, and starts and makes deliveries.
type Store struct{ Options }

// New makes a Store.
func New(o Options) *Store {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	return &Store{o}
}

const purpose = "webhook targets"

func (s *Store) seal(targets []Target) ([]byte, error) {
	b, err := json.Marshal(targets)
	if err != nil {
		return nil, fmt.Errorf("cannot seal a webhook's targets: %w", err)
	}
	return s.Key.Seal(purpose, b), nil
}

func (s *Store) unseal(sealed []byte) (targets []Target, err error) {
	b, err := s.Key.Open(purpose, sealed)
	if err != nil {
		return nil, err
	}
	return targets, json.Unmarshal(b, &targets)
}

// Limits of a policy.
const (
	maxName    = 255
	maxTargets = 10
	maxHeader  = 4096
)

// check completes a policy and says what is wrong with it. Errors: Invalid.
func (p *Policy) check() error {
	p.Name, p.Targets = strings.TrimSpace(p.Name), slices.Clone(p.Targets)
	switch {
	case p.Name == "" || len(p.Name) > maxName:
		return fault.New(fault.Invalid, "name must have 1 to %d characters", maxName).On("name")
	case len(p.Description) > 1024:
		return fault.New(fault.Invalid, "description must have at most 1024 characters").On("description")
	case len(p.EventTypes) == 0:
		return fault.New(fault.Invalid, "event_types is empty: name at least one").On("event_types")
	case len(p.Targets) == 0 || len(p.Targets) > maxTargets:
		return fault.New(fault.Invalid, "targets must have 1 to %d targets", maxTargets).On("targets")
	}
	for _, t := range p.EventTypes {
		if !slices.Contains(EventTypes(), t) {
			return fault.New(fault.Invalid, "event_types: there is no event type %q", t).On("event_types")
		}
	}
	for i := range p.Targets {
		if err := p.Targets[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) check() error {
	u, err := outbound.CheckURL(t.Address)
	if err != nil {
		return fault.New(fault.Invalid, "targets.address: %s", fault.Of(err).Text).On("targets.address")
	}
	if u.Fragment != "" {
		return fault.New(fault.Invalid, "targets.address must have no #fragment").On("targets.address")
	}
	switch t.Type {
	case HTTP:
		if t.PayloadFormat == "" {
			t.PayloadFormat = Default
		}
		if t.PayloadFormat != Default && t.PayloadFormat != CloudEvents {
			return fault.New(fault.Invalid, "targets.payload_format must be %s or %s, not %q", Default, CloudEvents, t.PayloadFormat).On("targets.payload_format")
		}
	case Slack:
		if t.PayloadFormat != "" {
			return fault.New(fault.Invalid, "targets.payload_format must be empty for slack").On("targets.payload_format")
		}
	default:
		return fault.New(fault.Invalid, "targets.type must be %s or %s, not %q", HTTP, Slack, t.Type).On("targets.type")
	}
	if len(t.AuthHeader) > maxHeader || strings.ContainsFunc(t.AuthHeader, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fault.New(fault.Invalid, "targets.auth_header must be one line of at most %d characters", maxHeader).On("targets.auth_header")
	}
	if len(t.Secret) > 1024 {
		return fault.New(fault.Invalid, "targets.hmac_secret must have at most 1024 characters").On("targets.hmac_secret")
	}
	return nil
}

const columns = `id, project_id, name, description, event_types, targets, enabled, created_at, updated_at`

func (s *Store) scan(row pgx.Row) (p Policy, err error) {
	var sealed []byte
	if err = row.Scan(&p.ID, &p.ProjectID, &p.Name, &p.Description, &p.EventTypes, &sealed, &p.Enabled, &p.Created, &p.Updated); err != nil {
		return p, err
	}
	p.Targets, err = s.unseal(sealed)
	return p, err
}

func nameTaken(err error, p Policy) error {
	if database.Code(err) == database.UniqueViolation {
		return fault.New(fault.Conflict, "the project has a webhook policy named %q already", p.Name).On("name")
	}
	return database.Fault(err)
}

// Create makes a policy. Errors: Invalid, Conflict.
func (s *Store) Create(ctx context.Context, p Policy) (id int64, err error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	sealed, err := s.seal(p.Targets)
	if err != nil {
		return 0, err
	}
	err = s.Pool.QueryRow(ctx, `INSERT INTO webhook_policies (project_id, name, description, event_types, targets, enabled)
		VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`, p.ProjectID, p.Name, p.Description, p.EventTypes, sealed, p.Enabled).Scan(&id)
	return id, nameTaken(err, p)
}

// Update puts a policy in the place of another. A target without a secret keeps
// the one of the old target with its address, unless forget says which targets
// (by index) are to have none. Errors: NotFound, Invalid, Conflict.
func (s *Store) Update(ctx context.Context, p Policy, forget map[int]bool) error {
	if err := p.check(); err != nil {
		return err
	}
	err := database.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		old, err := s.scan(tx.QueryRow(ctx, `SELECT `+columns+` FROM webhook_policies WHERE id = $1 AND project_id = $2 FOR UPDATE`, p.ID, p.ProjectID))
		if errors.Is(err, pgx.ErrNoRows) {
			return notFound(p.ID)
		}
		if err != nil {
			return err
		}
		for i := range p.Targets {
			for _, o := range old.Targets {
				if t := &p.Targets[i]; t.Secret == "" && !forget[i] && t.Address == o.Address {
					t.Secret = o.Secret
				}
			}
		}
		sealed, err := s.seal(p.Targets)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE webhook_policies SET name = $2, description = $3, event_types = $4, targets = $5, enabled = $6, updated_at = now() WHERE id = $1`,
			p.ID, p.Name, p.Description, p.EventTypes, sealed, p.Enabled)
		return err
	})
	return nameTaken(err, p)
}

// Delete removes a policy and what is known of its deliveries; those that are
// under way end. Errors: NotFound.
func (s *Store) Delete(ctx context.Context, project, id int64) error {
	return database.Fault(database.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM webhook_policies WHERE id = $1 AND project_id = $2`, id, project)
		if err == nil && tag.RowsAffected() == 0 {
			return notFound(id)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM executions WHERE vendor = $1 AND vendor_id = $2`, task.Webhook, id)
		}
		return err
	}))
}

// Get gets a policy of a project. Errors: NotFound.
func (s *Store) Get(ctx context.Context, project, id int64) (Policy, error) {
	p, err := s.scan(s.Pool.QueryRow(ctx, `SELECT `+columns+` FROM webhook_policies WHERE id = $1 AND project_id = $2`, id, project))
	if errors.Is(err, pgx.ErrNoRows) {
		return p, notFound(id)
	}
	return p, database.Fault(err)
}

func notFound(id int64) error {
	return fault.New(fault.NotFound, "webhook policy %d not found", id)
}

var fields = query.Columns{
	"id": {SQL: "id", Type: query.Number}, "name": {SQL: "name"}, "description": {SQL: "description"}, "enabled": {SQL: "enabled", Type: query.Bool},
	"creationtime": {SQL: "created_at", Type: query.Moment}, "updatetime": {SQL: "updated_at", Type: query.Moment},
}

// List gives a page of a project's policies, newest first.
func (s *Store) List(ctx context.Context, project int64, q query.Query) (query.Page[Policy], error) {
	var w query.Where
	w.And("project_id = %s", project)
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Policy]{}, err
	}
	page, err := query.Fetch(ctx, s.Pool, `SELECT count(*) FROM webhook_policies`+w.String(),
		`SELECT `+columns+` FROM webhook_policies`+w.String()+q.OrderBy(fields, "id DESC")+q.Limit(), w.Args,
		func(row pgx.CollectableRow) (Policy, error) { return s.scan(row) })
	return page, database.Fault(err)
}

// Trigger is when a policy was last made to deliver a type of event.
type Trigger struct {
	Policy  string
	Type    string
	Enabled bool
	Created time.Time // of the policy
	Last    time.Time // zero: never
}

// Triggers lists the last triggers of a project's policies.
func (s *Store) Triggers(ctx context.Context, project int64) ([]Trigger, error) {
	rows, err := s.Pool.Query(ctx, `
		SELECT p.name, t.type, p.enabled, p.created_at, coalesce((SELECT max(e.started_at) FROM executions e
			WHERE e.vendor = $2 AND e.vendor_id = p.id AND e.extra->>'event_type' = t.type), '0001-01-01'::timestamptz)
		FROM webhook_policies p, unnest(p.event_types) WITH ORDINALITY AS t(type, n) WHERE p.project_id = $1 ORDER BY p.id DESC, t.n`, project, task.Webhook)
	if err != nil {
		return nil, database.Fault(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Trigger])
	return list, database.Fault(err)
}
