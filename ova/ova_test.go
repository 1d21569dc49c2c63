package ova_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/cli"

	"berth/appliance/diskrole"
	"berth/appliance/property"
	"berth/ova"
	"berth/ova/archive"
)

// TestMain makes the test's own binary serve as govc for the tests that drive it.
func TestMain(m *testing.M) {
	if os.Getenv("OVA_TEST_IS_GOVC") != "" {
		os.Exit(cli.Run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// image makes a raw system disk of 48 MiB with little in it.
func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "system.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(48 << 20); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 5 << 20, 48<<20 - 4096} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{'a', byte(at >> 20), 0, 'z'}, 1024), at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// run runs the command as a user does.
func run(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := ova.Main(args, &out, &errs); got != want {
		t.Fatalf("ova %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func built(t *testing.T, more ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "berth.ova")
	run(t, 0, append([]string{"build", "--disk", "system=" + image(t), "--out", out, "--version", "1.2.3"}, more...)...)
	return out
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Two builds of the same images are the same bytes, signed or not, whenever they are made.
func TestReproducible(t *testing.T) {
	key, cert := signer(t)
	for _, more := range [][]string{nil, {"--sign-key", key, "--sign-cert", cert}} {
		if a, b := digest(t, built(t, more...)), digest(t, built(t, more...)); a != b {
			t.Errorf("%v: %s and %s", more, a, b)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	a, b := built(t), built(t)
	if digest(t, a) != digest(t, b) {
		t.Error("with a time of the source, two builds differ")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	_, errs := run(t, 2, "build", "--disk", "system="+image(t), "--out", a)
	if !strings.Contains(errs, "SOURCE_DATE_EPOCH") {
		t.Error(errs)
	}
}

func signer(t *testing.T) (key, cert string) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, cert = filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	for path, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: pkcs8}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}

// What goes in comes out: the image as it was, the blank disks with their marks.
func TestExtract(t *testing.T) {
	source := image(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "berth.ova")
	run(t, 0, "build", "--disk", "system="+source, "--blank", "data=3GiB", "--blank", "log=64MiB", "--out", out)
	back := filepath.Join(dir, "system.raw")
	run(t, 0, "extract-disk", out, "--out", back)
	if digest(t, source) != digest(t, back) {
		t.Error("the system disk came back different")
	}
	for role, size := range map[diskrole.Role]int64{diskrole.Data: 3 << 30, diskrole.Database: 20 << 30, diskrole.Log: 64 << 20} {
		path := filepath.Join(dir, string(role)+".raw")
		run(t, 0, "extract-disk", out, string(role), "--out", path)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		sector := make([]byte, diskrole.MarkSize)
		if _, err := io.ReadFull(f, sector); err != nil {
			t.Fatal(err)
		}
		st, _ := f.Stat()
		if got, ok := diskrole.ReadMark(sector); !ok || got != role || st.Size() != size {
			t.Errorf("%s: mark %q, %d bytes", role, got, st.Size())
		}
		f.Close()
	}
	for want, args := range map[string][]string{
		"there is no disk":     {"extract-disk", out, "swap", "--out", filepath.Join(dir, "new")},
		"cannot make the file": {"extract-disk", out, "--out", back},
		"--out":                {"extract-disk", out},
		"cannot read the OVA":  {"extract-disk", source, "--out", filepath.Join(dir, "new")},
	} {
		if _, errs := run(t, 2, args...); !strings.Contains(errs, want) {
			t.Errorf("%v: %s", args, errs)
		}
	}
}

// A VMDK by itself can be taken apart, too.
func TestExtractVMDK(t *testing.T) {
	p, err := archive.Open(built(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	e, _ := p.First(".vmdk")
	b, err := e.Read(10 << 20)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.vmdk")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, 0, "extract-disk", path, "--out", filepath.Join(dir, "a.raw"))
	if digest(t, filepath.Join(dir, "a.raw")) != digest(t, image(t)) {
		t.Error("it came back different")
	}
}

func TestShow(t *testing.T) {
	key, cert := signer(t)
	path := built(t, "--firmware", "bios", "--base", "photon", "--network", "Management", "--sign-key", key, "--sign-cert", cert)
	out, _ := run(t, 0, "show", path)
	for _, want := range []string{"Berth 1.2.3", "vmx-17", "vmwarePhoton64Guest", "bios", "signed", "Management", "medium", "16384 MiB", "100 GiB", "registry.admin_password", "network.mode"} {
		if !strings.Contains(out, want) {
			t.Errorf("show does not say %q:\n%s", want, out)
		}
	}
	var c ova.Content
	out, _ = run(t, 0, "show", "--json", path)
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Properties) != len(property.All()) || len(c.Disks) != 4 || c.DefaultSize != "small" || len(c.Files) != 7 || !c.Signed {
		t.Errorf("%+v", c)
	}
	for i, role := range diskrole.All() {
		if c.Disks[i].ID != string(role) || c.Disks[i].Place != fmt.Sprint(i) {
			t.Errorf("disk %d: %+v", i, c.Disks[i])
		}
	}
}

func TestLintCommand(t *testing.T) {
	good := built(t)
	if out, _ := run(t, 0, "lint", "--strict", good); !strings.Contains(out, "errors 0, warnings 0") {
		t.Error(out)
	}
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.ova")
	if err := os.WriteFile(bad, b[:len(b)-1024], 0o644); err != nil { // without its end blocks: a warning
		t.Fatal(err)
	}
	run(t, 0, "lint", bad)
	run(t, 1, "lint", "--strict", bad)
	if err := os.WriteFile(bad, b[:len(b)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, 1, "lint", "--json", bad)
	var report struct {
		Errors   int
		Findings []struct{ Rule, Where, What, Why, Do string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Errors == 0 || report.Findings[0].Rule != "tar" {
		t.Errorf("%v\n%s", err, out)
	}
	run(t, 2, "lint", filepath.Join(t.TempDir(), "none.ova"))
	run(t, 2, "lint")
	run(t, 2, "nonsense")
	if out, _ := run(t, 0, "lint", "--rules"); !strings.Contains(out, "manifest-form (error)") {
		t.Error(out)
	}
}

func TestBuildRefuses(t *testing.T) {
	dir := t.TempDir()
	good := image(t)
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, _ := signer(t)
	_, other := signer(t)
	out := filepath.Join(dir, "berth.ova")
	for want, args := range map[string][]string{
		"no image of the system disk": {"--out", out},
		"no name for an OVA":          {"--disk", "system=" + good, "--out", filepath.Join(dir, "berth")},
		"cannot read the disk's":      {"--disk", "system=" + good + "x", "--out", out},
		"is qcow2, not raw":           {"--disk", "system=" + file("q.img", "QFI\xfb"+strings.Repeat("x", 4096)), "--out", out},
		"no whole MiB":                {"--disk", "system=" + file("odd.img", strings.Repeat("x", 4096)), "--out", out},
		"is not ROLE=VALUE":           {"--disk", "swap=" + good, "--out", out},
		"is there twice":              {"--disk", "system=" + good, "--disk", "system=" + good, "--out", out},
		"it must be the role":         {"--disk", "system=" + good, "--blank", "data=many", "--out", out},
		"must be efi or bios":         {"--disk", "system=" + good, "--firmware", "uefi", "--out", out},
		"must be debian or photon":    {"--disk", "system=" + good, "--base", "fedora", "--out", out},
		"between 1 and 9":             {"--disk", "system=" + good, "--level", "12", "--out", out},
		"go together":                 {"--disk", "system=" + good, "--sign-key", key, "--out", out},
		"not that of the key":         {"--disk", "system=" + good, "--sign-key", key, "--sign-cert", other, "--out", out},
		"has no RSA key":              {"--disk", "system=" + good, "--sign-key", other, "--sign-cert", other, "--out", out},
	} {
		if _, errs := run(t, 2, append([]string{"build"}, args...)...); !strings.Contains(errs, want) {
			t.Errorf("%v:\n%s", args, errs)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, _ := filepath.Glob(filepath.Join(dir, ".ova-*"))
	if _, err := os.Stat(out); err == nil || len(hidden) > 0 {
		t.Errorf("refused builds left %v %v", left, hidden)
	}
}

func TestPropertiesCommand(t *testing.T) {
	if out, _ := run(t, 0, "properties"); out != property.Markdown() {
		t.Error("not the table")
	}
	var list []property.Property
	out, _ := run(t, 0, "properties", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || !reflect.DeepEqual(list, property.All()) {
		t.Errorf("%+v, %v", list, err)
	}
}
