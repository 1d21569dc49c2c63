package lint_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/ova"
	"berth/ova/archive"
	"berth/ova/descriptor"
	"berth/ova/lint"
)

// file is one of an OVA that is taken apart.
type file struct {
	name    string
	content []byte
	header  tar.Header // what differs from a good one
}

// pack is an OVA in pieces, to be broken.
type pack struct {
	t     *testing.T
	files []*file
	// after changes the finished archive.
	after func([]byte) []byte
	// stale leaves the manifest as it is.
	stale bool
}

// goodOVA builds one with all that an OVA can have, once for all tests.
func goodOVA(t *testing.T) (path string, key *rsa.PrivateKey) {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "system.raw")
	content := make([]byte, 3<<20)
	copy(content[1<<20:], bytes.Repeat([]byte("words and words "), 20_000))
	if err := os.WriteFile(image, content, 0o644); err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small := map[diskrole.Role]int64{diskrole.Data: 8 << 20, diskrole.Database: 8 << 20, diskrole.Log: 8 << 20}
	b := ova.Build{Out: filepath.Join(dir, "berth.ova"), Disks: map[diskrole.Role]string{diskrole.System: image}, Blank: small,
		Version: "1.2.3", OS: descriptor.Debian, UEFI: true, Key: key, Certificate: certificate(t, key, time.Hour)}
	if _, err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Out, key
}

func certificate(t *testing.T, key *rsa.PrivateKey, valid time.Duration) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Berth test"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(valid)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func takeApart(t *testing.T, path string) []*file {
	t.Helper()
	p, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var list []*file
	for _, e := range p.Entries {
		b, err := e.Read(10 << 20)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, &file{name: e.Name, content: b})
	}
	return list
}

func (p *pack) file(name string) *file {
	for _, f := range p.files {
		if f.name == name {
			return f
		}
	}
	p.t.Fatalf("there is no %s", name)
	return nil
}

// sub changes a piece of text, which must be there.
func (p *pack) sub(name, old, new string) {
	f := p.file(name)
	if !bytes.Contains(f.content, []byte(old)) {
		p.t.Fatalf("%s does not contain %q", name, old)
	}
	f.content = bytes.Replace(f.content, []byte(old), []byte(new), 1)
}

func (p *pack) ovf(old, new string) { p.sub("berth.ovf", old, new) }

func (p *pack) remove(name string) {
	p.file(name)
	p.files = slices.DeleteFunc(p.files, func(f *file) bool { return f.name == name })
}

