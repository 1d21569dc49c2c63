package logs

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"berth/services/forward"
	"berth/services/segment"
)

// Measure registers what the service counts. Who sent what is in its messages:
// a component's name is what a stranger says, and no label.
func (s *Service) Measure(r prometheus.Registerer) {
	if r == nil {
		return
	}
	f := promauto.With(r)
	counter := func(name, help string, labels prometheus.Labels, of func(Counts) int64) {
		f.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(of(s.Counts())) })
	}
	counter("berth_logs_received_total", "Log messages that came in.", nil, func(c Counts) int64 { return c.Received })
	const dropped = "Log messages that were not kept: a component sent more than its rate, or they could not be stored."
	counter("berth_logs_dropped_total", dropped, prometheus.Labels{"reason": "limited"}, func(c Counts) int64 { return c.Limited })
	counter("berth_logs_dropped_total", dropped, prometheus.Labels{"reason": "failed"}, func(c Counts) int64 { return c.Failed })
	counter("berth_logs_redacted_total", "Log messages in which something looked like a secret and was blotted out.", nil, func(c Counts) int64 { return c.Redacted })
	counter("berth_logs_cut_total", "Log messages that were too long and were cut.", nil, func(c Counts) int64 { return c.Cut })
	counter("berth_logs_broken_connections_total", "Connections that ended in the middle of a message, or with nonsense.", nil, func(c Counts) int64 { return c.Broken })
	counter("berth_logs_refused_connections_total", "Connections beyond the number that is served.", nil, func(c Counts) int64 { return c.Refused })
	gauge := func(name, help string, of func(segment.Stats) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return of(s.Store.Stats()) })
	}
	gauge("berth_logs_stored_messages", "Log messages that can be found.", func(x segment.Stats) float64 { return float64(x.Messages) })
	gauge("berth_logs_stored_bytes", "Bytes that they take on the disk.", func(x segment.Stats) float64 { return float64(x.Bytes) })
	gauge("berth_logs_segments", "Files that they are in.", func(x segment.Stats) float64 { return float64(x.Segments) })
	gauge("berth_logs_oldest_timestamp_seconds", "Time of the oldest; 0 if there is none.", func(x segment.Stats) float64 {
		if x.Oldest.IsZero() {
			return 0
		}
		return float64(x.Oldest.Unix())
	})
	gauge("berth_logs_failing", "1 while nothing can be stored.", func(x segment.Stats) float64 {
		if x.Failing != "" {
			return 1
		}
		return 0
	})
	if s.Forward != nil {
		r.MustRegister(newCollectorMetrics(s.Forward.Status))
	}
}

// collectorMetrics tell how each collector of the settings gets on. Their names are the
// administrator's.
type collectorMetrics struct {
	of                                                         func() []forward.Status
	connected, sent, dropped, failures, waiting, bytes, oldest *prometheus.Desc
}

func newCollectorMetrics(of func() []forward.Status) *collectorMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("berth_log_collector_"+name, help, []string{"collector"}, nil)
	}
	return &collectorMetrics{
		of: of, connected: desc("connected", "1 while a collector of log messages is connected."),
		sent: desc("sent_total", "Messages that were sent to it, repeated ones too."), dropped: desc("dropped_total", "Messages that it will never get, since it was away for longer than its queue could hold."),
		failures: desc("failures_total", "Connections to it that failed or were lost."), waiting: desc("waiting_messages", "Messages that wait for it, before its filters."),
		bytes: desc("waiting_bytes", "Their bytes."), oldest: desc("waiting_age_seconds", "Age of the oldest of them."),
	}
}

// Describe implements prometheus.Collector.
func (c *collectorMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connected, c.sent, c.dropped, c.failures, c.waiting, c.bytes, c.oldest} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collectorMetrics) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.of() {
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Name)
		}
		counter := func(d *prometheus.Desc, v uint64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), s.Name)
		}
		var connected float64
		if s.Connected {
			connected = 1
		}
		gauge(c.connected, connected)
		counter(c.sent, s.Sent)
		counter(c.dropped, s.Dropped)
		counter(c.failures, s.Failures)
		gauge(c.waiting, float64(s.Waiting))
		gauge(c.bytes, float64(s.WaitingBytes))
		gauge(c.oldest, s.WaitingSeconds)
	}
}
