package metric

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// HTTP measures the requests of one service. Its nil value measures nothing.
type HTTP struct {
	requests       *prometheus.CounterVec
	seconds        *prometheus.HistogramVec
	inFlight       *prometheus.GaugeVec
	received, sent *prometheus.CounterVec
}

// Buckets of durations in seconds: wide ones for requests that carry a layer of
// any size, narrow ones for those that do not.
var (
	wide   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	narrow = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
)

// Bodies says whether a service's requests carry bodies worth measuring.
type Bodies bool

// Whether the sizes of transfers are counted.
const (
	Large Bodies = true
	Small Bodies = false
)

// NewHTTP registers the metrics of a service's requests; nil for a nil r.
func NewHTTP(r prometheus.Registerer, b Bodies) *HTTP {
	if r == nil {
		return nil
	}
	f := promauto.With(r)
	buckets := narrow
	if b == Large {
		buckets = wide
	}
	h := &HTTP{
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "berth_http_requests_total",
			Help: "Requests answered, by class of route, method and class of status."}, []string{"route", "method", "code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "berth_http_request_duration_seconds",
			Help: "How long requests took, bodies included.", Buckets: buckets}, []string{"route", "method"}),
		inFlight: f.NewGaugeVec(prometheus.GaugeOpts{Name: "berth_http_requests_in_flight",
			Help: "Requests that are being answered; of the route upload: layers that are coming in."}, []string{"route"}),
	}
	if b == Large {
		h.received = f.NewCounterVec(prometheus.CounterOpts{Name: "berth_http_received_bytes_total", Help: "Bytes of requests' bodies."}, []string{"route"})
		h.sent = f.NewCounterVec(prometheus.CounterOpts{Name: "berth_http_sent_bytes_total", Help: "Bytes of answers' bodies."}, []string{"route"})
	}
	return h
}

// The methods that are told apart; all others count as "other".
var methods = [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, "other"}

func methodIndex(method string) int {
	for i, m := range methods[:len(methods)-1] {
		if m == method {
			return i
		}
	}
	return len(methods) - 1
}

// The classes of status codes.
var classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

// Route is a class of routes, whose series are looked up once. Its nil value
// measures nothing.
type Route struct {
	of             *HTTP
	name           string
	first          sync.Once // the route's own series appear with its first request
	inFlight       prometheus.Gauge
	received, sent prometheus.Counter // nil: not counted
	methods        [len(methods)]atomic.Pointer[byMethod]
}

// byMethod are a route's series of one method. They appear with its first
// request, all classes at once, so that the first failure is an increase.
type byMethod struct {
	codes   [len(classes)]prometheus.Counter
	seconds prometheus.Observer
}

// Route gives a class of routes. It is asked for once and kept: the name comes
// from this program.
func (h *HTTP) Route(name string) *Route {
	if h == nil {
		return nil
	}
	return &Route{of: h, name: name}
}

func (r *Route) appear() {
	h := r.of
	r.inFlight = h.inFlight.WithLabelValues(r.name)
	if h.received != nil {
		r.received, r.sent = h.received.WithLabelValues(r.name), h.sent.WithLabelValues(r.name)
	}
}

// Begin counts a request in; End must follow.
func (r *Route) Begin() {
	if r != nil {
		r.first.Do(r.appear)
		r.inFlight.Inc()
	}
}

// End counts a request out: what it was, how it was answered (0 counts as 200,
// as net/http has it), how long it took, and what went through.
func (r *Route) End(method string, status int, took time.Duration, received, sent int64) {
	if r == nil {
		return
	}
	r.inFlight.Dec()
	i := methodIndex(method)
	m := r.methods[i].Load()
	if m == nil {
		m = r.resolve(i)
	}
	class := status / 100
	if status == 0 {
		class = 2
	}
	m.codes[min(max(class, 1), len(classes))-1].Inc()
	m.seconds.Observe(took.Seconds())
	if r.received != nil {
		if received > 0 {
			r.received.Add(float64(received))
		}
		if sent > 0 {
			r.sent.Add(float64(sent))
		}
	}
}

func (r *Route) resolve(i int) *byMethod {
	m := &byMethod{seconds: r.of.seconds.WithLabelValues(r.name, methods[i])}
	for c, class := range classes {
		m.codes[c] = r.of.requests.WithLabelValues(r.name, methods[i], class)
	}
	r.methods[i].Store(m) // another may have done the same: the series are the same
	return m
}

// Serve measures a handler's requests as one route. Handlers that need their
// ResponseWriter's other abilities count for themselves.
func (r *Route) Serve(h http.Handler) http.Handler {
	if r == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := &statusWriter{ResponseWriter: w}
		began := time.Now()
		r.Begin()
		defer func() { r.End(req.Method, s.status, time.Since(began), 0, 0) }()
		h.ServeHTTP(s, req)
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	if s.status < 200 { // informational ones may come before
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
