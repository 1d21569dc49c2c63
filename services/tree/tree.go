// Package tree takes over the storage of another registry in place: the
// directory of a CNCF registry (distribution v2 or v3) or of Harbor, whose
// registry is one.
//
// Nothing is copied. Manifests go into the database, blobs become rows that
// point at the files where they lie, reached through a link below the blob
// store. From then on the files are Berth's: the old registry must be stopped,
// and garbage collection will remove files that nothing needs any more.
//
// The layout, below docker/registry/v2:
//
//	blobs/sha256/ab/<hex>/data
//	repositories/<name>/_manifests/revisions/sha256/<hex>/link
//	repositories/<name>/_manifests/tags/<tag>/current/link
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/reference"
)

// Tree is a storage directory of another registry.
type Tree struct {
	Dir  string // absolute; what LinkTree links to
	root string // below Dir: docker/registry/v2
}

// Open finds the tree in dir, which may be the storage's root directory or any
// directory from there down to v2.
func Open(dir string) (*Tree, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, below := range []string{"docker/registry/v2", "registry/v2", "v2", "."} {
		if _, err := os.Stat(filepath.Join(dir, below, "repositories")); err == nil {
			return &Tree{Dir: dir, root: below}, nil
		}
	}
	return nil, fault.New(fault.Invalid, "%s holds no storage of a CNCF registry or of Harbor", dir).On("--from").
		WithHint("give the directory that has docker/registry/v2/repositories below it (Harbor: the registry's data volume)")
}

// blobPath is where a digest's bytes are, relative to Dir.
func (t *Tree) blobPath(d reference.Digest) string {
	hex := d.Hex()
	return path.Join(t.root, "blobs", d.Algorithm().String(), hex[:2], hex, "data")
}

// Repositories lists the names of all repositories, in order.
func (t *Tree) Repositories() ([]string, error) {
	base := filepath.Join(t.Dir, t.root, "repositories")
	var names []string
	err := filepath.WalkDir(base, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if e.Name() == "_manifests" {
			rel, err := filepath.Rel(base, filepath.Dir(p))
			if err != nil {
				return err
			}
			names = append(names, filepath.ToSlash(rel))
			return fs.SkipDir
		}
		if strings.HasPrefix(e.Name(), "_") {
			return fs.SkipDir
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// repository is what the tree says of one.
type repository struct {
	manifests []reference.Digest
	tags      map[reference.Digest][]string
}

func (t *Tree) read(name string, problem func(what string, err error)) (repository, error) {
	r := repository{tags: map[reference.Digest][]string{}}
	base := filepath.Join(t.Dir, t.root, "repositories", name, "_manifests")
	for _, a := range []reference.Algorithm{reference.SHA256, reference.SHA512} {
		entries, err := os.ReadDir(filepath.Join(base, "revisions", a.String()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
		for _, e := range entries {
			// A deleted revision keeps its directory and loses its link.
			link := filepath.Join(base, "revisions", a.String(), e.Name(), "link")
			if d, err := readLink(link); err == nil {
				r.manifests = append(r.manifests, d)
			} else if !errors.Is(err, fs.ErrNotExist) {
				problem("manifest "+a.String()+":"+e.Name(), err)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(base, "tags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	for _, e := range entries {
		d, err := readLink(filepath.Join(base, "tags", e.Name(), "current", "link"))
		if err == nil {
			err = reference.CheckTag(e.Name())
		}
		if err != nil {
			problem("tag "+e.Name(), err)
			continue
		}
		r.tags[d] = append(r.tags[d], e.Name())
		if !slices.Contains(r.manifests, d) {
			r.manifests = append(r.manifests, d)
		}
	}
	return r, nil
}

// readLink reads a link file, which holds a digest and nothing else. Power cuts
// have left empty ones in many registries.
func readLink(file string) (reference.Digest, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return reference.Digest{}, err
	}
	if len(b) == 0 {
		return reference.Digest{}, errors.New("its link file is empty")
	}
	return reference.ParseDigest(strings.TrimSpace(string(b)))
}

// manifest reads and parses one, and checks its digest.
func (t *Tree) manifest(d reference.Digest) ([]byte, *artifact.Parsed, error) {
	file := filepath.Join(t.Dir, t.blobPath(d))
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil, errors.New("its content is missing")
	}
	if info.Size() > artifact.MaxManifest {
		return nil, nil, fmt.Errorf("it has %d bytes, which is too large for a manifest", info.Size())
	}
	payload, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	if got := reference.Of(d.Algorithm(), payload); got != d {
		return nil, nil, fmt.Errorf("its content hashes to %s", got)
	}
	parsed, err := artifact.Parse("", payload)
	return payload, parsed, err
}
