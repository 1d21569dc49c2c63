package audit

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/appliance/fault"
	"berth/appliance/syslog"
	"berth/services/event"
)

// Forwarder sends entries to a syslog collector: RFC 5424 messages, over TCP
// with their length in front (RFC 6587 section 3.4.1), or one in each UDP
// datagram (RFC 5426). It keeps one connection.
type Forwarder struct {
	mu       sync.Mutex
	endpoint string
	conn     net.Conn
	gone     chan struct{} // closed when the collector has closed conn
	failed   time.Time     // of the last attempt to connect that failed
	why      error
}

const (
	forwardTimeout = 5 * time.Second
	// forwardPause is how long nobody tries again after a failure: events wait in
	// the outbox meanwhile, and each comes back by itself.
	forwardPause = 3 * time.Second
)

// Send gives an entry to the collector at endpoint: host:port, or
// udp://host:port. An error means that it has to be sent again. Errors:
// Unavailable.
func (f *Forwarder) Send(ctx context.Context, endpoint string, e event.Event) error {
	network, address := split(endpoint)
	message := Syslog(e)
	if network == "tcp" {
		message = fmt.Sprintf("%d %s", len(message), message)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for try := range 2 {
		if err := f.connect(ctx, endpoint, network, address); err != nil {
			return fault.Wrap(fault.Unavailable, err, "cannot reach the syslog collector %s", endpoint).On("audit_log_forward_endpoint")
		}
		err := f.conn.SetWriteDeadline(time.Now().Add(forwardTimeout))
		if err == nil {
			_, err = f.conn.Write([]byte(message))
		}
		if err == nil {
			return nil
		}
		f.close()
		if try == 1 || ctx.Err() != nil {
			return fault.Wrap(fault.Unavailable, err, "cannot write to the syslog collector %s", endpoint).On("audit_log_forward_endpoint")
		}
	}
	return nil
}

// Reach tries to connect to a collector. By UDP there is nobody to answer.
func Reach(ctx context.Context, endpoint string) error {
	var f Forwarder
	defer f.Close()
	network, address := split(endpoint)
	return f.connect(ctx, endpoint, network, address)
}

// split gives the network and the address of an endpoint.
func split(endpoint string) (network, address string) {
	if rest, ok := strings.CutPrefix(endpoint, "udp://"); ok {
		return "udp", rest
	}
	return "tcp", strings.TrimPrefix(endpoint, "tcp://")
}

// connect keeps the connection that there is, unless the other side has closed
// it: what is written to such a one is lost without an error.
func (f *Forwarder) connect(ctx context.Context, endpoint, network, address string) error {
	if f.conn != nil && f.endpoint == endpoint {
		select {
		case <-f.gone:
		default:
			return nil
		}
	}
	f.close()
	if f.endpoint == endpoint && time.Since(f.failed) < forwardPause {
		return f.why
	}
	f.endpoint = endpoint
	d := net.Dialer{Timeout: forwardTimeout}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		if ctx.Err() == nil {
			f.failed, f.why = time.Now(), err
		}
		return err
	}
	f.conn, f.gone, f.failed = conn, make(chan struct{}), time.Time{}
	go func(gone chan struct{}) {
		defer close(gone)
		var b [64]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return // also when close has closed it
			}
		}
	}(f.gone)
	return nil
}

func (f *Forwarder) close() {
	if f.conn != nil {
		f.conn.Close()
		<-f.gone
		f.conn = nil
	}
}

// Close ends the connection.
func (f *Forwarder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close()
}

// maxSyslogText bounds one value: collectors take 8 KiB a message, mostly.
const maxSyslogText = 1024

// Syslog renders an event as an RFC 5424 message: facility 13 (log audit),
// severity informational, or notice for a refusal. What users have named cannot
// end a message or a value.
func Syslog(e event.Event) string {
	m := &syslog.Message{Time: e.Time, Facility: syslog.Audit, Severity: syslog.Informational, Component: "berth-audit", PID: strconv.Itoa(os.Getpid()),
		ID: e.Operation + "_" + e.ResourceType, Text: e.Description}
	m.Host, _ = os.Hostname() // without: a nil value
	result := "success"
	if !e.Success {
		m.Severity, result = syslog.Notice, "failure"
	}
	if m.Text == "" {
		m.Text = e.Operation + " " + e.ResourceType + ": " + e.Resource
	}
	m.Text = m.Text[:min(len(m.Text), maxSyslogText)]
	for _, a := range []syslog.Attr{{Key: "id", Value: e.ID.String()}, {Key: "operation", Value: e.Operation}, {Key: "resource_type", Value: e.ResourceType},
		{Key: "resource", Value: e.Resource}, {Key: "user", Value: e.User}, {Key: "result", Value: result}, {Key: "source", Value: e.Source}, {Key: "request_id", Value: e.RequestID}} {
		if a.Value != "" {
			// 32473 is the enterprise number for documentation (RFC 5612); we have none.
			m.Attrs = append(m.Attrs, syslog.Attr{Key: "audit@32473." + a.Key, Value: a.Value[:min(len(a.Value), maxSyslogText)]})
		}
	}
	return string(syslog.Append(nil, m))
}

// Rules are the administrators' settings of the trail.
type Rules struct {
	Disabled     []string // event types (see event.Types) that are not kept and not forwarded
	Endpoint     string   // of a syslog collector; "" is none
	SkipDatabase bool     // forward only; nothing without an endpoint
}
