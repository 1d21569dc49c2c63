package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/appliance/version"
	"berth/services/database"
	"berth/services/event"
	"berth/services/outbound"
	"berth/services/task"
	"berth/services/trace"
)

// Consume starts the deliveries that an event asks for: for each policy of its
// project that is enabled and names its type, once however often it is called.
func (s *Store) Consume(ctx context.Context, e event.Event) error {
	kind := typeOf(e)
	if kind == "" || e.ProjectID == 0 || !e.Success && e.ResourceType == "artifact" {
		return nil // what was tried and refused did not happen
	}
	rows, err := s.Pool.Query(ctx, `SELECT `+columns+` FROM webhook_policies WHERE project_id = $1 AND enabled AND $2 = ANY(event_types) ORDER BY id`, e.ProjectID, kind)
	if err != nil {
		return database.Fault(err)
	}
	policies, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Policy, error) { return s.scan(row) })
	if err != nil || len(policies) == 0 {
		return database.Fault(err)
	}
	settings, err := s.Configuration.Current(ctx)
	if err != nil || !settings.Notifications {
		return err
	}
	n, err := s.notice(ctx, kind, e)
	if err != nil {
		return err
	}
	return database.Fault(database.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		for _, p := range policies {
			if _, err := s.start(ctx, tx, p, n, task.Event); err != nil {
				return err
			}
		}
		return nil
	}))
}

// notice gathers what deliveries of an event say.
func (s *Store) notice(ctx context.Context, kind string, e event.Event) (notice, error) {
	var at place
	err := s.Pool.QueryRow(ctx, `SELECT p.name, p.public, coalesce(r.created_at, '0001-01-01'::timestamptz)
		FROM projects p LEFT JOIN repositories r ON r.id = $2 WHERE p.id = $1`, e.ProjectID, e.RepositoryID).Scan(&at.project, &at.public, &at.created)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return notice{}, database.Fault(err)
	}
	p, err := payloadOf(kind, e, at, s.Host)
	if err != nil {
		return notice{}, err
	}
	text, err := json.Marshal(p)
	return notice{kind, string(text), e.ID, e.RequestID, e.TokenRequest, e.Trace}, err
}

// delivery is the parameters of a task.
type delivery struct {
	Target int    `json:"target"` // which of the policy's
	Type   string `json:"type"`
	Status int    `json:"status,omitempty"` // of the last answer
}

// tries is how often a delivery is tried.
const tries = 3

func (s *Store) start(ctx context.Context, tx pgx.Tx, p Policy, n notice, trigger string) (int64, error) {
	tasks := make([]task.NewTask, len(p.Targets))
	for i, t := range p.Targets {
		tasks[i] = task.NewTask{Vendor: task.Webhook, MaxAttempts: tries, Extra: delivery{Target: i, Type: t.Type}}
		if t.Type == Slack {
			tasks[i].Vendor = task.Slack
		}
	}
	return s.Tasks.Start(ctx, tx, task.New{Vendor: task.Webhook, VendorID: p.ID, Trigger: trigger, Extra: n, EventID: n.EventID}, tasks...)
}

// Test starts the delivery of a made-up event of the policy's first type, and
// gives the execution's id. Errors: NotFound.
func (s *Store) Test(ctx context.Context, project, id int64) (execution int64, err error) {
	p, err := s.Get(ctx, project, id)
	if err != nil {
		return 0, err
	}
	var name string
	if err := s.Pool.QueryRow(ctx, `SELECT name FROM projects WHERE id = $1`, project).Scan(&name); err != nil {
		return 0, database.Fault(err)
	}
	sum := sha256.Sum256(nil)
	origin := event.From(ctx)
	n, err := s.notice(ctx, p.EventTypes[0], event.Event{
		ID: uuid.New(), Time: time.Now(), User: origin.User, RequestID: origin.RequestID, ProjectID: project,
		Repository: name + "/test", Tag: "test", Digest: "sha256:" + hex.EncodeToString(sum[:]),
		Notice: json.RawMessage(`{"custom_attributes":{"Details":"This is a test: nothing has happened."}}`),
	})
	if err != nil {
		return 0, err
	}
	err = database.InTx(ctx, s.Pool, func(tx pgx.Tx) (err error) {
		execution, err = s.start(ctx, tx, p, n, task.Manual)
		return err
	})
	return execution, database.Fault(err)
}

// workers is how many deliveries a node makes at once: they mostly wait.
const workers = 24

