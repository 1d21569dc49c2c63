package archive

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxManifest is how many bytes of a manifest or certificate are read.
const MaxManifest = 1 << 20

// A Sum is a line of a manifest.
type Sum struct {
	Algorithm string // as it is written
	Name      string // of the file; "" if the line is not understood
	Hex       string
	// Exact is true for the one form that every vSphere takes: SHA256(name)= hex.
	Exact bool
	Line  int
	Text  string // the whole line
}

// Manifest renders digests in the form that vSphere takes. The space must be where it
// is: "SHA256 (name) = hex", as sha256sum --tag has it, and OpenSSL 3's "SHA2-256(name)="
// are refused.
func Manifest(sums ...Sum) []byte {
	var b bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&b, "SHA256(%s)= %s\n", s.Name, s.Hex)
	}
	return b.Bytes()
}

// ParseManifest reads a manifest's lines; empty ones are left out. It takes the forms
// that are not exact, too, so that a linter can say what is wrong with them.
func ParseManifest(b []byte) []Sum {
	var list []Sum
	line := 0
	for text := range strings.Lines(string(b)) {
		line++
		text = strings.TrimRight(text, "\r\n")
		if strings.TrimSpace(text) == "" {
			continue
		}
		s := Sum{Line: line, Text: text}
		// The name may have parentheses: cut at the first and the last.
		head, rest, ok := strings.Cut(text, "(")
		if end := strings.LastIndex(rest, ")"); ok && end >= 0 {
			value, found := strings.CutPrefix(strings.TrimSpace(rest[end+1:]), "=")
			if raw, err := hex.DecodeString(strings.TrimSpace(value)); found && err == nil && len(raw) > 0 {
				s.Algorithm, s.Name, s.Hex = strings.TrimSpace(head), rest[:end], strings.TrimSpace(value)
				s.Exact = text == fmt.Sprintf("SHA256(%s)= %s", s.Name, s.Hex) && len(raw) == sha256.Size
			}
		}
		list = append(list, s)
	}
	return list
}

// Sign makes the content of the .cert file (DSP0243 1.1 section 5.1): the signature of the
// manifest, then the certificate, which may be followed by its chain, in PEM.
func Sign(name string, manifest []byte, key *rsa.PrivateKey, certificates []byte) ([]byte, error) {
	leaf, err := leafOf(certificates)
	if err != nil {
		return nil, err
	}
	if public, ok := leaf.PublicKey.(*rsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return nil, errors.New("the certificate is not that of the key")
	}
	digest := sha256.Sum256(manifest)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]) // the same each time
	if err != nil {
		return nil, err
	}
	return append(Manifest(Sum{Name: name, Hex: hex.EncodeToString(signature)}), bytes.TrimSpace(certificates)...), nil
}

// The errors of Verify.
var (
	ErrSignatureForm = errors.New("not a signature as DSP0243 describes it")
	ErrSignature     = errors.New("the signature is not that of the manifest")
	ErrExpired       = errors.New("the certificate is not valid at this time")
)

// Verify looks at a .cert file: its form, the signature of the manifest, and whether the
// certificate is valid at a time. It says nothing about who issued it.
func Verify(cert []byte, name string, manifest []byte, now time.Time) (*x509.Certificate, error) {
	at := bytes.Index(cert, []byte("-----BEGIN CERTIFICATE-----"))
	if at < 0 {
		return nil, fmt.Errorf("%w: it has no certificate", ErrSignatureForm)
	}
	leaf, err := leafOf(cert[at:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignatureForm, err)
	}
	sums := ParseManifest(cert[:at])
	if len(sums) != 1 || sums[0].Name != name || sums[0].Algorithm != "SHA256" {
		return nil, fmt.Errorf("%w: its first line must be SHA256(%s)= signature", ErrSignatureForm, name)
	}
	public, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: the key is not RSA", ErrSignatureForm)
	}
	signature, _ := hex.DecodeString(sums[0].Hex)
	digest := sha256.Sum256(manifest)
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil {
		return nil, ErrSignature
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return leaf, fmt.Errorf("%w: it is from %s to %s", ErrExpired, leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return leaf, nil
}

func leafOf(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("there is no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
