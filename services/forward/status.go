package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"berth/appliance/fault"
	"berth/appliance/pause"
	"berth/appliance/syslog"
)

const (
	// stuckAfter is after how long Status says that a collector takes nothing.
	stuckAfter = 10 * time.Second
	// testTime is how long Test waits for a collector to refuse: some look at names
	// only when the first message comes.
	testTime = time.Second
)

// Status is how a collector does. Counts are since the start of this process.
type Status struct {
	Name      string    `json:"name"`
	To        string    `json:"to"`
	State     string    `json:"state"` // in words
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"` // of the connection, or of its failure
	Error     string    `json:"error,omitempty"`
	Hint      string    `json:"hint,omitempty"`

	Sent        uint64 `json:"sent"`        // messages, with those that were repeated
	Repeated    uint64 `json:"repeated"`    // messages that were sent before
	Dropped     uint64 `json:"dropped"`     // messages that the collector will never get
	Bytes       uint64 `json:"bytes"`       // sent, without TLS
	Connections uint64 `json:"connections"` // that were made
	Failures    uint64 `json:"failures"`    // attempts that failed and connections that were lost

	// What waits is counted before the collector's filters.
	Waiting        int64   `json:"waiting"`
	WaitingBytes   int64   `json:"waiting_bytes"`
	WaitingSeconds float64 `json:"waiting_seconds"` // the age of the oldest message
}

func (c *collector) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, next := time.Now(), c.journey.next
	s := Status{Name: c.set.Name, To: c.set.To, Connected: c.conn != nil && c.failure == nil, Since: c.since,
		Sent: c.counts.sent, Repeated: c.counts.repeated, Dropped: c.counts.dropped, Bytes: c.counts.bytes, Connections: c.counts.connections, Failures: c.counts.failures}
	s.Waiting, s.WaitingBytes = c.store.Waiting(next)
	if s.Waiting > 0 && !c.oldest.IsZero() {
		s.WaitingSeconds = max(now.Sub(c.oldest).Seconds(), 0)
	}
	switch {
	case s.Connected:
		s.State = fmt.Sprintf("connected to %s %s", c.to.address, c.conn.words)
		if d := now.Sub(c.conn.seen.moved); s.Waiting > 0 && !c.conn.seen.moved.IsZero() && d > stuckAfter {
			s.State += fmt.Sprintf("; it has taken nothing for %d s", int(d.Seconds()))
		}
	case c.failure == nil:
		s.State = "connecting for the first time"
	default:
		s.Error, s.Hint = c.failure.Text, c.failure.Hint
		s.State = fmt.Sprintf("%s; tries again", s.Error)
		if d := c.again.Sub(now); c.conn == nil && d > 0 {
			s.State += fmt.Sprintf(" in %d s", int(d.Seconds())+1)
		}
	}
	return s
}

// test is Forwarder.Test.
func (c *collector) test(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*connectTime)
	defer cancel()
	conn, err := c.to.connect(ctx)
	if err != nil {
		return "", c.to.explain(err)
	}
	defer conn.abort()
	id := make([]byte, 4)
	rand.Read(id) // never fails (crypto/rand, Go 1.24)
	text := "test message " + hex.EncodeToString(id) + " of Berth's log service"
	m := &syslog.Message{Time: time.Now(), Facility: syslog.Local0, Severity: syslog.Notice, Component: "logs", ID: "test", Text: text,
		Attrs: []syslog.Attr{{Key: "collector", Value: c.set.Name}}}
	b := frame(nil, newRenderer(c.render.host, c.render.json).message(nil, m), c.to.scheme, c.render.json)
	if err := conn.send(b, []int{len(b)}); err != nil {
		return "", c.to.explain(conn.reason(err))
	}
	if pause.For(conn.alive, testTime); ctx.Err() == nil && conn.alive.Err() != nil {
		return "", c.to.explain(conn.reason(nil))
	}
	if conn.wire == nil {
		return fmt.Sprintf("the message was sent to %s by UDP, which does not tell whether it arrived: look for %q at the collector", c.to.address, text), nil
	}
	if err := conn.arrived(ctx); err != nil {
		return "", c.to.explain(err)
	}
	read := "the message was handed over"
	if conn.finish() {
		read = "the message was handed over and read"
	}
	return fmt.Sprintf("connected to %s %s; %s: look for %q at the collector", c.to.address, conn.words, read, text), nil
}

// arrived waits until the other side's TCP has all.
func (c *conn) arrived(ctx context.Context) error {
	for end := time.Now().Add(connectTime); ; pause.For(ctx, 50*time.Millisecond) {
		seen, err := c.look(time.Now())
		if err != nil || seen.acked == c.bytes() {
			return err
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fault.New(fault.Unavailable, "%s does not acknowledge the message", c.RemoteAddr()).On("to").WithHint("check whether the collector hangs")
		}
	}
}
