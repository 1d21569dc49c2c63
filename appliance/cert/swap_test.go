package cert_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/cert"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// TestRequest goes to a CA and back, the key never leaving.
func TestRequest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, middle, _ := company(t)
	before := ensure(t, dir, "registry.example.com")
	for _, kind := range [][]cert.Option{nil, {cert.ECDSA()}} {
		text, err := cert.Request(dir, []string{"registry.example.com", "192.0.2.10", "berth"}, kind...)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(text))
		r, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || r.CheckSignature() != nil {
			t.Fatal(err)
		}
		if r.Subject.CommonName != "berth" || !slices.Equal(r.DNSNames, []string{"berth", "registry.example.com"}) || len(r.IPAddresses) != 1 {
			t.Errorf("it asks for %v, %v, %v", r.Subject, r.DNSNames, r.IPAddresses)
		}
		if pending, made, err := cert.Pending(dir); pending != text || time.Since(made) > time.Minute || err != nil {
			t.Errorf("pending: %q, %v, %v", pending, made, err)
		}
		if now := ensure(t, dir, "registry.example.com"); !now.Certificate.Equal(before.Certificate) {
			t.Error("the request has changed what is served")
		}
		issued := sign(t, publicOnly{r.PublicKey}, &middle, func(c *x509.Certificate) { c.DNSNames = r.DNSNames })
		_, _, wrong := company(t)
		if _, err := cert.Supply(dir, wrong.certPEM(), "", "", ""); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "pending request") {
			t.Errorf("another's certificate: %v", err)
		}
		got, err := cert.Supply(dir, issued.certPEM(), middle.certPEM(), "", "", cert.ForNames("berth"))
		if err != nil || !got.Supplied || got.Warnings != nil {
			t.Fatalf("%+v, %v", got, err)
		}
		if pending, _, err := cert.Pending(dir); pending != "" || err != nil {
			t.Errorf("it is still pending: %v", err)
		}
		// The same key again, as when a CA only renews.
		renewed := sign(t, publicOnly{r.PublicKey}, &middle, nil)
		if got, err := cert.Supply(dir, renewed.certPEM(), middle.certPEM(), "", ""); err != nil || !got.Certificate.Equal(renewed.cert) {
			t.Errorf("a renewal for the key in use: %v", err)
		}
		if _, err := cert.Own(dir, []string{"registry.example.com"}); err != nil {
			t.Fatal(err)
		}
		before = ensure(t, dir, "registry.example.com")
	}
}

// publicOnly is what a CA knows of the key that it certifies.
type publicOnly struct{ public crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.public }
func (publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a CA does not have the key")
}

// TestBackAndForth goes from the own CA to a supplied certificate and back.
func TestBackAndForth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, middle, server := company(t)
	own := ensure(t, dir, "a.example.com")
	if _, err := cert.Revert(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a previous one: %v", err)
	}
	if _, err := cert.Supply(dir, server.certPEM(), middle.certPEM(), server.keyPEM(), ""); err != nil {
		t.Fatal(err)
	}
	r := ensure(t, dir, "a.example.com")
	if !r.Supplied || !r.Certificate.Equal(server.cert) || len(r.Warnings) != 1 || len(r.Chain) != 1 || !r.CA.Equal(own.CA) {
		t.Errorf("supplied: %+v", r)
	}
	if r, err := cert.Revert(dir); err != nil || r.Supplied || !r.Certificate.Equal(own.Certificate) {
		t.Errorf("back: %+v, %v", r, err)
	}
	if r, err := cert.Revert(dir); err != nil || !r.Supplied || !r.Certificate.Equal(server.cert) {
		t.Errorf("and forth: %+v, %v", r, err)
	}
	r, err := cert.Own(dir, []string{"a.example.com"})
	if err != nil || r.Supplied || r.Changed != "it was asked for" || !r.CA.Equal(own.CA) {
		t.Errorf("the own CA again: %+v, %v", r, err)
	}
	if r := ensure(t, dir, "a.example.com"); r.Changed != "" || r.Supplied {
		t.Errorf("and then: %+v", r)
	}
	pairs, _ := filepath.Glob(filepath.Join(dir, "pair-*"))
	if len(pairs) != 2 {
		t.Errorf("there are %v", pairs)
	}
}

