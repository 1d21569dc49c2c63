package jobs

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"berth/services/artifact"
	"berth/services/metric"
	"berth/services/task"
)

// meters count what the service does.
type meters struct {
	events   [2]prometheus.Counter // failed, handled
	delay    prometheus.Histogram
	runs     *prometheus.CounterVec
	tasks    *prometheus.CounterVec
	taskTime *prometheus.HistogramVec
	verified prometheus.Counter
	damaged  prometheus.Counter
}

// newMeters registers them, if there is something to register with.
func newMeters(o Options) *meters {
	f := promauto.With(o.Metrics)
	events := f.NewCounterVec(prometheus.CounterOpts{Name: "berth_events_total", Help: "Events that were taken from the outbox; one that failed comes again."}, []string{"result"})
	m := &meters{
		events: [2]prometheus.Counter{events.WithLabelValues("failed"), events.WithLabelValues("handled")},
		delay: f.NewHistogram(prometheus.HistogramOpts{Name: "berth_event_delay_seconds",
			Help: "Time from what happened until it is in the audit trail and its webhooks are started.", Buckets: []float64{.1, .5, 1, 2, 5, 10, 30, 60, 300, 1800}}),
		runs: f.NewCounterVec(prometheus.CounterOpts{Name: "berth_upkeep_runs_total",
			Help: "Periodic work that has come to an end, by what it is."}, []string{"work", "result"}),
		tasks: f.NewCounterVec(prometheus.CounterOpts{Name: "berth_task_runs_total",
			Help: "Runs of tasks by their vendor (WEBHOOK, SLACK, RETENTION, REPLICATION ...) and how they ended; retried ones run again."}, []string{"vendor", "status"}),
		taskTime: f.NewHistogramVec(prometheus.HistogramOpts{Name: "berth_task_duration_seconds",
			Help: "How long runs of tasks took.", Buckets: []float64{.01, .05, .1, .5, 1, 5, 30, 60, 300, 1800, 7200}}, []string{"vendor"}),
		verified: f.NewCounter(prometheus.CounterOpts{Name: "berth_scrub_blobs_total", Help: "Blobs that were read again and hashed."}),
		damaged:  f.NewCounter(prometheus.CounterOpts{Name: "berth_scrub_damaged_blobs_total", Help: "Of them, those whose bytes were missing or rotten."}),
	}
	for _, k := range o.Kinds { // so that the first failure is an increase
		for _, s := range endings {
			m.tasks.WithLabelValues(k.Vendor, s)
		}
	}
	for _, job := range []string{"collect", "sweep", "scrub", "audit"} {
		m.runs.WithLabelValues(job, "failed")
		m.runs.WithLabelValues(job, "done")
	}
	if o.Metrics != nil {
		registerWork(o.Metrics, o.Artifacts)
		o.Metrics.MustRegister(queues(o.Pool), totals(o.Pool, o.Artifacts))
	}
	return m
}

// The labels of how a run of a task ended.
var endings = map[task.Status]string{task.Success: "success", task.Error: "error", task.Stopped: "stopped", task.Scheduled: "retried", task.Pending: "interrupted"}

func (m *meters) task(vendor string, end task.Status, took time.Duration) {
	m.tasks.WithLabelValues(vendor, endings[end]).Inc()
	m.taskTime.WithLabelValues(vendor).Observe(took.Seconds())
}

func (m *meters) run(job string, err error) {
	result := "done"
	if err != nil {
		result = "failed"
	}
	m.runs.WithLabelValues(job, result).Inc()
}

func (m *meters) event(at time.Time, err error) {
	if err != nil {
		m.events[0].Inc()
		return
	}
	m.events[1].Inc()
	m.delay.Observe(time.Since(at).Seconds())
}

// registerWork tells of the collector.
func registerWork(r prometheus.Registerer, store *artifact.Store) {
	counter := func(name, help string, of func(artifact.Work) float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return of(store.Work()) }))
	}
	counter("berth_gc_runs_total", "Runs of the garbage collector.", func(w artifact.Work) float64 { return float64(w.Runs) })
	counter("berth_gc_failed_runs_total", "Of them, those that ended early.", func(w artifact.Work) float64 { return float64(w.Failures) })
	counter("berth_gc_manifests_total", "Manifests that it has purged.", func(w artifact.Work) float64 { return float64(w.Manifests) })
	counter("berth_gc_blobs_total", "Blobs that it has dropped; their bytes go within the hour.", func(w artifact.Work) float64 { return float64(w.Blobs) })
	counter("berth_gc_freed_bytes_total", "Bytes that it has removed from the storage.", func(w artifact.Work) float64 { return float64(w.Bytes) })
	counter("berth_gc_failed_removals_total", "Removals from the storage that failed and are tried again.", func(w artifact.Work) float64 { return float64(w.Failed) })
	began := time.Now()
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_gc_last_success_timestamp_seconds",
		Help: "When a run last came to its end; before the first, when this process began."}, func() float64 {
		if w := store.Work(); !w.Last.IsZero() {
			return float64(w.Last.Unix())
		}
		return float64(began.Unix())
	}))
}

