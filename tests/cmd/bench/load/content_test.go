package load

import (
	"io"
	"testing"
)

// The digest that was computed ahead is that of the bytes.
func TestDigests(t *testing.T) {
	seen := map[string]bool{}
	for _, size := range []int{16, 1000, 1 << 20} {
		s := NewSource(size)
		for range 3 {
			b := s.New()
			data, err := io.ReadAll(b.Reader())
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(data)) != b.Size || Digest(data) != b.Digest || seen[b.Digest] {
				t.Errorf("a blob of %d bytes says %d, %s; it has %d, %s", size, b.Size, b.Digest, len(data), Digest(data))
			}
			seen[b.Digest] = true
		}
	}
}
