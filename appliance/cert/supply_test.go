package cert_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
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

// A party has a certificate and its key.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (p party) certPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

func (p party) keyPEM() string {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// sign makes a party's certificate, signed by by, or by itself.
func sign(t testing.TB, key crypto.Signer, by *party, change func(*x509.Certificate)) party {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "registry.example.com"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(300 * 24 * time.Hour), BasicConstraintsValid: true,
		DNSNames: []string{"registry.example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 10)}}
	if change != nil {
		change(c)
	}
	self := party{c, key}
	if by == nil {
		by = &self
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return party{made, key}
}

func authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.DNSNames, c.IPAddresses = name, true, nil, nil
		c.KeyUsage = x509.KeyUsageCertSign
		c.NotAfter = time.Now().Add(3000 * 24 * time.Hour)
	}
}

// company is an enterprise's CA: a root, an intermediate, and a server's certificate.
func company(t testing.TB) (root, middle, server party) {
	root = sign(t, nil, nil, authority("Company Root"))
	middle = sign(t, nil, &root, authority("Company Issuing 3"))
	return root, middle, sign(t, nil, &middle, nil)
}

// TestMangled supplies one pair in all the shapes in which forms and people give it.
func TestMangled(t *testing.T) {
	t.Parallel()
	root, middle, server := company(t)
	c, k, chain := server.certPEM(), server.keyPEM(), middle.certPEM()+root.certPEM()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	oneLine := func(s string) string { return strings.ReplaceAll(s, "\n", " ") }
	mangle := map[string]func(string) string{
		"as it is":         func(s string) string { return s },
		"one line":         oneLine,
		"no line breaks":   func(s string) string { return strings.ReplaceAll(s, "\n", "") },
		"CRLF":             func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"literal \\n":      func(s string) string { return strings.ReplaceAll(s, "\n", `\n`) },
		"literal \\r\\n":   func(s string) string { return strings.ReplaceAll(s, "\n", `\r\n`) },
		"quoted":           func(s string) string { return `"` + oneLine(s) + `"` },
		"indented":         func(s string) string { return "   " + strings.ReplaceAll(s, "\n", "\n\t  ") },
		"double spaces":    func(s string) string { return strings.ReplaceAll(s, "\n", "\n\n") },
		"word processor":   func(s string) string { return strings.ReplaceAll(s, "-----", "–––––") },
		"byte order mark":  func(s string) string { return "\ufeff" + s },
		"base64 of PEM":    b64,
		"base64 in lines":  func(s string) string { return oneLine(b64(s)[:70] + "\n" + b64(s)[70:]) },
		"text in between":  func(s string) string { return "subject=CN = x\n" + s + "Bag Attributes\n    friendlyName: y\n" },
		"base64, one line": func(s string) string { return b64(oneLine(s)) },
		"from JSON":        func(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "/", `\/`), "\n", `\n`) },
	}
	for name, m := range mangle {
		for form, fields := range map[string][3]string{
			"three fields":   {m(c), m(chain), m(k)},
			"chain behind":   {m(c + chain), "", m(k)},
			"all in one":     {m(k + c + chain), "", ""},
			"wrong order":    {m(root.certPEM() + c + middle.certPEM()), "", m(k)},
			"fields swapped": {m(k), m(c), m(chain)},
		} {
			r, err := cert.Supply(t.TempDir(), fields[0], fields[1], fields[2], "")
			if err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
				continue
			}
			if !r.Certificate.Equal(server.cert) || len(r.Chain) != 1 || !r.Chain[0].Equal(middle.cert) || r.Warnings != nil {
				t.Errorf("%s, %s: %v with %d in the chain, %q", name, form, r.Certificate.Subject, len(r.Chain), r.Warnings)
			}
		}
	}
	der := base64.StdEncoding.EncodeToString
	keyDER, _ := x509.MarshalECPrivateKey(server.key.(*ecdsa.PrivateKey))
	if _, err := cert.Supply(t.TempDir(), der(server.cert.Raw), der(slices.Concat(middle.cert.Raw, root.cert.Raw)), der(keyDER), ""); err != nil {
		t.Errorf("base64 of DER: %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	root, middle, server := company(t)
	_, _, other := company(t)
	weak := weakKey(t)
	one := func(p party) [3]string { return [3]string{p.certPEM(), "", p.keyPEM()} }
	with := func(key crypto.Signer, change func(*x509.Certificate)) [3]string {
		return one(sign(t, key, &middle, change))
	}
	request, err := cert.Request(t.TempDir(), []string{"x.example.com"}, cert.ECDSA())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		fields     [3]string
		field, why string
	}{
		"nothing":       {[3]string{"", "", ""}, "certificate", "missing"},
		"no key":        {[3]string{server.certPEM(), "", ""}, "private_key", "missing"},
		"no cert":       {[3]string{"", "", server.keyPEM()}, "certificate", "missing"},
		"other key":     {[3]string{server.certPEM(), "", other.keyPEM()}, "private_key", "belongs to none"},
		"nonsense":      {[3]string{"my certificate", "", server.keyPEM()}, "certificate", "neither PEM nor base64"},
		"cut off":       {[3]string{server.certPEM()[:300], "", server.keyPEM()}, "certificate", "END line"},
		"no begin":      {[3]string{server.certPEM()[30:], "", server.keyPEM()}, "certificate", "BEGIN line"},
		"damaged":       {[3]string{strings.Replace(server.certPEM(), "M", "A", 1), "", server.keyPEM()}, "certificate", "damaged"},
		"not base64":    {[3]string{server.certPEM(), "", strings.Replace(server.keyPEM(), "M", "?", 1)}, "private_key", "not base64"},
		"a request":     {[3]string{request, "", server.keyPEM()}, "certificate", "request"},
		"SSH key":       {[3]string{server.certPEM(), "", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"}, "private_key", "SSH"},
		"ended":         {with(nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "certificate", "has ended"},
		"not yet":       {with(nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "certificate", "begins"},
		"no names":      {with(nil, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }), "certificate", "subject alternative"},
		"for clients":   {with(nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "certificate", "serverAuth"},
		"weak":          {with(weak, nil), "certificate", "1024 bits"},
		"chain ended":   {[3]string{server.certPEM(), endedChain(t, root, middle), server.keyPEM()}, "chain", "has ended"},
		"far too long":  {[3]string{strings.Repeat("A", 300<<10), "", ""}, "certificate", "longer than"},
		"a public key":  {[3]string{server.certPEM(), "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, "private_key", "missing"},
		"no passphrase": {[3]string{server.certPEM(), "", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----"}, "key_passphrase", "passphrase is missing"},
	} {
		dir := t.TempDir()
		_, err := cert.Supply(dir, c.fields[0], c.fields[1], c.fields[2], "")
		f := fault.Of(err)
		if !fault.Is(err, fault.Invalid) || f.Field != c.field || !strings.Contains(f.Text, c.why) {
			t.Errorf("%s: %v, want %q on %s", name, err, c.why, c.field)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: it left %v", name, left)
		}
	}
}

// endedChain is the intermediate as it was before it was renewed.
func endedChain(t *testing.T, root, middle party) string {
	return sign(t, middle.key, &root, func(c *x509.Certificate) {
		authority("Company Issuing 3")(c)
		c.NotAfter = time.Now().Add(-time.Hour)
	}).certPEM()
}

func weakKey(t *testing.T) crypto.Signer {
	t.Helper()
	openssl := program(t, "openssl")
	out, err := exec.Command(openssl, "genrsa", "1024").Output()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(out)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k.(*rsa.PrivateKey)
}

func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("skipped: %s is not installed", name)
	}
	return path
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	root, middle, server := company(t)
	stranger, _, _ := company(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	names := cert.ForNames("Registry.example.com.", "192.0.2.10", "localhost", "127.0.0.1")
	self := sign(t, nil, nil, nil)
	soon := sign(t, nil, &middle, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(12*24*time.Hour + time.Hour) })
	special := sign(t, ed, &middle, nil)
	for name, c := range map[string]struct {
		fields [3]string
		more   cert.Option
		want   []string
	}{
		"nothing":    {[3]string{server.certPEM(), middle.certPEM(), server.keyPEM()}, names, nil},
		"no chain":   {[3]string{server.certPEM(), "", server.keyPEM()}, names, []string{`"Company Issuing 3" is an intermediate`}},
		"itself":     {[3]string{self.certPEM(), "", self.keyPEM()}, names, []string{"signed by itself"}},
		"soon":       {[3]string{soon.certPEM(), middle.certPEM(), soon.keyPEM()}, names, []string{"ends in 12 days"}},
		"left over":  {[3]string{server.certPEM(), middle.certPEM() + root.certPEM() + stranger.certPEM(), server.keyPEM()}, names, []string{`left out: "Company Root"`}},
		"Ed25519":    {[3]string{special.certPEM(), middle.certPEM(), special.keyPEM()}, names, []string{"Ed25519"}},
		"other name": {[3]string{server.certPEM(), middle.certPEM(), server.keyPEM()}, cert.ForNames("berth.example.com", "2001:db8::1"), []string{"not for berth.example.com", "not for 2001:db8::1"}},
	} {
		r, err := cert.Inspect(t.TempDir(), c.fields[0], c.fields[1], c.fields[2], "", c.more)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(r.Warnings) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, r.Warnings, c.want)
			continue
		}
		for i, w := range c.want {
			if !strings.Contains(r.Warnings[i], w) {
				t.Errorf("%s: %q, want %q", name, r.Warnings[i], w)
			}
		}
	}
}

// TestEncryptedKeys reads what openssl writes, with each cipher and derivation.
func TestEncryptedKeys(t *testing.T) {
	t.Parallel()
	openssl := program(t, "openssl")
	_, middle, server := company(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	byRSA := sign(t, rsaKey, &middle, nil)
	dir := t.TempDir()
	const passphrase = `pass 'w"$ü`
	for p, file := range map[*party]string{&server: "ec.pem", &byRSA: "rsa.pem"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(p.keyPEM()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		of   party
		args string
	}{
		{server, "pkcs8 -topk8 -in ec.pem"},
		{server, "pkcs8 -topk8 -v2 aes128 -v2prf hmacWithSHA1 -in ec.pem"},
		{server, "pkcs8 -topk8 -v2 aes-192-cbc -v2prf hmacWithSHA512 -in ec.pem"},
		{byRSA, "pkcs8 -topk8 -v2 des3 -in rsa.pem"},
		{byRSA, "pkcs8 -topk8 -scrypt -in rsa.pem"},
		{byRSA, "rsa -aes256 -traditional -in rsa.pem"},
		{byRSA, "rsa -des3 -traditional -in rsa.pem"},
		{server, "ec -aes128 -in ec.pem"},
	} {
		cmd := exec.Command(openssl, append(strings.Fields(c.args), "-passout", "stdin")...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(passphrase+"\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", c.args, err)
		}
		for form, key := range map[string]string{"as it is": string(out), "one line": strings.ReplaceAll(string(out), "\n", " "),
			"no line breaks": strings.ReplaceAll(string(out), "\n", ""), "base64": base64.StdEncoding.EncodeToString(out)} {
			if r, err := cert.Supply(t.TempDir(), c.of.certPEM(), middle.certPEM(), key, passphrase); err != nil || !r.Certificate.Equal(c.of.cert) {
				t.Errorf("openssl %s, %s: %v", c.args, form, err)
			}
		}
		for wrong, why := range map[secret.Text]string{"": "missing", "wrong": "not that of"} {
			if _, err := cert.Supply(t.TempDir(), c.of.certPEM(), "", string(out), wrong); fault.Of(err).Field != "key_passphrase" || !strings.Contains(err.Error(), why) {
				t.Errorf("openssl %s with the passphrase %q: %v", c.args, wrong.Reveal(), err)
			}
		}
	}
}

// TestPKCS7 reads the chain that Windows' CA offers for download.
func TestPKCS7(t *testing.T) {
	t.Parallel()
	openssl := program(t, "openssl")
	root, middle, server := company(t)
	for _, form := range []string{"PEM", "DER"} {
		cmd := exec.Command(openssl, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", form)
		cmd.Stdin = strings.NewReader(root.certPEM() + middle.certPEM())
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if form == "DER" {
			out = []byte(base64.StdEncoding.EncodeToString(out))
		}
		if r, err := cert.Supply(t.TempDir(), server.certPEM(), string(out), server.keyPEM(), ""); err != nil || len(r.Chain) != 1 {
			t.Errorf("%s: %v, %v", form, r.Chain, err)
		}
	}
}

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
