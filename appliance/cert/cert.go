// Package cert gives a machine its TLS certificate: one that an administrator
// has supplied, or else one of its own.
//
// Its own comes from a certification authority that was made on this machine,
// so that browsers and docker hosts have to trust one file (ca.crt) once, and
// the server certificate can then be renewed as often as names change.
//
//	ca.crt, ca.key           the authority: ECDSA P-256, 10 years
//	server.crt, server.key   what is served: at most 397 days, all names in it
//	pair…, previous          behind these two: see pair.go
//	pending.csr, pending.key a request that no certificate has come for yet
//
// ca.key never leaves the machine; whoever has it can be any server to those
// who trust ca.crt.
//
// What an administrator supplies comes through forms, mails and shells that mangle
// it: Repair makes PEM of it again, Inspect says what it is, Supply serves it.
package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/appliance/durable"
	"berth/appliance/fault"
)

// The names of the files in a certificate directory.
const (
	CAFile     = "ca.crt"
	ServerFile = "server.crt"
	KeyFile    = "server.key"
	caKeyFile  = "ca.key"
)

const (
	day        = 24 * time.Hour
	caLife     = 3653 * day
	serverLife = 397 * day // browsers refuse more
	renewAt    = 30 * day  // before the end
	// early lets a client whose clock is behind accept a certificate at once.
	early = time.Hour
)

// Result says which certificate is in place, and what Ensure did for that.
type Result struct {
	Certificate *x509.Certificate
	CA          *x509.Certificate // nil if the certificate was supplied and no CA made
	Supplied    bool              // by an administrator; Ensure leaves it alone
	Changed     string            // why a new one was made; "" if none was
	// Chain are the certificates that are served behind Certificate, its issuer first.
	Chain []*x509.Certificate
	// Warnings are what clients may stumble over, in words: it ends soon, a name
	// is missing …
	Warnings []string
}

// Ensure makes sure that dir has a server certificate for all names (DNS names
// and addresses), localhost and the loopback addresses included. It may be
// called at every start and as often as one likes: it makes what is missing,
// ends within 30 days or lacks a name, and leaves the rest.
//
// A pair that our own CA has not signed is an administrator's, and is never
// touched; a broken one is a fault.Invalid.
func Ensure(dir string, names []string, opts ...Option) (Result, error) {
	return ensure(dir, names, false, optionsOf(opts))
}

// Own makes and serves a new certificate of our own CA in any case, also in place of
// one that an administrator has supplied. The one before is kept as the previous one.
func Own(dir string, names []string, opts ...Option) (Result, error) {
	return ensure(dir, names, true, optionsOf(opts))
}

func ensure(dir string, names []string, own bool, o options) (Result, error) {
	dns, ips, err := sortNames(names)
	if err != nil {
		return Result{}, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	ca, err := loadPair(dir, CAFile, caKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Result{}, err
	}
	server, serr := loadPair(dir, ServerFile, KeyFile)
	theirs := supplied(dir, ca)
	if theirs && !own {
		if serr != nil {
			return Result{}, fault.Wrap(fault.Invalid, serr, "the certificate that was supplied cannot be used").
				WithHint("upload the certificate and its key again, or delete server.crt to get one of the appliance's own")
		}
		if err := o.grant(filepath.Join(dir, KeyFile)); err != nil {
			return Result{}, err
		}
		return Look(dir, ForNames(names...))
	}
	if ca == nil || time.Until(ca.Leaf.NotAfter) < renewAt {
		if ca, err = makeCA(dir); err != nil {
			return Result{}, err
		}
	}
	why := reason(server, serr, ca, dns, ips)
	if own && (theirs || why == "") {
		why = "it was asked for"
	}
	if why != "" {
		if server, err = makeServer(dir, ca, dns, ips, o); err != nil {
			return Result{}, err
		}
	} else if err := o.grant(filepath.Join(dir, KeyFile)); err != nil { // restored files may have lost it
		return Result{}, err
	}
	return Result{Certificate: server.Leaf, CA: ca.Leaf, Changed: why}, nil
}

// supplied reports whether server.crt is there and not ours. Ours is known by
// its signature, so that a mark that could get lost is not needed.
func supplied(dir string, ca *tls.Certificate) bool {
	b, err := os.ReadFile(filepath.Join(dir, ServerFile))
	if err != nil {
		return false
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return true // whatever it is, we have not written it
	}
	c, err := x509.ParseCertificate(block.Bytes)
	return err != nil || ca == nil || c.CheckSignatureFrom(ca.Leaf) != nil
}

// reason says why a new server certificate is needed, "" if it is not.
func reason(server *tls.Certificate, err error, ca *tls.Certificate, dns []string, ips []net.IP) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there was none"
	case err != nil:
		return "it did not fit its key" // a crash between writing the two
	case server.Leaf.CheckSignatureFrom(ca.Leaf) != nil:
		return "there is a new CA"
	case time.Until(server.Leaf.NotAfter) < renewAt:
		return "it was about to end"
	case !slices.Equal(dns, server.Leaf.DNSNames) || !slices.EqualFunc(ips, server.Leaf.IPAddresses, net.IP.Equal):
		return "the names have changed"
	}
	return ""
}

