package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"berth/appliance/fault"
	"berth/services/outbound"
)

const (
	requestTime = 10 * time.Second
	maxAnswer   = 1 << 20 // of a provider: descriptions, keys and tokens are far smaller
	maxRedirect = 3
)

// newHTTP makes the client that speaks with a provider.
func newHTTP(s Settings, dialer *outbound.Dialer) (*http.Client, error) {
	client, err := dialer.Client(outbound.Options{Timeout: requestTime, SkipVerify: !s.Verify, Roots: []byte(s.CA), Redirects: maxRedirect})
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "it holds no certificate in PEM form").On("oidc_ca_certificate")
	}
	client.Transport = bounded{client.Transport}
	return client, nil
}

// bounded cuts answers off that are longer than any honest one.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// explain turns whatever went wrong with a provider into words that name the one
// thing to mend.
func (s Settings) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if text, hint := s.explainNetwork(err); text != "" {
		return fault.Wrap(fault.Unavailable, err, "%s", text).On("oidc_endpoint").WithHint("%s", hint)
	}
	switch text := err.Error(); {
	case strings.Contains(text, "issuer did not match"), strings.Contains(text, "issuer URL provided to client"):
		return fault.Wrap(fault.Invalid, err, "the provider calls itself otherwise: %s", clip(text)).On("oidc_endpoint").
			WithHint("set oidc_endpoint to the provider's own name, letter by letter; a slash at the end counts")
	case strings.HasPrefix(text, "404 "):
		return fault.Wrap(fault.Invalid, err, "there is no provider at %s", s.Endpoint).On("oidc_endpoint").
			WithHint("%s/.well-known/openid-configuration is not there", strings.TrimSuffix(s.Endpoint, "/"))
	}
	return fault.Wrap(fault.Unavailable, err, "the provider's answer cannot be read: %s", clip(err.Error())).On("oidc_endpoint").
		WithHint("see what %s/.well-known/openid-configuration says", strings.TrimSuffix(s.Endpoint, "/"))
}

func (s Settings) explainNetwork(err error) (text, hint string) {
	cause := err
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		cause = e.Err
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](cause); ok {
		return "the provider's certificate is signed by an authority that is not trusted", "put the authority's certificate into oidc_ca_certificate"
	}
	if e, ok := errors.AsType[x509.HostnameError](cause); ok {
		return "the provider's certificate is for other names: " + clip(e.Error()), "use one of these names in oidc_endpoint"
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](cause); ok {
		return "the provider's certificate cannot be accepted: " + e.Error(), "check the provider's certificate and the clocks"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "the name " + e.Name + " cannot be resolved", "check the name, and the DNS servers of this machine"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "the provider refuses connections", "check the port, and whether the provider runs"
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "the provider does not answer in time", "check the route and the firewall"
	}
	return "", ""
}
