package cert_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
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

// TestPFX says what to do with the form that Windows exports.
func TestPFX(t *testing.T) {
	t.Parallel()
	openssl := program(t, "openssl")
	_, _, server := company(t)
	file := filepath.Join(t.TempDir(), "server.pem") // openssl reads it twice
	if err := os.WriteFile(file, []byte(server.keyPEM()+server.certPEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(openssl, "pkcs12", "-export", "-passout", "pass:x", "-in", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, err = cert.Supply(t.TempDir(), base64.StdEncoding.EncodeToString(out), "", "", "x")
	if f := fault.Of(err); !strings.Contains(f.Text, "PKCS #12") || !strings.Contains(f.Hint, "openssl pkcs12") {
		t.Error(err)
	}
	// What the hint says, openssl does, and Supply takes.
	cmd := exec.Command(openssl, "pkcs12", "-in", "/dev/stdin", "-passin", "pass:x", "-passout", "pass:y")
	cmd.Stdin = strings.NewReader(string(out))
	converted, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Supply(t.TempDir(), string(converted), "", "", "y"); err != nil {
		t.Error(err)
	}
}

// A root that was supplied is not served, and still known afterwards: nothing is missing between it and the certificate.
func TestSuppliedRootIsKnown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, middle, _ := company(t)
	direct, other := sign(t, nil, &root, nil), sign(t, nil, &middle, nil)
	names := cert.ForNames("registry.example.com")
	for _, c := range []struct {
		leaf  party
		chain string
		want  int // warnings
	}{{direct, root.certPEM(), 0}, {direct, "", 0}, {other, "", 1}} {
		if _, err := cert.Supply(dir, c.leaf.certPEM(), c.chain, c.leaf.keyPEM(), "", names); err != nil {
			t.Fatal(err)
		}
		r, err := cert.Look(dir, names)
		if err != nil || len(r.Warnings) != c.want || len(r.Chain) != 0 {
			t.Errorf("%d: %q, chain %d, %v", c.want, r.Warnings, len(r.Chain), err)
		}
	}
}
