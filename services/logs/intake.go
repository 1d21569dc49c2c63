package logs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"berth/appliance/pause"
	"berth/appliance/redact"
	"berth/appliance/syslog"
)

const (
	// maxMessage is how much of one message is kept: what is longer is cut.
	maxMessage = 64 << 10
	// maxPeers is how many connections one listener may have at once.
	maxPeers = 512
	// receiveRoom is the kernel's room for datagrams that we have not read yet.
	receiveRoom = 4 << 20
	// How far a sender's clock may be off before ours counts.
	aheadMost  = time.Minute
	behindMost = 24 * time.Hour
)

// intake is where messages come in: it reads, cleans, limits and stores them.
type intake struct {
	store  Store
	limits *limits
	log    *slog.Logger
	now    func() time.Time

	received, cut, empty, misdated, redacted, failed, broken, refused atomic.Int64
}

// Store is what the intake needs of segment.Store.
type Store interface {
	Append(...*syslog.Message) error
}

// Counts are the intake's since the start.
type Counts struct {
	Received int64 `json:"received"`           // messages, of all kinds
	Cut      int64 `json:"cut"`                // were longer than 64 KiB
	Empty    int64 `json:"empty"`              // had nothing in them
	Misdated int64 `json:"misdated"`           // came with a time that cannot be: ours was taken
	Redacted int64 `json:"redacted"`           // had what looked like a secret
	Failed   int64 `json:"failed"`             // could not be stored
	Broken   int64 `json:"broken_connections"` // ended in the middle of a message, or with nonsense
	Refused  int64 `json:"refused_connections"`
	Limited  int64 `json:"limited"` // dropped, because their component sends too much
}

func (in *intake) counts() Counts {
	return Counts{in.received.Load(), in.cut.Load(), in.empty.Load(), in.misdated.Load(), in.redacted.Load(), in.failed.Load(),
		in.broken.Load(), in.refused.Load(), in.limits.total.Load()}
}

// accept serves a listener until ctx ends. via is "" for Berth's own socket.
func (in *intake) accept(ctx context.Context, l net.Listener, via string) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	peers := make(chan struct{}, maxPeers)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			in.log.Warn("cannot accept a connection", "err", err) // out of descriptors, say
			pause.For(ctx, time.Second)
			continue
		}
		select {
		case peers <- struct{}{}:
		default:
			in.refused.Add(1)
			conn.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-peers }()
			in.stream(ctx, conn, via)
		})
	}
}

// stream reads one connection to its end. It may stand still for as long as it
// likes: nobody waits for it.
func (in *intake) stream(ctx context.Context, conn net.Conn, via string) {
	// What was sent before the end is still read, for a moment.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now().Add(time.Second)) })
	defer stop()
	defer conn.Close()
	r := syslog.NewReader(conn, maxMessage)
	var m syslog.Message
	for {
		line, cut, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				in.broken.Add(1)
			}
			return
		}
		in.take(&m, text(line), cut, via)
	}
}

// text is a line as a string without a copy: the store copies what it keeps, and
// nothing else outlives take.
func text(line []byte) string { return unsafe.String(unsafe.SliceData(line), len(line)) }

// datagrams reads messages of which each came in a packet of its own.
func (in *intake) datagrams(ctx context.Context, c net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if u, ok := c.(*net.UDPConn); ok {
		_ = u.SetReadBuffer(receiveRoom) // the kernel may give less
	}
	buf := make([]byte, maxMessage)
	var m syslog.Message
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			pause.For(ctx, 100*time.Millisecond)
			continue
		}
		in.take(&m, strings.TrimRight(text(buf[:n]), "\r\n\x00"), false, "udp")
	}
}

// take brings one line into the store. m is room to parse into.
func (in *intake) take(m *syslog.Message, line string, cut bool, via string) {
	in.received.Add(1)
	now := in.now()
	if err := syslog.Parse(line, now, m); err != nil {
		in.empty.Add(1)
		return
	}
	in.date(m, now)
	if redact.Suspicious(line) && redact.Message(m) {
		in.redacted.Add(1)
	}
	if cut {
		in.cut.Add(1)
		m.Attrs = append(m.Attrs, syslog.Attr{Key: "cut", Value: "true"})
	}
	if via != "" {
		m.Attrs = append(m.Attrs, syslog.Attr{Key: "via", Value: via})
	}
	in.keep(m, now)
}

// keep stores a message, unless its component has sent too much.
func (in *intake) keep(m *syslog.Message, now time.Time) {
	if !in.limits.allow(m.Component, m.Severity, now) {
		return
	}
	if err := in.store.Append(m); err != nil {
		in.failed.Add(1) // the store tells why, once
	}
}

// date sets our own time where the sender's cannot be right, and keeps the
// other as an attribute.
func (in *intake) date(m *syslog.Message, now time.Time) {
	if off := m.Time.Sub(now); off <= aheadMost && off >= -behindMost {
		return
	}
	in.misdated.Add(1)
	m.Attrs = append(m.Attrs, syslog.Attr{Key: "sent_at", Value: m.Time.UTC().Format(time.RFC3339Nano)})
	m.Time = now
}

// report tells every interval of what components had dropped.
func (in *intake) report(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			in.tellDropped()
			return nil
		case <-tick.C:
			in.tellDropped()
		}
	}
}

func (in *intake) tellDropped() {
	for component, n := range in.limits.dropped() {
		in.log.Warn("messages of a component were dropped, for it sends too many", "of", component, "dropped", n, "limit", in.limits.rate)
	}
}