// Kinds deliver.
func (s *Store) Kinds() ([]task.Kind, error) {
	d := deliverer{Store: s}
	for i, skip := range []bool{false, true} {
		var err error
		if d.clients[i], err = s.Dialer.Client(outbound.Options{Timeout: s.Timeout, SkipVerify: skip}); err != nil {
			return nil, err
		}
	}
	wait := s.Backoff
	if wait == nil {
		wait = func(n int) time.Duration { return []time.Duration{5 * time.Second, 30 * time.Second}[min(n-1, 1)] }
	}
	kind := task.Kind{Run: d.deliver, Workers: workers, Timeout: s.Timeout + 30*time.Second, Backoff: wait, Keep: 500}
	http, slack := kind, kind
	http.Vendor, slack.Vendor = task.Webhook, task.Slack
	return []task.Kind{http, slack}, nil
}

// deliverer makes deliveries.
type deliverer struct {
	*Store
	clients [2]*http.Client // the second accepts any certificate
}

// deliver makes one try of one delivery.
func (d *deliverer) deliver(ctx context.Context, r *task.Run) (err error) {
	var n notice
	if err := json.Unmarshal(r.Params, &n); err != nil {
		return task.Permanent(err)
	}
	ctx, span := d.Tracer.Consume(trace.With(ctx, n.Trace), "deliver webhook")
	defer func() { span.End(err) }()
	span.String("berth.event", n.Type)
	span.Int("berth.attempt", int64(r.Task.Attempts))
	if about := logger.RequestOf(ctx); about != nil {
		about.ID, about.TokenRequest, about.TraceID = n.RequestID, n.TokenRequest, span.ID()
	}
	var what delivery
	if err := r.Decode(&what); err != nil {
		return err
	}
	p, err := d.scan(d.Pool.QueryRow(ctx, `SELECT `+columns+` FROM webhook_policies WHERE id = $1`, r.VendorID))
	if errors.Is(err, pgx.ErrNoRows) {
		return task.Permanent(errors.New("the policy was deleted"))
	}
	if err != nil {
		return database.Fault(err)
	}
	if what.Target >= len(p.Targets) || p.Targets[what.Target].Type != what.Type {
		return task.Permanent(errors.New("the policy's targets have changed since"))
	}
	t := p.Targets[what.Target]
	req, err := n.request(ctx, t, p, r.Task.ID)
	if err != nil {
		return task.Permanent(err)
	}
	logRequest(r, req)
	client := d.clients[0]
	if t.SkipCertVerify {
		client = d.clients[1]
	}
	began := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return d.explain(err)
	}
	defer res.Body.Close()
	snippet, _ := io.ReadAll(io.LimitReader(res.Body, 1024)) // what came is what is shown
	r.Log.Info("answer", "status", res.Status, "after", time.Since(began).Round(time.Millisecond), "body", string(snippet))
	span.Int("http.response.status_code", int64(res.StatusCode))
	if err := r.Checkpoint(ctx, map[string]int{"status": res.StatusCode}); err != nil {
		return err
	}
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return fmt.Errorf("the target answered %s: name the address that it leads to in the policy", res.Status)
	case res.StatusCode < 200 || res.StatusCode >= 400:
		return fmt.Errorf("the target answered %s", res.Status)
	}
	return nil
}

// request makes the request of a delivery.
func (n notice) request(ctx context.Context, t Target, p Policy, delivery int64) (*http.Request, error) {
	body, contentType, err := n.body(t, p.ProjectID, p.ID)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.Address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot make a request of the target's address: %w", withoutURL(err))
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "Berth/"+version.Version)
	req.Header.Set("X-Berth-Event", n.Type)
	req.Header.Set("X-Berth-Delivery", strconv.FormatInt(delivery, 10))
	if t.AuthHeader != "" {
		req.Header.Set("Authorization", t.AuthHeader)
	}
	if t.Secret != "" {
		mac := hmac.New(sha256.New, []byte(t.Secret))
		mac.Write(body)
		req.Header.Set("X-Berth-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return req, nil
}

// logRequest shows what is sent where, without what opens doors: a Slack
// address is a password from its path on.
func logRequest(r *task.Run, req *http.Request) {
	r.Log.Info("request", "to", req.URL.Scheme+"://"+req.URL.Host+"/…", "bytes", req.ContentLength, "try", fmt.Sprintf("%d of %d", r.Task.Attempts, r.Task.MaxAttempts))
	names := make([]string, 0, len(req.Header))
	for name := range req.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := req.Header.Get(name)
		if name == "Authorization" {
			value = "redacted"
		}
		r.Log.Info("header", name, value)
	}
}

// withoutURL takes the address out of an error of net/http and net/url.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// explain says why there was no answer. What is refused stays refused while the
// settings are as they are.
func (d *deliverer) explain(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		said := errors.New(f.Text)
		if f.Hint != "" {
			said = fmt.Errorf("%s; %s", f.Text, f.Hint)
		}
		if f.Kind != fault.Precondition { // such as a proxy that is down
			return said
		}
		return task.Permanent(said)
	}
	if u, ok := errors.AsType[*url.Error](err); ok && u.Timeout() {
		return fmt.Errorf("the target did not answer within %s", d.Timeout)
	}
	return withoutURL(err)
}
