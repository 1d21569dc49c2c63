// Package event tells the rest of Berth what has happened: an artifact was
// pushed, a project deleted, a user has logged in.
//
// An event is a River job that is inserted in the transaction of the change it
// tells of (Outbox.Add). So none is lost, and none tells of a change that was
// rolled back. The jobs service consumes it, at least once; ID tells a
// repetition from a second event.
package event

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// Event is one thing that happened. Operation and ResourceType together are
// Harbor's audit event types ("create" + "artifact", "login" + "user").
type Event struct {
	ID           uuid.UUID `json:"id"`
	Time         time.Time `json:"time"`
	Operation    string    `json:"operation"`             // create, delete, update, pull, login, logout
	ResourceType string    `json:"resource_type"`         // artifact, tag, repository, project, user, robot, member, configuration
	Resource     string    `json:"resource"`              // "library/app:1.0", a project's or a user's name
	Description  string    `json:"description,omitempty"` // a sentence for the audit trail
	Success      bool      `json:"success"`
	User         string    `json:"user,omitempty"` // "" = anonymous
	Source       string    `json:"source,omitempty"`
	RequestID    string    `json:"request_id,omitempty"`
	TokenRequest string    `json:"token_request,omitempty"` // see Origin
	Trace        string    `json:"trace,omitempty"`         // see Origin
	ProjectID    int64     `json:"project_id,omitempty"`
	RepositoryID int64     `json:"repository_id,omitempty"`
	Repository   string    `json:"repository,omitempty"` // whole name
	Digest       string    `json:"digest,omitempty"`
	Tag          string    `json:"tag,omitempty"`

	// Artifacts are those that a change of many has touched: the deletion of a
	// repository. At most MaxArtifacts of them.
	Artifacts []Artifact `json:"artifacts,omitempty"`
	// Notice makes it an event that webhooks are told of and the audit trail is
	// not: nobody has done it. Its fields go into a webhook's event_data as they
	// are: {"retention":{…}} of a retention. Without one the data of a quota's event
	// is its Description.
	Notice json.RawMessage `json:"notice,omitempty"`
}

// Artifact is one of an event's artifacts, with one of its tags.
type Artifact struct {
	Digest string `json:"digest"`
	Tag    string `json:"tag,omitempty"`
}

// MaxArtifacts bounds an event's list of artifacts.
const MaxArtifacts = 1000

// The operations of notices, with the resource type quota and tag_retention.
const (
	QuotaExceed  = "quota_exceed"
	QuotaWarning = "quota_warning"
	Retained     = "retention"
)

// Types are the kinds of events that the audit trail knows, in Harbor's words:
// an operation and what it was done to.
func Types() []string {
	return []string{
		"create_artifact", "delete_artifact", "pull_artifact",
		"create_project", "delete_project", "update_project",
		"delete_repository", "login_user", "logout_user",
		"create_user", "delete_user", "update_user",
		"create_robot", "delete_robot", "update_configuration",
		"create_member", "delete_member", "update_member",
	}
}

// Kind is the job's name in River.
func (Event) Kind() string { return "event" }

// InsertOpts puts events into a queue of their own, so that long jobs never
// hold them up.
func (Event) InsertOpts() river.InsertOpts { return river.InsertOpts{Queue: Queue, MaxAttempts: 25} }

// Queue is the River queue of events.
const Queue = "events"

// Outbox inserts events.
type Outbox struct {
	client *river.Client[pgx.Tx]
	woken  atomic.Int64 // when Queue last told the workers, in Unix nanoseconds
}

// NewOutbox makes an outbox on the pool's database.
func NewOutbox(pool *pgxpool.Pool) (*Outbox, error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		return nil, err
	}
	return &Outbox{client: client}, nil
}

// Add inserts events in tx. It fills in ID, Time and what the context knows of
// the request (see With).
func (o *Outbox) Add(ctx context.Context, tx pgx.Tx, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(events))
	for i, e := range events {
		params[i] = river.InsertManyParams{Args: complete(ctx, e)}
	}
	_, err := o.client.InsertManyTx(ctx, tx, params)
	return err
}

// Queue puts the statements that insert an event into a batch that runs in a
// transaction. It is Add for the hottest path: no round trip of its own, and a
// statement that takes a third of the time of River's, which serves any number
// of jobs of any kind. The row is the same, and the test compares them.
func (o *Outbox) Queue(ctx context.Context, batch *pgx.Batch, e Event) error {
	args, err := json.Marshal(complete(ctx, e))
	if err != nil {
		return err
	}
	opts := e.InsertOpts()
	batch.Queue(`INSERT INTO river_job (args, kind, max_attempts, queue) VALUES ($1, $2, $3, $4)`,
		args, e.Kind(), int16(opts.MaxAttempts), opts.Queue)
	// As River does: the workers look every few seconds, and sooner if they are
	// told, which is done rarely, for all notifications of a server queue up.
	now, last := time.Now().UnixNano(), o.woken.Load()
	if now-last > int64(wakeEvery) && o.woken.CompareAndSwap(last, now) {
		batch.Queue(`SELECT pg_notify(current_schema() || '.river_insert', $1)`, `{"queue": "`+opts.Queue+`"}`)
	}
	return nil
}

const wakeEvery = 100 * time.Millisecond

// complete fills in what the caller left open.
func complete(ctx context.Context, e Event) Event {
	origin := From(ctx)
	if e.ID == uuid.Nil {
		e.ID = uuid.New()
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC().Truncate(time.Microsecond)
	}
	if e.User == "" {
		e.User = origin.User
	}
	if e.Trace == "" {
		e.Trace = origin.Trace
	}
	if e.Source == "" && e.RequestID == "" {
		e.Source, e.RequestID, e.TokenRequest = origin.Source, origin.RequestID, origin.TokenRequest
	}
	return e
}

// Origin is who made a request, from where.
type Origin struct {
	User      string // login name; "" = anonymous
	Source    string // the client's address
	RequestID string
	// TokenRequest is the id of the request that got the token: all requests of one
	// push share it.
	TokenRequest string
	// Trace is the span that the request is, as a W3C traceparent; "" while traces
	// are off.
	Trace string
}

type originKey struct{}

// With gives a context whose events carry o.
func With(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// From gives what With put into ctx.
func From(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}
