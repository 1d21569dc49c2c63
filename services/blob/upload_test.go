package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/blob"
	"berth/services/reference"
)

// forEachStore runs a test on every kind of store. reopen gives another store
// over the same storage: another node, or the same after a restart.
func forEachStore(t *testing.T, test func(t *testing.T, reopen func() *blob.Store)) {
	t.Helper()
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		test(t, func() *blob.Store { return openLocal(t, dir) })
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		d := inmemory.New()
		test(t, func() *blob.Store { return blob.New(d) })
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		settings := bucket(t)
		test(t, func() *blob.Store {
			s, err := blob.OpenS3(t.Context(), settings)
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
}

func openLocal(t testing.TB, dir string) *blob.Store {
	t.Helper()
	s, err := blob.OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// content makes n bytes that are the same each time.
func content(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func digest(b []byte) reference.Digest { return reference.Of(reference.SHA256, b) }

func begin(t *testing.T, s *blob.Store, id uuid.UUID, options ...blob.Resume) *blob.Upload {
	t.Helper()
	u, err := s.Upload(t.Context(), id, reference.SHA256, options...)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func add(t *testing.T, u *blob.Upload, b []byte, length int64) {
	t.Helper()
	n, err := u.Append(t.Context(), bytes.NewReader(b), length)
	if err != nil || n != int64(len(b)) {
		t.Fatalf("Append = %d, %v; want %d", n, err, len(b))
	}
}

func commit(t *testing.T, u *blob.Upload, b []byte) string {
	t.Helper()
	key, err := u.Commit(t.Context(), digest(b))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func read(t *testing.T, s *blob.Store, key string) []byte {
	t.Helper()
	f, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if f.Size() != int64(len(b)) {
		t.Errorf("Size = %d, but %d bytes came", f.Size(), len(b))
	}
	return b
}

func TestUploadAndRead(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s := reopen()
		for _, size := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1 << 20, 1<<20 + 1, 20<<20 + 7} {
			for _, known := range []bool{true, false} {
				b, length := content(size), int64(-1)
				if known {
					length = int64(size)
				}
				u := begin(t, s, uuid.New())
				add(t, u, b, length)
				if u.Size() != int64(size) {
					t.Errorf("Size = %d, want %d", u.Size(), size)
				}
				key := commit(t, u, b)
				if err := u.Close(); err != nil {
					t.Error(err)
				}
				if got := read(t, reopen(), key); !bytes.Equal(got, b) {
					t.Fatalf("%d bytes did not come back as they were", size)
				}
				if info, err := s.Stat(t.Context(), key); err != nil || info.Size != int64(size) {
					t.Errorf("Stat = %+v, %v", info, err)
				}
			}
		}
	})
}

func TestSameContentHasTwoKeys(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, b := reopen(), content(100)
		keys := [2]string{}
		for i := range keys {
			u := begin(t, s, uuid.New())
			add(t, u, b, -1)
			keys[i] = commit(t, u, b)
		}
		if keys[0] == keys[1] {
			t.Fatalf("both are %s", keys[0])
		}
		if err := s.Delete(t.Context(), keys[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), keys[0]); err != nil {
			t.Errorf("a second Delete: %v", err)
		}
		if _, err := s.Open(t.Context(), keys[0]); !fault.Is(err, fault.NotFound) {
			t.Errorf("Open of a deleted blob: %v", err)
		}
		if got := read(t, s, keys[1]); !bytes.Equal(got, b) {
			t.Error("the other key went with it")
		}
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, id, b := reopen(), uuid.New(), content(12<<20)
		for at := 0; at < len(b); at += 3 << 20 {
			u := begin(t, s, id)
			if u.Size() != int64(at) {
				t.Fatalf("resumed at %d, want %d", u.Size(), at)
			}
			add(t, u, b[at:at+3<<20], -1)
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Received(t.Context(), id); err != nil || n != int64(at+3<<20) {
				t.Errorf("Received = %d, %v", n, err)
			}
		}
		u := begin(t, s, id)
		if got := read(t, s, commit(t, u, b)); !bytes.Equal(got, b) {
			t.Error("the bytes did not come back as they were")
		}
	})
}

// TestResumeElsewhere closes one store and goes on in another: with the hash
// state handed over, and without.
func TestResumeElsewhere(t *testing.T) {
	t.Parallel()
	for _, handed := range []bool{true, false} {
		forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
			s, id, b := reopen(), uuid.New(), content(14<<20)
			u := begin(t, s, id, blob.Fresh())
			add(t, u, b[:6<<20], -1)
			offset, state := u.State()
			if offset != 6<<20 || len(state) == 0 {
				t.Errorf("State = %d and %d bytes", offset, len(state))
			}
			if err := errors.Join(u.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
			s = reopen()
			if handed {
				u = begin(t, s, id, blob.From(offset, state))
			} else {
				u = begin(t, s, id)
			}
			if u.Size() != 6<<20 {
				t.Fatalf("resumed at %d", u.Size())
			}
			if _, state := u.State(); handed != (state != nil) {
				t.Errorf("handed over: %v, but the hash has %d bytes", handed, len(state))
			}
			add(t, u, b[6<<20:], 8<<20)
			if got := read(t, s, commit(t, u, b)); !bytes.Equal(got, b) {
				t.Error("the bytes did not come back as they were")
			}
		})
	}
}

