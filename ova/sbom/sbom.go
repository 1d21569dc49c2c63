// Package sbom says what the appliance is made of: the packages of its distribution
// and the Go modules in its programs, as a CycloneDX document, with their licences.
//
// It reads what is there (dpkg's database in the tree, the build information in the
// programs) and not what should be. The same tree and programs give the same bytes.
package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"berth/appliance/fault"
)

// Input is what the document tells of.
type Input struct {
	Tree     string    // the root directory of the appliance's distribution
	Binaries []string  // Berth's programs
	Modules  string    // the module cache, for licences (GOMODCACHE)
	Go       string    // the Go distribution (GOROOT), for its own licence
	Version  string    // Berth's
	Commit   string    // the commit that it was built from
	Time     time.Time // the commit's
}

// A Licence is a file with a licence's text, as it is to be kept.
type Licence struct {
	Path string // relative, such as go/github.com/google/uuid@v1.6.0/LICENSE
	Text []byte
}

// A Document is what Make has found.
type Document struct {
	BOM      *cdx.BOM
	Licences []Licence
}

// Make reads the tree and the programs. A part without a licence's text is an error
// that names it: it must not be given to anybody.
func Make(in Input) (Document, error) {
	packages, texts, err := debian(in.Tree)
	if err != nil {
		return Document{}, err
	}
	programs, modules, links, moduleTexts, err := goModules(in)
	if err != nil {
		return Document{}, err
	}
	system := cdx.Component{BOMRef: "debian", Type: cdx.ComponentTypeOS, Name: "debian", Version: release(in.Tree)}
	berth := cdx.Component{BOMRef: "berth", Type: cdx.ComponentTypeApplication, Name: "berth", Version: in.Version,
		Description: "the appliance", Properties: properties("commit", in.Commit)}
	components := slices.Concat([]cdx.Component{system}, programs, modules, packages)
	top := cdx.Dependency{Ref: "berth", Dependencies: &[]string{"debian"}}
	for _, p := range programs {
		*top.Dependencies = append(*top.Dependencies, p.BOMRef)
	}
	inside := cdx.Dependency{Ref: "debian", Dependencies: &[]string{}}
	for _, p := range packages {
		*inside.Dependencies = append(*inside.Dependencies, p.BOMRef)
	}
	dependencies := append([]cdx.Dependency{top, inside}, links...)
	bom := cdx.NewBOM()
	bom.Components, bom.Dependencies = &components, &dependencies
	bom.Metadata = &cdx.Metadata{Component: &berth, Timestamp: in.Time.UTC().Format(time.RFC3339),
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhaseBuild}}}
	doc := Document{BOM: bom, Licences: append(texts, moduleTexts...)}
	slices.SortFunc(doc.Licences, func(a, b Licence) int { return cmp.Compare(a.Path, b.Path) })
	return doc, doc.number()
}

// number gives the document an identifier that is made of what it says.
func (d Document) number() error {
	var b bytes.Buffer
	if err := d.encode(&b); err != nil {
		return err
	}
	sum := sha256.Sum256(b.Bytes())
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // RFC 9562, version 8
	h := hex.EncodeToString(sum[:16])
	d.BOM.SerialNumber = fmt.Sprintf("urn:uuid:%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
	return nil
}

func (d Document) encode(b *bytes.Buffer) error {
	return cdx.NewBOMEncoder(b, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(d.BOM, cdx.SpecVersion1_6)
}

// Write makes DIR/sbom.cdx.json (CycloneDX 1.6) and the licences below DIR/licences.
// DIR must not exist, or be empty: nothing of another document may remain in it.
func (d Document) Write(dir string) error {
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		return fault.New(fault.Invalid, "%s is not empty", dir).On("--out")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Invalid, err, "cannot look into the directory").On("--out")
	}
	var b bytes.Buffer
	if err := d.encode(&b); err != nil {
		return err
	}
	files := append([]Licence{{Path: "../sbom.cdx.json", Text: b.Bytes()}}, d.Licences...)
	for _, f := range files {
		path := filepath.Join(dir, "licences", f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func properties(pairs ...string) *[]cdx.Property {
	var list []cdx.Property
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, cdx.Property{Name: "berth:" + pairs[i], Value: pairs[i+1]})
		}
	}
	if list == nil {
		return nil
	}
	return &list
}

func licences(names []string) *cdx.Licenses {
	if len(names) == 0 {
		return nil
	}
	list := cdx.Licenses{}
	for _, n := range names {
		l := &cdx.License{Name: n}
		if spdx[n] {
			l = &cdx.License{ID: n}
		}
		list = append(list, cdx.LicenseChoice{License: l})
	}
	return &list
}

// spdx are the names that are SPDX identifiers; others are only names to CycloneDX.
var spdx = map[string]bool{"MIT": true, "BSD-2-Clause": true, "BSD-3-Clause": true, "Apache-2.0": true, "MPL-2.0": true, "ISC": true,
	"Zlib": true, "PostgreSQL": true, "GPL-2.0-only": true, "GPL-3.0-only": true, "Unlicense": true, "CC0-1.0": true}
