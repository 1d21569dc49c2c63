package blob_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/testsuites"

	"berth/services/blob"
)

// TestMain keeps upstream's suite from writing 5 GiB, unless BERTH_LONG is set.
func TestMain(m *testing.M) {
	if dir := os.Getenv(straceDir); dir != "" {
		os.Exit(uploadUnderTrace(dir))
	}
	// Amazon's SDK would write its certificates into http.DefaultTransport, at
	// each session, while others use it.
	os.Unsetenv("AWS_CA_BUNDLE")
	flag.Parse()
	if os.Getenv("BERTH_LONG") == "" {
		flag.Set("test.short", "true")
	}
	os.Exit(m.Run())
}

// TestLocalIsAStorageDriver runs what distribution demands of every driver.
func TestLocalIsAStorageDriver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	testsuites.Driver(t, func() (storagedriver.StorageDriver, error) { return blob.NewLocal(dir) }, false)
}

// TestLocalStaysInside checks that no path leads out of the directory.
func TestLocalStaysInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := blob.NewLocal(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/../outside", "/a/../../outside", "/..", "/./outside", "/a//b", "outside", "/a\x00b", "/a b", "/ä"} {
		if b, err := l.GetContent(t.Context(), path); err == nil {
			t.Errorf("GetContent(%q) = %q", path, b)
		}
		if err := l.PutContent(t.Context(), path, []byte("x")); err == nil {
			t.Errorf("PutContent(%q) was done", path)
		}
		if err := l.Move(t.Context(), "/a", path); err == nil {
			t.Errorf("Move(%q) was done", path)
		}
		if err := l.Delete(t.Context(), path); err == nil {
			t.Errorf("Delete(%q) was done", path)
		}
	}
}

// FuzzCheckKey looks for a key that is accepted and leads elsewhere.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"blobs/sha256/ab/cd.01234567", "imported/old/docker/registry/v2/blobs/sha256/ab/cd/data",
		"blobs/../x", "blobs", "blobs/", "uploads/x", "imported/..", "/blobs/x", "blobs/a\x00"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if blob.CheckKey(key) != nil {
			return
		}
		clean := filepath.Clean("/root/" + key)
		if clean != "/root/"+key {
			t.Errorf("the key %q is not clean: it is %q", key, clean)
		}
		if !strings.HasPrefix(clean, "/root/blobs/") && !strings.HasPrefix(clean, "/root/imported/") {
			t.Errorf("the key %q leads to %q", key, clean)
		}
	})
}
