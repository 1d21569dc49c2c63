package berthtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Media types that tests speak of.
const (
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	OCIConfig      = "application/vnd.oci.image.config.v1+json"
	OCILayer       = "application/vnd.oci.image.layer.v1.tar+gzip"
	OCIEmpty       = "application/vnd.oci.empty.v1+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// A Blob is content with its digest and what it is.
type Blob struct {
	MediaType string
	Digest    string
	Data      []byte
}

// NewBlob names content by its SHA-256.
func NewBlob(mediaType string, data []byte) Blob {
	return Blob{mediaType, Digest(data), data}
}

// A Descriptor is how a manifest speaks of a blob.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Platform     *Platform         `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// A Platform is what an image of an index runs on.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

// Descriptor of the blob.
func (b Blob) Descriptor() Descriptor {
	return Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: int64(len(b.Data))}
}

// Digest is the SHA-256 of data, the way registries write it.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Random is n bytes that nothing can compress or has seen before.
func Random(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	return data
}

// Name is a short random name, fit for projects, repositories, tags and users.
func Name() string { return "n" + strings.ToLower(rand.Text()[:10]) }

// An Image is a container image with its manifest.
type Image struct {
	Platform Platform
	Manifest Blob
	Config   Blob
	Layers   []Blob
}

// NewImage makes an image with layers of random data, each about size bytes, each holding one file, /layer-N.
func NewImage(layers, size int) *Image {
	return NewImageFor(Platform{"linux", "amd64"}, layers, size)
}

// NewImageFor is NewImage for another platform.
func NewImageFor(p Platform, layers, size int) *Image {
	i := &Image{Platform: p}
	var diffs []string
	for n := range layers {
		data, diff := Layer(map[string][]byte{"layer-" + string(rune('0'+n%10)): Random(size)})
		i.Layers = append(i.Layers, NewBlob(OCILayer, data))
		diffs = append(diffs, diff)
	}
	i.Config = NewBlob(OCIConfig, encode(map[string]any{
		"created":      "2026-01-01T00:00:00Z",
		"os":           p.OS,
		"architecture": p.Architecture,
		"config":       map[string]any{"Cmd": []string{"/layer-0"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffs},
	}))
	i.Manifest = Manifest(i.Config, i.Layers, nil)
	return i
}

// Manifest makes an OCI image manifest. More holds further members: subject, artifactType, annotations.
func Manifest(config Blob, layers []Blob, more map[string]any) Blob {
	descriptors := []Descriptor{}
	for _, l := range layers {
		descriptors = append(descriptors, l.Descriptor())
	}
	m := map[string]any{
		"schemaVersion": 2, "mediaType": OCIManifest, "config": config.Descriptor(), "layers": descriptors,
	}
	for k, v := range more {
		m[k] = v
	}
	return NewBlob(OCIManifest, encode(m))
}

// Index makes an OCI index of images.
func Index(images ...*Image) Blob {
	descriptors := []Descriptor{}
	for _, i := range images {
		d := i.Manifest.Descriptor()
		d.Platform = &i.Platform
		descriptors = append(descriptors, d)
	}
	return NewBlob(OCIIndex, encode(map[string]any{
		"schemaVersion": 2, "mediaType": OCIIndex, "manifests": descriptors,
	}))
}

// Blobs are the config and the layers.
func (i *Image) Blobs() []Blob {
	return append([]Blob{i.Config}, i.Layers...)
}

// Layer packs files into a gzipped tar; diffID is the digest of the tar inside.
func Layer(files map[string][]byte) (data []byte, diffID string) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for name, content := range files {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
		w.Write(content)
	}
	w.Close() // a bytes.Buffer takes everything
	var zipped bytes.Buffer
	z, _ := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	z.Write(plain.Bytes())
	z.Close()
	return zipped.Bytes(), Digest(plain.Bytes())
}

// WriteLayout writes an OCI image layout with one entry, named tag. The root is an image's manifest or an index of
// the images.
func WriteLayout(t testing.TB, dir, tag string, root Blob, images ...*Image) {
	t.Helper()
	write := func(name string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blobs := []Blob{root}
	for _, i := range images {
		blobs = append(append(blobs, i.Manifest), i.Blobs()...)
	}
	for _, b := range blobs {
		write(filepath.Join("blobs", strings.Replace(b.Digest, ":", "/", 1)), b.Data)
	}
	d := root.Descriptor()
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	write("index.json", encode(map[string]any{
		"schemaVersion": 2, "mediaType": OCIIndex, "manifests": []Descriptor{d},
	}))
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only the maps above come here
	}
	return data
}
