// Package lint looks for what makes vSphere, or a tool around it, refuse an OVA or
// take it for something else than it was meant to be.
//
// The rules are what others have stumbled over; each finding says where, what, why
// it matters and what to do. Check reads any file without trusting it: sizes are
// compared before they are used, text is bounded, disks are streamed.
package lint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"berth/ova/archive"
	"berth/ova/descriptor"
)

// A Finding is a rule that is not kept.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Where    string   `json:"where"` // a file, perhaps with a line
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Do       string   `json:"do"`
}

// maxFindings ends a check of what is wrong all over.
const maxFindings = 200

// linter is one check.
type linter struct {
	ctx      context.Context
	rules    map[string]Rule
	findings []Finding
	pkg      *archive.Package
	doc      *descriptor.Document
	ovf      string // the descriptor's name
	now      time.Time
	checked  map[string]bool // disks' files, each read once
}

// Check looks at an OVA, or at a descriptor with its files beside it. An error says
// that the file could not be read at all; everything else is a finding.
func Check(ctx context.Context, path string, now time.Time) ([]Finding, error) {
	l := &linter{ctx: ctx, rules: map[string]Rule{}, now: now, checked: map[string]bool{}}
	for _, r := range Rules() {
		l.rules[r.ID] = r
	}
	pkg, err := archive.Open(path)
	if pkg == nil {
		return nil, err
	}
	defer pkg.Close()
	l.pkg = pkg
	if err != nil {
		if !errors.Is(err, archive.ErrTar) {
			return nil, err
		}
		l.add("tar", filepath.Base(path), "%v", err)
	}
	if pkg.Archive {
		l.archive(err == nil)
	}
	if l.descriptor() {
		for _, check := range []func(){l.schema, l.files, l.disks, l.hardware, l.devices, l.system, l.properties, l.propertyTable, l.deployment, l.product} {
			check()
		}
	}
	l.manifest()
	return l.findings, ctx.Err()
}

func (l *linter) add(rule, where, format string, args ...any) {
	r, ok := l.rules[rule]
	if !ok {
		panic("there is no rule " + rule)
	}
	if len(l.findings) < maxFindings {
		l.findings = append(l.findings, Finding{r.ID, r.Severity, printable(where), printable(fmt.Sprintf(format, args...)), r.Why, r.Do})
	}
}

// printable keeps what a stranger's file says from steering the reader's terminal, or
// from filling it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	if len(s) > 600 {
		s = strings.ToValidUTF8(s[:600], "") + "…"
	}
	return s
}

// line is a place in the descriptor.
func (l *linter) line(n int) string { return fmt.Sprintf("%s:%d", l.ovf, n) }

func (l *linter) archive(whole bool) {
	if whole && !l.pkg.Ended {
		l.add("tar-end", l.pkg.Entries[len(l.pkg.Entries)-1].Name, "the archive ends without two blocks of zeros")
	}
	seen := map[string]bool{}
	for i, e := range l.pkg.Entries {
		switch e.Form {
		case archive.USTAR:
		case archive.GNU:
			l.add("tar-gnu", e.Name, "the header is in GNU's form")
		default:
			l.add("tar-form", e.Name, "it is %s", e.Form)
		}
		if !archive.PlainName(e.Name) {
			l.add("tar-name", e.Name, "%q is not a plain name", e.Name)
		}
		if seen[e.Name] {
			l.add("tar-name", e.Name, "there are two files of this name")
		}
		seen[e.Name] = true
		if i == 0 && !strings.EqualFold(filepath.Ext(e.Name), ".ovf") {
			l.add("tar-order", e.Name, "it is the first file, and not the descriptor")
		}
	}
}

// descriptor reads the OVF, and says whether there is anything to look at.
func (l *linter) descriptor() bool {
	e, ok := l.pkg.First(".ovf")
	if !ok {
		l.add("xml", "", "there is no .ovf file")
		return false
	}
	l.ovf = e.Name
	b, err := e.Read(descriptor.MaxBytes)
	if err != nil {
		l.add("xml", l.ovf, "%v", err)
		return false
	}
	root, err := descriptor.Parse(b)
	if err != nil {
		l.add("xml", l.ovf, "%v", err)
		return false
	}
	if root.Name != "Envelope" {
		l.add("schema", l.line(root.Line), "the root is %.200s, and should be the Envelope of OVF 1.1", root.Name)
		return false
	}
	l.doc = descriptor.Read(root)
	return true
}

