package faults

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// Two Berths on one PostgreSQL and one S3 bucket are one registry: what is pushed to or deleted from one is so on the
// other, an upload begun on one goes on on the other, and when one is killed in the middle of a push the client goes on
// with the other.
func TestTwoNodes(t *testing.T) {
	cluster := startCluster(t)
	endpoint := startS3(t)
	dir := publicDir(t)
	launch := func(name string, redirect bool) *berthtest.Server {
		settings := filepath.Join(dir, name+"-s3.yaml")
		write(t, settings, fmt.Sprintf("endpoint: %s\nregion: us-east-1\naccess_key: berth\nsecret_key: sesame12\nforce_path_style: true\nredirect: %v\n", endpoint, redirect))
		return berthtest.Start(t, berthtest.Options{Dir: filepath.Join(dir, name),
			Args: []string{"--database", cluster.URL(), "--storage", "s3://berth/some/where?settings=" + settings}})
	}
	a := launch("a", false)
	// The second node gets the first one's keys, as the manual says.
	if err := os.CopyFS(filepath.Join(dir, "b", "keys"), os.DirFS(filepath.Join(a.Dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	b := launch("b", true)
	who := a.Admin(t)
	a.CreateProject(t, "two", false)
	onA, onB := a.Registry(t, who), b.Registry(t, who)
	var retries atomic.Int64

	t.Run("push here, pull there", func(t *testing.T) {
		for n := range 10 {
			from, to := a, b
			if n%2 == 1 {
				from, to = b, a
			}
			i := berthtest.NewImage(1, 50_000)
			from.Registry(t, who).PushImage(t, "two/app", "latest", i)
			got := to.Registry(t, who).Do(t, "GET", "/v2/two/app/manifests/latest", nil)
			if berthtest.Digest(got.Data) != i.Manifest.Digest {
				t.Fatalf("push %d: the other node has another image at once after it: %s %s", n, got.Status, got.Data)
			}
		}
	})

	t.Run("redirect or not", func(t *testing.T) {
		layer := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(7<<20))
		onA.PushBlob(t, "two/app", layer)
		if got := onA.Do(t, "GET", "/v2/two/app/blobs/"+layer.Digest, nil); got.StatusCode != 200 || berthtest.Digest(got.Data) != layer.Digest {
			t.Errorf("without redirect: %s, %d bytes", got.Status, len(got.Data))
		}
		got := onB.Do(t, "GET", "/v2/two/app/blobs/"+layer.Digest, nil)
		if got.StatusCode != http.StatusTemporaryRedirect {
			t.Fatalf("with redirect: %s", got.Status)
		}
		direct, err := http.Get(got.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		defer direct.Body.Close()
		if data, err := io.ReadAll(direct.Body); err != nil || berthtest.Digest(data) != layer.Digest {
			t.Errorf("the address of the redirect gave %s, %d bytes, %v", direct.Status, len(data), err)
		}
	})

	t.Run("an upload changes nodes", func(t *testing.T) {
		for _, sizes := range [][2]int{{12 << 20, 9 << 20}, {1 << 20, 3 << 20}, {6 << 20, 100}} {
			blob := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(sizes[0]+sizes[1]+1000))
			first, second := sizes[0], sizes[0]+sizes[1]
			chunk := func(r *berthtest.Registry, at string, from, to int) string {
				t.Helper()
				patch := r.Do(t, "PATCH", at, blob.Data[from:to], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", from, to-1))
				if patch.StatusCode != 202 {
					t.Fatalf("PATCH of %d-%d of %d: %s %s", from, to-1, len(blob.Data), patch.Status, patch.Data)
				}
				return patch.Header.Get("Location")
			}
			at := chunk(onA, start(t, onA, "two/app"), 0, first)
			// What does not fill a part of the bucket's yet is in the first node's memory: the client goes on from where
			// the other node says that the upload stands.
			status := onB.Do(t, "GET", at, nil)
			var last int
			if _, err := fmt.Sscanf(status.Header.Get("Range"), "0-%d", &last); err != nil || status.StatusCode != 204 || last >= first {
				t.Fatalf("the upload's state on the other node: %s %q", status.Status, status.Header.Get("Range"))
			}
			if last > 0 {
				last++
			}
			t.Logf("of %d bytes that the first node has acknowledged the other one has %d", first, last)
			at = chunk(onB, at, last, second)
			put := onB.Do(t, "PUT", berthtest.WithQuery(at, "digest", blob.Digest), blob.Data[second:], "Content-Type", "application/octet-stream")
			if put.StatusCode != 201 {
				t.Fatalf("PUT on the other node: %s %s", put.Status, put.Data)
			}
			if got := onA.Do(t, "GET", "/v2/two/app/blobs/"+blob.Digest, nil); berthtest.Digest(got.Data) != blob.Digest {
				t.Errorf("a blob that came through two nodes: %s, %d bytes", got.Status, len(got.Data))
			}
		}
	})

	t.Run("delete here, gone there", func(t *testing.T) {
		i := berthtest.NewImage(1, 50_000)
		onA.PushImage(t, "two/gone", "1", i)
		if err := newClient(t, a, who, &retries).image(t.Context(), t, "two/gone", "1", i.Manifest.Digest); err != nil {
			t.Fatal(err)
		}
		for _, what := range []string{"manifests/1", "blobs/" + i.Config.Digest} { // whatever B caches, it does so now
			onB.Do(t, "GET", "/v2/two/gone/"+what, nil)
		}
		if del := onA.Do(t, "DELETE", "/v2/two/gone/manifests/"+i.Manifest.Digest, nil); del.StatusCode != 202 {
			t.Fatalf("DELETE: %s %s", del.Status, del.Data)
		}
		for _, ref := range []string{"1", i.Manifest.Digest} {
			if got := onB.Do(t, "GET", "/v2/two/gone/manifests/"+ref, nil); got.StatusCode != 404 {
				t.Errorf("a deleted image on the other node: %s", got.Status)
			}
		}
		if del := onA.Do(t, "DELETE", "/v2/two/gone/blobs/"+i.Config.Digest, nil); del.StatusCode != 202 {
			t.Fatalf("DELETE of a blob: %s %s", del.Status, del.Data)
		}
		// Blobs' links are cached; NOTIFY clears them.
		waitFor(t, time.Second, "the deleted blob is gone on the other node", func() bool {
			return onB.Do(t, "GET", "/v2/two/gone/blobs/"+i.Config.Digest, nil).StatusCode == 404
		})
	})

	t.Run("a node dies in the middle of a push", func(t *testing.T) {
		blob := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(20<<20))
		at := start(t, onA, "two/app")
		half, more := io.Pipe()
		go func() {
			more.Write(blob.Data[:10<<20])
			time.Sleep(300 * time.Millisecond)
			a.Kill()
			more.CloseWithError(io.ErrUnexpectedEOF)
		}()
		req, err := http.NewRequestWithContext(t.Context(), "PATCH", a.URL+at, half)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", basic(who))
		if resp, err := a.Client(t).Do(req); err == nil {
			resp.Body.Close()
			t.Errorf("a PATCH to a node that was killed: %s", resp.Status)
		}
		// The upload is known on the other node, with what the bucket has of it, or it is not: then it begins again.
		state := onB.Do(t, "GET", at, nil)
		t.Logf("what the other node has of the upload: %s %q", state.Status, state.Header.Get("Range"))
		c := newClient(t, b, who, &retries)
		if err := c.blob(t.Context(), t, "two/app", blob); err != nil {
			t.Fatalf("push on the node that is left: %v", err)
		}
		config := berthtest.NewBlob(berthtest.OCIConfig, []byte("{}"))
		m := berthtest.Manifest(config, []berthtest.Blob{blob}, nil)
		if err := c.blob(t.Context(), t, "two/app", config); err != nil {
			t.Fatal(err)
		}
		if err := c.manifest(t.Context(), t, "two/app", "survivor", m); err != nil {
			t.Fatal(err)
		}
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := newClient(t, a, who, &retries).image(t.Context(), t, "two/app", "survivor", m.Digest); err != nil {
			t.Errorf("pull from the node that came back: %v", err)
		}
	})
	invariant(t, connect(t, cluster.URL()))
	if said := berthtest.Run(t, "verify", "--data", a.Dir, "--database", cluster.URL(), "--storage", "s3://berth/some/where?settings="+filepath.Join(dir, "a-s3.yaml")); said.Code != 0 {
		t.Errorf("berth verify: %+v", said)
	}
}

// startS3 runs an S3 server with a bucket named berth.
func startS3(t *testing.T) (endpoint string) {
	t.Helper()
	program, dir := berthtest.Tool(t, "versitygw"), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "berth"), 0o750); err != nil {
		t.Fatal(err)
	}
	addr, err := berthtest.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c := osexec.Command(program, "--port", addr, "--access", "berth", "--secret", "sesame12", "--quiet", "--keep-alive", "posix", dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	waitFor(t, 10*time.Second, "versitygw listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return "http://" + addr
}