func (p *pack) write(path string, key *rsa.PrivateKey, cert []byte) {
	p.t.Helper()
	var mf *file
	for _, f := range p.files {
		if f.name == "berth.mf" {
			mf = f
		}
	}
	if mf != nil && !p.stale {
		var sums []archive.Sum
		for _, f := range p.files {
			if ext := filepath.Ext(f.name); ext == ".ovf" || ext == ".vmdk" {
				sums = append(sums, archive.Sum{Name: f.name, Hex: fmt.Sprintf("%x", sha256.Sum256(f.content))})
			}
		}
		mf.content = archive.Manifest(sums...)
	}
	for _, f := range p.files {
		if f.name == "berth.cert" && mf != nil && cert != nil {
			var err error
			if f.content, err = archive.Sign("berth.mf", mf.content, key, cert); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range p.files {
		h := f.header
		h.Name, h.Size, h.Mode = f.name, int64(len(f.content)), 0o644
		if h.Format == 0 {
			h.Format = tar.FormatUSTAR
		}
		if h.Typeflag == tar.TypeSymlink {
			h.Size, f.content = 0, nil
		}
		if err := w.WriteHeader(&h); err != nil {
			p.t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		p.t.Fatal(err)
	}
	out := b.Bytes()
	if p.after != nil {
		out = p.after(out)
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// lie changes the size in a header, and mends the header's checksum.
func lie(t *testing.T, b []byte, name string, size int64) []byte {
	at := bytes.LastIndex(b, append([]byte(name), 0))
	if at < 0 || at%512 != 0 {
		t.Fatalf("no header of %s", name)
	}
	h := b[at : at+512]
	h[124] = 0x80 // base 256
	binary.BigEndian.PutUint64(h[128:], uint64(size))
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestRules(t *testing.T) {
	good, key := goodOVA(t)
	if findings, err := lint.Check(t.Context(), good, time.Now()); err != nil || len(findings) > 0 {
		t.Fatalf("a good OVA: %v %+v", err, findings)
	}
	valid, expired := certificate(t, key, time.Hour), certificate(t, key, -time.Hour)
	tested := map[string]bool{}
	for i, c := range breakages {
		tested[c.rule] = true
		t.Run(fmt.Sprintf("%s/%d", c.rule, i), func(t *testing.T) {
			p := &pack{t: t, files: takeApart(t, good)}
			c.how(p)
			cert := valid
			for _, f := range p.files {
				if f.name == "berth.cert" && f.header.Uname != "" {
					cert = map[string][]byte{"expired": expired}[f.header.Uname]
				}
			}
			path := filepath.Join(t.TempDir(), "berth.ova")
			p.write(path, key, cert)
			findings, err := lint.Check(t.Context(), path, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range findings {
				found = found || f.Rule == c.rule
				if f.Rule != c.rule && !slices.Contains(strings.Fields(c.also), f.Rule) {
					t.Errorf("also found %s: %s: %s", f.Rule, f.Where, f.What)
				}
				if f.What == "" || f.Why == "" || f.Do == "" || len(f.What) > 1000 {
					t.Errorf("a finding that says nothing, or too much: %+v", f)
				}
			}
			if !found {
				t.Error("not found")
			}
		})
	}
	for _, r := range lint.Rules() {
		if !tested[r.ID] {
			t.Errorf("nothing breaks the rule %s", r.ID)
		}
	}
}

// What VMware's descriptors have is no finding.
func TestQualifiers(t *testing.T) {
	good, _ := goodOVA(t)
	for _, q := range []string{"MinLen(8),MaxLen(128)", "MaxLen( 65535 )", "MinValue(1), MaxValue(65535)", "ValueMap{\"UTC\", \"other\"}", "ValueMap{1,2,UTC}", "Ip", "Ip(Management)", "VimIp"} {
		p := &pack{t: t, files: takeApart(t, good)}
		p.remove("berth.cert")
		p.ovf(`ovf:key="timezone"`, `ovf:key="timezone" ovf:qualifiers="`+strings.ReplaceAll(q, `"`, "&quot;")+`"`)
		path := filepath.Join(t.TempDir(), "berth.ova")
		p.write(path, nil, nil)
		findings, err := lint.Check(t.Context(), path, time.Now())
		wrong := q == "ValueMap{1,2,UTC}" || strings.HasPrefix(q, "MinLen(8)") // UTC has three letters
		if err != nil || wrong != (len(findings) == 1 && findings[0].Rule == "property-type") || !wrong && len(findings) > 0 {
			t.Errorf("%s: %v %+v", q, err, findings)
		}
	}
}

// VMware's own appliances, whose descriptors govmomi has for its tests, keep the schema:
// rules that were too strict would show here. Their files are not there.
func TestVMwaresOwn(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/vmware/govmomi").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "ovf", "fixtures", "vmware", "*.ovf"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%v %v", err, files)
	}
	strict := []string{"xml", "schema", "item-id", "parent", "address", "network", "element-name", "deployment", "property-type", "property-twice", "firmware"}
	for _, f := range files {
		findings, err := lint.Check(t.Context(), f, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range findings {
			if slices.Contains(strict, v.Rule) {
				t.Errorf("%s: %s (%s)", v.Where, v.What, v.Rule)
			}
		}
	}
}

// A stranger's file does not steer the terminal of whoever checks it.
func TestPrintable(t *testing.T) {
	good, _ := goodOVA(t)
	p := &pack{t: t, files: takeApart(t, good)}
	p.files = append(p.files, &file{name: "\x1b[2Jgone", content: []byte("x")})
	p.ovf(`ovf:key="timezone"`, `ovf:key="time&#10;&#x202e;zone.`+strings.Repeat("x", 5000)+`"`)
	path := filepath.Join(t.TempDir(), "berth.ova")
	p.write(path, nil, nil)
	findings, err := lint.Check(t.Context(), path, time.Now())
	if err != nil || len(findings) < 4 {
		t.Fatalf("%v %+v", err, findings)
	}
	for _, f := range findings {
		if strings.ContainsAny(f.Where+f.What, "\x1b\n\u202e") || len(f.What) > 1000 || len(f.Where) > 1000 {
			t.Errorf("%q %q", f.Where, f.What)
		}
	}
}

// A descriptor with its files beside it is checked as an OVA is, but for the tar.
func TestFolder(t *testing.T) {
	good, _ := goodOVA(t)
	dir := t.TempDir()
	for _, f := range takeApart(t, good) {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "berth.ovf")
	if findings, err := lint.Check(t.Context(), path, time.Now()); err != nil || len(findings) > 0 {
		t.Fatalf("%v %+v", err, findings)
	}
	if err := os.Truncate(filepath.Join(dir, "berth-log.vmdk"), 1000); err != nil {
		t.Fatal(err)
	}
	findings, err := lint.Check(t.Context(), path, time.Now())
	var rules []string
	for _, f := range findings {
		rules = append(rules, f.Rule)
	}
	if err != nil || !slices.Equal(rules, []string{"file-size", "disk-damaged", "manifest-digest"}) {
		t.Errorf("%v %v", err, rules)
	}
	for _, no := range []string{filepath.Join(dir, "none.ova"), dir, "/dev/zero"} {
		if _, err := lint.Check(t.Context(), no, time.Now()); err == nil {
			t.Errorf("%s was checked", no)
		}
	}
}

// FuzzCheck gives the linter archives of all kinds: it must end, and say something
// about every one that is not the good one.
func FuzzCheck(f *testing.F) {
	var b bytes.Buffer
	m := descriptor.Machine{ID: "berth", Product: "Berth", Vendor: "Berth", Version: "1", OS: descriptor.Debian, Network: "VM Network", Sizes: descriptor.Sizes()}
	ovf := descriptor.New(m).Render()
	mf := archive.Manifest(archive.Sum{Name: "a.ovf", Hex: fmt.Sprintf("%x", sha256.Sum256(ovf))})
	if err := archive.Write(&b, time.Unix(0, 0), archive.File{Name: "a.ovf", Size: int64(len(ovf)), Content: bytes.NewReader(ovf)},
		archive.File{Name: "a.mf", Size: int64(len(mf)), Content: bytes.NewReader(mf)}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:2000])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := os.CreateTemp(dir, "*.ova")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(out.Name())
		defer out.Close()
		if _, err := io.Copy(out, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		findings, err := lint.Check(t.Context(), out.Name(), time.Now())
		if err == nil && len(findings) == 0 {
			t.Error("an OVA without disks has no findings")
		}
	})
}
