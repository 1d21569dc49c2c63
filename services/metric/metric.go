// Package metric is what Berth counts and measures, for Prometheus.
//
// A process has one Registry, made by its command and handed down: there is no
// global one. Each service registers its own through a Registerer that puts the
// label service onto everything, so that the same names mean the same in all of
// them, whether they share a process or not. A nil Registerer is none, and
// whatever is measured then costs a comparison.
//
// # Names
//
// They begin with berth_ and follow Prometheus's conventions: base units
// (_seconds, _bytes), counters end in _total. Labels come from sets that this
// program knows: routes, methods, reasons. What strangers write (a path, a
// method, a user's name) is never one, for each new value would be a series that
// is kept for ever.
//
// # Cost
//
// Children of vectors are looked up once and kept (Route). What takes a query to
// know is asked at most every few seconds, however often it is scraped (Slow).
package metric

import (
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/appliance/version"
)

// Registry has everything that a process measures.
type Registry struct{ all *prometheus.Registry }

// New makes a registry that knows of the Go runtime, the process and the build.
func New() *Registry {
	r := &Registry{prometheus.NewRegistry()}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "berth_build_info", Help: "Always 1; the labels say which Berth this is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "revision": version.Commit(), "goversion": runtime.Version()},
	})
	build.Set(1)
	r.all.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return r
}

// Service gives what a service registers its own with; nil for a nil Registry.
func (r *Registry) Service(name string) prometheus.Registerer {
	if r == nil {
		return nil
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"service": name}, r.all)
}

// Scoped gives a Registerer for what may end before its process and begin anew:
// end takes away whatever was registered with it.
func Scoped(r prometheus.Registerer) (scoped prometheus.Registerer, end func()) {
	if r == nil {
		return nil, func() {}
	}
	s := &scope{Registerer: r}
	return s, s.end
}

// scope remembers what is registered with it.
type scope struct {
	prometheus.Registerer
	mu   sync.Mutex
	list []prometheus.Collector
}

func (s *scope) Register(c prometheus.Collector) error {
	err := s.Registerer.Register(c)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = append(s.list, c)
	}
	return err
}

func (s *scope) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		if err := s.Register(c); err != nil {
			panic(err) // as the one below does: two things of this program have one name
		}
	}
}

func (s *scope) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.list {
		s.Unregister(c)
	}
	s.list = nil
}

// The bounds of a scrape: how long it may take, and how many at once. A scraper
// that comes too often is told so (503).
const (
	scrapeTime = 10 * time.Second
	scrapes    = 4
)

// Handler answers scrapes.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.all, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: scrapes, Timeout: scrapeTime, EnableOpenMetrics: true,
	})
}
