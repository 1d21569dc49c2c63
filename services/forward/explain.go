package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"berth/appliance/fault"
)

// explain says why a collector cannot be reached, and what to do.
func (t target) explain(err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if f := t.explainTLS(err); f != nil {
		return f
	}
	down := func(format string, args ...any) *fault.Error {
		return fault.Wrap(fault.Unavailable, err, format, args...).On("to")
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return down("the name %s does not resolve", dns.Name).WithHint("check the name, and the name servers of this machine")
	}
	switch timeout, _ := errors.AsType[net.Error](err); {
	case errors.Is(err, syscall.ECONNREFUSED) && t.scheme == "udp":
		return down("%s refuses datagrams: nobody listens there", t.address).WithHint("check the port, and that the collector is running and takes UDP")
	case errors.Is(err, syscall.ECONNREFUSED):
		return down("%s refuses the connection", t.address).WithHint("check the port, and that the collector is running")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return down("there is no way to %s", t.address).WithHint("check the address, and this machine's routes")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), timeout != nil && timeout.Timeout():
		return down("%s did not answer in time", t.address).WithHint("check whether a firewall is in between, and whether the collector hangs")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f := down("%s closed the connection", t.address)
		if t.scheme == "tls" {
			return f.WithHint("the collector's log says why; perhaps it does not accept Berth's certificate, or speaks no TLS there")
		}
		return f.WithHint("the collector's log says why; perhaps it wants TLS there, or takes nothing from this address")
	}
	return down("%s cannot be reached", t.address).WithHint("the server's log has the cause")
}

// explainTLS knows what certificates can be refused for; nil if it is nothing of
// that.
func (t target) explainTLS(err error) *fault.Error {
	wrong := func(field, format string, args ...any) *fault.Error {
		return fault.Wrap(fault.Unavailable, err, format, args...).On(field)
	}
	var cert *x509.Certificate
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
		cert = v.UnverifiedCertificates[0]
	}
	if h, ok := errors.AsType[x509.HostnameError](err); ok {
		return wrong("server_name", "the certificate of %s is for %s, not for %s", t.address, names(h.Certificate), h.Host).
			WithHint("use one of its names in to, or set server_name to one of them")
	}
	if i, ok := errors.AsType[x509.CertificateInvalidError](err); ok && i.Reason == x509.Expired {
		if now := time.Now(); now.Before(i.Cert.NotBefore) {
			return wrong("to", "the certificate %s of %s is not valid before %s", name(i.Cert), t.address, format(i.Cert.NotBefore)).WithHint("check the clocks of both machines")
		}
		return wrong("to", "the certificate %s of %s has expired on %s", name(i.Cert), t.address, format(i.Cert.NotAfter)).WithHint("renew it at the collector, or check this machine's clock")
	}
	if cert != nil {
		return wrong("ca", "the certificate %s of %s is signed by %s, which is not trusted", name(cert), t.address, issuer(cert)).
			WithHint("set ca to a PEM file with the authority of the collector's certificate")
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return wrong("to", "%s does not speak TLS", t.address).WithHint("check the port; tcp:// is for collectors without TLS")
	}
	if _, ok := errors.AsType[*noCertificate](err); ok {
		return wrong("certificate", "%s asks for a client certificate, and ended the connection without one", t.address).WithHint("set certificate and private_key to ones that the collector accepts")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" { // a TLS alert
		alert := strings.TrimPrefix(op.Err.Error(), "tls: ")
		if t.set.Certificate != "" && strings.Contains(alert, "certificate") || strings.Contains(alert, "unknown certificate authority") || strings.Contains(alert, "access denied") {
			return wrong("certificate", "%s refuses the client certificate: %s", t.address, alert).WithHint("the collector must trust the authority of %s, and accept its name", t.set.Certificate)
		}
		return wrong("to", "%s ended the TLS handshake: %s", t.address, alert).WithHint("the collector's log says why")
	}
	return nil
}

// name is how a certificate is called.
func name(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return s
	}
	return names(c)
}

func issuer(c *x509.Certificate) string {
	switch s := c.Issuer.String(); {
	case c.Subject.String() == s:
		return "itself"
	case s == "":
		return "an authority without a name"
	default:
		return s
	}
}

// names are what a certificate is valid for, twenty at most.
func names(c *x509.Certificate) string {
	list := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return "no name"
	}
	if len(list) > 20 {
		list = append(list[:20], "…")
	}
	return strings.Join(list, ", ")
}

func format(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
