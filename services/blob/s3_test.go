package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/blob"
	"berth/services/reference"
)

// versitygw finds the S3 server that tests use.
func versitygw(t testing.TB) string {
	if path := os.Getenv("BERTH_VERSITYGW"); path != "" {
		return path
	}
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path
	}
	home, _ := os.UserHomeDir()
	found, _ := filepath.Glob(filepath.Join(home, ".cache/berth-tools/*/versitygw"))
	for _, path := range found {
		if exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	t.Skip("skipped: no S3 server: set BERTH_VERSITYGW to a versitygw binary")
	return ""
}

// bucket starts an S3 server of its own with an empty bucket.
func bucket(t testing.TB) blob.S3Settings {
	t.Helper()
	program, dir := versitygw(t), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "berth"), 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var log bytes.Buffer
	cmd := exec.Command(program, "--port", address, "--access", "berth", "--secret", "sesame12", "--quiet", "--keep-alive", "posix", dir)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return blob.S3Settings{Region: "us-east-1", Endpoint: "http://" + address, Bucket: "berth", RootDirectory: "some/where",
				AccessKey: "berth", SecretKey: "sesame12", ForcePathStyle: true, ChunkSize: 5 << 20, Redirect: true}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Skipf("skipped: versitygw does not start here: %s", &log)
	return blob.S3Settings{}
}

func openS3(t testing.TB, settings blob.S3Settings) *blob.Store {
	t.Helper()
	s, err := blob.OpenS3(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3Redirect(t *testing.T) {
	t.Parallel()
	settings := bucket(t)
	s, b := openS3(t, settings), content(1000)
	u := begin(t, s, uuid.New())
	add(t, u, b, -1)
	key := commit(t, u, b)
	url, err := s.RedirectURL(httptest.NewRequest(http.MethodGet, "/", nil), key)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var got bytes.Buffer
	got.ReadFrom(answer.Body)
	if !bytes.Equal(got.Bytes(), b) {
		t.Errorf("%s gave %d bytes", answer.Status, got.Len())
	}
	settings.Redirect = false
	if url, err := openS3(t, settings).RedirectURL(httptest.NewRequest(http.MethodGet, "/", nil), key); url != "" || err != nil {
		t.Errorf("redirect is off, and RedirectURL = %q, %v", url, err)
	}
}

// TestS3CompletedSession sees a client repeat a request whose answer it lost.
func TestS3CompletedSession(t *testing.T) {
	t.Parallel()
	s, id, b := openS3(t, bucket(t)), uuid.New(), content(100)
	u := begin(t, s, id)
	add(t, u, b, -1)
	key := commit(t, u, b)
	if _, err := s.Upload(t.Context(), id, reference.SHA256); !fault.Is(err, fault.NotFound) {
		t.Errorf("the same session again: %v", err)
	}
	if got := read(t, s, key); !bytes.Equal(got, b) {
		t.Error("the blob has changed")
	}
}

// TestS3Serves sends a range of an object through http.ServeContent.
func TestS3Serves(t *testing.T) {
	t.Parallel()
	s, b := openS3(t, bucket(t)), content(7<<20)
	u := begin(t, s, uuid.New())
	add(t, u, b, -1)
	f, err := s.Open(t.Context(), commit(t, u, b))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Range", "bytes=6000000-6000099")
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
	if w.Code != http.StatusPartialContent || !bytes.Equal(w.Body.Bytes(), b[6000000:6000100]) {
		t.Errorf("%d with %d bytes", w.Code, w.Body.Len())
	}
}

// TestS3Sweep ends an upload that a node has left behind.
func TestS3Sweep(t *testing.T) {
	t.Parallel()
	settings, id := bucket(t), uuid.New()
	s := openS3(t, settings)
	u := begin(t, s, id)
	add(t, u, content(6<<20), -1)
	if err := errors.Join(u.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openS3(t, settings)
	if n, err := s.SweepUploads(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("SweepUploads of old ones = %d, %v", n, err)
	}
	if n, err := s.SweepUploads(t.Context(), 0); n != 1 || err != nil {
		t.Errorf("SweepUploads = %d, %v; want 1", n, err)
	}
	if n, err := s.Received(t.Context(), id); n != 0 || err != nil {
		t.Errorf("Received = %d, %v", n, err)
	}
}

func TestS3Down(t *testing.T) {
	t.Parallel()
	_, err := blob.OpenS3(t.Context(), blob.S3Settings{Region: "us-east-1", Endpoint: "http://127.0.0.1:1", Bucket: "b",
		AccessKey: "a", SecretKey: "s", ForcePathStyle: true})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("OpenS3 without a server: %v", err)
	}
}

func TestReadS3(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string // in the error; none = accepted
	}{
		{"whole", "region: eu\nbucket: b\naccess_key: a\nsecret_key: hush-hush\n", nil},
		{"all faults at once", "endpoint: nonsense\nchunk_size: 7\naccess_key: a\nroot_directory: ../x\n",
			[]string{"bucket", "endpoint", "chunk_size", "together", "root_directory"}},
		{"nothing", "", []string{"bucket is missing", "region is missing"}},
		{"unknown key", "bucket: b\nregion: r\nbukkit: c\n", []string{"bukkit", "line 3"}},
		{"secret in the wrong place", "bucket: b\nregion: r\nchunk_size: hush-hush\n", []string{"line 3", "int"}},
		{"user in the endpoint", "bucket: b\nendpoint: http://hush-hush@host\n", []string{"endpoint"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "s3.yaml")
			if err := os.WriteFile(path, []byte(test.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := blob.ReadS3(path)
			if (err != nil) != (len(test.want) > 0) {
				t.Fatalf("ReadS3: %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not tell of %q", err, want)
				}
			}
			if all := fmt.Sprintf("%v %#v %v", err, s.SecretKey, s.SecretKey); strings.Contains(all, "hush-hush") {
				t.Errorf("a secret is printed: %s", all)
			}
		})
	}
}
