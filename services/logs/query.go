package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/appliance/fault"
	"berth/appliance/unit"
	"berth/services/forward"
	"berth/services/segment"
)

// APIOptions configure the log service's API.
type APIOptions struct {
	Store *segment.Store
	// Forward knows the collectors; nil if nothing is forwarded.
	Forward Forward
	// Intake gives figures of what comes in; nil if there are none.
	Intake func() Counts
	// Stopping ends tails when it is closed; nil = never.
	Stopping <-chan struct{}
	// Patience is how long a tail's client may take to read what it asked for; 0
	// means 20 s.
	Patience time.Duration
	Log      *slog.Logger
	Now      func() time.Time // nil = time.Now
}

// Forward is what the API needs of a forward.Forwarder.
type Forward interface {
	Status() []forward.Status
	Test(ctx context.Context, name string) (answer string, err error)
}

// api is the handler behind logs.sock.
type api struct {
	APIOptions
	mux   *http.ServeMux
	tails chan struct{} // as many as there may be
	pages chan struct{}
}

// maxPages is how many searches run at once: each takes a core, and some MiB.
// Others wait for their turn.
const maxPages = 4

// NewAPI makes the log service's API, which is served on a unix socket alone: who
// can open that may read all messages.
//
//	GET  /v1/messages?component=&level=&since=&until=&text=&request=&attr=key=value&order=&limit=&cursor=
//	GET  /v1/tail?…&from=      server-sent events: the id is the message's Seq
//	GET  /v1/stats
//	GET  /v1/collectors
//	POST /v1/collectors/{name}/test
func NewAPI(o APIOptions) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Patience <= 0 {
		o.Patience = tailPatience
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &api{APIOptions: o, mux: http.NewServeMux(), tails: make(chan struct{}, maxTails), pages: make(chan struct{}, maxPages)}
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/messages":                a.messages,
		"GET /v1/tail":                    a.tail,
		"GET /v1/stats":                   a.stats,
		"GET /v1/collectors":              a.collectors,
		"POST /v1/collectors/{name}/test": a.test,
		"/": func(http.ResponseWriter, *http.Request) error {
			return fault.New(fault.NotFound, "there is nothing here")
		},
	} {
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				a.refuse(w, r, err)
			}
		})
	}
	return a
}

// answer opens the socket of the API and serves it until ctx ends.
func (s *Service) answer(ctx context.Context, g *errgroup.Group) error {
	l, err := unit.Listen(ctx, "logs", "unix", s.API, 0o660)
	if err != nil {
		return err
	}
	o := APIOptions{Store: s.Store, Forward: s.Forward, Intake: s.Counts, Stopping: ctx.Done(), Log: s.Log, Now: s.Now}
	srv := &http.Server{Handler: NewAPI(o), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn)}
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // what is still under way is cut off
		}
		return nil
	})
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("cannot serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	return nil
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// pageWire is a page of messages. End is the Seq that the next message had when
// the search began: a tail from there on misses nothing that the page lacks.
type pageWire struct {
	Messages  []json.RawMessage `json:"messages"`
	Next      string            `json:"next,omitempty"`
	ScannedTo time.Time         `json:"scanned_to,omitzero"`
	End       uint64            `json:"end"`
}

func (a *api) messages(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.Query(), a.Now(), "order", "limit", "cursor")
	if err != nil {
		return err
	}
	select {
	case a.pages <- struct{}{}:
		defer func() { <-a.pages }()
	case <-r.Context().Done():
		return r.Context().Err()
	}
	end := a.Store.End()
	page, err := a.Store.Search(r.Context(), q)
	if err != nil {
		return err
	}
	out := pageWire{Messages: make([]json.RawMessage, len(page.Records)), Next: page.Next, ScannedTo: page.ScannedTo, End: end}
	for i := range page.Records {
		out.Messages[i] = AppendRecord(nil, &page.Records[i])
	}
	return reply(w, out)
}

func (a *api) stats(w http.ResponseWriter, _ *http.Request) error {
	out := struct {
		Store      segment.Stats `json:"store"`
		Components []string      `json:"components"` // that messages were seen of
		Intake     *Counts       `json:"intake,omitempty"`
	}{Store: a.Store.Stats(), Components: a.Store.Components()}
	if a.Intake != nil {
		out.Intake = new(a.Intake())
	}
	return reply(w, out)
}

func (a *api) collectors(w http.ResponseWriter, _ *http.Request) error {
	if a.Forward == nil {
		return reply(w, []forward.Status{})
	}
	return reply(w, a.Forward.Status())
}

func (a *api) test(w http.ResponseWriter, r *http.Request) error {
	if a.Forward == nil {
		return fault.New(fault.NotFound, "there is no collector %q: none is configured", r.PathValue("name")).On("name").
			WithHint("collectors stand in the settings file under logs.forward")
	}
	answer, err := a.Forward.Test(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return reply(w, map[string]string{"answer": answer})
}

// reply marshals before it writes the header, so that a failure is still a 500.
func reply(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // a client that has gone needs no answer
	return nil
}

// refusal is how errors look: as in the REST API, with the field and the hint.
type refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// status says how kinds of faults look on the wire.
func status(k fault.Kind) (int, string) {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest, "BAD_REQUEST"
	case fault.NotFound:
		return http.StatusNotFound, "NOT_FOUND"
	case fault.TooMany:
		return http.StatusTooManyRequests, "TOO_MANY_REQUEST"
	case fault.Precondition:
		return http.StatusPreconditionFailed, "PRECONDITION"
	case fault.Unavailable:
		return http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE"
	}
	return http.StatusInternalServerError, "UNKNOWN"
}

// refuse renders an error.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil {
		return // nobody is there any more
	}
	f := fault.Of(err)
	code, name := status(f.Kind)
	if code == http.StatusInternalServerError {
		a.Log.ErrorContext(r.Context(), "cannot answer about log messages", "path", r.URL.Path, "err", err)
	}
	text := f.Text
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	b, merr := json.Marshal(map[string][]refusal{"errors": {{name, text, f.Field, f.Hint}}})
	if merr != nil {
		b = []byte(`{"errors":[]}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
}
