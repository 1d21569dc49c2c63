package cert

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// Supply serves a certificate that an administrator has, after Inspect has found
// nothing that is wrong with it. The pair before is kept (Revert); a pending
// request whose key was used is done. Open connections are not touched.
func Supply(dir, certificate, chain, key string, passphrase secret.Text, opts ...Option) (Result, error) {
	unlock, err := lock(dir)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	p, err := inspect(dir, certificate, chain, key, passphrase, optionsOf(opts))
	if err != nil {
		return Result{}, err
	}
	if p.root != nil {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.root.Raw})
		if err := durable.WriteFile(filepath.Join(dir, rootFile), text, 0o644); err != nil {
			return Result{}, err
		}
	}
	if err := install(dir, p.certPEM, p.keyPEM, optionsOf(opts)); err != nil {
		return Result{}, err
	}
	if p.pending {
		if err := dropRequest(dir); err != nil {
			return Result{}, err
		}
	}
	p.result.Changed = "it was supplied"
	return p.result, nil
}

// Inspect says what Supply would do, and changes nothing.
//
// The fields may hold PEM in any state that Repair mends, in any order and any of
// them in any field; chain and key may be empty. Without a key, it is that of the
// pending request or the one in use. The certificate is the one that belongs to
// the key; of the others, those that lead to its root are served with it, in order.
//
// Faults are Invalid, on the fields certificate, chain, private_key and
// key_passphrase: no pair, damaged, expired, too weak, without names, not for
// servers. What may be meant so is a warning.
func Inspect(dir, certificate, chain, key string, passphrase secret.Text, opts ...Option) (Result, error) {
	p, err := inspect(dir, certificate, chain, key, passphrase, optionsOf(opts))
	return p.result, err
}

// offer is a pair that could be served.
type offer struct {
	result          Result
	certPEM, keyPEM []byte
	pending         bool // the key is the pending request's
	root            *x509.Certificate
}

// rootFile has the root that came with a supplied certificate. It is not served; from
// it Look knows later that nothing is missing between the two.
const rootFile = "supplied-root.crt"

// knownRoot is the root that was supplied with what is served, or nil.
func knownRoot(dir string, top *x509.Certificate) *x509.Certificate {
	b, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil || top.CheckSignatureFrom(root) != nil {
		return nil
	}
	return root
}

