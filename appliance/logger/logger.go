// Package logger is how Berth's processes log: slog, to standard error and to
// the log service, with the request that a line belongs to.
//
// Messages are constant, facts are attributes. The request's id comes from the
// context, so it is enough to log with one (InfoContext and its like).
package logger

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"berth/appliance/syslog"
)

// Request is what all lines of one request share. There is one for each request,
// in its context; whoever learns more about it fills in a field. It belongs to
// the goroutine that serves the request.
type Request struct {
	ID string
	// TokenRequest is the id of the request that got this one's token; all
	// requests of one push have it in common.
	TokenRequest string
	// User is who asks, as far as that is known.
	User string
	// TraceID is the W3C trace, in hexadecimal.
	TraceID string
}

type requestKey struct{}

// WithRequest gives a context whose lines tell of r.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf gives what WithRequest put into ctx, or nil.
func RequestOf(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}

// Requests puts the front door's request id into the context of requests that
// come over a unix socket.
func Requests(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(WithRequest(r.Context(), &Request{ID: r.Header.Get("X-Request-Id")})))
	})
}

// Options say where lines go.
type Options struct {
	Component string       // who speaks: registry, token, core …
	Stderr    io.Writer    // key=value for people and for systemd's journal; nil = none
	Level     slog.Leveler // nil = info
	Sink      *Sink        // to the log service; nil = none
}

// New makes a logger for a component. For gives that of another one.
func New(o Options) *slog.Logger {
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	h := &handler{component: o.Component, level: o.Level, sink: o.Sink}
	if o.Stderr != nil {
		h.text = slog.NewTextHandler(o.Stderr, &slog.HandlerOptions{Level: o.Level})
	}
	h.label()
	return slog.New(h)
}

// LevelNotice is for what is no fault of ours and may be somebody's question: a
// push that a rule refused. It is syslog's notice; slog has no name for it.
const LevelNotice = slog.LevelInfo + 2

// For gives log as another component's. A logger that New has not made gets the
// component as an attribute.
func For(log *slog.Logger, component string) *slog.Logger {
	h, ours := log.Handler().(*handler)
	if !ours {
		return log.With("component", component)
	}
	other := *h
	other.component = component
	other.label()
	return slog.New(&other)
}

// handler writes a record twice: as text, and as a syslog message. What only
// tells of a request's course goes to the log service alone: standard error is
// systemd's journal in the appliance, where a line costs as much as a request,
// and a person's terminal elsewhere.
type handler struct {
	component string
	level     slog.Leveler
	text      slog.Handler // nil = none; as it is before the component's name
	labelled  slog.Handler // text with the component's name
	sink      *Sink
	group     string        // a prefix for keys, with its dot
	attrs     []syslog.Attr // of With
}

// label puts the component's name into the text form, where nothing else has it.
func (h *handler) label() {
	h.labelled = h.text
	if h.text != nil && h.component != "" {
		h.labelled = h.text.WithAttrs([]slog.Attr{slog.String("component", h.component)})
	}
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	about := RequestOf(ctx)
	if h.sink != nil {
		h.sink.send(func(m *syslog.Message) {
			m.Time, m.Severity, m.Component, m.Text = r.Time, severity(r.Level), h.component, r.Message
			m.Attrs = append(m.Attrs, h.attrs...)
			r.Attrs(func(a slog.Attr) bool { m.Attrs = appendAttr(m.Attrs, h.group, a); return true })
			if about != nil {
				m.Attrs = about.append(m.Attrs)
			}
		})
	}
	if h.labelled == nil || about != nil && h.sink != nil && r.Level < slog.LevelWarn {
		return nil
	}
	if about != nil {
		r = r.Clone()
		for _, a := range about.append(nil) {
			r.AddAttrs(slog.String(a.Key, a.Value))
		}
	}
	return h.labelled.Handle(ctx, r)
}

// append adds what is known of a request, but not its user: lines have that
// themselves where it matters.
func (r *Request) append(attrs []syslog.Attr) []syslog.Attr {
	for _, a := range []syslog.Attr{{Key: syslog.RequestID, Value: r.ID}, {Key: syslog.TokenRequest, Value: r.TokenRequest}, {Key: syslog.TraceID, Value: r.TraceID}} {
		if a.Value != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	other := *h
	other.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		other.attrs = appendAttr(other.attrs, h.group, a)
	}
	if h.text != nil {
		other.text, other.labelled = h.text.WithAttrs(attrs), h.labelled.WithAttrs(attrs)
	}
	return &other
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	other := *h
	other.group += name + "."
	if h.text != nil {
		other.text, other.labelled = h.text.WithGroup(name), h.labelled.WithGroup(name)
	}
	return &other
}

// appendAttr flattens groups into keys with dots.
func appendAttr(attrs []syslog.Attr, group string, a slog.Attr) []syslog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range v.Group() {
			attrs = appendAttr(attrs, group, inner)
		}
		return attrs
	}
	if a.Key == "" {
		return attrs
	}
	return append(attrs, syslog.Attr{Key: group + a.Key, Value: valueText(v)})
}

// valueText is how the text handler writes a value, for most of them.
func valueText(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	}
	return v.String()
}

// severity gives syslog's word for a level. Levels between slog's own belong to
// the one below.
func severity(l slog.Level) syslog.Severity {
	switch {
	case l >= slog.LevelError:
		return syslog.Error
	case l >= slog.LevelWarn:
		return syslog.Warning
	case l >= LevelNotice:
		return syslog.Notice
	case l >= slog.LevelInfo:
		return syslog.Informational
	}
	return syslog.Debug
}

// Level reads the name of a level: debug, info, warn, error; empty means info.
// It is false for anything else.
func Level(name string) (slog.Level, bool) {
	if name == "" {
		return slog.LevelInfo, true
	}
	var l slog.Level
	err := l.UnmarshalText([]byte(strings.ToUpper(name)))
	return l, err == nil
}
