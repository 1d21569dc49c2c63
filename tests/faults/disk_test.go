package faults

import (
	"fmt"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// Whoever pushes to a full disk is told so in plain words; nothing half-pushed is to be seen or takes up room, pulls go
// on, and once there is room again so do pushes.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs takes root")
	}
	disk := filepath.Join(publicDir(t), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := osexec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := osexec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	s := berthtest.Start(t, berthtest.Options{Args: []string{"--storage", disk}})
	s.CreateProject(t, "full", false)
	r := s.Registry(t, s.Admin(t))
	db := connect(t, database(s))

	kept := berthtest.NewImage(2, 1<<20)
	r.PushImage(t, "full/app", "kept", kept)
	ballast := berthtest.NewImage(1, 12<<20)
	r.PushImage(t, "full/app", "ballast", ballast)
	before := free(t, disk)

	// Larger than what is left, by every way that a client may choose.
	big := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(16<<20))
	small := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(6<<20)) // below what is reserved in one piece
	for name, push := range map[string]func() (*berthtest.Reply, error){
		"PATCH of known length": func() (*berthtest.Reply, error) {
			return r.Try(t, "PATCH", start(t, r, "full/app"), big.Data, "Content-Type", "application/octet-stream")
		},
		"PUT": func() (*berthtest.Reply, error) {
			return r.Try(t, "PUT", berthtest.WithQuery(start(t, r, "full/app"), "digest", big.Digest), big.Data, "Content-Type", "application/octet-stream")
		},
		"POST": func() (*berthtest.Reply, error) {
			return r.Try(t, "POST", "/v2/full/app/blobs/uploads/?digest="+big.Digest, big.Data, "Content-Type", "application/octet-stream")
		},
		"chunks": func() (reply *berthtest.Reply, err error) {
			at := start(t, r, "full/app")
			for range 3 {
				reply, err = r.Try(t, "PATCH", at, small.Data, "Content-Type", "application/octet-stream")
				if err != nil || reply.StatusCode != http.StatusAccepted {
					break
				}
				at = reply.Header.Get("Location")
			}
			return reply, err
		},
	} {
		began := time.Now()
		reply, err := push()
		t.Logf("%s: answered after %v", name, time.Since(began).Round(time.Millisecond))
		switch {
		case err != nil:
			t.Errorf("%s: no answer: %v", name, err)
		case reply.StatusCode != http.StatusInsufficientStorage || !strings.Contains(string(reply.Data), "full"):
			t.Errorf("%s: %s %s, want 507 that speaks of a full store", name, reply.Status, reply.Data)
		}
		if head := r.Do(t, "HEAD", "/v2/full/app/blobs/"+big.Digest, nil); head.StatusCode != http.StatusNotFound {
			t.Errorf("%s: HEAD of the blob: %s", name, head.Status)
		}
		if now := free(t, disk); now < before {
			t.Errorf("%s: %d bytes were not given back", name, before-now)
		}
		if left := files(t, filepath.Join(disk, "uploads")); len(left) > 0 {
			t.Errorf("%s: left in uploads: %v", name, left)
		}
	}
	if !strings.Contains(s.Log(), "level=ERROR") {
		t.Error("the log has no error that an operator would see")
	}

	// Pulls, manifests and deletions need no room in the store.
	c := newClient(t, s, s.Admin(t), new(atomic.Int64))
	if err := c.image(t.Context(), t, "full/app", "kept", kept.Manifest.Digest); err != nil {
		t.Errorf("pull from a full store: %v", err)
	}
	r.PushManifest(t, "full/app", "again", kept.Manifest)
	if del := r.Do(t, "DELETE", "/v2/full/app/manifests/"+ballast.Manifest.Digest, nil); del.StatusCode != http.StatusAccepted {
		t.Fatalf("DELETE: %s %s", del.Status, del.Data)
	}

	// A week later the recycle bin is emptied, a day later its blobs are dropped, an hour later they are removed.
	exec(t, db, `UPDATE manifests SET deleted_at = now() - interval '30 days' WHERE deleted_at IS NOT NULL`)
	for range 3 {
		exec(t, db, `UPDATE gc_manifests SET review_after = now()`)
		exec(t, db, `UPDATE gc_blobs SET review_after = now()`)
		exec(t, db, `UPDATE storage_tombs SET delete_after = now()`)
		if said := berthtest.Run(t, "gc", "--data", s.Dir, "--storage", disk); said.Code != 0 {
			t.Fatalf("berth gc: %+v", said)
		}
	}
	if now := free(t, disk); now < before+10<<20 {
		t.Errorf("%d bytes are free after the collection, %d were before", now, before)
	}
	r.PushBlob(t, "full/app", big)
	if got := r.Do(t, "GET", "/v2/full/app/blobs/"+big.Digest, nil); berthtest.Digest(got.Data) != big.Digest {
		t.Errorf("the blob that did not fit before: %s, %d bytes", got.Status, len(got.Data))
	}
	invariant(t, db)
}

