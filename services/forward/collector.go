package forward

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"berth/appliance/fault"
	"berth/appliance/pause"
	"berth/appliance/setting"
)

const (
	// keepEvery is how often the position is brought up to date and kept.
	keepEvery = time.Second
	// The pauses between attempts to connect double from the first to the longest.
	firstPause, longestPause = time.Second, time.Minute
)

// collector is one receiver of messages. The goroutine of run alone reads the
// store and sends; what others look at is under mu.
type collector struct {
	set    setting.Forward
	to     target
	store  Store
	filter filter
	render *renderer
	path   string // of the position
	log    *slog.Logger
	batch  batch
	holes  int64 // Seqs without a message from the next one on, see gap

	mu      sync.Mutex
	journey journey
	conn    *conn // nil: none
	since   time.Time
	failure *fault.Error // of the last attempt; nil: it went well
	again   time.Time    // of the next attempt
	oldest  time.Time    // time of the first message that waits; zero: none
	saved   kept
	counts  counts
	// dropLogged is when it was said last that messages are dropped.
	dropLogged time.Time
}

// counts are since the start.
type counts struct {
	sent, repeated, dropped, bytes, connections, failures uint64
}

func newCollector(o Options, set setting.Forward) (*collector, error) {
	scheme, address, err := set.Target()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot forward logs to %q", set.Name).On("logs.forward")
	}
	c := &collector{set: set, to: target{scheme, address, set}, store: o.Store, filter: newFilter(set), render: newRenderer(o.Host, set.Format == "json"),
		path: filepath.Join(o.Dir, set.Name+positionSuffix), log: o.Log.With("collector", set.Name, "to", set.To)}
	k, found, err := load(c.path)
	if err != nil {
		c.log.Error("the position of a collector cannot be read: it gets what comes from now on", "error", err)
	}
	if end := o.Store.End(); !found || k.Next > end {
		k.Next = end
	}
	// Kept at once: a collector that is new has its place from here on, whatever happens.
	if err := k.save(c.path); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot keep the position of the collector %q", set.Name)
	}
	c.journey = journey{position: k.Next, next: k.Next, high: k.Next, untold: k.Untold}
	c.saved = k
	c.holes = c.holesAfter(k.Next)
	return c, nil
}

// run connects and sends until ctx ends, and keeps the position beside that.
func (c *collector) run(ctx context.Context) {
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var keeper sync.WaitGroup
	keeper.Go(func() { c.keep(keeping) })
	pause := firstPause
	for ctx.Err() == nil {
		before := c.position()
		if c.attempt(ctx) {
			continue
		}
		if c.position() != before {
			pause = firstPause
		}
		c.rest(ctx, time.Duration(float64(pause)*(0.8+0.4*rand.Float64()))) // not all Berths at once
		pause = min(2*pause, longestPause)
	}
	stop()
	keeper.Wait()
}

func (c *collector) position() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.journey.position
}

// attempt is one connection, from its beginning to its end. It reports whether
// it has ended in order.
func (c *collector) attempt(ctx context.Context) (finished bool) {
	conn, err := c.to.connect(ctx)
	if err != nil {
		c.failed(ctx, c.to.explain(err))
		return false
	}
	c.mu.Lock()
	c.conn, c.since = conn, time.Now()
	c.counts.connections++
	c.mu.Unlock()

	err = c.feed(ctx, conn)
	if err == nil || ctx.Err() != nil {
		finished = conn.finish()
	} else {
		err = conn.reason(err)
	}
	conn.abort()

	c.mu.Lock()
	if finished {
		c.journey.pass(len(c.journey.marks))
	}
	c.journey.rewind()
	c.conn = nil
	next := c.journey.next
	c.mu.Unlock()
	c.holes = c.holesAfter(next)
	if !finished {
		c.failed(ctx, c.to.explain(err))
	}
	return finished
}

// failed notes why there is no connection, and logs it if that is news.
func (c *collector) failed(ctx context.Context, why *fault.Error) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	news := c.failure == nil || c.failure.Text != why.Text
	if c.failure == nil {
		c.since = time.Now()
	}
	c.failure = why
	c.counts.failures++
	c.mu.Unlock()
	if news {
		c.log.Warn("a collector of logs is not reached: messages wait for it", "error", why.Error(), "hint", why.Hint)
	}
}

func (c *collector) hasFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure != nil
}

// working notes that messages go out, if the connection lives.
func (c *collector) working(conn *conn) {
	if conn.alive.Err() != nil {
		return
	}
	c.mu.Lock()
	failure := c.failure
	c.failure = nil
	c.mu.Unlock()
	if failure != nil {
		c.log.Info("a collector of logs is reached again")
	}
}

// rest waits before the next attempt, and keeps the queue within its limit.
func (c *collector) rest(ctx context.Context, d time.Duration) {
	end := time.Now().Add(d)
	c.mu.Lock()
	c.again = end
	c.mu.Unlock()
	for ctx.Err() == nil && time.Now().Before(end) {
		if err := c.limit(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the queue of a collector cannot be looked at", "error", err)
		}
		pause.For(ctx, min(time.Second, time.Until(end)))
	}
}

// keep brings the position up to date and writes it, until ctx ends and once
// more then.
func (c *collector) keep(ctx context.Context) {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	broken := false
	for {
		ended := false
		select {
		case <-ctx.Done():
			ended = true
		case <-t.C:
			c.settle(ctx)
		}
		err := c.save()
		if err != nil && !broken {
			c.log.Error("the position of a collector cannot be kept: after a restart messages will be repeated", "error", err)
		}
		broken = err != nil
		if ended {
			return
		}
	}
}

// settle asks what has arrived, and how old the first message is that waits.
func (c *collector) settle(ctx context.Context) {
	c.mu.Lock()
	if c.conn != nil {
		now := time.Now()
		if seen, err := c.conn.look(now); err == nil { // else the connection is about to end
			c.journey.settle(seen, now)
		}
	}
	next := c.journey.next
	c.mu.Unlock()
	oldest, err := c.timeOf(ctx, next)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.oldest = oldest
	c.mu.Unlock()
}

func (c *collector) save() error {
	c.mu.Lock()
	k := c.journey.kept()
	same := k == c.saved
	c.mu.Unlock()
	if same {
		return nil
	}
	if err := k.save(c.path); err != nil {
		return err
	}
	c.mu.Lock()
	c.saved = k
	c.mu.Unlock()
	return nil
}
