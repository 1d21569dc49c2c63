package account

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"berth/appliance/fault"
	"berth/services/metric"
)

// Measure registers what the store counts. It is called before the store is used.
func (s *Store) Measure(r prometheus.Registerer) {
	if r == nil {
		return
	}
	s.logins = newLogins(r)
	metric.Caches(r, map[string]*metric.Hits{"logins": &s.hits})
}

// logins count names with passwords. Who it was is in the audit trail: a name
// that somebody typed is no label.
type logins struct {
	ok       prometheus.Counter
	failures map[string]prometheus.Counter // by reason; not changed
}

func newLogins(r prometheus.Registerer) logins {
	f := promauto.With(r)
	failed := f.NewCounterVec(prometheus.CounterOpts{Name: "berth_login_failures_total",
		Help: "Names with passwords that were refused: wrong, wrong and repeated, held back after several wrong ones, or not to be checked at all."}, []string{"reason"})
	l := logins{ok: f.NewCounter(prometheus.CounterOpts{Name: "berth_logins_total", Help: "Names with passwords that were accepted."}), failures: map[string]prometheus.Counter{}}
	for _, reason := range []string{"wrong", "repeated", "held_back", "unavailable", "error"} {
		l.failures[reason] = failed.WithLabelValues(reason)
	}
	return l
}

func (l logins) note(repeated bool, err error) {
	switch {
	case err == nil:
		l.ok.Inc()
	case repeated:
		l.failures["repeated"].Inc()
	case fault.Is(err, fault.Unauthenticated):
		l.failures["wrong"].Inc()
	case fault.Is(err, fault.TooMany):
		l.failures["held_back"].Inc()
	case fault.Is(err, fault.Unavailable):
		l.failures["unavailable"].Inc()
	case !errors.Is(err, context.Canceled):
		l.failures["error"].Inc()
	}
}
