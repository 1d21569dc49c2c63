package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/ova/archive"
)

func TestRoundTrip(t *testing.T) {
	content := map[string]string{"a.ovf": "the descriptor", "a.mf": "", "a-disk.vmdk": strings.Repeat("disk ", 1000)}
	var b bytes.Buffer
	var files []archive.File
	for _, name := range []string{"a.ovf", "a.mf", "a-disk.vmdk"} {
		files = append(files, archive.File{Name: name, Size: int64(len(content[name])), Content: strings.NewReader(content[name])})
	}
	if err := archive.Write(&b, time.Unix(1700000000, 0), files...); err != nil {
		t.Fatal(err)
	}
	p := open(t, b.Bytes())
	if !p.Archive || !p.Ended || len(p.Entries) != 3 {
		t.Fatalf("%+v", p)
	}
	for _, e := range p.Entries {
		got, err := e.Read(10_000)
		if err != nil || string(got) != content[e.Name] || e.Form != archive.USTAR {
			t.Errorf("%s: %v, %s, %.20q", e.Name, err, e.Form, got)
		}
	}
	if e, _ := p.First(".VMDK"); e.Name != "a-disk.vmdk" {
		t.Errorf("%q", e.Name)
	}
	if _, err := p.Entries[2].Read(100); err == nil {
		t.Error("more than the limit was read")
	}
	// GNU tar lists it as we do.
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-tf", path).CombinedOutput()
	if err != nil || string(out) != "a.ovf\na.mf\na-disk.vmdk\n" {
		t.Errorf("%v %s", err, out)
	}
}