// TestSwapIsOneStep looks, after each change that a swap makes to the directory,
// whether the two files belong together: a copy is what a power cut would leave.
func TestSwapIsOneStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ensure(t, dir, "a.example.com")
	_, middle, server := company(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		looks := 0
		for ctx.Err() == nil {
			// What a reader that opens the directory of the pair once sees.
			pair, err := os.Readlink(filepath.Join(dir, "pair"))
			if err != nil {
				t.Error(err)
				break
			}
			_, err = tls.LoadX509KeyPair(filepath.Join(dir, pair, cert.ServerFile), filepath.Join(dir, pair, cert.KeyFile))
			if now, _ := os.Readlink(filepath.Join(dir, "pair")); err != nil && now == pair {
				t.Error(err)
			}
			looks++
		}
		done <- looks
	}()
	for range 20 {
		if _, err := cert.Supply(dir, server.certPEM(), middle.certPEM(), server.keyPEM(), ""); err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Own(dir, []string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if looks := <-done; looks == 0 {
		t.Error("nobody looked")
	}
}

// TestKeyGroup gives the key to a group, also one that was restored without it.
func TestKeyGroup(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("skipped: giving a file to a group takes root")
	}
	dir := t.TempDir()
	for range 2 {
		if _, err := cert.Ensure(dir, nil, cert.KeyGroup("daemon")); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("stat", "-L", "-c", "%U %G %a", filepath.Join(dir, cert.KeyFile)).Output()
		if err != nil || string(out) != "root daemon 640\n" {
			t.Errorf("%s, %v", out, err)
		}
		if err := os.Chmod(filepath.Join(dir, cert.KeyFile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cert.Ensure(dir, nil, cert.KeyGroup("no-such-group")); err == nil {
		t.Error("a group that is not there was accepted")
	}
}

// TestSwapDuringAPush changes the certificate while a client sends a layer.
func TestSwapDuringAPush(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := ensure(t, dir, "a.example.com")
	_, middle, server := company(t)
	r, err := cert.NewReloader(filepath.Join(dir, cert.ServerFile), filepath.Join(dir, cert.KeyFile), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})}
	go web.Serve(l)
	t.Cleanup(func() { web.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(first.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	layer, send := io.Pipe()
	answer := make(chan string)
	go func() {
		resp, err := (&http.Client{Transport: transport}).Post("https://"+l.Addr().String(), "application/octet-stream", layer)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	part := make([]byte, 1<<20)
	if _, err := send.Write(part); err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Supply(dir, server.certPEM(), middle.certPEM(), server.keyPEM(), ""); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := send.Write(part); err != nil {
		t.Fatal(err)
	}
	send.Close()
	if got := <-answer; got != fmt.Sprint(2<<20, nil) {
		t.Errorf("the push ended with %s", got)
	}
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // who it is, is what is looked at
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if served := c.ConnectionState().PeerCertificates; len(served) != 2 || !served[0].Equal(server.cert) || !served[1].Equal(middle.cert) {
		t.Errorf("a new connection is served %d certificates", len(served))
	}
}

func FuzzRepair(f *testing.F) {
	_, middle, server := company(f)
	f.Add(server.certPEM() + middle.certPEM())
	f.Add(strings.ReplaceAll(server.keyPEM(), "\n", `\n`))
	f.Add(base64.StdEncoding.EncodeToString([]byte(server.certPEM())))
	f.Add("-----BEGIN RSA PRIVATE KEY----- Proc-Type: 4,ENCRYPTED DEK-Info: DES-EDE3-CBC,0011223344556677 AAAA -----END RSA PRIVATE KEY-----")
	f.Add("-----BEGIN PKCS7-----\nMAAA\n-----END PKCS7-----")
	f.Fuzz(func(t *testing.T, text string) {
		once, err := cert.Repair(text)
		if err != nil {
			if f := fault.Of(err); f.Kind != fault.Invalid || f.Text == "" {
				t.Errorf("%v", err)
			}
			return
		}
		if again, err := cert.Repair(once); err != nil || again != once {
			t.Errorf("%q was repaired to %q, and that to %q, %v", text, once, again, err)
		}
	})
}

func FuzzInspect(f *testing.F) {
	_, middle, server := company(f)
	f.Add(server.certPEM(), middle.certPEM(), server.keyPEM(), "")
	f.Add(server.certPEM(), "", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----", "x")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, certificate, chain, key, passphrase string) {
		if _, err := cert.Inspect(dir, certificate, chain, key, secret.Text(passphrase)); err != nil {
			if len(key) > 40 && strings.Contains(err.Error(), key) {
				t.Error("the key is in the fault")
			}
		}
	})
}

// TestTwoAtOnce makes sure of the same directory from many sides, as first boot and
// the agent do at the same moment: one of them makes the certificate.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := make(chan string)
	for range 8 {
		go func() {
			r, err := cert.Ensure(dir, []string{"a.example.com"})
			if err != nil {
				t.Error(err)
			}
			made <- r.Changed
		}()
	}
	count := 0
	for range 8 {
		if <-made != "" {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d have made one", count)
	}
	if pairs, _ := filepath.Glob(filepath.Join(dir, "pair-*")); len(pairs) != 1 {
		t.Errorf("there are %v", pairs)
	}
}
