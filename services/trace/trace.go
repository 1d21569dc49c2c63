// Package trace follows one request through all services, for OpenTelemetry
// collectors.
//
// Tracing is off unless the settings name a collector. Off is a nil *Tracer, whose
// methods do nothing and allocate nothing: code starts spans without asking.
//
// # One push, one trace
//
// Clients of a registry send no traceparent, and a push is a dozen requests. What
// they have in common is the token that the first of them got. So the token service
// puts its own span into the token, as a private claim, and the front door takes
// that for the parent of every request that comes with the token (and with no
// traceparent of its own). The claim is read before the token is verified, for
// the span has to begin; it is as true as a header that any client may send, and
// decides nothing. Events carry the span that made them, so that the audit trail and
// webhooks belong to the trace too.
//
// # What is in a span
//
// OpenTelemetry's semantic conventions: methods, classes of routes, status codes,
// repositories, SQL with its placeholders. Never a query string, a header, a
// password, a token or an argument of a statement.
package trace

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"

	"berth/appliance/fault"
	"berth/appliance/version"
)

// Options configure a Tracer.
type Options struct {
	Endpoint string                // http(s)://host:port of a collector that takes OTLP over HTTP; "" = off
	Client   *http.Client          // that sends, in at most SendTime; nil = OpenTelemetry's own
	Log      *slog.Logger          // required
	Metrics  prometheus.Registerer // nil = nowhere
}

// SendTime bounds one attempt to send a batch.
const SendTime = 5 * time.Second

// Exporter sends the spans of one process. Nil is none.
type Exporter struct{ queue *queue }

// Open makes an exporter; nil if there is no endpoint. A collector that is away is
// no error, then or later.
func Open(ctx context.Context, o Options) (*Exporter, error) {
	if o.Endpoint == "" {
		return nil, nil
	}
	// A batch is tried once more and then dropped: spans are worth less than the
	// memory that they would wait in.
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(o.Endpoint), otlptracehttp.WithTimeout(SendTime),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 2 * time.Second, MaxElapsedTime: 5 * time.Second})}
	if o.Client != nil {
		options = append(options, otlptracehttp.WithHTTPClient(o.Client))
	}
	client, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot send spans to %s", o.Endpoint).On("traces")
	}
	return &Exporter{newQueue(client, o)}, nil
}

// Run sends spans until ctx ends, and then what still waits.
func (e *Exporter) Run(ctx context.Context) error {
	if e == nil {
		<-ctx.Done()
		return nil
	}
	return e.queue.run(ctx)
}

// Tracer gives the tracer of one service; nil for a nil Exporter.
func (e *Exporter) Tracer(service string) *Tracer {
	if e == nil {
		return nil
	}
	host, _ := os.Hostname() // "" is no attribute worth having, and no harm
	about := resource.NewSchemaless(attribute.String("service.namespace", "berth"), attribute.String("service.name", service),
		attribute.String("service.version", version.Version), attribute.String("host.name", host))
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(e.queue), sdk.WithResource(about),
		sdk.WithSampler(sdk.ParentBased(sdk.AlwaysSample())), sdk.WithRawSpanLimits(limits))
	return &Tracer{provider.Tracer("berth")}
}

// limits bound what one span holds.
var limits = sdk.SpanLimits{AttributeValueLengthLimit: 1024, AttributeCountLimit: 32, EventCountLimit: 8, LinkCountLimit: 4,
	AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 4}

// Tracer starts the spans of one service. Nil starts none.
type Tracer struct{ tracer otel.Tracer }

// Span is a piece of work. Nil is none.
type Span struct{ span otel.Span }

// Start begins a span below the one in ctx. Its name is from a small set.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.start(ctx, name, otel.SpanKindInternal)
}

// Serve begins the span of a request that came from outside the process. Its
// parent is what With has put into ctx.
func (t *Tracer) Serve(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.start(ctx, name, otel.SpanKindServer)
}

// Consume begins the span of work that something else has asked for earlier.
func (t *Tracer) Consume(ctx context.Context, name string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.start(ctx, name, otel.SpanKindConsumer)
}

func (t *Tracer) start(ctx context.Context, name string, kind otel.SpanKind) (context.Context, *Span) {
	ctx, span := t.tracer.Start(ctx, name, otel.WithSpanKind(kind))
	return ctx, &Span{span}
}

// String and Int set an attribute, by OpenTelemetry's semantic conventions where
// they have a name for it.

func (s *Span) String(key, value string) {
	if s != nil && value != "" {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

func (s *Span) Int(key string, value int64) {
	if s != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// Fail marks the span as failed. text is one that a caller may see: a cause can
// have anything in it.
func (s *Span) Fail(text string) {
	if s != nil {
		s.span.SetStatus(codes.Error, text)
	}
}

// End ends the span. A fault that is not the caller's own makes it a failed one.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		f := fault.Of(err)
		s.span.SetAttributes(attribute.String("error.type", f.Kind.String()))
		switch f.Kind {
		case fault.Internal, fault.Unavailable, fault.NoSpace:
			s.span.SetStatus(codes.Error, f.Text)
		}
	}
	s.span.End()
}

// ID is the span's trace in hexadecimal; "" for none.
func (s *Span) ID() string {
	if s == nil {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}
