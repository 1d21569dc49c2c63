package blob_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"berth/services/blob"
	"berth/services/reference"
)

// BenchmarkCommit takes a blob in and makes it durable: hash, name and
// directory included. It is told beside a plain write and fsync of the same
// bytes into one file, done in turn with it, since a disk's speed drifts:
// x/plain is how many times as long ours takes.
//
// It is also where to try other values of writeSlice.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			s, bytes := openLocal(b, dir), content(size)
			d := digest(bytes)
			var plain time.Duration
			b.SetBytes(int64(size))
			for b.Loop() {
				key := takeIn(b, s, bytes, d)
				b.StopTimer()
				plain += writePlainly(b, filepath.Join(dir, "plain"), bytes)
				if err := s.Delete(b.Context(), key); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(b.Elapsed().Seconds()/plain.Seconds(), "x/plain")
		})
	}
}

func takeIn(b *testing.B, s *blob.Store, content []byte, d reference.Digest) (key string) {
	u, err := s.Upload(b.Context(), uuid.New(), reference.SHA256)
	if err != nil {
		b.Fatal(err)
	}
	// A reader without WriteTo, as a request's body is.
	body := io.LimitReader(bytes.NewReader(content), int64(len(content)))
	if _, err := u.Append(b.Context(), body, int64(len(content))); err != nil {
		b.Fatal(err)
	}
	if key, err = u.Commit(b.Context(), d); err != nil {
		b.Fatal(err)
	}
	return key
}

func writePlainly(b *testing.B, name string, content []byte) time.Duration {
	start := time.Now()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 64<<10)
		if _, err := f.Write(rest[:n]); err != nil {
			b.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	f.Close()
	os.Remove(name)
	return took
}

// BenchmarkOpen is what each pull of a blob pays here.
func BenchmarkOpen(b *testing.B) {
	s, bytes := openLocal(b, b.TempDir()), content(1000)
	key := takeIn(b, s, bytes, digest(bytes))
	b.ReportAllocs()
	for b.Loop() {
		f, err := s.Open(b.Context(), key)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
