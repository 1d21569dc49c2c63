package sbom

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"berth/appliance/fault"
)

// debian reads dpkg's database, and each package's copyright file (Debian Policy 12.5).
func debian(tree string) ([]cdx.Component, []Licence, error) {
	status, err := os.ReadFile(filepath.Join(tree, "var/lib/dpkg/status"))
	if err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err, "cannot read dpkg's database").On("--tree")
	}
	var list []cdx.Component
	var texts []Licence
	var without []string
	for _, p := range paragraphs(status) {
		if p["Status"] != "install ok installed" {
			continue
		}
		name := p["Package"]
		text, err := os.ReadFile(filepath.Join(tree, "usr/share/doc", name, "copyright"))
		if err != nil {
			without = append(without, name)
			continue
		}
		texts = append(texts, Licence{Path: "debian/" + name + "/copyright", Text: text})
		source, sourceVersion := sourceOf(p)
		list = append(list, cdx.Component{BOMRef: "deb:" + name, Type: cdx.ComponentTypeLibrary, Name: name, Version: p["Version"],
			Description: p["Description"], Supplier: &cdx.OrganizationalEntity{Name: p["Maintainer"]},
			PackageURL: debURL(name, p["Version"], p["Architecture"], source, release(tree)), Licenses: licences(debianLicences(text)),
			Properties: properties("source", source, "source-version", sourceVersion)})
	}
	if len(without) > 0 {
		return nil, nil, fault.New(fault.Precondition, "Debian packages without a copyright file: %s", strings.Join(without, ", ")).On("--tree")
	}
	slices.SortFunc(list, func(a, b cdx.Component) int { return cmp.Compare(a.Name, b.Name) })
	return list, texts, nil
}

// paragraphs reads deb822 text, of each field its first line.
func paragraphs(text []byte) []map[string]string {
	var all []map[string]string
	var p map[string]string
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		switch name, value, ok := strings.Cut(line, ":"); {
		case strings.TrimSpace(line) == "":
			p = nil
		case line[0] == ' ' || line[0] == '\t' || !ok: // goes on
		default:
			if p == nil {
				p = map[string]string{}
				all = append(all, p)
			}
			p[name] = strings.TrimSpace(value)
		}
	}
	return all
}

// sourceOf is the source package: "glibc (2.36-9)", "glibc" or nothing, when both have one name.
func sourceOf(p map[string]string) (name, version string) {
	name, version, _ = strings.Cut(p["Source"], " ")
	version = strings.Trim(version, "()")
	return cmp.Or(name, p["Package"]), cmp.Or(version, p["Version"])
}

// release is Debian's version, from os-release.
func release(tree string) string {
	b, _ := os.ReadFile(filepath.Join(tree, "usr/lib/os-release"))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_ID="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// debURL is a package URL of type deb. Scanners look up vulnerabilities by the source package, hence upstream.
func debURL(name, version, arch, source, distro string) string {
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%7E", "~") }
	u := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=debian-%s", escape(name), escape(version), escape(arch), distro)
	if source != name {
		u += "&upstream=" + escape(source)
	}
	return u
}

// debianLicences are the short names in a machine-readable copyright file
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/); other files give none.
func debianLicences(text []byte) []string {
	if !bytes.Contains(text, []byte("copyright-format/1.0")) {
		return nil
	}
	var names []string
	for _, p := range paragraphs(text) {
		n := p["License"]
		switch n { // what Debian calls differently from SPDX
		case "":
			continue
		case "Expat":
			n = "MIT"
		case "BSD-2-clause", "BSD-3-clause":
			n = strings.Replace(n, "clause", "Clause", 1)
		case "GPL-2", "GPL-3":
			n += ".0-only"
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}
