package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// A layer of 5 GiB, more than 32 bits count, goes in and comes out whole.
func TestHugeLayer(t *testing.T) {
	if os.Getenv("BERTH_TEST_HUGE") == "" {
		t.Skip("a layer of 5 GiB takes minutes and 16 GiB of disk: set BERTH_TEST_HUGE=1")
	}
	s := containers(t, "skopeo")
	s.sh.Limit = 15 * time.Minute
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.sh.Dir, &disk); err != nil {
		t.Fatal(err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < 17<<30 {
		t.Skipf("%s has %d GiB free, this takes 16", s.sh.Dir, free>>30)
	}
	s.login("skopeo", s.user)

	// An OCI layout by hand: the layer does not fit into memory politely. The layer's own format does not matter to
	// skopeo as long as nobody asks it to convert.
	const size = 5<<30 + 12345
	if err := os.MkdirAll(s.path("layout/blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(s.path("layout/layer"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	source := rand.NewChaCha8([32]byte([]byte("a seed of thirty-two bytes, ok.."))) // 1 GiB/s, where crypto/rand has half
	if _, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(source, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	digest := hex.EncodeToString(hash.Sum(nil))
	if err := os.Rename(s.path("layout/layer"), s.path("layout/blobs/sha256/"+digest)); err != nil {
		t.Fatal(err)
	}
	config := berthtest.NewBlob("application/vnd.example.config+json", []byte("{}"))
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": berthtest.OCIManifest, "config": config.Descriptor(),
		"layers": []berthtest.Descriptor{{MediaType: "application/octet-stream", Digest: "sha256:" + digest, Size: size}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.layout("layout", "1", berthtest.NewBlob(berthtest.OCIManifest, manifest))
	s.write("layout/blobs/"+strings.Replace(config.Digest, ":", "/", 1), config.Data)

	image := "docker://" + s.ref("huge", ":1")
	s.sh.Run(t, "skopeo", "copy", "--dest-cert-dir", s.certDir(), "oci:"+s.path("layout")+":1", image)
	if err := os.RemoveAll(s.path("layout")); err != nil {
		t.Fatal(err)
	}
	s.sh.Run(t, "skopeo", "copy", "--src-cert-dir", s.certDir(), image, "dir:"+s.path("back"))
	back, err := os.Open(s.path("back/" + digest))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	hash.Reset()
	n, err := io.Copy(hash, back)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); n != size || got != digest {
		t.Errorf("%s came back, pushed %s", fmt.Sprintf("%d bytes sha256:%s", n, got), fmt.Sprintf("%d bytes sha256:%s", size, digest))
	}
}
