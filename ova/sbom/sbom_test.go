package sbom_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"berth/ova/sbom"
)

const status = `Package: zlib1g
Status: install ok installed
Maintainer: Mark Brown <broonie@debian.org>
Architecture: amd64
Multi-Arch: same
Source: zlib
Version: 1:1.2.13.dfsg-1
Description: compression library - runtime
 zlib is a library.

Package: removed
Status: deinstall ok config-files
Version: 1

Package: libstdc++6
Status: install ok installed
Maintainer: Debian GCC Maintainers <debian-gcc@lists.debian.org>
Architecture: amd64
Source: gcc-12 (12.2.0-14+deb12u1)
Version: 12.2.0-14+deb12u1~x
Description: GNU Standard C++ Library v3
`

const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 1995-2022 Jean-loup Gailly
License: Zlib

Files: debian/*
License: Expat
 Permission is hereby granted
`

// tree makes a distribution of two packages, and gives what Make needs to read a program too: cmd/ova, since those of
// tests do not say what they are made of.
func tree(t *testing.T) sbom.Input {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"var/lib/dpkg/status":                 status,
		"usr/lib/os-release":                  "ID=debian\nVERSION_ID=\"12\"\n",
		"usr/share/doc/zlib1g/copyright":      copyright,
		"usr/share/doc/gcc-12-base/copyright": "This is the Debian GNU/Linux packaged GCC.\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("gcc-12-base", filepath.Join(dir, "usr/share/doc/libstdc++6")); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "ova")
	if out, err := exec.Command("go", "build", "-o", program, "berth/ova/cmd/ova").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return sbom.Input{Tree: dir, Binaries: []string{program}, Modules: goEnv(t, "GOMODCACHE"), Go: goEnv(t, "GOROOT"),
		Version: "1.2.3", Commit: "abc", Time: time.Unix(1763740000, 0)}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestMake(t *testing.T) {
	in := tree(t)
	doc, err := sbom.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]cdx.Component{}
	for _, c := range *doc.BOM.Components {
		found[c.PackageURL] = c
	}
	for _, url := range []string{
		"pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-12&upstream=zlib",
		"pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1~x?arch=amd64&distro=debian-12&upstream=gcc-12",
		"pkg:golang/github.com/CycloneDX/cyclonedx-go@v0.12.0",
	} {
		if _, ok := found[url]; !ok {
			t.Errorf("%s is missing", url)
		}
	}
	for _, c := range *doc.BOM.Components {
		if c.Name == "removed" {
			t.Error("a removed package is listed")
		}
		if c.Name == "stdlib" && (c.Licenses == nil || (*c.Licenses)[0].License.ID != "BSD-3-Clause") {
			t.Errorf("the standard library's licence is %v", c.Licenses)
		}
	}
	zlib := found["pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-12&upstream=zlib"]
	if zlib.Licenses == nil || len(*zlib.Licenses) != 2 || (*zlib.Licenses)[0].License.ID != "MIT" || (*zlib.Licenses)[1].License.ID != "Zlib" {
		t.Errorf("zlib's licences are %v", zlib.Licenses)
	}
	if got := (*found["pkg:golang/github.com/CycloneDX/cyclonedx-go@v0.12.0"].Licenses)[0].License.ID; got != "Apache-2.0" {
		t.Errorf("cyclonedx-go's licence is %q", got)
	}
	refs := map[string]bool{"berth": true}
	for _, c := range *doc.BOM.Components {
		if refs[c.BOMRef] {
			t.Errorf("two components are %s", c.BOMRef)
		}
		refs[c.BOMRef] = true
	}
	for _, d := range *doc.BOM.Dependencies {
		for _, r := range append([]string{d.Ref}, *d.Dependencies...) {
			if !refs[r] {
				t.Errorf("nothing is %s, which something depends on", r)
			}
		}
	}
}

// The same image has the same document, wherever and whenever it is made.
func TestWriteIsTheSameTwice(t *testing.T) {
	var got [2][]byte
	for i := range got {
		doc, err := sbom.Make(tree(t))
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "bom")
		if err := doc.Write(out); err != nil {
			t.Fatal(err)
		}
		if got[i], err = os.ReadFile(filepath.Join(out, "sbom.cdx.json")); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"debian/libstdc++6/copyright", "debian/zlib1g/copyright", "go/github.com/CycloneDX/cyclonedx-go@v0.12.0/LICENSE"} {
			if _, err := os.Stat(filepath.Join(out, "licences", f)); err != nil {
				t.Error(err)
			}
		}
		if err := doc.Write(out); err == nil {
			t.Error("a document was written over another")
		}
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Error("two documents of the same differ")
	}
	var back cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(got[0]), cdx.BOMFileFormatJSON).Decode(&back); err != nil {
		t.Fatal(err)
	}
	if back.SpecVersion != cdx.SpecVersion1_6 || back.SerialNumber == "" || back.Metadata.Timestamp != "2025-11-21T15:46:40Z" {
		t.Errorf("spec %v, number %q, time %q", back.SpecVersion, back.SerialNumber, back.Metadata.Timestamp)
	}
}

// What has no licence's text must not be shipped, and is named.
func TestMissingLicences(t *testing.T) {
	in := tree(t)
	in.Modules = t.TempDir()
	if _, err := sbom.Make(in); err == nil || !strings.Contains(err.Error(), "github.com/CycloneDX/cyclonedx-go@v0.12.0") {
		t.Errorf("modules without a licence: %v", err)
	}
	in = tree(t)
	if err := os.Remove(filepath.Join(in.Tree, "usr/share/doc/libstdc++6")); err != nil {
		t.Fatal(err)
	}
	if _, err := sbom.Make(in); err == nil || !strings.Contains(err.Error(), "libstdc++6") {
		t.Errorf("a package without a copyright file: %v", err)
	}
}
