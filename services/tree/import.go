package tree

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/reference"
)

// Options say where an import goes.
type Options struct {
	Artifacts *artifact.Store
	Blobs     *blob.Store
	// Project takes repositories whose names have no project.
	Project string
	// EnsureProject makes a project if there is none of that name.
	EnsureProject func(ctx context.Context, name string) error
	// Verify re-hashes every blob first. Without it sizes are compared, and the
	// scrubber re-hashes the blobs in the weeks after.
	Verify bool
	// Report is called now and then, and with every problem.
	Report func(Progress)
}

// Progress is how far an import has come.
type Progress struct {
	Repositories, AllRepositories int
	Manifests, Present, Tags      int // Present: were here already
	Blobs                         int
	Bytes                         int64
	Problem                       *Problem // set when one was found just now
}

// Problem is something that could not be taken over.
type Problem struct {
	Repository string `json:"repository"`
	What       string `json:"what"`
	Reason     string `json:"reason"`
}

// Result is the end of an import.
type Result struct {
	Progress
	Problems []Problem
}

// run is one import under way.
type run struct {
	to     Options
	tree   *Tree
	prefix string // of storage keys
	Result
	blobs    map[reference.Digest]int64 // sizes of blobs that were looked at; -1: unusable
	reported time.Time
}

// Import takes a tree over. Doing it again goes on where it stopped and adds
// what is new. It returns an error only if it cannot go on; what could not be
// read is in the result.
func (t *Tree) Import(ctx context.Context, o Options) (Result, error) {
	sum := sha256.Sum256([]byte(t.Dir))
	prefix, err := o.Blobs.LinkTree(hex.EncodeToString(sum[:6]), t.Dir)
	if err != nil {
		return Result{}, err
	}
	r := &run{to: o, tree: t, prefix: prefix, blobs: map[reference.Digest]int64{}}
	names, err := t.Repositories()
	if err != nil {
		return r.Result, fmt.Errorf("cannot list the repositories: %w", err)
	}
	r.AllRepositories = len(names)
	for _, name := range names {
		if err := r.repository(ctx, name); err != nil {
			return r.Result, fmt.Errorf("cannot import %s: %w", name, err)
		}
		r.Repositories++
		r.report(nil)
	}
	r.reported = time.Time{}
	r.report(nil)
	return r.Result, nil
}

// report passes on a problem, or the progress every two seconds.
func (r *run) report(p *Problem) {
	if p != nil {
		r.Problems = append(r.Problems, *p)
	} else if time.Since(r.reported) < 2*time.Second {
		return
	} else {
		r.reported = time.Now()
	}
	progress := r.Progress
	progress.Problem = p
	r.to.Report(progress)
}

// repository imports one. Only errors that end the import are returned.
func (r *run) repository(ctx context.Context, name string) error {
	target := name
	if reference.CheckName(target) != nil {
		target = r.to.Project + "/" + name
	}
	problem := func(what string, err error) { r.report(&Problem{name, what, reason(err)}) }
	if err := reference.CheckName(target); err != nil {
		problem("its name", err)
		return nil
	}
	found, err := r.tree.read(name, problem)
	if err != nil {
		problem("its directory", err)
		return nil
	}
	if len(found.manifests) == 0 {
		return nil
	}
	project, _ := reference.Project(target)
	if err := r.to.EnsureProject(ctx, project); err != nil {
		return err
	}
	type entry struct {
		digest  reference.Digest
		payload []byte
		parsed  *artifact.Parsed
	}
	var list []entry
	for _, d := range found.manifests {
		payload, parsed, err := r.tree.manifest(d)
		if err != nil {
			problem("manifest "+d.String(), err)
			continue
		}
		list = append(list, entry{d, payload, parsed})
	}
	// Children before the indexes that list them, to any depth.
	depth := map[reference.Digest]int{}
	for range 8 {
		for _, e := range list {
			for _, c := range e.parsed.Children {
				depth[e.digest] = max(depth[e.digest], depth[c.Digest]+1)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(depth[a.digest], depth[b.digest]) })
	for _, e := range list {
		err := r.manifest(ctx, target, e.digest, e.payload, e.parsed, found.tags[e.digest])
		if fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			problem("manifest "+e.digest.String(), err)
		}
	}
	return nil
}

func reason(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Text
	}
	return err.Error()
}

// manifest stores one with its blobs and tags.
func (r *run) manifest(ctx context.Context, repo string, d reference.Digest, payload []byte, parsed *artifact.Parsed, tags []string) error {
	if r.there(ctx, repo, d, tags) {
		r.Present++
		return nil
	}
	for _, ref := range parsed.Blobs {
		if err := r.blob(ctx, repo, ref); err != nil {
			return err
		}
	}
	if _, err := r.to.Artifacts.PutManifest(ctx, artifact.Push{Repo: repo, Digest: d, Tags: tags, Payload: payload}); err != nil {
		return err
	}
	r.Manifests++
	r.Tags += len(tags)
	r.report(nil)
	return nil
}

// there reports whether an earlier run has done this manifest. A tag that was
// moved since the earlier run keeps what it names now.
func (r *run) there(ctx context.Context, repo string, d reference.Digest, tags []string) bool {
	if _, err := r.to.Artifacts.Manifest(ctx, repo, d); err != nil {
		return false
	}
	for _, tag := range tags {
		if _, err := r.to.Artifacts.Tagged(ctx, repo, tag); err != nil {
			return false
		}
	}
	return true
}

func (r *run) blob(ctx context.Context, repo string, ref artifact.Ref) error {
	size, seen := r.blobs[ref.Digest]
	if !seen {
		var err error
		if size, err = r.look(ref.Digest); err != nil {
			r.blobs[ref.Digest] = -1
			return err
		}
		r.blobs[ref.Digest] = size
		r.Blobs++
		r.Bytes += size
	}
	if size < 0 {
		return fmt.Errorf("its blob %s cannot be used", ref.Digest)
	}
	if size != ref.Size {
		return fmt.Errorf("its blob %s has %d bytes instead of %d", ref.Digest, size, ref.Size)
	}
	// An existing row wins over this file, which then stays where it is, unused.
	_, err := r.to.Artifacts.CommitBlob(ctx, repo, artifact.Blob{Digest: ref.Digest, Size: size,
		Key: r.prefix + filepath.ToSlash(r.tree.blobPath(ref.Digest))}, r.to.Verify)
	return err
}

func (r *run) look(d reference.Digest) (int64, error) {
	f, err := os.Open(filepath.Join(r.tree.Dir, r.tree.blobPath(d)))
	if err != nil {
		return 0, fmt.Errorf("its blob %s is missing", d)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !r.to.Verify {
		return sizeOf(info), err
	}
	h := d.Algorithm().New()
	if _, err := io.Copy(h, f); err != nil {
		return 0, fmt.Errorf("its blob %s cannot be read: %w", d, err)
	}
	if got := reference.FromHash(d.Algorithm(), h); got != d {
		return 0, fmt.Errorf("its blob %s hashes to %s", d, got)
	}
	return info.Size(), nil
}

func sizeOf(info os.FileInfo) int64 {
	if info == nil {
		return 0
	}
	return info.Size()
}
