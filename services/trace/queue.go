package trace

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// The bounds of what waits for the collector.
const (
	room      = 8192
	batchSize = 512
	batchWait = time.Second
	endTime   = 5 * time.Second // for what still waits when the process ends
)

// queue holds ended spans until they are sent. What does not fit is counted and
// dropped: nobody waits for a collector. (The SDK's own batcher drops without a
// word.)
type queue struct {
	to      sdk.SpanExporter
	log     *slog.Logger
	spans   chan sdk.ReadOnlySpan
	sent    prometheus.Counter
	dropped prometheus.Counter
	failing bool // that the collector is away was told
}

func newQueue(to sdk.SpanExporter, o Options) *queue {
	f := promauto.With(o.Metrics)
	q := &queue{
		to: to, log: o.Log, spans: make(chan sdk.ReadOnlySpan, room),
		sent:    f.NewCounter(prometheus.CounterOpts{Name: "berth_trace_spans_sent_total", Help: "Spans that the trace collector has taken."}),
		dropped: f.NewCounter(prometheus.CounterOpts{Name: "berth_trace_spans_dropped_total", Help: "Spans that were dropped, because the trace collector was away or too slow."}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_trace_spans_waiting", Help: "Spans that wait for the trace collector."}, func() float64 { return float64(len(q.spans)) })
	return q
}

// The methods make it an sdk.SpanProcessor.

func (q *queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case q.spans <- s:
	default:
		q.dropped.Inc()
	}
}

func (q *queue) Shutdown(context.Context) error   { return nil } // run ends with its own context
func (q *queue) ForceFlush(context.Context) error { return nil }

func (q *queue) run(ctx context.Context) error {
	tick := time.NewTicker(batchWait)
	defer tick.Stop()
	batch := make([]sdk.ReadOnlySpan, 0, batchSize)
	for {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) < batchSize {
				continue
			}
		case <-tick.C:
		case <-ctx.Done():
			return q.finish(ctx, batch)
		}
		q.send(ctx, batch)
		clear(batch)
		batch = batch[:0]
	}
}

// finish sends what waits, for as long as a process may take to end.
func (q *queue) finish(ctx context.Context, batch []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	for {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) < batchSize {
				continue
			}
		default:
			q.send(ctx, batch)
			_ = q.to.Shutdown(ctx) // it has no more to send; that the collector hangs is no failure of ours
			return nil
		}
		q.send(ctx, batch)
		batch = batch[:0]
	}
}

func (q *queue) send(ctx context.Context, batch []sdk.ReadOnlySpan) {
	if len(batch) == 0 {
		return
	}
	err := q.to.ExportSpans(ctx, batch)
	if err == nil {
		q.sent.Add(float64(len(batch)))
		q.failing = false
		return
	}
	q.dropped.Add(float64(len(batch)))
	if !q.failing && !errors.Is(err, context.Canceled) {
		q.log.Warn("spans cannot be sent; they are dropped while it is so", "err", err)
		q.failing = true
	}
}
