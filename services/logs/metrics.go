package logs

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

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
}
