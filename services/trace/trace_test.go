package trace_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/appliance/fault"
	"berth/services/trace"
	"berth/services/trace/tracetest"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// open starts an exporter to a collector, and gives a tracer. Calling finish sends
// everything.
func open(t testing.TB, endpoint string, r prometheus.Registerer) (tracer *trace.Tracer, finish func()) {
	t.Helper()
	e, err := trace.Open(t.Context(), trace.Options{Endpoint: endpoint, Log: slog.New(slog.DiscardHandler), Metrics: r})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return e.Tracer("test"), func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	c := tracetest.Start(t)
	tracer, finish := open(t, c.URL, nil)
	h := tracer.Handler("/thing", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, span := tracer.Start(r.Context(), "inner")
		span.String("key", "value")
		span.End(fault.Wrap(fault.Unavailable, errors.New("password=secret"), "it is away"))
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	r := httptest.NewRequest("PROPFIND", "/thing?token=secret", nil)
	r.Header.Set("traceparent", parent)
	h.ServeHTTP(httptest.NewRecorder(), r)
	finish()
	list := c.Spans()
	if len(list) != 2 || c.Err() != nil {
		t.Fatal(list, c.Err())
	}
	inner, outer := list[0], list[1]
	if outer.Trace != "0af7651916cd43dd8448eb211c80319c" || outer.Parent != "b7ad6b7169203331" || outer.Name != "_OTHER /thing" || !outer.Failed || outer.Service != "test" {
		t.Errorf("%+v", outer)
	}
	if inner.Parent != outer.ID || inner.Attributes["key"] != "value" || !inner.Failed {
		t.Errorf("%+v", inner)
	}
	if strings.Contains(string(c.Raw()), "secret") {
		t.Error("a secret was sent")
	}
}

// The parent is the client's traceparent, or the token's; nonsense is neither.
func TestJoin(t *testing.T) {
	t.Parallel()
	claim := func(s string) string {
		return "Bearer e30." + base64.RawURLEncoding.EncodeToString([]byte(s)) + ".c2ln"
	}
	for name, c := range map[string]struct {
		headers http.Header
		joins   bool
	}{
		"none":               {http.Header{}, false},
		"traceparent":        {http.Header{"Traceparent": {parent}}, true},
		"two of them":        {http.Header{"Traceparent": {parent, parent}}, false},
		"nonsense":           {http.Header{"Traceparent": {strings.Repeat("x", 55)}}, false},
		"too long":           {http.Header{"Traceparent": {parent + strings.Repeat("-00", 9999)}}, false},
		"zeros":              {http.Header{"Traceparent": {"00-00000000000000000000000000000000-0000000000000000-01"}}, false},
		"token":              {http.Header{"Authorization": {claim(`{"trace":"` + parent + `"}`)}}, true},
		"token without":      {http.Header{"Authorization": {claim(`{}`)}}, false},
		"token with nothing": {http.Header{"Authorization": {"Bearer ..."}}, false},
		"token that is none": {http.Header{"Authorization": {"Bearer !!!.???.x"}}, false},
		"password":           {http.Header{"Authorization": {"Basic YTpi"}}, false},
		"huge token":         {http.Header{"Authorization": {"Bearer a." + strings.Repeat("A", 1<<20) + ".x"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tc := tracetest.Start(t)
			tracer, finish := open(t, tc.URL, nil)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header = c.headers
			r, span := tracer.Request(r, "x")
			out := http.Header{"Traceparent": {"a client's"}, "Tracestate": {"x=y"}}
			tracer.Pass(r.Context(), out)
			if got := out.Get("traceparent"); !strings.Contains(got, span.ID()) || out.Get("tracestate") != "" {
				t.Errorf("passed on: %v", out)
			}
			span.Answered(200)
			finish()
			if got := tc.Spans()[0]; (got.Trace == "0af7651916cd43dd8448eb211c80319c") != c.joins {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A collector that hangs or is away costs spans, and nothing else.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hangs.Close()
	defer close(release)
	for name, url := range map[string]string{"away": "http://127.0.0.1:1", "hanging": hangs.URL} {
		t.Run(name, func(t *testing.T) {
			all := prometheus.NewRegistry()
			tracer, finish := open(t, url, all)
			const spans = 20_000
			began := time.Now()
			for range spans {
				_, s := tracer.Start(t.Context(), "x")
				s.End(nil)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("%d spans took %v", spans, took)
			}
			finish()
			families, err := all.Gather()
			if err != nil {
				t.Fatal(err)
			}
			values := map[string]float64{}
			for _, f := range families {
				values[f.GetName()] = f.Metric[0].GetCounter().GetValue()
			}
			if values["berth_trace_spans_dropped_total"] < spans-9000 || values["berth_trace_spans_sent_total"] != 0 {
				t.Errorf("%v", values)
			}
		})
	}
}

// Off is nil, and does nothing.
func TestOff(t *testing.T) { // not parallel: it counts allocations
	e, err := trace.Open(t.Context(), trace.Options{})
	if e != nil || err != nil || e.Tracer("x") != nil || e.Tracer("x").Queries() != nil {
		t.Fatal(e, err)
	}
	if n := testing.AllocsPerRun(100, func() { request(nil, quiet) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
	if got := fmt.Sprint(trace.With(t.Context(), "nonsense") == t.Context()); got != "true" {
		t.Error("nonsense is a parent")
	}
}

var quiet = httptest.NewRequest("GET", "/v2/", nil)

// request is what one request does with its tracer.
func request(tracer *trace.Tracer, r *http.Request) {
	r, span := tracer.Request(r, "manifest")
	ctx, inner := tracer.Start(r.Context(), "manifest")
	inner.String("berth.repository", "library/app")
	_ = tracer.Parent(ctx)
	inner.End(nil)
	span.Answered(200)
}

func BenchmarkRequest(b *testing.B) {
	c := tracetest.Start(b)
	on, finish := open(b, c.URL, nil)
	defer finish()
	for name, tracer := range map[string]*trace.Tracer{"off": nil, "on": on} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request(tracer, quiet)
			}
		})
	}
}

func FuzzInToken(f *testing.F) {
	f.Add("Bearer e30.eyJ0cmFjZSI6IiJ9.x")
	f.Add("Bearer ..")
	f.Fuzz(func(t *testing.T, header string) {
		if got := trace.InToken(header); got != "" && len(got) != len(parent) {
			t.Errorf("%q", got)
		}
		trace.With(t.Context(), header)
	})
}
