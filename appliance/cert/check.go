package cert

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"berth/appliance/fault"
)

// check says for which reasons docker, browsers or Go's TLS would refuse a
// certificate: all of them, joined.
func check(leaf *x509.Certificate, chain []*x509.Certificate, o options) error {
	var all []error
	wrong := func(field, hint, format string, args ...any) {
		all = append(all, fault.New(fault.Invalid, format, args...).On(field).WithHint("%s", hint))
	}
	if err := expired(leaf, o.now); err != nil {
		all = append(all, err)
	}
	for i, c := range append([]*x509.Certificate{leaf}, chain...) {
		field, what := "certificate", "the certificate"
		if i > 0 {
			field, what = "chain", fmt.Sprintf("the chain's certificate %q", c.Subject.CommonName)
			if err := expired(c, o.now); err != nil {
				all = append(all, fault.Of(err).On("chain"))
			}
			if !c.IsCA {
				wrong(field, "ask the CA for the right chain", "%s may not sign others: it is no CA's", what)
			}
		}
		switch c.SignatureAlgorithm {
		case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.DSAWithSHA256:
			wrong(field, "ask the CA for one that is signed with SHA-256", "%s is signed with %s, which clients refuse", what, c.SignatureAlgorithm)
		}
		if weak := weakness(c); weak != "" {
			wrong(field, "make a new request with an RSA key of 3072 bits or an ECDSA key (P-256)", "%s has %s", what, weak)
		}
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		wrong("certificate", "ask the CA for one with the names as subject alternative names",
			"the certificate has no subject alternative names, and clients do not look at its common name (%q)", leaf.Subject.CommonName)
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		wrong("certificate", "ask the CA for one for web servers", "the certificate is not for servers (its extended key usage lacks serverAuth)")
	}
	return errors.Join(all...)
}

func expired(c *x509.Certificate, now time.Time) error {
	const form = "2006-01-02 15:04 UTC"
	if now.After(c.NotAfter) {
		return fault.New(fault.Invalid, "the certificate %q has ended on %s", c.Subject.CommonName, c.NotAfter.UTC().Format(form)).On("certificate").
			WithHint("it is %s here now; if that is wrong, set the time first", now.UTC().Format(form))
	}
	if now.Before(c.NotBefore) {
		return fault.New(fault.Invalid, "the certificate %q begins on %s only", c.Subject.CommonName, c.NotBefore.UTC().Format(form)).On("certificate").
			WithHint("it is %s here now; if that is wrong, set the time first", now.UTC().Format(form))
	}
	return nil
}

// weakness says what is too weak about a public key; "" if nothing is.
func weakness(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Sprintf("an RSA key of %d bits, which clients refuse", k.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return "an ECDSA key on the curve P-224, which clients refuse"
		}
	case ed25519.PublicKey:
	default:
		return "a key of a kind that clients refuse"
	}
	return ""
}

// warnings are what clients may stumble over although the certificate is right.
func warnings(leaf *x509.Certificate, chain, rest []*x509.Certificate, root *x509.Certificate, o options) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if left := leaf.NotAfter.Sub(o.now); left < renewAt {
		add("the certificate ends in %d days", int(left/day))
	}
	for _, c := range chain {
		if c.NotAfter.Before(leaf.NotAfter) {
			add("%q in its chain ends on %s, before the certificate", c.Subject.CommonName, c.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	top := leaf
	if len(chain) > 0 {
		top = chain[len(chain)-1]
	}
	switch {
	case selfSigned(leaf):
		add("the certificate is signed by itself: each client has to trust it by name")
	case root == nil && len(chain) == 0:
		add("there is no chain: if %q is an intermediate authority, clients will refuse the certificate without it", top.Issuer.CommonName)
	}
	if leaf.IsCA && !selfSigned(leaf) {
		add("the certificate is a CA's: it should not be on a server")
	}
	if _, ok := leaf.PublicKey.(ed25519.PublicKey); ok {
		add("browsers do not take Ed25519 keys")
	}
	if len(rest) > 0 {
		var names []string
		for _, c := range rest {
			names = append(names, fmt.Sprintf("%q", c.Subject.CommonName))
		}
		add("not part of the chain, and left out: %s", strings.Join(names, ", "))
	}
	for _, name := range o.names {
		if !covers(leaf, name) {
			add("the certificate is not for %s: clients that use this name will refuse it", name)
		}
	}
	return all
}

// covers reports whether a certificate is for a name or an address.
func covers(c *x509.Certificate, name string) bool {
	name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
	if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil {
		return ip.IsLoopback() || slices.ContainsFunc(c.IPAddresses, ip.Equal)
	}
	return name == "localhost" || c.VerifyHostname(name) == nil
}
