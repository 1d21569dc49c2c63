package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"berth/appliance/fault"
	"berth/appliance/setting"
)

const (
	connectTime = 10 * time.Second
	// silence is after how long a peer is given up that acknowledges nothing: it is
	// not there any more. Not by TCP_USER_TIMEOUT, which gives up a slow reader too,
	// whose machine does answer: it would get the same messages again and again.
	silence = 30 * time.Second
	// stall is after how long one is given up that takes not a byte.
	stall = 5 * time.Minute
	// finishTime is how long a collector may take to read what is left when Berth stops.
	finishTime = 2 * time.Second
	// refusalTime is in which a refusal comes: a certificate that a collector does
	// not like (TLS 1.3 says so after the handshake), a port where nobody listens
	// (ICMP).
	refusalTime = 300 * time.Millisecond
)

// target is where a collector is and how it is reached.
type target struct {
	scheme, address string
	set             setting.Forward
}

// conn is a connection to a collector. Somebody always reads from it: to hear of
// its end, of refusals, and of TLS's own messages.
type conn struct {
	net.Conn                         // TLS, TCP or UDP
	wire     *wire                   // nil by UDP
	udp      atomic.Int64            // bytes written by UDP
	words    string                  // what it is: "by TLS 1.3; …"
	alive    context.Context         // ends with the connection, or when its user's ends
	end      context.CancelCauseFunc // of alive
	read     chan struct{}           // closed when nothing can be read any more
	readErr  error                   // why; valid then
	seen     sight
}

// connect makes a connection: names are resolved and files are read each time.
// When ctx ends, it ends two seconds later.
func (t target) connect(ctx context.Context) (*conn, error) {
	var config *tls.Config
	wanted := false // a client certificate is
	if t.scheme == "tls" {
		var err error
		if config, err = t.tls(&wanted); err != nil {
			return nil, err
		}
	}
	network := "tcp"
	if t.scheme == "udp" {
		network = "udp"
	}
	d := net.Dialer{Timeout: connectTime, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	raw, err := d.DialContext(ctx, network, t.address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, words: "by " + strings.ToUpper(network), read: make(chan struct{})}
	if tcp, ok := raw.(*net.TCPConn); ok {
		c.wire = &wire{TCPConn: tcp}
		if c.wire.raw, err = tcp.SyscallConn(); err != nil {
			raw.Close()
			return nil, err
		}
	}
	if config != nil {
		if err := c.handshake(ctx, config, &wanted); err != nil {
			raw.Close()
			return nil, err
		}
	}
	start := time.Now()
	c.alive, c.end = context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(finishTime, func() { raw.Close() }) })
	go func() {
		defer stop()
		_, err := io.Copy(io.Discard, c.Conn)
		if err == nil {
			err = io.EOF
		}
		if wanted && config.Certificates == nil && time.Since(start) < finishTime {
			err = &noCertificate{err}
		}
		c.readErr = err
		c.end(err)
		close(c.read)
	}()
	return c, nil
}

// noCertificate is the end of a connection to a collector that has asked for a
// certificate and got none.
type noCertificate struct{ error }

func (e *noCertificate) Unwrap() error { return e.error }

func (c *conn) handshake(ctx context.Context, config *tls.Config, wanted *bool) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	t := tls.Client(c.wire, config)
	if err := t.HandshakeContext(ctx); err != nil {
		if *wanted && config.Certificates == nil {
			err = &noCertificate{err}
		}
		return err
	}
	state := t.ConnectionState()
	leaf := state.PeerCertificates[0]
	c.Conn, c.words = t, fmt.Sprintf("by %s; its certificate %s is valid until %s", tls.VersionName(state.Version), name(leaf), format(leaf.NotAfter))
	return nil
}

// tls is how to speak TLS with the collector: RFC 5425, with what RFC 9662 says
// of versions. wanted is set when the collector asks for a certificate.
func (t target) tls(wanted *bool) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(t.address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if t.set.ServerName != "" {
		c.ServerName = t.set.ServerName
	}
	if t.set.CA != "" {
		pem, err := os.ReadFile(t.set.CA)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "cannot read the file of trusted authorities %s", t.set.CA).On("ca").WithHint("name a PEM file that the log service may read")
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "there is no certificate in %s", t.set.CA).On("ca").WithHint("it must be a PEM file: -----BEGIN CERTIFICATE-----")
		}
	}
	if t.set.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(t.set.Certificate, t.set.PrivateKey)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "cannot use the certificate %s with the key %s", t.set.Certificate, t.set.PrivateKey).On("certificate").
				WithHint("both must be PEM files that the log service may read, and belong together")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		*wanted = true
		if len(c.Certificates) == 0 {
			return new(tls.Certificate), nil
		}
		return &c.Certificates[0], nil // also if the collector's list of authorities does not name ours: it will say so
	}
	return c, nil
}

// wire is a TCP connection that counts what it was given, and is given up when it
// takes nothing at all. However slow, one that takes something goes on.
type wire struct {
	*net.TCPConn
	raw     syscall.RawConn
	written atomic.Int64
}

func (w *wire) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if err := w.SetWriteDeadline(time.Now().Add(stall)); err != nil {
			return n, err
		}
		k, err := w.TCPConn.Write(p[n:])
		n += k
		w.written.Add(int64(k))
		if err != nil && (k == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
	}
	return n, nil
}

// bytes is what was written.
func (c *conn) bytes() int64 {
	if c.wire == nil {
		return c.udp.Load()
	}
	return c.wire.written.Load()
}

// send writes messages, by UDP each in a datagram. ends are their ends in b.
func (c *conn) send(b []byte, ends []int) error {
	if len(b) == 0 {
		return nil
	}
	if c.wire != nil {
		_, err := c.Write(b)
		return err
	}
	start := 0
	for _, end := range ends {
		if _, err := c.Write(b[start:end]); err != nil {
			return err
		}
		start = end
	}
	c.udp.Add(int64(len(b)))
	return nil
}

// finish says that nothing more comes, and reports whether the collector has
// read all: it closes the connection then. By UDP there is nothing to know.
func (c *conn) finish() bool {
	if c.wire == nil {
		return true
	}
	t := time.AfterFunc(finishTime, func() { c.wire.Close() })
	defer t.Stop()
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.CloseWrite() // an error comes again below
	}
	if err := c.wire.CloseWrite(); err != nil {
		return false
	}
	<-c.read
	return errors.Is(c.readErr, io.EOF) || errors.Is(c.readErr, io.ErrUnexpectedEOF) // without TLS's farewell
}

// reason is why the connection has ended: what the collector has said, rather
// than that it cannot be written to.
func (c *conn) reason(err error) error {
	t := time.NewTimer(refusalTime)
	defer t.Stop()
	select {
	case <-c.read:
		return context.Cause(c.alive)
	case <-t.C:
		return err
	}
}

// abort ends the connection at once.
func (c *conn) abort() {
	if c.wire != nil {
		c.wire.Close()
	} else {
		c.Close()
	}
	<-c.read
}
