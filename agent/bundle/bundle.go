// Package bundle makes support bundles: what somebody needs who is to find out
// from afar what is wrong with an appliance.
//
// A bundle is a compressed tar archive with a manifest. What may be in it is public
// within a company: everything goes through package redact, files of secrets are
// never read, and arguments of processes, where others put theirs, are not either.
// Each file and the whole are bounded, only a few bundles are kept, and making one
// takes no longer than its sources, each of which has its own time.
package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/api"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/redact"
)

const (
	// MaxFile is how much of one source is kept: its end, where what happened last is.
	MaxFile = 8 << 20
	// maxBundle is when no more sources are asked, in compressed bytes.
	maxBundle  = 48 << 20
	sourceTime = 40 * time.Second
	keep       = 5
	// room is what must be free for a new bundle: a full disk is often the reason for
	// one, and it must not make that worse.
	room = 2 * maxBundle
)

// The states of a bundle.
const (
	running = "running"
	done    = "done"
	failed  = "failed"
)

// A Source is one file of a bundle.
type Source struct {
	Name string // its path in the archive
	Read func(ctx context.Context) ([]byte, error)
}

// Store has the bundles in a directory. It is for concurrent use.
type Store struct {
	dir     string
	sources func() []Source
	log     *slog.Logger

	mu    sync.Mutex
	doing *api.Bundle // nil: none is being made
	busy  sync.WaitGroup
}

// New opens the store in dir. A bundle that a restart has cut off has failed.
func New(dir string, sources func() []Source, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep support bundles: %w", err)
	}
	s := &Store{dir: dir, sources: sources, log: log}
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		if b.State == failed { // also one that was cut off
			os.Remove(s.file(b.ID))
			if err := s.note(b); err != nil { // a full disk, which the agent must be there to help with
				log.Error("cannot note the end of a support bundle", "err", err)
			}
		}
	}
	return s, nil
}

