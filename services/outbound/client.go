package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"berth/appliance/fault"
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
	// Proxy is an HTTP proxy that an administrator has set; nil is none. It is
	// connected to wherever it is. Targets that the proxy resolves are checked as
	// far as this machine can resolve them, too.
	Proxy *url.URL
	// Connections is how many idle ones are kept for each target; 0 is 2.
	Connections int
}

// Client makes an HTTP client that connects through d. Errors: Invalid if the
// roots are not certificates.
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
	transport := &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: config, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: o.Timeout, ExpectContinueTimeout: time.Second,
		IdleConnTimeout: time.Minute, MaxIdleConns: 100, MaxIdleConnsPerHost: o.Connections, MaxResponseHeaderBytes: 64 << 10,
	}
	var rt http.RoundTripper = transport
	if o.Proxy != nil {
		transport.Proxy = http.ProxyURL(o.Proxy)
		transport.DialContext = (&net.Dialer{Timeout: connectTimeout}).DialContext // only ever to the proxy
		rt = &viaProxy{d, transport}
	}
	return &http.Client{Transport: rt, Timeout: o.Timeout, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > o.Redirects {
			return http.ErrUseLastResponse
		}
		return nil
	}}, nil
}

// viaProxy checks targets that a proxy connects to.
type viaProxy struct {
	dialer *Dialer
	next   http.RoundTripper
}

func (v *viaProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := v.dialer.checkHost(r.Context(), r.URL.Hostname()); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return v.next.RoundTrip(r)
}

// checkHost refuses a host if any of its addresses is refused. A name that
// cannot be resolved here is the proxy's affair.
func (d *Dialer) checkHost(ctx context.Context, host string) error {
	resolver := d.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	list, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		if unknown, ok := errors.AsType[*net.DNSError](err); ok && (unknown.IsNotFound || unknown.IsTemporary || unknown.IsTimeout) {
			return nil
		}
		return err
	}
	for _, a := range list {
		if err := d.Check(netip.AddrPortFrom(a, 0)); err != nil {
			return err
		}
	}
	return nil
}
