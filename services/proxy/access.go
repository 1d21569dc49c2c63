package proxy

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"berth/appliance/health"
	"berth/appliance/logger"
	"berth/appliance/syslog"
	"berth/services/reference"
)

// backlog is how many lines may wait for the disk. Beyond it they are counted
// and dropped: a log that stalls must not stall the registry.
const backlog = 4096

// accessLog writes one line for each request, to a file, to the log service, or
// to both. Its goroutine is the only one that touches the writer, and formats: a
// request pays for a channel send.
//
// Query strings are left out, for there are signatures and tokens in them; so are
// all headers but User-Agent, and an upload's state in its path.
type accessLog struct {
	sink    *logger.Sink  // nil = none
	to      io.Writer     // nil = none
	out     *bufio.Writer // over to
	log     *slog.Logger
	failing bool // that it cannot write was told
	entries chan entry
	dropped atomic.Int64
}

type entry struct {
	start    time.Time
	took     time.Duration
	request  logger.Request
	client   netip.Addr
	method   string
	host     string
	path     string
	agent    string
	protocol string
	status   int
	received int64
	sent     int64
}

func newAccessLog(w io.Writer, sink *logger.Sink, log *slog.Logger) *accessLog {
	a := &accessLog{sink: sink, to: w, log: log, entries: make(chan entry, backlog)}
	if w != nil {
		a.out = bufio.NewWriterSize(w, 64<<10)
	}
	return a
}

// ownQuestion reports whether it is only this machine asking itself whether it
// lives, as the watchdog does three times a minute: a line for each would bury the
// others. It is no more than a question for the version, without a login, so who
// imitates it hides nothing.
func ownQuestion(x *exchange, r *http.Request) bool {
	return r.Method == http.MethodHead && r.URL.Path == "/v2/" && x.client.IsLoopback() && r.UserAgent() == health.UserAgent && r.Header["Authorization"] == nil
}

func (a *accessLog) add(x *exchange, r *http.Request) {
	e := entry{start: x.start, took: time.Since(x.start), request: x.request, client: x.client, method: r.Method, host: r.Host,
		path: reference.Brief(r.URL.Path), protocol: r.Proto, status: x.status, received: x.body.read.Load(), sent: x.written}
	if agent := r.Header["User-Agent"]; len(agent) > 0 {
		e.agent = agent[0]
	}
	if e.status == 0 {
		e.status = http.StatusOK // net/http says so when a handler writes nothing
	}
	select {
	case a.entries <- e:
	default:
		a.dropped.Add(1)
	}
}

// run writes until ctx ends, and then what is still waiting.
func (a *accessLog) run(ctx context.Context) {
	var line []byte
	for {
		select {
		case e := <-a.entries:
			line = a.write(line, e)
			if len(a.entries) == 0 {
				a.flush()
			}
		case <-ctx.Done():
			for len(a.entries) > 0 {
				line = a.write(line, <-a.entries)
			}
			a.flush()
			return
		}
	}
}

// write formats one line into line's room, which it gives back.
func (a *accessLog) write(line []byte, e entry) []byte {
	if a.sink != nil {
		a.sink.Send(e.fill)
	}
	if a.to == nil {
		return line
	}
	line = append(e.appendJSON(line[:0]), '\n')
	_, _ = a.out.Write(line) // a bufio.Writer keeps its error for Flush
	return line
}

func (a *accessLog) flush() {
	var err error
	if a.to != nil {
		err = a.out.Flush()
	}
	if err != nil && !a.failing {
		a.log.Error("cannot write the access log", "err", err)
	}
	if a.failing = err != nil; a.failing {
		a.out.Reset(a.to) // forgets the error and the lines, so that the next ones are tried
	}
	if n := a.dropped.Swap(0); n > 0 {
		a.log.Warn("the access log could not keep up", "lines_dropped", n)
	}
}

func (e *entry) appendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = e.start.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","request_id":"`...)
	b = append(b, e.request.ID...) // sane by now
	if e.request.TokenRequest != "" {
		b = append(b, `","token_request":`...)
		b = appendString(b, e.request.TokenRequest)
		b = append(b, `,"client":"`...)
	} else {
		b = append(b, `","client":"`...)
	}
	b = e.client.AppendTo(b)
	b = append(b, `","method":`...)
	b = appendString(b, e.method)
	b = append(b, `,"host":`...)
	b = appendString(b, e.host)
	b = append(b, `,"path":`...)
	b = appendString(b, e.path)
	b = append(b, `,"protocol":`...)
	b = appendString(b, e.protocol)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(e.status), 10)
	b = append(b, `,"received":`...)
	b = strconv.AppendInt(b, e.received, 10)
	b = append(b, `,"sent":`...)
	b = strconv.AppendInt(b, e.sent, 10)
	b = append(b, `,"ms":`...)
	b = strconv.AppendFloat(b, float64(e.took.Microseconds())/1000, 'f', 3, 64)
	b = append(b, `,"agent":`...)
	b = appendString(b, e.agent)
	if e.request.User != "" {
		b = append(b, `,"user":`...)
		b = appendString(b, e.request.User)
	}
	return append(b, '}')
}

// fill makes a message of the entry.
func (e *entry) fill(m *syslog.Message) {
	m.Time, m.Component, m.ID, m.Text, m.Severity = e.start, "proxy", "access", "request", syslog.Informational
	if e.status >= 500 {
		m.Severity = syslog.Warning // whoever failed has said why, as an error
	}
	m.Attrs = append(m.Attrs,
		syslog.Attr{Key: "method", Value: cut(e.method)}, syslog.Attr{Key: "path", Value: cut(e.path)},
		syslog.Attr{Key: "status", Value: strconv.Itoa(e.status)}, syslog.Attr{Key: "ms", Value: strconv.FormatFloat(float64(e.took.Microseconds())/1000, 'f', 3, 64)},
		syslog.Attr{Key: "client", Value: e.client.String()})
	for _, a := range []syslog.Attr{
		{Key: "user", Value: e.request.User}, {Key: "agent", Value: cut(e.agent)}, {Key: "host", Value: cut(e.host)},
		{Key: "received", Value: count(e.received)}, {Key: "sent", Value: count(e.sent)}, {Key: "protocol", Value: e.protocol},
		{Key: syslog.RequestID, Value: e.request.ID}, {Key: syslog.TokenRequest, Value: e.request.TokenRequest}, {Key: syslog.TraceID, Value: e.request.TraceID},
	} {
		if a.Value != "" {
			m.Attrs = append(m.Attrs, a)
		}
	}
}

// count is "" for none.
func count(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// maxText is the length that no honest text has.
const maxText = 1024

func cut(s string) string { return s[:min(len(s), maxText)] }

// appendString quotes a stranger's text as JSON, cut to a length that no
// honest one has.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i, c := range s {
		if i >= maxText {
			b = append(b, "…"...)
			break
		}
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = utf8.AppendRune(b, c) // invalid UTF-8 comes as U+FFFD
		}
	}
	return append(b, '"')
}