// TestOtherAlgorithm begins with one hash and ends with another.
func TestOtherAlgorithm(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, id, b := reopen(), uuid.New(), content(2<<20)
		u := begin(t, s, id)
		add(t, u, b, -1)
		u.Close()
		u, err := s.Upload(t.Context(), id, reference.SHA512)
		if err != nil {
			t.Fatal(err)
		}
		key, err := u.Commit(t.Context(), reference.Of(reference.SHA512, b))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, key); !bytes.Equal(got, b) {
			t.Error("the bytes did not come back as they were")
		}
	})
}

func TestWrongDigest(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, id, b := reopen(), uuid.New(), content(3<<20)
		u := begin(t, s, id)
		add(t, u, b[:2<<20], -1)
		if _, err := u.Commit(t.Context(), digest(b)); !fault.Is(err, fault.Invalid) {
			t.Fatalf("Commit of a part: %v", err)
		}
		add(t, u, b[2<<20:], -1)
		commit(t, u, b)
	})
}

// TestBrokenConnection keeps what has come, and goes on from there.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, b := reopen(), content(3<<20)
		for _, kept := range []int{0, 1000, 256 << 10, 700_000, 2 << 20} {
			id := uuid.New()
			u := begin(t, s, id)
			cut := io.MultiReader(bytes.NewReader(b[:kept]), iotest.ErrReader(io.ErrUnexpectedEOF))
			n, err := u.Append(t.Context(), cut, int64(len(b)))
			if n != int64(kept) || !errors.Is(err, io.ErrUnexpectedEOF) || !fault.Is(err, fault.Invalid) {
				t.Fatalf("Append = %d, %v; want %d kept", n, err, kept)
			}
			u.Close()
			u = begin(t, s, id)
			if u.Size() != int64(kept) {
				t.Fatalf("resumed at %d, want %d", u.Size(), kept)
			}
			add(t, u, b[kept:], int64(len(b)-kept))
			commit(t, u, b)
		}
	})
}

func TestBodyShorterThanAnnounced(t *testing.T) {
	t.Parallel()
	s := openLocal(t, t.TempDir())
	u := begin(t, s, uuid.New())
	defer u.Close()
	n, err := u.Append(t.Context(), strings.NewReader("abc"), 5)
	if n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Append = %d, %v", n, err)
	}
}

func TestCancelledRequest(t *testing.T) {
	t.Parallel()
	s := openLocal(t, t.TempDir())
	u := begin(t, s, uuid.New())
	defer u.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := u.Append(ctx, bytes.NewReader(content(2<<20)), -1)
	if !errors.Is(err, context.Canceled) || n != u.Size() {
		t.Errorf("Append = %d, %v; Size = %d", n, err, u.Size())
	}
}

// TestOneWriter lets a second request for the same session fail at once.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, id := reopen(), uuid.New()
		u := begin(t, s, id)
		add(t, u, []byte("abc"), -1)
		if _, err := s.Upload(t.Context(), id, reference.SHA256); !fault.Is(err, fault.Conflict) {
			t.Errorf("a second writer: %v", err)
		}
		if n, err := s.Received(t.Context(), id); n != 3 || err != nil {
			t.Errorf("Received = %d, %v", n, err)
		}
		u.Close()
		begin(t, s, id).Close()
	})
}