func open(t *testing.T, b []byte) *archive.Package {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.ova")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestWriteRefuses(t *testing.T) {
	at := time.Unix(0, 0)
	for name, f := range map[string]archive.File{
		"a folder":  {Name: "a/b", Size: 1, Content: strings.NewReader("x")},
		"a space":   {Name: "a b", Size: 1, Content: strings.NewReader("x")},
		"dots":      {Name: "..", Size: 1, Content: strings.NewReader("x")},
		"too short": {Name: "a", Size: 5, Content: strings.NewReader("x")},
		"too long":  {Name: "a", Size: 0, Content: strings.NewReader("x")},
		"too big":   {Name: "a", Size: archive.MaxFile + 1, Content: strings.NewReader("x")},
	} {
		if err := archive.Write(io.Discard, at, f); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestManyFiles(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 400 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	path := filepath.Join(t.TempDir(), "a.ova")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := archive.Open(path)
	if !errors.Is(err, archive.ErrTar) || p == nil || len(p.Entries) > 256 {
		t.Errorf("%v", err)
	}
	p.Close()
}

// Files beside a descriptor are taken from its folder, and from nowhere else.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a.ovf": "x", "a.mf": "y", "a.vmdk": "z"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.vmdk")); err != nil {
		t.Fatal(err)
	}
	p, err := archive.Open(filepath.Join(dir, "a.ovf"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if e, ok := p.Find("a.vmdk"); !ok || e.Size != 1 {
		t.Errorf("%+v", e)
	}
	for _, no := range []string{"link.vmdk", "../etc/passwd", "/etc/passwd", "none", ".", ""} {
		if e, ok := p.Find(no); ok {
			t.Errorf("%q was found: %+v", no, e)
		}
	}
}

func TestManifest(t *testing.T) {
	hexes := strings.Repeat("0a", 32)
	if got := string(archive.Manifest(archive.Sum{Name: "a (1).ovf", Hex: hexes})); got != "SHA256(a (1).ovf)= "+hexes+"\n" {
		t.Errorf("%q", got)
	}
	for line, want := range map[string]archive.Sum{
		"SHA256(a.ovf)= " + hexes:     {Algorithm: "SHA256", Name: "a.ovf", Exact: true},
		"SHA256(a (1).ovf)= " + hexes: {Algorithm: "SHA256", Name: "a (1).ovf", Exact: true},
		"SHA256 (a.ovf) = " + hexes:   {Algorithm: "SHA256", Name: "a.ovf"},
		"SHA2-256(a.ovf)= " + hexes:   {Algorithm: "SHA2-256", Name: "a.ovf"},
		"SHA256(a.ovf)=" + hexes:      {Algorithm: "SHA256", Name: "a.ovf"},
		"SHA1(a.ovf)= 0a":             {Algorithm: "SHA1", Name: "a.ovf"},
		"SHA256(a.ovf)= 0a":           {Algorithm: "SHA256", Name: "a.ovf"},
		"SHA256(a.ovf)= xyz":          {},
		hexes + "  a.ovf":             {},
		")(":                          {},
	} {
		got := archive.ParseManifest([]byte("\n" + line + "\r\n"))
		if len(got) != 1 || got[0].Algorithm != want.Algorithm || got[0].Name != want.Name || got[0].Exact != want.Exact || got[0].Line != 2 {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func pair(t *testing.T, from, to time.Time) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestSignature(t *testing.T) {
	now := time.Now()
	key, cert := pair(t, now.Add(-time.Hour), now.Add(time.Hour))
	manifest := archive.Manifest(archive.Sum{Name: "a.ovf", Hex: strings.Repeat("ab", 32)})
	signed, err := archive.Sign("a.mf", manifest, key, cert)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := archive.Sign("a.mf", manifest, key, cert); !bytes.Equal(signed, again) {
		t.Error("two signatures differ")
	}
	if leaf, err := archive.Verify(signed, "a.mf", manifest, now); err != nil || leaf.Subject.CommonName != "test" {
		t.Errorf("%v", err)
	}
	for name, c := range map[string]struct {
		cert, manifest []byte
		name           string
		at             time.Time
		want           error
	}{
		"another manifest": {signed, append([]byte("x"), manifest...), "a.mf", now, archive.ErrSignature},
		"another name":     {signed, manifest, "b.mf", now, archive.ErrSignatureForm},
		"expired":          {signed, manifest, "a.mf", now.Add(2 * time.Hour), archive.ErrExpired},
		"not yet":          {signed, manifest, "a.mf", now.Add(-2 * time.Hour), archive.ErrExpired},
		"no certificate":   {bytes.Split(signed, []byte("-----"))[0], manifest, "a.mf", now, archive.ErrSignatureForm},
		"no signature":     {cert, manifest, "a.mf", now, archive.ErrSignatureForm},
		"nonsense":         {[]byte("x"), manifest, "a.mf", now, archive.ErrSignatureForm},
	} {
		if _, err := archive.Verify(c.cert, c.name, c.manifest, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other, _ := pair(t, now, now)
	if _, err := archive.Sign("a.mf", manifest, other, cert); err == nil {
		t.Error("a certificate of another key was taken")
	}
}

// OpenSSL agrees that it is a signature of the manifest.
func TestSignatureWithOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed (make test-deps)")
	}
	key, cert := pair(t, time.Now(), time.Now().Add(time.Hour))
	manifest := archive.Manifest(archive.Sum{Name: "a.ovf", Hex: fmt.Sprintf("%x", sha256.Sum256(nil))})
	signed, err := archive.Sign("a.mf", manifest, key, cert)
	if err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(string(signed), "\n")
	raw, err := hex.DecodeString(strings.TrimPrefix(line, "SHA256(a.mf)= "))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"a.mf": manifest, "sig": raw, "cert.pem": []byte(rest)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"x509", "-in", "cert.pem", "-pubkey", "-noout", "-out", "pub.pem"},
		{"dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "a.mf"},
	} {
		c := exec.CommandContext(t.Context(), openssl, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
}

func FuzzOpen(f *testing.F) {
	var b bytes.Buffer
	if err := archive.Write(&b, time.Unix(0, 0), archive.File{Name: "a.ovf", Size: 5, Content: strings.NewReader("hello")}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, fmt.Sprintf("%x.ova", sha256.Sum256(b)))
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		p, err := archive.Open(path)
		if p == nil {
			t.Fatal(err)
		}
		defer p.Close()
		for _, e := range p.Entries {
			if e.Size > int64(len(b)) {
				t.Errorf("%q has %d bytes in an archive of %d", e.Name, e.Size, len(b))
			}
			if _, err := io.Copy(io.Discard, e.Reader()); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("SHA256(a.ovf)= " + strings.Repeat("0a", 32) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range archive.ParseManifest(b) {
			if s.Exact && !bytes.Contains(b, bytes.TrimSpace(archive.Manifest(s))) {
				t.Errorf("%+v is not what stands there", s)
			}
		}
	})
}