// How old what is known of the queues and of the totals may be.
const (
	queuesEvery = 15 * time.Second
	totalsEvery = 10 * time.Minute
)

// countLimit is how far the jobs of a queue are counted: counting a long one would
// cost the database more than knowing its length is worth.
const countLimit = 10_000

// queues tell how many jobs wait and how long the first has. It is one query,
// which for each queue and state reads at most countLimit entries of the index
// that River fetches by.
func queues(pool *pgxpool.Pool) prometheus.Collector {
	jobs := prometheus.NewDesc("berth_queue_jobs", "Jobs in a queue by their state, counted up to 10000: available ones wait for a worker, retryable ones for their next try.", []string{"queue", "state"}, nil)
	age := prometheus.NewDesc("berth_queue_oldest_age_seconds", "How long the job that is next in a queue has waited; 0 if none does.", []string{"queue"}, nil)
	paused := prometheus.NewDesc("berth_queue_paused", "1 if somebody has paused a queue.", []string{"queue"}, nil)
	return &metric.Slow{Descs: []*prometheus.Desc{jobs, age, paused}, Every: queuesEvery, Ask: func(ctx context.Context) ([]prometheus.Metric, error) {
		rows, err := pool.Query(ctx, `
			SELECT q.name, q.paused_at IS NOT NULL,
				(SELECT count(*) FROM (SELECT FROM river_job j WHERE j.state = 'available' AND j.queue = q.name LIMIT $1) AS x),
				(SELECT count(*) FROM (SELECT FROM river_job j WHERE j.state = 'running' AND j.queue = q.name LIMIT $1) AS x),
				(SELECT count(*) FROM (SELECT FROM river_job j WHERE j.state = 'retryable' AND j.queue = q.name LIMIT $1) AS x),
				coalesce((SELECT extract(epoch FROM now() - j.scheduled_at) FROM river_job j WHERE j.state = 'available' AND j.queue = q.name
					ORDER BY j.priority, j.scheduled_at LIMIT 1), 0)::float8
			FROM (SELECT name, paused_at FROM river_queue ORDER BY name LIMIT 100) AS q`, countLimit)
		if err != nil {
			return nil, err
		}
		var (
			list                          []prometheus.Metric
			name                          string
			isPaused                      bool
			available, running, retryable float64
			oldest                        float64
		)
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			list = append(list, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
		}
		_, err = pgx.ForEachRow(rows, []any{&name, &isPaused, &available, &running, &retryable, &oldest}, func() error {
			gauge(jobs, available, name, "available")
			gauge(jobs, running, name, "running")
			gauge(jobs, retryable, name, "retryable")
			gauge(age, max(oldest, 0), name)
			gauge(paused, map[bool]float64{true: 1}[isPaused], name)
			return nil
		})
		return list, err
	}}
}

// totals tell how much there is of everything. Rows are PostgreSQL's estimates:
// counting them would read whole tables.
func totals(pool *pgxpool.Pool, store *artifact.Store) prometheus.Collector {
	used := prometheus.NewDesc("berth_storage_used_bytes", "Bytes of all blobs and manifests, each counted once; at most ten minutes old.", nil, nil)
	size := prometheus.NewDesc("berth_database_size_bytes", "Size of the database on its disk; at most ten minutes old.", nil, nil)
	rows := prometheus.NewDesc("berth_database_rows", "About how many rows a table has, as PostgreSQL estimates.", []string{"table"}, nil)
	return &metric.Slow{Descs: []*prometheus.Desc{used, size, rows}, Every: totalsEvery, Ask: func(ctx context.Context) ([]prometheus.Metric, error) {
		var list []prometheus.Metric
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			list = append(list, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
		}
		var bytes float64
		if err := pool.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&bytes); err != nil {
			return nil, err
		}
		gauge(size, bytes)
		found, err := pool.Query(ctx, `SELECT relname::text, greatest(reltuples, 0)::float8 FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname = ANY($1)`,
			[]string{"blobs", "manifests", "tags", "repositories", "projects", "river_job", "tasks", "repo_blobs"})
		if err != nil {
			return list, err
		}
		var table string
		var n float64
		if _, err = pgx.ForEachRow(found, []any{&table, &n}, func() error { gauge(rows, n, table); return nil }); err != nil {
			return list, err
		}
		// Last, as it takes longest where there is much.
		if total, err := store.StorageUsed(ctx); err == nil {
			gauge(used, float64(total))
		}
		return list, nil
	}}
}
