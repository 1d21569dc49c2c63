package cert_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"

	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/appliance/cert"
	"berth/appliance/fault"
)

func ensure(t *testing.T, dir string, names ...string) cert.Result {
	t.Helper()
	r, err := cert.Ensure(dir, names)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEnsure(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cert")
	r := ensure(t, dir, "Registry.Example.ORG.", "10.1.2.3", "fd00::1", "registry.example.org")
	if r.Changed == "" || r.Supplied {
		t.Errorf("the first time: %+v", r)
	}
	if want := []string{"localhost", "registry.example.org"}; !slices.Equal(r.Certificate.DNSNames, want) {
		t.Errorf("names are %v, want %v", r.Certificate.DNSNames, want)
	}
	if n := len(r.Certificate.IPAddresses); n != 4 {
		t.Errorf("there are %d addresses: %v", n, r.Certificate.IPAddresses)
	}
	if life := r.Certificate.NotAfter.Sub(r.Certificate.NotBefore); life > 397*24*time.Hour {
		t.Errorf("it lives for %v", life)
	}
	roots := x509.NewCertPool()
	roots.AddCert(r.CA)
	for _, name := range []string{"registry.example.org", "localhost", "10.1.2.3", "fd00::1", "127.0.0.1", "::1"} {
		if _, err := r.Certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]os.FileMode{"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	again := ensure(t, dir, "registry.example.org", "fd00::1", "10.1.2.3")
	if again.Changed != "" || !again.Certificate.Equal(r.Certificate) {
		t.Errorf("the second time, a new one was made: %s", again.Changed)
	}
	other := ensure(t, dir, "other.example.org")
	if other.Changed == "" || !other.CA.Equal(r.CA) {
		t.Errorf("with another name: %q, same CA: %v", other.Changed, other.CA.Equal(r.CA))
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	_, err := cert.Ensure(t.TempDir(), []string{"good.example.org", "host:443", "a b", "", "*"})
	if !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	for _, bad := range []string{"host:443", "a b", `"*"`} {
		if !strings.Contains(err.Error(), bad) {
			t.Errorf("%v does not tell of %s", err, bad)
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first := ensure(t, dir, "a.example.org")
		time.Sleep(360 * 24 * time.Hour)
		if r := ensure(t, dir, "a.example.org"); r.Changed != "" {
			t.Errorf("37 days before the end: %s", r.Changed)
		}
		time.Sleep(8 * 24 * time.Hour)
		r := ensure(t, dir, "a.example.org")
		if r.Changed == "" || !r.CA.Equal(first.CA) {
			t.Errorf("29 days before the end: %q", r.Changed)
		}
		time.Sleep(9 * 365 * 24 * time.Hour)
		if r := ensure(t, dir, "a.example.org"); r.CA.Equal(first.CA) {
			t.Error("the CA about to end was kept")
		} else if err := r.Certificate.CheckSignatureFrom(r.CA); err != nil {
			t.Error(err)
		}
	})
}

// TestCrashInBetween finds a key without the certificate that belongs to it.
func TestCrashInBetween(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	ensure(t, dir, "a.example.org")
	ensure(t, other, "a.example.org")
	copyFile(t, other, dir, cert.KeyFile)
	if r := ensure(t, dir, "a.example.org"); r.Changed == "" || r.Supplied {
		t.Errorf("%+v", r)
	}
}

func copyFile(t *testing.T, from, to, name string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, name))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, name), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSuppliedIsKept(t *testing.T) {
	t.Parallel()
	dir, company := t.TempDir(), t.TempDir()
	ensure(t, dir, "a.example.org")
	theirs := ensure(t, company, "their.example.org")
	copyFile(t, company, dir, cert.ServerFile)
	if _, err := cert.Ensure(dir, []string{"a.example.org"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a certificate without its key: %v", err)
	}
	copyFile(t, company, dir, cert.KeyFile)
	r := ensure(t, dir, "a.example.org")
	if !r.Supplied || !r.Certificate.Equal(theirs.Certificate) {
		t.Errorf("it was replaced: %+v", r)
	}
	if err := os.WriteFile(filepath.Join(dir, cert.ServerFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Ensure(dir, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("skipped: openssl is not installed")
	}
	dir := t.TempDir()
	r := ensure(t, dir, "a.example.org", "10.1.2.3")
	run := func(args ...string) string {
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("openssl %v: %v: %s", args, err, b)
		}
		return string(b)
	}
	run("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.crt", "-verify_hostname", "a.example.org", "server.crt")
	run("verify", "-x509_strict", "-CAfile", "ca.crt", "-verify_ip", "10.1.2.3", "server.crt")
	if got := run("x509", "-in", "server.crt", "-noout", "-fingerprint", "-sha256"); !strings.Contains(got, cert.Fingerprint(r.Certificate)) {
		t.Errorf("openssl says %s, we say %s", got, cert.Fingerprint(r.Certificate))
	}
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// TestHotReload changes the certificate under a server with an open connection.
func TestHotReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := ensure(t, dir, "a.example.org")
	r, err := cert.NewReloader(filepath.Join(dir, cert.ServerFile), filepath.Join(dir, cert.KeyFile), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(first.CA)
	client := func() *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	get := func(c *http.Client) (body string, served *x509.Certificate) {
		t.Helper()
		answer, err := c.Get("https://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return string(b), answer.TLS.PeerCertificates[0]
	}
	old := client()
	before, _ := get(old)
	second := ensure(t, dir, "b.example.org")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if after, _ := get(old); after != before {
		t.Error("the open connection was not kept")
	}
	if _, served := get(client()); !served.Equal(second.Certificate) {
		t.Error("a new connection sees the old certificate")
	}
	if err := os.WriteFile(filepath.Join(dir, cert.KeyFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err == nil {
		t.Error("nonsense was accepted")
	}
	if _, served := get(client()); !served.Equal(second.Certificate) {
		t.Error("the pair that worked was dropped")
	}
}

// TestRunFollowsFiles sees a change, a broken pair (told of once) and its repair.
func TestRunFollowsFiles(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	ensure(t, dir, "a.example.org")
	ensure(t, other, "b.example.org")
	log := &lines{}
	synctest.Test(t, func(t *testing.T) {
		r, err := cert.NewReloader(filepath.Join(dir, cert.ServerFile), filepath.Join(dir, cert.KeyFile), slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		served := func() string { return r.Certificate().Leaf.DNSNames[0] }
		copyFile(t, other, dir, cert.KeyFile)
		time.Sleep(4 * time.Second)
		if served() != "a.example.org" || log.count("cannot be used") != 0 {
			t.Errorf("between the two files: serves %s, log %s", served(), &log.b)
		}
		time.Sleep(time.Minute)
		if served() != "a.example.org" || log.count("cannot be used") != 1 {
			t.Errorf("with a key that does not fit: serves %s, told %d times", served(), log.count("cannot be used"))
		}
		copyFile(t, other, dir, cert.ServerFile)
		time.Sleep(4 * time.Second)
		if served() != "b.example.org" || log.count("new certificate in use") != 1 {
			t.Errorf("after the repair: serves %s", served())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