func TestManyUploadsAtOnce(t *testing.T) {
	t.Parallel()
	s, b := openLocal(t, t.TempDir()), content(1<<20)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			mine := b[i:]
			u, err := s.Upload(context.Background(), uuid.New(), reference.SHA256)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := u.Append(context.Background(), bytes.NewReader(mine), int64(len(mine))); err != nil {
				t.Error(err)
			}
			if _, err := u.Commit(context.Background(), digest(mine)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := countKeys(t, s); n != 32 {
		t.Errorf("there are %d blobs, want 32", n)
	}
}

func countKeys(t *testing.T, s *blob.Store) (n int) {
	t.Helper()
	err := s.Keys(t.Context(), func(key string, _ int64, modified time.Time) error {
		if blob.CheckKey(key) != nil || time.Since(modified) > time.Hour {
			t.Errorf("Keys visits %q of %v", key, modified)
		}
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCancel(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, id := reopen(), uuid.New()
		u := begin(t, s, id)
		add(t, u, content(2<<20), -1)
		if err := u.Cancel(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(t.Context(), strings.NewReader("x"), -1); !fault.Is(err, fault.Conflict) {
			t.Errorf("Append after Cancel: %v", err)
		}
		u = begin(t, s, id)
		defer u.Close()
		if u.Size() != 0 {
			t.Errorf("there are %d bytes after Cancel", u.Size())
		}
		if n := countKeys(t, s); n != 0 {
			t.Errorf("there are %d blobs after Cancel", n)
		}
	})
}

func TestSweepUploads(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, busy := reopen(), uuid.New()
		for range 3 {
			u := begin(t, s, uuid.New())
			add(t, u, content(2<<20), -1)
			u.Close()
		}
		u := begin(t, s, busy)
		add(t, u, []byte("abc"), -1)
		if n, err := s.SweepUploads(t.Context(), time.Hour); n != 0 || err != nil {
			t.Errorf("SweepUploads of old ones = %d, %v", n, err)
		}
		if n, err := s.SweepUploads(t.Context(), 0); n != 3 || err != nil {
			t.Errorf("SweepUploads = %d, %v; want 3", n, err)
		}
		commit(t, u, []byte("abc"))
	})
}

func TestNothingOnDiskBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openLocal(t, dir)
	begin(t, s, uuid.New()).Close()
	names, err := os.ReadDir(filepath.Join(dir, "uploads"))
	if err != nil || len(names) != 0 {
		t.Errorf("uploads has %v, %v", names, err)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s, b := reopen(), content(1<<20+3)
		u := begin(t, s, uuid.New())
		add(t, u, b, -1)
		f, err := s.Open(t.Context(), commit(t, u, b))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, at := range []int64{0, 1, 1 << 19, 1 << 20, 17, 17} {
			if _, err := f.Seek(at, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(io.LimitReader(f, 100))
			want := b[at:min(at+100, int64(len(b)))]
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("100 bytes from %d: %d came, %v", at, len(got), err)
			}
		}
		if end, err := f.Seek(-3, io.SeekEnd); end != 1<<20 || err != nil {
			t.Errorf("Seek from the end = %d, %v", end, err)
		}
		if _, err := f.Seek(-1, io.SeekStart); err == nil {
			t.Error("Seek before the start was done")
		}
	})
}

func TestMissingBlob(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, reopen func() *blob.Store) {
		s := reopen()
		const key = "blobs/sha256/ab/nothing"
		if _, err := s.Open(t.Context(), key); !fault.Is(err, fault.NotFound) {
			t.Errorf("Open: %v", err)
		}
		if _, err := s.Stat(t.Context(), key); !fault.Is(err, fault.NotFound) {
			t.Errorf("Stat: %v", err)
		}
		if _, err := s.Open(t.Context(), "blobs/../uploads/x"); !fault.Is(err, fault.Internal) {
			t.Errorf("Open of a path that leads out: %v", err)
		}
	})
}

// TestImportedTree reads a CNCF distribution tree where it lies.
func TestImportedTree(t *testing.T) {
	t.Parallel()
	old, dir := t.TempDir(), t.TempDir()
	hex := strings.Repeat("ab", 32)
	data := filepath.Join(old, "docker/registry/v2/blobs/sha256/ab", hex, "data")
	link := filepath.Join(old, "docker/registry/v2/repositories/x/_layers/sha256", hex, "link")
	for _, name := range []string{data, link} {
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("layer"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := openLocal(t, dir)
	prefix, err := s.LinkTree("harbor", old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.LinkTree("harbor", old); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := s.LinkTree("harbor", dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("another tree under the same name: %v", err)
	}
	for _, bad := range []string{"", "..", "a/b", "a b"} {
		if _, err := s.LinkTree(bad, old); !fault.Is(err, fault.Invalid) {
			t.Errorf("LinkTree(%q): %v", bad, err)
		}
	}
	key := prefix + "docker/registry/v2/blobs/sha256/ab/" + hex + "/data"
	if got := read(t, openLocal(t, dir), key); string(got) != "layer" {
		t.Errorf("read %q", got)
	}
	var keys []string
	s.Keys(t.Context(), func(key string, _ int64, _ time.Time) error { keys = append(keys, key); return nil })
	if len(keys) != 1 || keys[0] != key {
		t.Errorf("Keys visits %v, want only %s", keys, key)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestFree(t *testing.T) {
	t.Parallel()
	free, total, err := openLocal(t, t.TempDir()).Free(t.Context())
	if err != nil || free <= 0 || total < free {
		t.Errorf("Free = %d of %d, %v", free, total, err)
	}
	if free, total, err := blob.New(inmemory.New()).Free(t.Context()); free != -1 || total != -1 || err != nil {
		t.Errorf("Free of an object store = %d of %d, %v", free, total, err)
	}
}
