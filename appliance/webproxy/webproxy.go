// Package webproxy is the proxy for outgoing connections: which one is for which
// address, and whether it works, in words.
//
// The proxy's password is a secret's file beside the settings. It is given to the
// proxy alone, and is in no URL that is shown, logged or kept.
package webproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// testTime is how long a test may take.
const testTime = 15 * time.Second

// Password reads the proxy's password from the secret's file at path
// (setting.SecretFile(setting.ProxyPassword)); "" if there is none.
func Password(path string) (secret.Text, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the password of the proxy: %w", err)
	}
	return secret.Text(strings.TrimSuffix(string(b), "\n")), nil
}

// Choose gives the function that finds the proxy for a request, for http.Transport:
// nil stands for none. The settings must have passed their check.
func Choose(p setting.Proxy, password secret.Text) func(*http.Request) (*url.URL, error) {
	https := p.HTTPS
	if https == "" {
		https = p.HTTP
	}
	find := (&httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: https, NoProxy: strings.Join(p.NoProxy, ",")}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) {
		u, err := find(r.URL)
		if u == nil || err != nil || p.Username == "" {
			return u, err
		}
		with := *u
		with.User = url.UserPassword(p.Username, password.Reveal())
		return &with, nil
	}
}

// A Result is what a test found out.
type Result struct {
	// Proxy is the address of the proxy that was used; "" if none is for the target.
	Proxy string `json:"proxy"`
	// Status is the target's answer, such as 200.
	Status int           `json:"status"`
	Took   time.Duration `json:"took"`
	Text   string        `json:"text"` // all of it in words
}

// Test sends a GET to target, http:// or https://, through the proxy that is for it.
// Whatever the target answers is a success: the way there works. Roots are the CAs
// that are trusted; nil stands for the operating system's.
func Test(ctx context.Context, p setting.Proxy, password secret.Text, target string, roots *x509.CertPool) (Result, error) {
	u, err := url.Parse(strings.TrimSpace(target))
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return Result{}, fault.New(fault.Invalid, "the address to try must be http://HOST or https://HOST").On("url")
	}
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	choose := Choose(p, password)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Result{}, fault.Wrap(fault.Invalid, err, "the address to try cannot be used").On("url")
	}
	via, err := choose(req)
	if err != nil {
		return Result{}, fault.Wrap(fault.Invalid, err, "the address of the proxy cannot be used").On("proxy")
	}
	transport := &http.Transport{Proxy: choose, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}, OnProxyConnectResponse: Connected}
	defer transport.CloseIdleConnections()
	begun := time.Now()
	answer, err := transport.RoundTrip(req) // redirects are not followed: they may lead anywhere
	r := Result{Took: time.Since(begun)}
	way := "directly, without a proxy"
	if via != nil {
		r.Proxy = via.Host
		way = "through the proxy " + via.Host
	}
	if err == nil {
		answer.Body.Close()
		r.Status = answer.StatusCode
		if via != nil && u.Scheme == "http" { // without CONNECT, the proxy's own answer looks like the target's
			if r.Status == http.StatusProxyAuthRequired || r.Status >= 502 && r.Status <= 504 {
				return r, Refusal(r.Status, via, u.Host)
			}
		}
		r.Text = fmt.Sprintf("%s was reached %s, and answered %s", u.Host, way, answer.Status)
		return r, nil
	}
	return r, explain(err, via, u)
}

// Connected is for http.Transport.OnProxyConnectResponse: what the proxy answers to
// CONNECT, if it is no success, becomes the request's Refusal.
func Connected(_ context.Context, via *url.URL, connect *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return Refusal(answer.StatusCode, via, connect.Host)
}

// Refusal puts the answer of the proxy at via into words, when it was asked for target.
// Errors: Precondition if somebody must change something, Unavailable if it may pass.
func Refusal(status int, via *url.URL, target string) error {
	proxy := via.Host
	switch status {
	case http.StatusProxyAuthRequired:
		if via.User.Username() == "" {
			return fault.New(fault.Precondition, "the proxy %s wants a user name and a password", proxy).On("proxy.username")
		}
		return fault.New(fault.Precondition, "the proxy %s does not accept the user name and the password", proxy).On("proxy.username").
			WithHint("it may also want another method than Basic, such as NTLM, which is not supported")
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnauthorized:
		return fault.New(fault.Precondition, "the proxy %s does not allow connections to %s (%d)", proxy, target, status).
			WithHint("ask whoever runs the proxy to allow it; what is reached without the proxy belongs into no_proxy")
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fault.New(fault.Unavailable, "the proxy %s works, and cannot reach %s (%d)", proxy, target, status).
			WithHint("what is reached without the proxy belongs into no_proxy")
	}
	return fault.New(fault.Unavailable, "the proxy %s refuses the connection to %s (%d %s)", proxy, target, status, http.StatusText(status))
}

// explain puts a failure on the way into words: which part of it is at fault.
func explain(err error, via, target *url.URL) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f // of Connected
	}
	if via != nil && Unconnected(err) {
		return Unreachable(err, via)
	}
	peer := "the address " + target.Host
	if via != nil {
		peer = "the proxy " + via.Host
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		f := fault.Wrap(fault.Precondition, err, "the certificate of %s is not signed by a CA that is known here", target.Host)
		if via != nil {
			f.Hint = "perhaps the proxy looks into TLS connections: then its CA must be trusted here, or the target excepted there"
		}
		return f
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fault.Wrap(fault.Precondition, err, "the certificate of %s is not right", target.Host)
	}
	if f := unreachable(err, peer); f != nil {
		return f
	}
	return fault.Wrap(fault.Unavailable, err, "%s gives no usable answer", peer).WithHint("is there a web proxy at that address and port?")
}

// Unconnected reports whether an error of http.Transport came from connecting to the
// proxy, not to what is behind it.
func Unconnected(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "proxyconnect" // so net/http marks them
}

// Unreachable puts into words why the proxy at via cannot be connected to. Errors:
// Unavailable, or Precondition if its own certificate is at fault.
func Unreachable(err error, via *url.URL) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fault.Wrap(fault.Precondition, err, "the certificate of the proxy %s is not signed by a CA that is known here, or not right", via.Host)
	}
	if f := unreachable(err, "the proxy "+via.Host); f != nil {
		return f
	}
	return fault.Wrap(fault.Unavailable, err, "the proxy %s cannot be connected to", via.Host).WithHint("does it speak TLS, as https:// in its address says?")
}

// unreachable says why there is no connection to peer; nil if there is one.
func unreachable(err error, peer string) *fault.Error {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fault.Wrap(fault.Unavailable, err, "the name %s has no address", e.Name).WithHint("is the name right, and do the DNS servers answer?")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.Wrap(fault.Unavailable, err, "%s does not answer in time", peer)
	}
	for e, ok := errors.AsType[*net.OpError](err); ok; e, ok = errors.AsType[*net.OpError](e.Err) {
		if e.Op == "dial" {
			return fault.Wrap(fault.Unavailable, err, "%s cannot be connected to", peer).WithHint("are host and port right, and does a firewall let it through?")
		}
	}
	return nil
}
