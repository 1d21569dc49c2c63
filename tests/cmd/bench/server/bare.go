package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"berth/tests/berthtest"
	"berth/tests/cmd/bench/load"
)

// Bare is http.ServeContent over files and nothing else, in a process of its own: the least that a Go server can spend
// on a large pull.
type Bare struct {
	*child
	Dir              string // what it serves
	addr, secureAddr string
	roots            *x509.CertPool
}

// StartBare runs this very program with the arguments that make it call ServeBare.
func StartBare(ctx context.Context, dir string, pair KeyPair, arg string) (*Bare, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &Bare{Dir: filepath.Join(dir, "bare")}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return nil, err
	}
	if b.roots, err = rootsOf(pair.Certificate); err != nil {
		return nil, err
	}
	if b.addr, err = berthtest.FreeAddr("127.0.0.1"); err != nil {
		return nil, err
	}
	if b.secureAddr, err = berthtest.FreeAddr("127.0.0.1"); err != nil {
		return nil, err
	}
	b.child, err = start("the bare server", filepath.Join(dir, "bare.out"), nil, self, arg, b.Dir, b.addr, b.secureAddr, pair.Certificate, pair.Key)
	if err != nil {
		return nil, err
	}
	if err := b.ready(ctx, func() bool { return listening(b.addr) && listening(b.secureAddr) }); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

// ServeBare is the bare server. Args are those that StartBare gives.
func ServeBare(args []string) error {
	if len(args) != 5 {
		return errors.New("the bare server wants a directory, two addresses, a certificate and a key")
	}
	files := http.FileServer(http.Dir(args[0]))
	secure := &http.Server{Addr: args[2], Handler: files, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13}, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	plain := &http.Server{Addr: args[1], Handler: files, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- plain.ListenAndServe() }()
	go func() { failed <- secure.ListenAndServeTLS(args[3], args[4]) }()
	return <-failed
}

// Put gives it a blob to serve under its digest.
func (b *Bare) Put(blob load.Blob) error {
	f, err := os.Create(filepath.Join(b.Dir, blob.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, blob.Reader())
	return err
}

// Name is what the table calls it.
func (b *Bare) Name() string { return "bare" }

// Pids is its process.
func (b *Bare) Pids() []int { return []int{b.pid()} }

// Address is where it listens.
func (b *Bare) Address(tls bool) string {
	if tls {
		return "https://" + b.secureAddr
	}
	return "http://" + b.addr
}

// Roots has the certificate made for the benchmark.
func (b *Bare) Roots() *x509.CertPool { return b.roots }

// Auth is not needed.
func (b *Bare) Auth(context.Context, ...string) (string, error) { return "", nil }

var errBare = errors.New("the bare server only serves files")

// Tags is not for it.
func (b *Bare) Tags(context.Context, string, int) error { return errBare }

// Repositories is not for it.
func (b *Bare) Repositories(context.Context, int) error { return errBare }

// Forget is not for it.
func (b *Bare) Forget(context.Context, []string, []string) error { return errBare }

// Settle has nothing to wait for.
func (b *Bare) Settle(context.Context) error { return nil }

// Stop ends it.
func (b *Bare) Stop() error { return b.stop() }

// A KeyPair names the files of a certificate for 127.0.0.1 and of its key.
type KeyPair struct{ Certificate, Key string }

// NewKeyPair makes one of the kind that Berth makes for itself (ECDSA P-256).
func NewKeyPair(dir string) (KeyPair, error) {
	pair := KeyPair{filepath.Join(dir, "bench.crt"), filepath.Join(dir, "bench.key")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return pair, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair, err
	}
	return pair, errors.Join(
		write(pair.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		write(pair.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
