package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/services/blob"
	"berth/services/reference"
)

// smallDisk mounts a file system of that many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("skipped: a full disk needs the right to mount a small one: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestFullDisk fills a disk: the push fails in plain words, all room is given
// back, and a blob that fits goes in afterwards.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	b := content(12 << 20)
	for _, test := range []struct {
		name   string
		length int64
	}{{"length known", 12 << 20}, {"length unknown", -1}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := smallDisk(t, 8<<20)
			s := openLocal(t, dir)
			before, _, err := s.Free(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			id := uuid.New()
			u := begin(t, s, id)
			n, err := u.Append(t.Context(), bytes.NewReader(b), test.length)
			if n != 0 || !fault.Is(err, fault.NoSpace) || !strings.Contains(fault.Of(err).Text, "full") {
				t.Fatalf("Append = %d, %v", n, err)
			}
			u.Close()
			if after, _, _ := s.Free(t.Context()); after != before {
				t.Errorf("%d bytes are free, %d were before", after, before)
			}
			if n := countKeys(t, s); n != 0 {
				t.Errorf("%d blobs are visible", n)
			}
			u = begin(t, s, id)
			add(t, u, b[:4<<20], -1)
			key := commit(t, u, b[:4<<20])
			if got := read(t, s, key); !bytes.Equal(got, b[:4<<20]) {
				t.Error("the bytes did not come back as they were")
			}
		})
	}
}

// brokenDisk is a Local whose fsync fails.
type brokenDisk struct {
	*blob.Local
	syncs int
}

func (d *brokenDisk) Publish(f *os.File, from, to string) error {
	d.syncs++
	if err := d.Local.Publish(f, from, to); err != nil {
		return err
	}
	if err := d.Local.Delete(context.Background(), to); err != nil {
		return err
	}
	return unix.EIO
}

// TestFailedSync fails the upload, once and for all.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	l, err := blob.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &brokenDisk{Local: l}
	s, id, b := blob.New(d), uuid.New(), content(1000)
	u := begin(t, s, id)
	add(t, u, b, -1)
	if _, err := u.Commit(t.Context(), digest(b)); !fault.Is(err, fault.Internal) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := u.Commit(t.Context(), digest(b)); !fault.Is(err, fault.Conflict) {
		t.Errorf("Commit once more: %v", err)
	}
	if d.syncs != 1 {
		t.Errorf("the file was synced %d times", d.syncs)
	}
	if n, err := s.Received(t.Context(), id); n != 0 || err != nil {
		t.Errorf("Received = %d, %v", n, err)
	}
}

// straceDir makes this test's own binary do one upload and end.
const straceDir = "BERTH_BLOB_TRACE"

func uploadUnderTrace(dir string) int {
	s, err := blob.OpenLocal(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b := content(20 << 20)
	u, err := s.Upload(context.Background(), uuid.New(), reference.SHA256)
	if err == nil {
		_, err = u.Append(context.Background(), bytes.NewReader(b), int64(len(b)))
	}
	if err == nil {
		_, err = u.Commit(context.Background(), digest(b))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, "acknowledged")
	return 0
}

// TestOrderOnDisk watches the system calls of a commit: name, bytes, directory,
// and only then the answer.
func TestOrderOnDisk(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("skipped: strace is not installed")
	}
	dir := t.TempDir()
	openLocal(t, dir) // so that the directories are not part of the trace
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-y", "-o", out, "-e", "trace=rename,renameat,renameat2,fsync,fdatasync,sync_file_range,fallocate,write", os.Args[0])
	cmd.Env = append(os.Environ(), straceDir+"="+dir)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("skipped: strace may not trace here: %v: %s", err, b)
	}
	trace, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`fallocate\(`, `sync_file_range\(`, `rename.*uploads/.*blobs/sha256/`, `fsync\(\d+<.*/blobs/sha256/../[0-9a-f]{64}\.[0-9a-f]{8}>`,
		`fsync\(\d+<.*/blobs/sha256/..>`, `write\(1<.*"acknowledged`}
	rest := string(trace)
	for _, step := range want {
		at := regexp.MustCompile(step).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("no %s in its place in:\n%s", step, tail(string(trace)))
		}
		rest = rest[at[1]:]
	}
	if n := strings.Count(string(trace), "fsync("); n != 2 {
		t.Errorf("there are %d syncs, want 2", n)
	}
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
