// Package archive reads and writes OVA files, and what makes them trustworthy: the
// manifest of digests and the signature over it.
//
// An OVA is a tar of plain files: the descriptor, its manifest, perhaps the
// certificate, then the disks (DSP0243 1.1 section 5.2). Write makes a ustar without
// times, owners or anything else that differs from one build to the next. Open only
// reads headers and keeps places, so an archive of any size costs nothing; it does not
// believe sizes that the file does not have.
package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The limits of Open.
const (
	maxEntries = 256
	// MaxFile is the largest file that fits into a ustar: 8 GiB less one byte.
	MaxFile = 1<<33 - 1
)

// Form is how an entry's header is written.
type Form string

// The forms. Only plain regular files in ustar are taken by every importer.
const (
	USTAR   Form = "ustar"
	GNU     Form = "gnu"
	PAX     Form = "pax"
	Old     Form = "v7"
	NotFile Form = "not a regular file"
)

// Entry is a file of a package.
type Entry struct {
	Name string
	Size int64
	Form Form // "" outside a tar
	r    io.ReaderAt
	at   int64
}

// Reader reads the entry from its beginning. Each call gives another reader.
func (e Entry) Reader() *io.SectionReader { return io.NewSectionReader(e.r, e.at, e.Size) }

// Read gives the entry's content, if it has at most limit bytes.
func (e Entry) Read(limit int64) ([]byte, error) {
	if e.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that it may have", e.Name, e.Size, limit)
	}
	b := make([]byte, e.Size)
	if _, err := io.ReadFull(e.Reader(), b); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", e.Name, err)
	}
	return b, nil
}

// Package is an OVA, or a descriptor with its files in one folder.
type Package struct {
	// Entries are the files in their order. In a folder: those that were asked for.
	Entries []Entry
	// Archive is true for an OVA.
	Archive bool
	// Ended is true if the tar ends as it should, with two blocks of zeros.
	Ended bool

	files []*os.File
	root  *os.Root // of a folder
}

// ErrTar is in the chain of Open's errors about an archive that is damaged.
var ErrTar = errors.New("not a whole tar archive")

// Open opens an OVA or, if the name ends in .ovf, a descriptor in its folder. Of a
// damaged archive it gives what comes before the damage along with the error; the
// package must be closed whenever it is not nil.
func Open(path string) (*Package, error) {
	if strings.EqualFold(filepath.Ext(path), ".ovf") {
		return openFolder(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &Package{Archive: true, files: []*os.File{f}}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, p.index(f, st.Size())
}

// index finds the entries. archive/tar reads header blocks alone and seeks over the
// rest, so the file's place after Next is where the entry's bytes begin.
func (p *Package) index(f io.ReadSeeker, size int64) error {
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: after %d files: %w", ErrTar, len(p.Entries), err)
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		e := Entry{Name: h.Name, Size: h.Size, Form: formOf(h), r: f.(io.ReaderAt), at: at}
		if e.Size < 0 || e.Size > size-at {
			return fmt.Errorf("%w: %q should have %d bytes, and %d are left", ErrTar, e.Name, e.Size, size-at)
		}
		if len(p.Entries) == maxEntries {
			return fmt.Errorf("%w: it has more than %d files", ErrTar, maxEntries)
		}
		p.Entries = append(p.Entries, e)
	}
	if len(p.Entries) == 0 {
		return fmt.Errorf("%w: it is empty", ErrTar)
	}
	last := p.Entries[len(p.Entries)-1]
	end := (last.at + last.Size + 511) / 512 * 512
	p.Ended = size-end >= 1024
	return nil
}

func formOf(h *tar.Header) Form {
	switch {
	case h.Typeflag != tar.TypeReg:
		return NotFile
	case h.Format&tar.FormatUSTAR != 0:
		return USTAR
	case h.Format&tar.FormatPAX != 0:
		return PAX
	case h.Format&tar.FormatGNU != 0:
		return GNU
	}
	return Old
}

func openFolder(path string) (*Package, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	p := &Package{root: root}
	if _, err := p.open(filepath.Base(path)); err != nil {
		p.Close()
		return nil, err
	}
	for _, ext := range []string{".mf", ".cert"} {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) + ext
		if _, err := p.open(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// open adds a file of the folder; os.Root keeps it from being anywhere else.
func (p *Package) open(name string) (Entry, error) {
	if st, err := p.root.Stat(name); err != nil {
		return Entry{}, err
	} else if !st.Mode().IsRegular() {
		return Entry{}, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := p.root.Open(name)
	if err != nil {
		return Entry{}, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return Entry{}, err
	}
	p.files = append(p.files, f)
	e := Entry{Name: name, Size: st.Size(), r: f}
	p.Entries = append(p.Entries, e)
	return e, nil
}

// Find gives the file of a name: of an archive the first, as importers take it.
func (p *Package) Find(name string) (Entry, bool) {
	for _, e := range p.Entries {
		if e.Name == name {
			return e, true
		}
	}
	if p.root == nil || len(p.Entries) >= maxEntries || name == "" {
		return Entry{}, false
	}
	e, err := p.open(name)
	return e, err == nil
}

// First gives the first file whose name has an extension, whatever its case.
func (p *Package) First(ext string) (Entry, bool) {
	for _, e := range p.Entries {
		if strings.EqualFold(filepath.Ext(e.Name), ext) {
			return e, true
		}
	}
	return Entry{}, false
}

// Close closes the files.
func (p *Package) Close() error {
	var all []error
	for _, f := range p.files {
		all = append(all, f.Close())
	}
	if p.root != nil {
		all = append(all, p.root.Close())
	}
	return errors.Join(all...)
}

// File is what Write puts into an archive.
type File struct {
	Name    string
	Size    int64
	Content io.Reader // has Size bytes
}

// Write makes an OVA of the files in their order. All get the same time, which should
// be the source's, not now.
func Write(w io.Writer, modified time.Time, files ...File) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if !PlainName(f.Name) {
			return fmt.Errorf("cannot put %q into an OVA: a name has up to 100 letters, digits, '.', '-' and '_'", f.Name)
		}
		if f.Size > MaxFile {
			return fmt.Errorf("cannot put %s into an OVA: it has %d bytes, and the format ends at 8 GiB", f.Name, f.Size)
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: 0o644, ModTime: modified, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if n, err := io.Copy(t, f.Content); err != nil {
			return fmt.Errorf("cannot put %s into the OVA: %w", f.Name, err)
		} else if n != f.Size {
			return fmt.Errorf("cannot put %s into the OVA: it has %d bytes instead of %d", f.Name, n, f.Size)
		}
	}
	return t.Close()
}

// PlainName says whether a name is one that every importer takes: no folder, nothing
// that a URL would have to escape.
func PlainName(s string) bool {
	if s == "" || len(s) > 100 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// OpenFile opens a single file as an entry. The second result closes it.
func OpenFile(path string) (Entry, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return Entry{}, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return Entry{}, nil, err
	}
	return Entry{Name: filepath.Base(path), Size: st.Size(), r: f}, f, nil
}
