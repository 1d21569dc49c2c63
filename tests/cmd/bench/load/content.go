package load

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"sync/atomic"
)

// The media types in use.
const (
	ManifestType = "application/vnd.oci.image.manifest.v1+json"
	IndexType    = "application/vnd.oci.image.index.v1+json"
	ConfigType   = "application/vnd.oci.image.config.v1+json"
	LayerType    = "application/vnd.oci.image.layer.v1.tar"
)

// A Source makes blobs of one size. All share their bytes but for the last 16, so a new blob's digest takes no time:
// the hash of what they share is kept. None of them compresses or deduplicates.
type Source struct {
	shared []byte
	state  hash.Cloner
	next   atomic.Uint64
	seed   uint64
}

const tail = 16

// NewSource makes a source of blobs of size bytes, at least 16. Two sources never make the same blob.
func NewSource(size int) *Source {
	s := &Source{shared: make([]byte, size-tail), seed: rand.Uint64()}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], s.seed)
	random := rand.NewChaCha8(key)
	random.Read(s.shared) // which never fails
	h := sha256.New()
	h.Write(s.shared)
	s.state = h.(hash.Cloner)
	return s
}

// A Blob is content and its digest.
type Blob struct {
	Digest string
	Size   int64
	shared []byte
	end    []byte
}

// New makes a blob that nobody has seen.
func (s *Source) New() Blob {
	end := binary.LittleEndian.AppendUint64(make([]byte, 0, tail), s.seed)
	end = binary.LittleEndian.AppendUint64(end, s.next.Add(1))
	h, err := s.state.Clone()
	if err != nil {
		panic(err) // sha256 can be cloned
	}
	h.Write(end)
	return Blob{"sha256:" + hex.EncodeToString(h.Sum(nil)), int64(len(s.shared) + tail), s.shared, end}
}

// Reader reads the blob.
func (b Blob) Reader() io.Reader {
	return io.MultiReader(bytes.NewReader(b.shared), bytes.NewReader(b.end))
}

// A Descriptor is how a manifest refers to content.
type Descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// An Image is a manifest and what it refers to, config first.
type Image struct {
	Manifest []byte
	Digest   string
	Blobs    []Blob
}

// NewImage makes a manifest over blobs, the first of which stands for the config. The note makes it differ from others.
func NewImage(blobs []Blob, note string) Image {
	list := make([]Descriptor, len(blobs))
	for i, b := range blobs {
		list[i] = Descriptor{LayerType, b.Digest, b.Size}
	}
	list[0].MediaType = ConfigType
	data := encode(map[string]any{
		"schemaVersion": 2, "mediaType": ManifestType, "config": list[0], "layers": list[1:],
		"annotations": map[string]string{"org.example.note": note},
	})
	return Image{data, Digest(data), blobs}
}

// NewIndex makes an index without entries: the smallest thing that puts a repository into the catalog.
func NewIndex(note string) []byte {
	return encode(map[string]any{
		"schemaVersion": 2, "mediaType": IndexType, "manifests": []any{}, "annotations": map[string]string{"org.example.note": note},
	})
}

// Digest is the sha256 digest of data.
func Digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only the maps above come here
	}
	return data
}