var idForm = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[a-z2-7]{6}$`)

func (s *Store) file(id string) string     { return filepath.Join(s.dir, id+".tar.gz") }
func (s *Store) noteFile(id string) string { return filepath.Join(s.dir, id+".json") }

func (s *Store) note(b api.Bundle) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.noteFile(b.ID), text, 0o600)
}

// List gives the bundles, the newest first.
func (s *Store) List() ([]api.Bundle, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	list := []api.Bundle{}
	for _, f := range files {
		if b, err := s.Get(strings.TrimSuffix(filepath.Base(f), ".json")); err == nil {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b api.Bundle) int { return strings.Compare(b.ID, a.ID) })
	return list, nil
}

// Get gives the state of one.
func (s *Store) Get(id string) (api.Bundle, error) {
	missing := fault.New(fault.NotFound, "there is no such support bundle")
	if !idForm.MatchString(id) {
		return api.Bundle{}, missing
	}
	s.mu.Lock()
	if s.doing != nil && s.doing.ID == id {
		defer s.mu.Unlock()
		return *s.doing, nil
	}
	s.mu.Unlock()
	var b api.Bundle
	text, err := os.ReadFile(s.noteFile(id))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return b, missing
	}
	if err == nil && b.State == running {
		cutOff(&b) // its end could not be noted
	}
	return b, err
}

// cutOff makes a bundle that nobody makes any more one that has failed.
func cutOff(b *api.Bundle) {
	b.State, b.Doing, b.Ended = failed, "", time.Now().UTC()
	b.Fault = &api.Fault{Kind: fault.Unavailable.String(), Text: "it was cut off while it was being made", Hint: "make another one"}
}

// Open gives the content of a bundle that is done. The caller closes it.
func (s *Store) Open(id string) (*os.File, api.Bundle, error) {
	b, err := s.Get(id)
	if err != nil {
		return nil, b, err
	}
	if b.State != done {
		return nil, b, fault.New(fault.Precondition, "the support bundle is not done: it is %s", b.State)
	}
	f, err := os.Open(s.file(id))
	return f, b, err
}

// Delete removes a bundle.
func (s *Store) Delete(id string) error {
	b, err := s.Get(id)
	if err != nil {
		return err
	}
	if b.State == running {
		return fault.New(fault.Conflict, "the support bundle is still being made")
	}
	return s.remove(id)
}

func (s *Store) remove(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(s.noteFile(id))
}

// Create begins to make a bundle. There is one at a time.
func (s *Store) Create(ctx context.Context) (api.Bundle, error) {
	list, err := s.List()
	if err != nil {
		return api.Bundle{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doing != nil {
		return api.Bundle{}, fault.New(fault.Conflict, "a support bundle is being made already").WithHint("wait for %s", s.doing.ID)
	}
	for i, b := range list {
		if i >= keep-1 {
			if err := s.remove(b.ID); err != nil {
				return api.Bundle{}, err
			}
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err == nil && st.Bavail*uint64(st.Frsize) < room {
		return api.Bundle{}, fault.New(fault.NoSpace, "the system disk has no room for a support bundle").WithHint("delete older ones")
	}
	now := time.Now().UTC()
	b := api.Bundle{ID: now.Format("20060102-150405-") + strings.ToLower(rand.Text()[:6]), State: running, Begun: now.Truncate(time.Second)}
	if err := s.note(b); err != nil {
		return api.Bundle{}, err
	}
	s.doing = &b
	s.busy.Go(func() { s.make(context.WithoutCancel(ctx), b) })
	return b, nil
}

// Wait waits for the bundle that is being made.
func (s *Store) Wait() { s.busy.Wait() }

func (s *Store) make(ctx context.Context, b api.Bundle) {
	size, err := s.fill(ctx, b.ID)
	b.State, b.Ended, b.Bytes = done, time.Now().UTC().Truncate(time.Second), size
	if err != nil {
		f := fault.Of(err)
		b.State, b.Fault = failed, &api.Fault{Kind: f.Kind.String(), Text: f.Text, Hint: f.Hint}
		os.Remove(s.file(b.ID))
		s.log.Error("cannot make a support bundle", "err", err)
	}
	if err := s.note(b); err != nil {
		s.log.Error("cannot note the end of a support bundle", "err", err)
	}
	s.mu.Lock()
	s.doing = nil
	s.mu.Unlock()
}

// entry is what the manifest says of a file.
type entry struct {
	Name      string `json:"name"`
	Bytes     int    `json:"bytes"`
	SHA256    string `json:"sha256,omitempty"`
	Truncated bool   `json:"truncated,omitempty"` // its beginning is missing
	Redacted  bool   `json:"redacted,omitempty"`  // something that looked like a secret was taken out
	Error     string `json:"error,omitempty"`
	Millis    int64  `json:"ms"`
}

func (s *Store) fill(ctx context.Context, id string) (int64, error) {
	f, err := os.OpenFile(s.file(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	counted := &counter{w: f}
	zipped := gzip.NewWriter(counted)
	archive := tar.NewWriter(zipped)
	var entries []entry
	for _, src := range s.sources() {
		if counted.n > maxBundle {
			entries = append(entries, entry{Name: src.Name, Error: "left out: the bundle is large enough"})
			continue
		}
		s.mu.Lock()
		s.doing.Doing, s.doing.Bytes = src.Name, counted.n
		s.mu.Unlock()
		e, text := read(ctx, src)
		entries = append(entries, e)
		if err := add(archive, id+"/"+src.Name, text); err != nil {
			return 0, err
		}
		if err := zipped.Flush(); err != nil {
			return 0, err
		}
	}
	manifest, err := json.MarshalIndent(map[string]any{"id": id, "files": entries}, "", "  ")
	if err == nil {
		err = add(archive, id+"/manifest.json", manifest)
	}
	err = errors.Join(err, archive.Close(), zipped.Close(), f.Sync()) // which write what is counted
	return counted.n, err
}

// read asks a source, for a bounded time, and takes secrets and length from what
// it says. A source that fails is told of in the manifest.
func read(ctx context.Context, src Source) (entry, []byte) {
	began := time.Now()
	e := entry{Name: src.Name}
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	text, err := src.Read(ctx)
	if err != nil {
		e.Error = redact.Text(err.Error())
	}
	if len(text) > MaxFile {
		text, e.Truncated = text[len(text)-MaxFile:], true
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
	}
	clean := redact.Text(strings.ToValidUTF8(string(text), "\ufffd"))
	e.Redacted = strings.Contains(clean, redact.Mark)
	sum := sha256.Sum256([]byte(clean))
	e.Bytes, e.SHA256, e.Millis = len(clean), hex.EncodeToString(sum[:]), time.Since(began).Milliseconds()
	return e, []byte(clean)
}

func add(w *tar.Writer, name string, text []byte) error {
	h := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now(), Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(text)
	return err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