// files compares References with what is there.
func (l *linter) files() {
	ids, order := map[string]bool{}, []string{}
	for _, f := range l.doc.Files {
		if f.ID == "" || ids[f.ID] {
			l.add("disk-ref", l.line(f.Line), "the id %q of a file is empty, or there twice", f.ID)
		}
		ids[f.ID] = true
		e, ok := archive.Entry{}, false
		if archive.PlainName(f.Href) {
			e, ok = l.pkg.Find(f.Href)
		}
		if !ok {
			l.add("file-missing", l.line(f.Line), "%q is not in the package", f.Href)
			continue
		}
		order = append(order, f.Href)
		if e.Size != f.Size {
			l.add("file-size", l.line(f.Line), "%s has %d bytes, and the descriptor says %d", f.Href, e.Size, f.Size)
		}
	}
	if l.pkg.Archive {
		l.order(order)
	}
}

func (l *linter) order(files []string) {
	stem := strings.TrimSuffix(l.ovf, filepath.Ext(l.ovf))
	want := []string{l.ovf}
	for _, ext := range []string{".mf", ".cert"} {
		if slices.ContainsFunc(l.pkg.Entries, func(e archive.Entry) bool { return e.Name == stem+ext }) {
			want = append(want, stem+ext)
		}
	}
	want = append(want, files...)
	var have []string
	for _, e := range l.pkg.Entries {
		if !slices.Contains(want, e.Name) {
			l.add("tar-extra", e.Name, "the descriptor does not refer to it")
			continue
		}
		if !slices.Contains(have, e.Name) {
			have = append(have, e.Name)
		}
	}
	if !slices.Equal(have, want) && (len(have) == 0 || have[0] == l.ovf) { // what is not first was said already
		l.add("tar-order", l.ovf, "the order is %s and should be %s", strings.Join(have, ", "), strings.Join(want, ", "))
	}
}

// manifest compares the digests, which reads every file once.
func (l *linter) manifest() {
	e, ok := l.pkg.First(".mf")
	if !ok {
		l.add("manifest", l.ovf, "there is no .mf file")
		return
	}
	b, err := e.Read(archive.MaxManifest)
	if err != nil {
		l.add("manifest-form", e.Name, "%v", err)
		return
	}
	if stem := strings.TrimSuffix(l.ovf, filepath.Ext(l.ovf)); l.ovf != "" && e.Name != stem+".mf" {
		l.add("manifest-files", e.Name, "the manifest of %s is called %s.mf", l.ovf, stem)
	}
	named := map[string]bool{}
	for _, s := range archive.ParseManifest(b) {
		where := fmt.Sprintf("%s:%d", e.Name, s.Line)
		if named[s.Name] && s.Name != "" {
			l.add("manifest-files", where, "%s is there twice", s.Name)
			continue
		}
		named[s.Name] = true
		l.sum(where, s)
	}
	if l.doc != nil {
		for _, name := range append([]string{l.ovf}, hrefs(l.doc)...) {
			if !named[name] {
				l.add("manifest-files", e.Name, "%s is missing", name)
			}
		}
	}
	l.certificate(e.Name, b)
}

func hrefs(d *descriptor.Document) []string {
	var list []string
	for _, f := range d.Files {
		list = append(list, f.Href)
	}
	return list
}

func (l *linter) sum(where string, s archive.Sum) {
	switch {
	case strings.EqualFold(s.Algorithm, "SHA1"):
		l.add("manifest-sha1", where, "the digest of %s is by SHA-1", s.Name)
		return
	case !s.Exact:
		l.add("manifest-form", where, "the line is %.100q", s.Text)
		return
	}
	f, ok := l.pkg.Find(s.Name)
	if !ok || l.doc != nil && s.Name != l.ovf && !slices.Contains(hrefs(l.doc), s.Name) {
		l.add("manifest-files", where, "it names %q, which is not a file of the package", s.Name)
		return
	}
	h := sha256.New()
	if _, err := io.Copy(h, stopping{l.ctx, f.Reader()}); err != nil {
		l.add("manifest-digest", where, "cannot read %s: %v", s.Name, err)
	} else if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, s.Hex) {
		l.add("manifest-digest", where, "%s has the digest %s", s.Name, got)
	}
}

func (l *linter) certificate(manifest string, b []byte) {
	e, ok := l.pkg.First(".cert")
	if !ok {
		return
	}
	content, err := e.Read(archive.MaxManifest)
	if err == nil {
		_, err = archive.Verify(content, manifest, b, l.now)
	}
	switch {
	case errors.Is(err, archive.ErrExpired):
		l.add("certificate-time", e.Name, "%v", err)
	case err != nil:
		l.add("certificate", e.Name, "%v", err)
	}
}

// stopping ends reading when nobody waits for it.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s stopping) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}