// sortNames parts DNS names from addresses, adds the machine's own, and gives
// both in a fixed order without repetition.
func sortNames(names []string) (dns []string, ips []net.IP, err error) {
	var wrong []string
	for _, name := range slices.Concat(names, []string{"localhost", "127.0.0.1", "::1"}) {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil {
			ips = append(ips, ip)
		} else if validName(name) {
			dns = append(dns, name)
		} else {
			wrong = append(wrong, fmt.Sprintf("%q", name))
		}
	}
	if wrong != nil {
		return nil, nil, fault.New(fault.Invalid, "a certificate cannot have the names %s", strings.Join(wrong, ", ")).On("names").
			WithHint("use DNS names and IP addresses, without a port")
	}
	slices.Sort(dns)
	slices.SortFunc(ips, func(a, b net.IP) int { return slices.Compare(a.To16(), b.To16()) })
	return slices.Compact(dns), slices.CompactFunc(ips, net.IP.Equal), nil
}

// validName accepts a DNS name, with '*' as the first label or not.
func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for i, label := range strings.Split(name, ".") {
		if i == 0 && label == "*" {
			continue
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return name != "*"
}

func makeCA(dir string) (*tls.Certificate, error) {
	id := make([]byte, 4)
	rand.Read(id) // never fails (crypto/rand, Go 1.24)
	template := &x509.Certificate{
		// No two appliances' authorities have one name: clients would mix them up.
		Subject:               pkix.Name{Organization: []string{"Berth"}, CommonName: "Berth CA " + hex.EncodeToString(id)},
		NotBefore:             time.Now().Add(-early),
		NotAfter:              time.Now().Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	certPEM, keyPEM, err := issue(template, nil)
	if err != nil {
		return nil, err
	}
	// The key first: should the power fail in between, the next Ensure finds no
	// authority that fits, and makes another.
	if err := durable.WriteFile(filepath.Join(dir, caKeyFile), keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(filepath.Join(dir, CAFile), certPEM, 0o644); err != nil {
		return nil, err
	}
	return parsePair(certPEM, keyPEM)
}

func parsePair(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	return &pair, err
}

func makeServer(dir string, ca *tls.Certificate, dns []string, ips []net.IP, o options) (*tls.Certificate, error) {
	start := time.Now().Add(-early)
	end := start.Add(serverLife)
	if ca.Leaf.NotAfter.Before(end) {
		end = ca.Leaf.NotAfter
	}
	name := "localhost"
	for _, n := range dns {
		if n != name && len(n) <= 64 { // X.520's limit for a common name
			name = n
			break
		}
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Berth"}, CommonName: name},
		NotBefore:             start,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              dns,
		IPAddresses:           ips,
	}
	certPEM, keyPEM, err := issue(template, ca)
	if err != nil {
		return nil, err
	}
	if err := install(dir, certPEM, keyPEM, o); err != nil {
		return nil, err
	}
	return parsePair(certPEM, keyPEM)
}

// issue makes a key and a certificate for it, signed by ca, or by itself if
// there is none.
func issue(template *x509.Certificate, ca *tls.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	parent, signer := template, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// loadPair reads a certificate and its key, and checks that they fit.
func loadPair(dir, certName, keyName string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certName), filepath.Join(dir, keyName))
	if err != nil {
		return nil, fmt.Errorf("cannot use %s with %s: %w", certName, keyName, err)
	}
	return &pair, nil
}

// Fingerprint is a certificate's SHA-256 as browsers and vCenter show it:
// AB:CD:… in capital letters.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	var b strings.Builder
	for i, x := range sum {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02X", x)
	}
	return b.String()
}
