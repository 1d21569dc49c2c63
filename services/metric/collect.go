package metric

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sys/unix"
)

// Hits counts what a cache had and what it had not. Its zero value is ready.
type Hits struct{ hits, misses atomic.Uint64 }

// Note counts one look, and gives back whether it was a hit.
func (h *Hits) Note(hit bool) bool {
	if hit {
		h.hits.Add(1)
	} else {
		h.misses.Add(1)
	}
	return hit
}

// Caches registers the hits and misses of caches, by their names.
func Caches(r prometheus.Registerer, caches map[string]*Hits) {
	if r == nil {
		return
	}
	for name, h := range caches {
		labels := prometheus.Labels{"cache": name}
		r.MustRegister(
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "berth_cache_hits_total", Help: "Looks into a cache that found what they looked for.", ConstLabels: labels},
				func() float64 { return float64(h.hits.Load()) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "berth_cache_misses_total", Help: "Looks into a cache that did not.", ConstLabels: labels},
				func() float64 { return float64(h.misses.Load()) }))
	}
}

// Pool registers what a service's connections to the database do.
func Pool(r prometheus.Registerer, pool *pgxpool.Pool) {
	if r == nil {
		return
	}
	f := promauto.With(r)
	gauge := func(name, help, state string, of func(*pgxpool.Stat) float64) {
		var labels prometheus.Labels
		if state != "" {
			labels = prometheus.Labels{"state": state}
		}
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return of(pool.Stat()) })
	}
	const connections = "Connections to the database, by what they do."
	gauge("berth_database_connections", connections, "used", func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) })
	gauge("berth_database_connections", connections, "idle", func(s *pgxpool.Stat) float64 { return float64(s.IdleConns()) })
	gauge("berth_database_connections", connections, "opening", func(s *pgxpool.Stat) float64 { return float64(s.ConstructingConns()) })
	gauge("berth_database_connections_max", "How many connections to the database there may be.", "", func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) })
	counter := func(name, help string, of func(*pgxpool.Stat) float64) {
		f.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return of(pool.Stat()) })
	}
	counter("berth_database_acquires_total", "Times that a connection was got from the pool.", func(s *pgxpool.Stat) float64 { return float64(s.AcquireCount()) })
	counter("berth_database_waits_total", "Times that a connection had to be waited for.", func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) })
	counter("berth_database_wait_seconds_total", "How long connections were waited for, together.", func(s *pgxpool.Stat) float64 { return s.EmptyAcquireWaitTime().Seconds() })
	counter("berth_database_canceled_waits_total", "Times that whoever waited for a connection gave up.", func(s *pgxpool.Stat) float64 { return float64(s.CanceledAcquireCount()) })
}

// Volume registers the size of the file system that a directory is on, and what
// is left of it. name says what is kept there: storage, data, logs.
func Volume(r prometheus.Registerer, name, dir string) {
	if r == nil {
		return
	}
	f := promauto.With(r)
	gauge := func(metric, help string, of func(*unix.Statfs_t) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: metric, Help: help, ConstLabels: prometheus.Labels{"volume": name}}, func() float64 {
			var s unix.Statfs_t
			if err := unix.Statfs(dir, &s); err != nil {
				return 0 // what cannot be asked has no room: that is the alert to raise
			}
			return of(&s)
		})
	}
	gauge("berth_volume_size_bytes", "Size of the file system that a directory is on.", func(s *unix.Statfs_t) float64 { return float64(s.Blocks) * float64(s.Bsize) })
	gauge("berth_volume_free_bytes", "What is left of it for us.", func(s *unix.Statfs_t) float64 { return float64(s.Bavail) * float64(s.Bsize) })
	gauge("berth_volume_files", "How many files it can have; 0 if it knows no such limit.", func(s *unix.Statfs_t) float64 { return float64(s.Files) })
	gauge("berth_volume_free_files", "How many more files it can have.", func(s *unix.Statfs_t) float64 { return float64(s.Ffree) })
}

// Certificate registers when the certificate that is served ends.
func Certificate(r prometheus.Registerer, ends func() time.Time) {
	if r == nil {
		return
	}
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that clients are shown ends."}, func() float64 { return float64(ends().Unix()) })
}

// slowTime is how long Slow may take to ask.
const slowTime = 3 * time.Second

// Slow collects what is not free to know. It is asked when somebody scrapes, and
// not again for a while: scrapes in between get the same samples. While it cannot
// be asked there are none, since old ones would say that all is well.
type Slow struct {
	// Descs are all that Ask may give.
	Descs []*prometheus.Desc
	// Every is how old samples may be.
	Every time.Duration
	// Ask gathers samples, within its context's time.
	Ask func(ctx context.Context) ([]prometheus.Metric, error)

	mu   sync.Mutex
	next time.Time
	last []prometheus.Metric
}

// Describe implements prometheus.Collector.
func (s *Slow) Describe(out chan<- *prometheus.Desc) {
	for _, d := range s.Descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Slow) Collect(out chan<- prometheus.Metric) {
	for _, m := range s.samples() {
		out <- m
	}
}

func (s *Slow) samples() []prometheus.Metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.After(s.next) {
		ctx, cancel := context.WithTimeout(context.Background(), slowTime)
		defer cancel()
		list, err := s.Ask(ctx)
		if err != nil {
			list = nil
		}
		s.last, s.next = list, time.Now().Add(s.Every)
	}
	return s.last
}
