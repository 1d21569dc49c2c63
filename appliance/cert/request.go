package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/appliance/durable"
)

const (
	requestFile    = "pending.csr"
	PendingKeyFile = "pending.key"
)

// requestBits is the size of a request's RSA key: what lasts beyond 2030 (NIST SP
// 800-57 part 1, table 2).
const requestBits = 3072

// Request makes a key and a request for a certificate with these names (PKCS #10,
// PEM), for an enterprise CA. The first DNS name is the common name. The key stays
// here and waits: Supply takes it when the certificate comes without one. A new
// request replaces the one before.
//
// The key is RSA unless ECDSA() is given, for templates of Windows' CA often take
// nothing else.
func Request(dir string, names []string, opts ...Option) (string, error) {
	o := optionsOf(opts)
	dns, ips, err := sortNames(names)
	if err != nil {
		return "", err
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	var key crypto.Signer
	if o.ecdsa {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, requestBits)
	}
	if err != nil {
		return "", fmt.Errorf("cannot make a key: %w", err)
	}
	template := &x509.CertificateRequest{DNSNames: dns, IPAddresses: ips}
	// A CA signs no local names: they are of use in our own certificate alone.
	template.DNSNames = without(dns, "localhost")
	template.IPAddresses = ips[:0]
	for _, ip := range ips {
		if !ip.IsLoopback() {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	if len(template.DNSNames) > 0 && len(template.DNSNames[0]) <= 64 { // X.520's limit
		template.Subject = pkix.Name{CommonName: template.DNSNames[0]}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return "", fmt.Errorf("cannot make a request for a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("cannot keep the key of a request: %w", err)
	}
	// The key first: a request whose key is lost would waste the CA's work.
	if err := durable.WriteFile(filepath.Join(dir, PendingKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return "", err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return string(text), durable.WriteFile(filepath.Join(dir, requestFile), text, 0o644)
}

// Pending gives the request that no certificate has come for yet, and when it was
// made; "" if there is none.
func Pending(dir string) (request string, made time.Time, err error) {
	path := filepath.Join(dir, requestFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", time.Time{}, nil
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("cannot read the pending request: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("cannot read the pending request: %w", err)
	}
	return string(b), info.ModTime(), nil
}

// pendingKey is the key of the pending request; nil if there is none.
func pendingKey(dir string) (crypto.Signer, error) {
	b, err := os.ReadFile(filepath.Join(dir, PendingKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the pending request: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("cannot use the key of the pending request: it is no PEM")
	}
	return parseKey(block, "")
}

// dropRequest forgets the pending request. The key goes last: without it the
// certificate could not be supplied once more.
func dropRequest(dir string) error {
	for _, name := range []string{requestFile, PendingKeyFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove a request that is done: %w", err)
		}
	}
	return nil
}

func without(list []string, s string) []string {
	var out []string
	for _, x := range list {
		if x != s {
			out = append(out, x)
		}
	}
	return out
}