func inspect(dir, certificate, chain, key string, passphrase secret.Text, o options) (offer, error) {
	certs, keys, err := gather(certificate, chain, key, passphrase)
	if err != nil {
		return offer{}, err
	}
	var p offer
	if len(keys) == 0 {
		if keys, err = ownKeys(dir); err != nil {
			return offer{}, err
		}
	}
	leaf, signer := match(certs, keys)
	if leaf == nil {
		return offer{}, noMatch(key, keys)
	}
	if pending, err := pendingKey(dir); err == nil && pending != nil {
		p.pending = samePublic(pending.Public(), leaf.PublicKey)
	}
	ordered, rest, root := order(leaf, certs)
	p.root = root
	if err := check(leaf, ordered, o); err != nil {
		return offer{}, err
	}
	p.result = Result{Certificate: leaf, Chain: ordered, Supplied: true, Warnings: warnings(leaf, ordered, rest, root, o)}
	if ca, err := loadPair(dir, CAFile, caKeyFile); err == nil {
		p.result.CA = ca.Leaf
	}
	for _, c := range append([]*x509.Certificate{leaf}, ordered...) {
		p.certPEM = append(p.certPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return offer{}, fault.Wrap(fault.Invalid, err, "the private key is of a kind that is not supported").On("private_key")
	}
	p.keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if _, err := tls.X509KeyPair(p.certPEM, p.keyPEM); err != nil {
		return offer{}, fault.Wrap(fault.Invalid, err, "certificate and key cannot be used for TLS").On("certificate")
	}
	return p, nil
}

// gather reads the certificates and keys of all three fields.
func gather(certificate, chain, key string, passphrase secret.Text) (certs []*x509.Certificate, keys []crypto.Signer, err error) {
	var all []error
	for _, field := range []struct{ name, text string }{{"certificate", certificate}, {"chain", chain}, {"private_key", key}} {
		if strings.TrimSpace(field.text) == "" {
			continue
		}
		blocks, err := repair(field.text, true)
		if err != nil {
			all = append(all, fault.Of(err).On(field.name))
			continue
		}
		for _, b := range blocks {
			switch {
			case b.Type == "CERTIFICATE":
				c, err := x509.ParseCertificate(b.Bytes)
				if err != nil {
					all = append(all, fault.Wrap(fault.Invalid, err, "a certificate is damaged").On(field.name).
						WithHint("copy the whole file again; a form may have cut it off"))
				} else if !slices.ContainsFunc(certs, c.Equal) {
					certs = append(certs, c)
				}
			case isKey(b.Type):
				k, err := parseKey(b, passphrase)
				if err != nil {
					all = append(all, err)
				} else if !slices.ContainsFunc(keys, func(o crypto.Signer) bool { return samePublic(o.Public(), k.Public()) }) {
					keys = append(keys, k)
				}
			case b.Type == "CERTIFICATE REQUEST":
				all = append(all, fault.New(fault.Invalid, "it is a request for a certificate; what the CA has made of it is wanted").On(field.name))
			}
		}
	}
	if len(all) == 0 && len(certs) == 0 {
		all = append(all, fault.New(fault.Invalid, "the certificate is missing").On("certificate"))
	}
	return certs, keys, errors.Join(all...)
}

// ownKeys are the keys that a certificate without a key may belong to.
func ownKeys(dir string) ([]crypto.Signer, error) {
	var keys []crypto.Signer
	pending, err := pendingKey(dir)
	if err != nil {
		return nil, err
	}
	if pending != nil {
		keys = append(keys, pending)
	}
	if b, err := os.ReadFile(filepath.Join(dir, KeyFile)); err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if k, err := parseKey(block, ""); err == nil {
				keys = append(keys, k)
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the key in use: %w", err)
	}
	return keys, nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// match finds the certificate that one of the keys belongs to. Of several, as when
// an old one was left in the file, the one that ends last.
func match(certs []*x509.Certificate, keys []crypto.Signer) (leaf *x509.Certificate, key crypto.Signer) {
	for _, c := range certs {
		for _, k := range keys {
			if samePublic(k.Public(), c.PublicKey) && (leaf == nil || c.NotAfter.After(leaf.NotAfter)) {
				leaf, key = c, k
			}
		}
	}
	return leaf, key
}

func noMatch(key string, keys []crypto.Signer) error {
	switch {
	case strings.TrimSpace(key) != "" && len(keys) > 0:
		return fault.New(fault.Invalid, "the private key belongs to none of the certificates").On("private_key").
			WithHint("take the key with which the request for this certificate was made")
	case len(keys) == 0:
		return fault.New(fault.Invalid, "the private key is missing").On("private_key")
	}
	return fault.New(fault.Invalid, "the private key is missing, and the certificate belongs neither to the pending request nor to the key in use").
		On("private_key").WithHint("supply the key with it, or the certificate that was made from the newest request")
}

// order finds the way from a certificate to its root among the others: what is to
// be served in order, what is left over, and the root if it is among them. Roots
// are not served: who trusts one has it.
func order(leaf *x509.Certificate, certs []*x509.Certificate) (chain, rest []*x509.Certificate, root *x509.Certificate) {
	rest = slices.DeleteFunc(slices.Clone(certs), leaf.Equal)
	for at := leaf; !selfSigned(at); {
		i := slices.IndexFunc(rest, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, at.RawIssuer) && at.CheckSignatureFrom(c) == nil
		})
		if i < 0 {
			break
		}
		at = rest[i]
		rest = slices.Delete(rest, i, i+1)
		if selfSigned(at) {
			root = at
		} else {
			chain = append(chain, at)
		}
	}
	return chain, rest, root
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Look says what is served now, with warnings. Nothing served yet is NotFound.
func Look(dir string, opts ...Option) (Result, error) {
	o := optionsOf(opts)
	pair, err := loadPair(dir, ServerFile, KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Result{}, fault.Wrap(fault.NotFound, err, "there is no certificate yet")
	}
	if err != nil {
		return Result{}, fault.Wrap(fault.Invalid, err, "the certificate cannot be used").WithHint("upload it and its key again")
	}
	r := Result{Certificate: pair.Leaf}
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return Result{}, fault.Wrap(fault.Invalid, err, "the chain of the certificate is damaged").WithHint("upload it again")
		}
		r.Chain = append(r.Chain, c)
	}
	ca, err := loadPair(dir, CAFile, caKeyFile)
	if err == nil {
		r.CA = ca.Leaf
	}
	r.Supplied = supplied(dir, ca)
	if err := expired(r.Certificate, o.now); err != nil {
		r.Warnings = append(r.Warnings, fault.Of(err).Text)
	} else if r.Supplied {
		r.Warnings = warnings(r.Certificate, r.Chain, nil, knownRoot(dir, r.Certificate), o)
	}
	return r, nil
}
