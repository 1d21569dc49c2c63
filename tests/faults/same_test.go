package faults

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"berth/tests/berthtest"
)

// Two hundred clients that push the same blob, the same image and the same tag at once all succeed, and it is stored
// once.
func TestSameDigestAtOnce(t *testing.T) {
	const clients = 200
	s := berthtest.Start(t, berthtest.Options{})
	s.CreateProject(t, "same", false)
	login := s.Admin(t)
	blob := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(300_000))
	config := berthtest.NewBlob(berthtest.OCIConfig, []byte(`{"architecture":"amd64","os":"linux"}`))
	var retries atomic.Int64

	// At once: every client has its session open before the first one commits.
	var ready, done sync.WaitGroup
	ready.Add(clients)
	digests := make([]string, clients)
	for n := range clients {
		done.Go(func() {
			arrived := sync.OnceFunc(ready.Done)
			defer arrived()
			c := newClient(t, s, login, &retries)
			repo := fmt.Sprintf("same/r%d", n%5)
			post, err := c.Try(t, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
			if err := judge(post, err, 202); err != nil {
				t.Error(err)
				return
			}
			arrived()
			ready.Wait()
			put, err := c.Try(t, "PUT", berthtest.WithQuery(post.Header.Get("Location"), "digest", blob.Digest), blob.Data, "Content-Type", "application/octet-stream")
			if err := judge(put, err, 201); err != nil {
				t.Error(err)
				return
			}
			if err := c.blob(t.Context(), t, repo, config); err != nil {
				t.Error(err)
			}
			// All push the same manifest, and one of their own, under the same two tags.
			own := berthtest.Manifest(config, []berthtest.Blob{blob}, map[string]any{"annotations": map[string]string{"client": fmt.Sprint(n)}})
			digests[n] = own.Digest
			same := berthtest.Manifest(config, []berthtest.Blob{blob}, nil)
			for tag, m := range map[string]berthtest.Blob{"same": same, "fought-for": own} {
				put, err := c.Try(t, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Data, "Content-Type", m.MediaType)
				if err := judge(put, err, 201); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if t.Failed() {
		return
	}
	c := newClient(t, s, login, &retries)
	for n := range clients {
		repo := fmt.Sprintf("same/r%d", n%5)
		if _, err := c.get(t.Context(), t, repo, "manifests/"+digests[n], digests[n]); err != nil {
			t.Errorf("client %d: %v", n, err)
		}
		if n < 5 {
			if err := c.image(t.Context(), t, repo, "fought-for", ""); err != nil {
				t.Error(err)
			}
		}
	}
	var stored int
	for _, f := range files(t, filepath.Join(s.Dir, "storage", "blobs")) {
		if strings.Contains(f, strings.TrimPrefix(blob.Digest, "sha256:")) {
			stored++
		}
	}
	if all := files(t, filepath.Join(s.Dir, "storage", "blobs")); stored != 1 || len(all) != 2 {
		t.Errorf("the blob is stored %d times, among %d files: want once, and the config", stored, len(all))
	}
	if left := files(t, filepath.Join(s.Dir, "storage", "uploads")); len(left) > 0 {
		t.Errorf("%d uploads are left over", len(left))
	}
	invariant(t, connect(t, database(s)))
}
