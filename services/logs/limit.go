package logs

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"berth/appliance/syslog"
)

// maxComponents is how many names have a limit of their own. Names are what
// strangers send: the rest share one.
const maxComponents = 512

// limits keep one component's flood from the others: each has its own rate. Its
// errors have a tenth of it for themselves, so that a flood does not hide them.
type limits struct {
	rate  int // messages a second
	total atomic.Int64

	mu    sync.Mutex
	each  map[string]*limit
	other *limit
}

type limit struct {
	all, errors *rate.Limiter
	lost        int64
}

func newLimits(perSecond int) *limits {
	l := &limits{rate: perSecond, each: map[string]*limit{}}
	l.other = l.make()
	return l
}

func (l *limits) make() *limit {
	tenth := max(1, l.rate/10)
	return &limit{all: rate.NewLimiter(rate.Limit(l.rate), 2*l.rate), errors: rate.NewLimiter(rate.Limit(tenth), 2*tenth)}
}

// allow says whether a message may stay, and counts it if not.
func (l *limits) allow(component string, s syslog.Severity, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.each[component]
	if !ok {
		if len(l.each) < maxComponents {
			c = l.make()
			l.each[strings.Clone(component)] = c
		} else {
			c = l.other
		}
	}
	if c.all.AllowN(now, 1) || s <= syslog.Error && c.errors.AllowN(now, 1) {
		return true
	}
	c.lost++
	l.total.Add(1)
	return false
}

// dropped gives what was dropped of each component since the last call.
func (l *limits) dropped() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := map[string]int64{}
	for name, c := range l.each {
		if c.lost > 0 {
			lost[name], c.lost = c.lost, 0
		}
	}
	if l.other.lost > 0 {
		lost["others"], l.other.lost = l.other.lost, 0
	}
	return lost
}
