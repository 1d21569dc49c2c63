package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"berth/appliance/fault"
	"berth/appliance/webproxy"
)

// Options shape an HTTP client.
type Options struct {
	// Timeout bounds a whole request, its answer's body included. 0 leaves it to
	// the request's context; the steps before the body are bounded anyway.
	Timeout time.Duration
	// SkipVerify accepts any certificate.
	SkipVerify bool
	// Roots are certificates, as PEM, that are trusted beside the system's.
	Roots []byte
	// Redirects is how many are followed; beyond that the answer is the redirect
	// itself. None leads where the Dialer would not go.
	Redirects int
	// Connections is how many idle ones are kept for each target; 0 is 2.
	Connections int
}

// Client makes an HTTP client that connects through d, or through its proxy where
// that is for the target. What goes wrong at the proxy is a fault that names it.
// Errors: Invalid if the roots are not certificates.
func (d *Dialer) Client(o Options) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.SkipVerify}
	if len(o.Roots) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(o.Roots) {
			return nil, fault.New(fault.Invalid, "there is no PEM certificate in it").On("ca_certificate")
		}
		config.RootCAs = pool
	}
	direct := o.transport(config)
	direct.DialContext = d.DialContext
	var rt http.RoundTripper = direct
	if d.Proxy != nil {
		rt = &crossing{d, direct, d.through(o.transport(config))}
	}
	return &http.Client{Transport: rt, Timeout: o.Timeout, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > o.Redirects {
			return http.ErrUseLastResponse
		}
		return nil
	}}, nil
}

func (o Options) transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: o.Timeout, ExpectContinueTimeout: time.Second,
		IdleConnTimeout: time.Minute, MaxIdleConns: 100, MaxIdleConnsPerHost: o.Connections, MaxResponseHeaderBytes: 64 << 10,
	}
}

// through makes t one whose connections all go to the proxy, wherever that is: an
// administrator has set it. Whom t trusts is about targets. A proxy with TLS must
// have a certificate that the system trusts: it is told a password.
func (d *Dialer) through(t *http.Transport) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout}
	t.Proxy, t.DialContext, t.OnProxyConnectResponse = d.Proxy, dialer.DialContext, webproxy.Connected
	t.DialTLSContext = (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{MinVersion: tls.VersionTLS12}}).DialContext
	return t
}

// crossing sends each request directly or through the proxy.
type crossing struct {
	dialer       *Dialer
	direct, over *http.Transport
}

func (c *crossing) RoundTrip(r *http.Request) (*http.Response, error) {
	via, err := c.dialer.Proxy(r)
	if err == nil && via != nil {
		err = c.dialer.checkTarget(r.Context(), r.URL)
	}
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	if via == nil {
		return c.direct.RoundTrip(r)
	}
	res, err := c.over.RoundTrip(r)
	switch {
	case err == nil && res.StatusCode == http.StatusProxyAuthRequired && r.URL.Scheme == "http": // without CONNECT, it comes like a target's
		res.Body.Close()
		return nil, webproxy.Refusal(res.StatusCode, via, r.URL.Host)
	case err == nil:
		return res, nil
	case errors.As(err, new(*fault.Error)):
		return nil, err
	case webproxy.Unconnected(err):
		return nil, webproxy.Unreachable(err, via)
	}
	return nil, fmt.Errorf("through the proxy %s: %w", via.Host, err)
}

// CloseIdleConnections is for http.Client.
func (c *crossing) CloseIdleConnections() {
	c.direct.CloseIdleConnections()
	c.over.CloseIdleConnections()
}

// lookupTime bounds looking up a target that the proxy will look up for itself:
// often the proxy alone can.
const lookupTime = 2 * time.Second

// checkTarget refuses what the proxy is asked for if any of its addresses is
// refused. A name that cannot be resolved here is the proxy's affair.
func (d *Dialer) checkTarget(ctx context.Context, target *url.URL) error {
	host := target.Hostname()
	if strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) { // net/http makes an address of "１６９。254.169.254"
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return fault.Wrap(fault.Precondition, err, "cannot connect to %s: no name is spelt like that", target.Hostname())
		}
	}
	if _, err := netip.ParseAddr(host); err != nil && numeric(host) {
		return fault.New(fault.Precondition, "cannot connect to %s: it is an unusual spelling of an address", host).
			WithHint("write it as four decimal numbers")
	}
	resolver := d.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	within, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	list, err := resolver.LookupNetIP(within, "ip", host)
	if err != nil {
		return ctx.Err() // that there is no name, no answer or no name server here is one
	}
	port := map[string]uint16{"http": 80, "https": 443}[target.Scheme]
	if n, err := strconv.ParseUint(target.Port(), 10, 16); err == nil {
		port = uint16(n)
	}
	for _, a := range list {
		if err := d.Check(netip.AddrPortFrom(a, port)); err != nil {
			return err
		}
	}
	return nil
}

// numeric reports whether a host is what some programs read as an IPv4 address:
// 127.1, 2130706433, 0x7f.0.0.1. No name's last part is a number (URL Standard §3.5,
// "ends in a number").
func numeric(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}
