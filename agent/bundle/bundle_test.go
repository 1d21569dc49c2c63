package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/agent/bundle"
	"berth/appliance/fault"
)

func text(name, content string) bundle.Source {
	return bundle.Source{Name: name, Read: func(context.Context) ([]byte, error) { return []byte(content), nil }}
}

func open(t *testing.T, s *bundle.Store, id string) map[string]string {
	t.Helper()
	f, b, err := s.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != b.Bytes || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v, want %d bytes", info, err, b.Bytes)
	}
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, id+"/")] = string(content)
	}
}

// Everything is in it but secrets; what failed or was too long is in the manifest.
func TestBundle(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("an old line\n", bundle.MaxFile/8) + "the last line\n"
	s, err := bundle.New(t.TempDir(), func() []bundle.Source {
		return []bundle.Source{
			text("plain", "hello\n"), text("secret", "password=S3cr3t-Value\n-----BEGIN PRIVATE KEY-----\nS3cr3t\n-----END PRIVATE KEY-----\nrest\n"), text("long", long), text("binary", "a\xff\x00b"),
			{Name: "broken", Read: func(context.Context) ([]byte, error) {
				return []byte("half"), errors.New("it fails with token=S3cr3t-Value")
			}},
		}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Create(t.Context())
	if err != nil || b.State != "running" {
		t.Fatalf("%+v, %v", b, err)
	}
	s.Wait()
	if b, err = s.Get(b.ID); err != nil || b.State != "done" || b.Bytes == 0 || b.Ended.IsZero() {
		t.Errorf("%+v, %v", b, err)
	}
	files := open(t, s, b.ID)
	if files["plain"] != "hello\n" || files["broken"] != "half" || !strings.HasSuffix(files["secret"], "rest\n") || !strings.HasSuffix(files["long"], "the last line\n") || len(files["long"]) > bundle.MaxFile {
		t.Errorf("%.300q", files)
	}
	for name, content := range files {
		if strings.Contains(content, "S3cr3t") {
			t.Errorf("%s has a secret", name)
		}
	}
	var manifest struct {
		Files []struct {
			Name, Error         string
			Truncated, Redacted bool
		}
	}
	if err := json.Unmarshal([]byte(files["manifest.json"]), &manifest); err != nil || len(manifest.Files) != 5 || !manifest.Files[1].Redacted || !manifest.Files[2].Truncated || manifest.Files[4].Error == "" {
		t.Errorf("%v %s", err, files["manifest.json"])
	}
}

func TestOneAtATimeAndFewKept(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s, err := bundle.New(t.TempDir(), func() []bundle.Source {
		return []bundle.Source{{Name: "slow", Read: func(ctx context.Context) ([]byte, error) { <-hold; return nil, nil }}}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context()); !fault.Is(err, fault.Conflict) {
		t.Errorf("two at once: %v", err)
	}
	if err := s.Delete(b.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("deleted while it is made: %v", err)
	}
	if _, _, err := s.Open(b.ID); !fault.Is(err, fault.Precondition) {
		t.Errorf("opened while it is made: %v", err)
	}
	close(hold)
	s.Wait()
	for range 9 {
		if _, err := s.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Wait()
	}
	list, err := s.List()
	if err != nil || len(list) != 5 {
		t.Errorf("%d bundles, %v", len(list), err)
	}
	if err := s.Delete(list[0].ID); err != nil {
		t.Error(err)
	}
	for _, id := range []string{list[0].ID, "", "..", "../../etc/passwd", "20260101-000000-aaaaaa"} {
		if _, err := s.Get(id); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// A bundle that a restart has cut off has failed, and says so.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const id = "20260101-000000-abcdef"
	if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(`{"id":"`+id+`","state":"running"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, id+".tar.gz"), bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bundle.New(dir, func() []bundle.Source { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Get(id)
	if err != nil || b.State != "failed" || b.Fault == nil {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, id+".tar.gz")); !os.IsNotExist(err) {
		t.Errorf("its half is still there: %v", err)
	}
	// So has one whose end could not be noted, on a full disk; it can be deleted.
	const other = "20260102-000000-abcdef"
	if err := os.WriteFile(filepath.Join(dir, other+".json"), []byte(`{"id":"`+other+`","state":"running"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Get(other); err != nil || b.State != "failed" || b.Fault == nil {
		t.Errorf("%+v, %v", b, err)
	}
	if err := s.Delete(other); err != nil {
		t.Error(err)
	}
}
