package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/fault"
)

// Dial opens a connection to a directory: a net.Dialer's DialContext, or one that
// refuses some addresses.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// The pool's limits. A directory serves thousands of clients: ours are few.
const (
	maxConns    = 8
	maxIdle     = 2 * time.Minute
	maxLife     = 15 * time.Minute
	probeAfter  = 20 * time.Second // an idle connection may be dead without a word
	defaultWait = 5 * time.Second
	silence     = 3 * time.Second // before a directory that did not answer is tried again
)

// conn is a connection, and who it is bound as.
type conn struct {
	*ldap.Conn
	searcher   bool // bound as the account that searches
	born, used time.Time
}

// pool keeps connections to the directory of one set of settings.
type pool struct {
	settings Settings
	dial     Dial
	slots    chan struct{}

	mu     sync.Mutex
	idle   []*conn
	closed bool
	silent error     // why nobody is let wait for the directory now
	until  time.Time // when it is tried again
}

func newPool(s Settings, dial Dial) *pool {
	if s.Timeout <= 0 {
		s.Timeout = defaultWait
	}
	return &pool{settings: s, dial: dial, slots: make(chan struct{}, maxConns)}
}

// do runs f with a connection that is bound as the account that searches. A
// connection that turns out to be dead is replaced once; ctx ends what f waits for.
func (p *pool) do(ctx context.Context, f func(*conn) error) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.slots }()
	for {
		c, fresh, err := p.take(ctx)
		if err != nil {
			return err
		}
		err = p.use(ctx, c, f)
		if err == nil || !broken(err) {
			p.put(c)
			return err
		}
		c.Close()
		if timedOut(err) && ctx.Err() == nil {
			p.givenUp(err)
		}
		if fresh || ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (p *pool) use(ctx context.Context, c *conn, f func(*conn) error) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if !c.searcher {
		if err := p.settings.bind(c.Conn); err != nil {
			return &stageError{"bind", err}
		}
		c.searcher = true
	}
	return f(c)
}

// bind makes a connection the account's that searches.
func (s Settings) bind(c *ldap.Conn) error {
	if s.SearchDN == "" {
		return c.UnauthenticatedBind("") // anonymous: neither name nor password (RFC 4513 §5.1.1)
	}
	return c.Bind(s.SearchDN, s.SearchPassword.Reveal())
}

// take gives an idle connection that still answers, or a new one.
func (p *pool) take(ctx context.Context) (c *conn, fresh bool, err error) {
	for {
		if c = p.pop(); c == nil {
			break
		}
		now := time.Now()
		if now.Sub(c.born) > maxLife || now.Sub(c.used) > maxIdle || c.IsClosing() || now.Sub(c.used) > probeAfter && !answers(ctx, c) {
			c.Close()
			continue
		}
		return c, false, nil
	}
	if err := p.givenUp(nil); err != nil {
		return nil, true, err
	}
	l, err := p.settings.open(ctx, p.dial)
	if err != nil {
		if ctx.Err() == nil && timedOut(err) {
			p.givenUp(err)
		}
		return nil, true, err
	}
	return &conn{Conn: l, born: time.Now()}, true, nil
}

// givenUp says whether a directory has just kept somebody waiting in vain: then
// nobody else waits for it for a moment, or everybody who logs in would. A new
// reason begins such a moment.
func (p *pool) givenUp(reason error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reason != nil {
		p.silent, p.until = reason, time.Now().Add(silence)
	}
	if time.Now().Before(p.until) {
		return p.silent
	}
	return nil
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || c.IsClosing() {
		c.Close()
		return
	}
	c.used = time.Now()
	p.idle = append(p.idle, c)
}

// close ends the idle connections; those in use end when they are put back.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}

// answers asks for the root entry, which every directory has (RFC 4512 §5.1).
func answers(ctx context.Context, c *conn) bool {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_, err := c.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 1, false, "(objectClass=*)", []string{"1.1"}, nil))
	return err == nil || !broken(err)
}

// open connects, and encrypts the connection if the settings say so.
func (s Settings) open(ctx context.Context, dial Dial) (*ldap.Conn, error) {
	host, address, overTLS, err := s.endpoint()
	if err != nil {
		return nil, err
	}
	config, err := s.tls(host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, &stageError{"connect", err}
	}
	if overTLS {
		encrypted := tls.Client(raw, config)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, &stageError{"tls", err}
		}
		raw = encrypted
	}
	l := ldap.NewConn(raw, overTLS)
	l.SetTimeout(s.Timeout)
	l.Start()
	if s.StartTLS && !overTLS {
		if err := startTLS(ctx, l, raw, config); err != nil {
			l.Close()
			return nil, &stageError{"starttls", err}
		}
	}
	return l, nil
}

// startTLS encrypts a connection. go-ldap says of a certificate that was not
// accepted only that it was not, so the check is made here, where its error can
// be kept.
func startTLS(ctx context.Context, l *ldap.Conn, raw net.Conn, config *tls.Config) error {
	var refused error
	if !config.InsecureSkipVerify {
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(s tls.ConnectionState) error {
			above := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				above.AddCert(c)
			}
			_, refused = s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: config.ServerName, Roots: config.RootCAs, Intermediates: above})
			return refused
		}
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() }) // the handshake knows no timeout
	err := l.StartTLS(config)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return cmp.Or(refused, err)
}

// broken reports whether an error is the connection's and not the directory's
// answer.
func broken(err error) bool {
	if e, ok := errors.AsType[*ldap.Error](err); ok {
		switch e.ResultCode {
		case ldap.ErrorNetwork, ldap.ErrorUnexpectedMessage, ldap.ErrorUnexpectedResponse, ldap.ErrorMalformedPacket,
			ldap.LDAPResultTimeout, ldap.LDAPResultServerDown, ldap.LDAPResultConnectError, ldap.LDAPResultUnavailable:
			return true
		}
		return false
	}
	_, ours := errors.AsType[*fault.Error](err)
	return err != nil && !ours
}
