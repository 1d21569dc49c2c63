package metric_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/services/metric"
)

// scrape gives what Prometheus would read.
func scrape(t testing.TB, r *metric.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	all := metric.New()
	one, two := metric.NewHTTP(all.Service("one"), metric.Large), metric.NewHTTP(all.Service("two"), metric.Small)
	blob := one.Route("blob")
	blob.Begin()
	if text := scrape(t, all); !strings.Contains(text, `berth_http_requests_in_flight{route="blob",service="one"} 1`) {
		t.Errorf("the request under way does not show:\n%s", text)
	}
	blob.End("GET", 0, 20*time.Millisecond, 0, 1000)
	two.Route("x").Serve(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	text := scrape(t, all)
	for _, want := range []string{
		`berth_http_requests_total{code="2xx",method="GET",route="blob",service="one"} 1`,
		`berth_http_requests_total{code="5xx",method="GET",route="blob",service="one"} 0`,
		`berth_http_requests_total{code="4xx",method="POST",route="x",service="two"} 1`,
		`berth_http_request_duration_seconds_bucket{method="GET",route="blob",service="one",le="0.025"} 1`,
		`berth_http_sent_bytes_total{route="blob",service="one"} 1000`, `berth_http_requests_in_flight{route="blob",service="one"} 0`,
		"berth_build_info{", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed (make test-deps)")
	} else {
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = strings.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool: %v %s", err, out)
		}
	}
}

// A stranger's methods and statuses make no series of their own.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	all := metric.New()
	route := metric.NewHTTP(all.Service("one"), metric.Large).Route("blob")
	count := func() int { return strings.Count(scrape(t, all), "\nberth_http_") }
	use := func(n int) {
		for i := range n {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", fmt.Sprintf("NONSENSE%d", i)} {
				route.Begin()
				route.End(method, i, time.Second, 1, 1)
			}
		}
	}
	use(1)
	before := count()
	use(1000)
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

// What ends leaves its names to what comes after it.
func TestScoped(t *testing.T) {
	t.Parallel()
	all := metric.New()
	for range 2 {
		r, end := metric.Scoped(all.Service("x"))
		metric.Caches(r, map[string]*metric.Hits{"things": {}})
		if !strings.Contains(scrape(t, all), "berth_cache_hits_total") {
			t.Error("it is not there")
		}
		end()
		if strings.Contains(scrape(t, all), "berth_cache_hits_total") {
			t.Error("it is still there")
		}
	}
	if r, end := metric.Scoped(nil); r != nil {
		t.Error("there is something to register with")
	} else {
		end()
	}
}

func TestNilMeasuresNothing(t *testing.T) {
	t.Parallel()
	var none *metric.Registry
	route := metric.NewHTTP(none.Service("x"), metric.Large).Route("y")
	route.Begin()
	route.End("GET", 200, 0, 0, 0)
	route.Serve(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	metric.Caches(nil, nil)
	metric.Pool(nil, nil)
	metric.Volume(nil, "", "")
	metric.Certificate(nil, nil)
}

// What is slow to know is asked once, however many scrape.
func TestSlowAsksRarely(t *testing.T) {
	t.Parallel()
	d := prometheus.NewDesc("berth_test_things", "Things.", nil, nil)
	asked, failing := 0, false
	s := &metric.Slow{Descs: []*prometheus.Desc{d}, Every: time.Hour, Ask: func(ctx context.Context) ([]prometheus.Metric, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it may take for ever")
		}
		asked++
		if failing {
			return nil, errors.New("away")
		}
		return []prometheus.Metric{prometheus.MustNewConstMetric(d, prometheus.GaugeValue, 7)}, nil
	}}
	all := metric.New()
	all.Service("x").MustRegister(s)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if !strings.Contains(scrape(t, all), `berth_test_things{service="x"} 7`) {
				t.Error("a scrape lacks it")
			}
		})
	}
	wg.Wait()
	if asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	s.Every, failing = 0, true
	other := metric.New()
	other.Service("x").MustRegister(&metric.Slow{Descs: s.Descs, Ask: s.Ask})
	if strings.Contains(scrape(t, other), "berth_test_things") {
		t.Error("there is a sample though nobody could be asked")
	}
}

// Scrapes beyond a few at once are refused.
func TestScrapesAreBounded(t *testing.T) {
	t.Parallel()
	all := metric.New()
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	all.Service("x").MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_test_slow", Help: "Slow."}, func() float64 {
		entered <- struct{}{}
		<-leave
		return 1
	}))
	h := all.Handler()
	codes := make(chan int, 4)
	for range 4 {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			codes <- w.Code
		}()
	}
	for range 4 {
		<-entered
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("the fifth scrape at once: %d", w.Code)
	}
	close(leave)
	for range 4 {
		if c := <-codes; c != http.StatusOK {
			t.Errorf("%d", c)
		}
	}
}

// BenchmarkRoute is what metrics add to each request.
func BenchmarkRoute(b *testing.B) {
	for name, all := range map[string]*metric.Registry{"on": metric.New(), "off": nil} {
		b.Run(name, func(b *testing.B) {
			route := metric.NewHTTP(all.Service("proxy"), metric.Large).Route("blob")
			b.ReportAllocs()
			for b.Loop() {
				route.Begin()
				route.End("GET", 200, 3*time.Millisecond, 100, 1000)
			}
		})
	}
}

func BenchmarkCache(b *testing.B) {
	var h metric.Hits
	b.ReportAllocs()
	for b.Loop() {
		h.Note(true)
	}
}
