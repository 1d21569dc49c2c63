package token

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/metric"
)

// meters count what the service does.
type meters struct {
	requests *metric.Route
	issued   [3]prometheus.Counter // by access.Kind
	refused  map[fault.Kind]prometheus.Counter
	failed   prometheus.Counter
}

// newMeters registers them with r, if there is one.
func newMeters(r prometheus.Registerer) meters {
	f := promauto.With(r)
	issued := f.NewCounterVec(prometheus.CounterOpts{Name: "berth_tokens_issued_total", Help: "Tokens that were signed, by whom they are for."}, []string{"kind"})
	refused := f.NewCounterVec(prometheus.CounterOpts{Name: "berth_tokens_refused_total",
		Help: "Requests for a token that got none, by the reason."}, []string{"reason"})
	m := meters{requests: metric.NewHTTP(r, metric.Small).Route("token"), refused: map[fault.Kind]prometheus.Counter{}}
	for kind, name := range map[access.Kind]string{access.Anonymous: "anonymous", access.User: "user", access.Robot: "robot"} {
		m.issued[kind] = issued.WithLabelValues(name)
	}
	for kind, reason := range map[fault.Kind]string{
		fault.Unauthenticated: "credentials", fault.TooMany: "held_back", fault.Invalid: "malformed", fault.Unsupported: "malformed",
		fault.NotFound: "malformed", fault.Unavailable: "unavailable",
	} {
		m.refused[kind] = refused.WithLabelValues(reason)
	}
	m.failed = refused.WithLabelValues("error")
	return m
}

func (m *meters) refuse(err error) {
	if c := m.refused[fault.Of(err).Kind]; c != nil {
		c.Inc()
		return
	}
	m.failed.Inc()
}
