package logger

import (
	"context"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"berth/appliance/pause"
	"berth/appliance/syslog"
)

const (
	// sinkRoom is how many bytes may wait for the log service: a minute of a busy
	// registry. What is more is counted and dropped: a log that stalls must not
	// stall what it tells of.
	sinkRoom = 4 << 20
	// sinkDelay is how long a line waits for others. A write and the reader's
	// waking up cost more than the line.
	sinkDelay = 100 * time.Millisecond
	// sinkTimeout is how long a write may take before the connection is given up.
	sinkTimeout = 5 * time.Second
	sinkRetry   = 500 * time.Millisecond
)

// Sink sends messages to the log service's unix socket: RFC 5424, each with its
// length before it (RFC 6587 section 3.4.1). Nothing in it waits for the socket
// but Run. It starts without a log service, and finds it again.
type Sink struct {
	path string
	host string
	pid  string

	mu      sync.Mutex
	buf     []byte
	scratch []byte
	message syslog.Message
	dropped int64
	total   int64 // dropped since the start
	wake    chan struct{}
}

// NewSink makes a sink for the socket at path. Run sends.
func NewSink(path string) *Sink {
	return &Sink{path: path, host: hostname(), pid: strconv.Itoa(os.Getpid()), wake: make(chan struct{}, 1)}
}

// hostname is the machine's; "" if it has none.
func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	return host
}

// Send gives a message to the log service, soon. Host, PID and facility are
// filled in. fill must only set fields and append to Attrs; what it sets is
// copied before Send returns.
func (s *Sink) Send(fill func(*syslog.Message)) { s.send(fill) }

func (s *Sink) send(fill func(*syslog.Message)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) > sinkRoom {
		s.dropped++
		s.total++
		return
	}
	s.message = syslog.Message{Facility: syslog.Local0, Host: s.host, PID: s.pid, Attrs: s.message.Attrs[:0]}
	fill(&s.message)
	s.frame()
}

// frame puts the message at the end of the buffer.
func (s *Sink) frame() {
	s.scratch = syslog.Append(s.scratch[:0], &s.message)
	first := len(s.buf) == 0
	s.buf = syslog.AppendFrame(s.buf, s.scratch)
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Dropped is how many messages had no room since the start.
func (s *Sink) Dropped() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Run sends until ctx ends, then what is left, for a second at most.
func (s *Sink) Run(ctx context.Context) error {
	var conn net.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	var batch []byte
	for ctx.Err() == nil {
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
		pause.For(ctx, sinkDelay)
		batch = s.take(batch)
		if !s.deliver(ctx, &conn, batch) {
			break
		}
		if batch = batch[:0]; cap(batch) > 1<<20 {
			batch = nil // of a burst; its room is not needed again soon
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.deliver(end, &conn, batch) {
		s.deliver(end, &conn, s.take(nil))
	}
	return nil
}

// take exchanges the filled buffer for an empty one.
func (s *Sink) take(empty []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host = hostname() // it changes: the agent runs before the machine has its name
	if s.dropped > 0 {
		n := s.dropped
		s.dropped = 0
		s.message = syslog.Message{Time: time.Now(), Facility: syslog.Local0, Severity: syslog.Warning, Host: s.host, PID: s.pid, Component: "logs",
			Attrs: append(s.message.Attrs[:0], syslog.Attr{Key: "dropped", Value: strconv.FormatInt(n, 10)}), Text: "messages had no room while the log service was away"}
		s.frame()
	}
	full := s.buf
	s.buf = empty[:0]
	return full
}

// deliver writes a batch, over a new connection if need be, and reports whether
// it is written before ctx ends. A batch whose connection breaks is sent again as
// a whole: twice is better than not at all.
func (s *Sink) deliver(ctx context.Context, conn *net.Conn, batch []byte) bool {
	for len(batch) > 0 {
		if *conn == nil {
			var d net.Dialer
			c, err := d.DialContext(ctx, "unix", s.path)
			if err != nil {
				if !pause.For(ctx, sinkRetry) {
					return false
				}
				continue
			}
			*conn = c
		}
		err := (*conn).SetWriteDeadline(time.Now().Add(sinkTimeout))
		if err == nil {
			_, err = (*conn).Write(batch)
		}
		if err == nil {
			return true
		}
		(*conn).Close()
		*conn = nil
		if !pause.For(ctx, sinkRetry) {
			return false
		}
	}
	return true
}