func free(t testing.TB, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// start opens an upload session.
func start(t testing.TB, r *berthtest.Registry, repo string) string {
	t.Helper()
	post := r.Do(t, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	if post.StatusCode != http.StatusAccepted {
		t.Fatalf("POST uploads of %s: %s %s", repo, post.Status, post.Data)
	}
	return post.Header.Get("Location")
}

// When files of the store rot or vanish, pulls fail loudly, `berth verify` names what is damaged and who has it, and
// pushing the image again heals it.
func TestDamagedBlobs(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	s.CreateProject(t, "rot", false)
	r := s.Registry(t, s.Admin(t))
	db := connect(t, database(s))
	images := map[string]*berthtest.Image{}
	for _, repo := range []string{"changed", "removed", "cut", "sound"} {
		images[repo] = berthtest.NewImage(1, 100_000)
		r.PushImage(t, "rot/"+repo, "1", images[repo])
		r.PushImage(t, "rot/"+repo+"-too", "1", images[repo])
	}
	file := func(repo string) string {
		return filepath.Join(s.Dir, "storage", storageKey(t, db, images[repo].Layers[0].Digest))
	}
	layer := func(repo string) string { return "/v2/rot/" + repo + "/blobs/" + images[repo].Layers[0].Digest }
	r.Do(t, "GET", layer("removed"), nil) // whatever is cached by a pull is so now

	data, err := os.ReadFile(file("changed"))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file("changed"), data, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file("removed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file("cut"), 50_000); err != nil {
		t.Fatal(err)
	}

	// A changed byte: the server cannot know yet, the client does.
	got := r.Do(t, "GET", layer("changed"), nil)
	if got.StatusCode == 200 && berthtest.Digest(got.Data) == images["changed"].Layers[0].Digest {
		t.Error("the changed blob came whole: the test did not hit its file")
	}
	// No bytes, or too few: the server says so.
	for _, repo := range []string{"removed", "cut"} {
		got := r.Do(t, "GET", layer(repo), nil)
		if got.StatusCode != 404 || got.Code() != "BLOB_UNKNOWN" || !strings.Contains(string(got.Data), "damaged") {
			t.Errorf("pull of the %s blob: %s %s, want 404 BLOB_UNKNOWN that says why", repo, got.Status, got.Data)
		}
		if !strings.Contains(s.Log(), images[repo].Layers[0].Digest) || !strings.Contains(s.Log(), "level=ERROR") {
			t.Errorf("the log does not name the %s blob as an error", repo)
		}
	}

	said := berthtest.Run(t, "verify", "--data", s.Dir)
	if said.Code != 1 {
		t.Errorf("berth verify: exit code %d, want 1", said.Code)
	}
	for _, repo := range []string{"changed", "removed", "cut"} {
		want := fmt.Sprintf("%s  in rot/%s, rot/%s-too ", images[repo].Layers[0].Digest, repo, repo)
		if !strings.Contains(said.Stdout, want) {
			t.Errorf("berth verify does not say %q:\n%s%s", want, said.Stdout, said.Stderr)
		}
	}
	if strings.Contains(said.Stdout, images["sound"].Layers[0].Digest) {
		t.Errorf("berth verify takes a sound blob for damaged:\n%s", said.Stdout)
	}

	// From now on clients are told to push them again, which heals all who have them.
	c := newClient(t, s, s.Admin(t), new(atomic.Int64))
	for _, repo := range []string{"changed", "removed", "cut"} {
		for _, method := range []string{"HEAD", "GET"} {
			if got := r.Do(t, method, layer(repo), nil); got.StatusCode != 404 {
				t.Errorf("%s of the %s blob after berth verify: %s, want 404", method, repo, got.Status)
			}
		}
		if err := c.blob(t.Context(), t, "rot/"+repo, images[repo].Layers[0]); err != nil {
			t.Errorf("push of the %s blob: %v", repo, err)
		}
		for _, name := range []string{"rot/" + repo, "rot/" + repo + "-too"} {
			if err := c.image(t.Context(), t, name, "1", images[repo].Manifest.Digest); err != nil {
				t.Errorf("after the %s blob was pushed again: %v", repo, err)
			}
		}
	}
	if said := berthtest.Run(t, "verify", "--data", s.Dir); said.Code != 0 {
		t.Errorf("berth verify after healing: %+v", said)
	}
}
