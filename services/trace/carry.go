package trace

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	otel "go.opentelemetry.io/otel/trace"

	"berth/appliance/logger"
)

// Header is the name of W3C Trace Context's header, as net/http writes it.
const Header = "Traceparent"

// parentLength is a traceparent's of version 00 (W3C Trace Context section 3.2).
const parentLength = 55

// Parent gives the span in ctx as a traceparent, by which others join it; "" if
// there is none.
func (t *Tracer) Parent(ctx context.Context) string {
	if t == nil || !otel.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

// With gives a context whose spans join a traceparent. One that is none changes
// nothing.
func With(ctx context.Context, parent string) context.Context {
	if len(parent) != parentLength {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}

// join gives the context of a request that the tracer is about to serve: below the
// client's traceparent, or else below the span in its token.
func (t *Tracer) join(r *http.Request) context.Context {
	ctx := r.Context()
	if h := r.Header[Header]; len(h) == 1 {
		return With(ctx, h[0])
	}
	if h := r.Header["Authorization"]; len(h) == 1 {
		return With(ctx, InToken(h[0]))
	}
	return ctx
}

// maxToken is how long a token may be that is looked into; the registry takes no
// longer ones.
const maxToken = 16 << 10

// InToken gives the claim of a bearer token that names its span, unverified; "" if
// there is none.
func InToken(authorization string) string {
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || len(token) > maxToken || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, ok := strings.Cut(rest, ".")
	if !ok {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var claims struct {
		Trace string `json:"trace"`
	}
	if json.Unmarshal(b, &claims) != nil || len(claims.Trace) != parentLength {
		return ""
	}
	return claims.Trace
}

// Pass puts the span in ctx into the headers of a request to another service, in
// place of what a client wrote there.
func (t *Tracer) Pass(ctx context.Context, h http.Header) {
	if t == nil {
		return
	}
	delete(h, "Tracestate")
	h[Header] = []string{t.Parent(ctx)}
}

// Answered ends the span of a request that was answered with status; 0 counts as
// 200, as net/http has it.
func (s *Span) Answered(status int) {
	if s == nil {
		return
	}
	if status == 0 {
		status = http.StatusOK
	}
	s.Int("http.response.status_code", int64(status))
	if status >= 500 {
		s.Fail(http.StatusText(status))
	}
	s.End(nil)
}

// Methods that are names of spans; others are strangers' words.
func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "_OTHER" // the semantic conventions' word
}

// Request begins the span of a request, and gives it the context that has it. End
// it with Answered.
func (t *Tracer) Request(r *http.Request, route string) (*http.Request, *Span) {
	if t == nil {
		return r, nil
	}
	method := methodName(r.Method)
	ctx, s := t.Serve(t.join(r), method+" "+route)
	s.String("http.request.method", method)
	s.String("http.route", route)
	if about := logger.RequestOf(ctx); about != nil {
		about.TraceID = s.ID()
	}
	return r.WithContext(ctx), s
}

// Name names the span in ctx by the route that a request turned out to be for.
func (t *Tracer) Name(r *http.Request, route string) {
	if t == nil {
		return
	}
	span := Span{otel.SpanFromContext(r.Context())}
	span.span.SetName(methodName(r.Method) + " " + route)
	span.String("http.route", route)
}

// Handler serves a route of a service behind the front door, each request in a span
// of its own.
func (t *Tracer) Handler(route string, h http.Handler) http.Handler {
	if t == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, span := t.Request(r, route)
		s := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { span.Answered(s.status) }()
		h.ServeHTTP(s, r)
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
