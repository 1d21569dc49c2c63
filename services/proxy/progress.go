package proxy

import (
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"berth/appliance/logger"
)

const (
	// stall is how long a body may stand still before its request ends.
	stall = 30 * time.Second
	// rearm is how often a deadline is moved while bytes flow: moving it at
	// every read would cost as much as the read of a small piece. A request
	// ends after stall to stall+rearm.
	rearm = 5 * time.Second
	// A body goes to the kernel in pieces, and progress is seen only between
	// them. Pieces are small for a client that takes its time, so that even
	// 2 KiB/s is progress, and grow for one that is fast.
	minPiece = 64 << 10
	maxPiece = 1 << 20
	// linger is how long the rest of a body may take that nobody reads any more:
	// net/http takes some of it from the connection before it answers.
	linger = 10 * time.Second
)

// deadlines is what net/http's own ResponseWriter has for
// http.ResponseController, for HTTP/1 and HTTP/2 alike.
type deadlines interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// exchange is one request and its answer on the way through the door: the
// ResponseWriter that handlers get, and (as its field body) the request's body.
//
// It moves the connection's deadlines while bytes flow, in either direction, so
// that neither a slow client nor a large blob is cut off, but a client that
// stands still is. It counts for the access log. It keeps ReadFrom, which is
// how net/http gets to sendfile, and Unwrap for http.ResponseController.
type exchange struct {
	http.ResponseWriter
	conn    deadlines // nil in tests without a connection
	client  netip.Addr
	start   time.Time
	armed   atomic.Int64 // when the write deadline was last moved, Unix nanoseconds: a body is read in another goroutine than the answer is written
	status  int
	written int64
	body    body
	request logger.Request // what the access log says of it; handlers fill in its fields
}

func newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w, start: time.Now()}
	x.conn, _ = w.(deadlines)
	if r.Body != nil && r.Body != http.NoBody {
		x.body.ReadCloser, x.body.x = r.Body, x
		r.Body = &x.body
	}
	return x
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// writing moves the write deadline, if it is time to. It gives the time.
func (x *exchange) writing() time.Time {
	now := time.Now()
	if last := x.armed.Load(); x.conn != nil && now.UnixNano()-last > int64(rearm) && x.armed.CompareAndSwap(last, now.UnixNano()) {
		_ = x.conn.SetWriteDeadline(now.Add(stall + rearm)) // fails only on a closed connection
	}
	return now
}

func (x *exchange) WriteHeader(status int) {
	if x.status < 200 { // informational ones may come before
		x.status = status
	}
	if status >= 200 {
		x.body.leave()
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (n int, err error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	x.writing()
	n, err = x.ResponseWriter.Write(p)
	x.written += int64(n)
	return n, err
}

// ReadFrom sends what src has, in pieces. A piece is an io.LimitedReader over
// src's own reader: this is the only form in which the net package recognises
// a file, and sends it without copying.
func (x *exchange) ReadFrom(src io.Reader) (n int64, err error) {
	to, ok := x.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(writerOnly{x}, src)
	}
	if x.status == 0 {
		x.status = http.StatusOK
	}
	whole, ok := src.(*io.LimitedReader)
	if !ok {
		whole = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	size := int64(minPiece)
	for whole.N > 0 && err == nil {
		before := x.writing()
		part := &io.LimitedReader{R: whole.R, N: min(whole.N, size)}
		want := part.N
		var k int64
		k, err = to.ReadFrom(part)
		whole.N -= k
		x.written += k
		n += k
		if k < want {
			break // the end of src
		}
		if size = min(2*size, maxPiece); time.Since(before) > time.Second {
			size = minPiece
		}
	}
	return n, err
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }

// end leaves a deadline for what net/http still has to send after the handler
// has returned. Without it, that of an earlier request on this connection
// would be in force, and may be over.
func (x *exchange) end() { x.writing() }

// body is a request's body.
type body struct {
	io.ReadCloser
	x     *exchange
	armed time.Time
	ended atomic.Bool // by its reader, which may be another goroutine than the answer's
	read  atomic.Int64
}

func (b *body) Read(p []byte) (n int, err error) {
	if b.x.conn != nil && !b.ended.Load() {
		if now := time.Now(); now.Sub(b.armed) > rearm {
			b.armed = now
			_ = b.x.conn.SetReadDeadline(now.Add(stall + rearm))
			b.x.writing() // the first read may send "100 Continue"
		}
	}
	n, err = b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	if err == io.EOF {
		b.rest()
	} else if err != nil {
		b.ended.Store(true) // its deadline stays: it holds for the rest that never came
	}
	return n, err
}

// rest takes the deadline away at the body's end: net/http then watches the
// connection for its client's leaving, and would take a missed deadline for it
// while we still work on the answer.
func (b *body) rest() {
	if b.x.conn != nil && !b.ended.Swap(true) {
		_ = b.x.conn.SetReadDeadline(time.Time{})
	}
}

// leave says that the answer begins, or is over, before the body's end.
func (b *body) leave() {
	if b.ReadCloser != nil && b.x.conn != nil && !b.ended.Load() {
		_ = b.x.conn.SetReadDeadline(time.Now().Add(linger))
	}
}
