package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/tests/berthtest"
)

// Garbage collection needs no read-only mode: it runs all the time beside pushes, mounts, pulls and deletions of the same
// layers, without the days of grace that it usually gives, and takes nothing that an acknowledged image needs. When all
// is deleted, all is gone, from the database and from the disk. BERTH_STRESS=1m makes it last longer.
func TestCollectBesideClients(t *testing.T) {
	length := 15 * time.Second
	if v, err := time.ParseDuration(os.Getenv("BERTH_STRESS")); err == nil {
		length = v
	}
	s := berthtest.Start(t, berthtest.Options{})
	s.CreateProject(t, "gc", false)
	g := &collecting{t: t, s: s}
	for range 12 {
		g.layers = append(g.layers, berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(20_000)))
	}
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var clients, others sync.WaitGroup
	for n := range 5 {
		clients.Go(func() { g.pushAndDelete(ctx, n) })
	}
	clients.Go(func() { g.mount(ctx) })
	// The collector goes on until the last client is done.
	collecting, end := context.WithCancel(t.Context())
	defer end()
	aging := connect(t, database(s))
	others.Go(func() { g.collect(collecting, aging) })
	db := connect(t, database(s))
	for ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
		invariant(t, db)
	}
	clients.Wait()
	invariant(t, db)
	t.Logf("%d images pushed, %d pushes begun again, %d mounted, %d deleted, %d blobs deleted by clients; collected: %s",
		g.pushes.Load(), g.again.Load(), g.mounts.Load(), g.deletes.Load(), g.unlinked.Load(), &g.sum)
	if g.pushes.Load() < 20 || g.deletes.Load() < 5 || g.mounts.Load() < 1 || g.sum.blobs.Load() < 5 {
		t.Error("too little happened to prove anything")
	}

	for _, repo := range []string{"r0", "r1", "r2", "mounts"} {
		s.API(t, s.Admin(t), "DELETE", "/projects/gc/repositories/"+repo, nil, 200, 404)
	}
	left := func() (rows string) {
		err := db.QueryRow(t.Context(), `SELECT concat_ws(' ', (SELECT count(*) FROM blobs), (SELECT count(*) FROM manifests),
			(SELECT count(*) FROM repo_blobs), (SELECT count(*) FROM storage_tombs), (SELECT count(*) FROM gc_blobs))`).Scan(&rows)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	for deadline := time.Now().Add(20 * time.Second); left() != "0 0 0 0 0" && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond)
	}
	end()
	others.Wait()
	if rows := left(); rows != "0 0 0 0 0" {
		t.Errorf("rows left (blobs, manifests, links, tombs, queue): %s", rows)
	}
	if f := files(t, filepath.Join(s.Dir, "storage")); len(f) > 0 {
		t.Errorf("files left: %v", f)
	}
}

type collecting struct {
	t      *testing.T
	s      *berthtest.Server
	layers []berthtest.Blob
	sum    collected

	pushes, again, mounts, deletes, unlinked, retries atomic.Int64
}

// collected adds up what `berth gc` says.
type collected struct{ runs, manifests, blobs, objects atomic.Int64 }

func (c *collected) String() string {
	return fmt.Sprintf("%d manifests, %d blobs, %d objects in %d runs", c.manifests.Load(), c.blobs.Load(), c.objects.Load(), c.runs.Load())
}

// pushAndDelete pushes images, pulls each of them at once, and deletes most.
func (g *collecting) pushAndDelete(ctx context.Context, worker int) {
	who := g.s.Admin(g.t)
	type kept struct{ repo, digest string }
	var mine []kept
	for n := 0; ctx.Err() == nil && !g.t.Failed(); n++ {
		c := newClient(g.t, g.s, who, &g.retries)
		repo, tag := fmt.Sprintf("gc/r%d", rand.IntN(3)), fmt.Sprintf("t%d", rand.IntN(8))
		config := berthtest.NewBlob(berthtest.OCIConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":"%d-%d"}`, worker, n))
		m := berthtest.Manifest(config, []berthtest.Blob{g.layers[rand.IntN(12)], g.layers[rand.IntN(12)]}, nil)
		var m2 = []berthtest.Blob{config}
		for _, l := range g.layers {
			if strings.Contains(string(m.Data), l.Digest) {
				m2 = append(m2, l)
			}
		}
		if err := g.pushImage(c, repo, tag, m, m2); err != nil {
			g.t.Errorf("push: %v", err)
			return
		}
		// Others move the tag; by its digest the image is this worker's own.
		if err := c.image(g.t.Context(), g.t, repo, m.Digest, m.Digest); err != nil {
			g.t.Errorf("an image that was pushed just now: %v", err)
			return
		}
		mine = append(mine, kept{repo, m.Digest})
		if len(mine) < 4 && rand.IntN(2) > 0 {
			continue
		}
		at := rand.IntN(len(mine))
		old := mine[at]
		mine = append(mine[:at], mine[at+1:]...)
		if err := c.image(g.t.Context(), g.t, old.repo, old.digest, old.digest); err != nil {
			g.t.Errorf("an image that was pushed a while ago: %v", err)
			return
		}
		del := c.Do(g.t, "DELETE", "/v2/"+old.repo+"/manifests/"+old.digest, nil)
		if del.StatusCode != 202 {
			g.t.Errorf("DELETE of an image: %s %s", del.Status, del.Data)
			return
		}
		g.deletes.Add(1)
		switch del := c.Do(g.t, "DELETE", "/v2/"+old.repo+"/blobs/"+g.layers[rand.IntN(12)].Digest, nil); del.StatusCode {
		case 202:
			g.unlinked.Add(1)
		case 404, 405: // not there; in use
		default:
			g.t.Errorf("DELETE of a blob: %s %s", del.Status, del.Data)
		}
	}
	for _, k := range mine {
		c := newClient(g.t, g.s, who, &g.retries)
		if err := c.image(g.t.Context(), g.t, k.repo, k.digest, k.digest); err != nil {
			g.t.Errorf("an image that was kept: %v", err)
		}
	}
}

// pushImage begins again when a layer was collected between its own push and the manifest's: without any grace that is
// right, and clients are told.
func (g *collecting) pushImage(c *client, repo, tag string, m berthtest.Blob, blobs []berthtest.Blob) error {
	ctx := g.t.Context()
	for range 200 {
		for _, b := range blobs {
			if err := c.blob(ctx, g.t, repo, b); err != nil {
				return err
			}
		}
		put, err := c.Try(g.t, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Data, "Content-Type", m.MediaType)
		if err == nil && put.Code() == "MANIFEST_BLOB_UNKNOWN" {
			g.again.Add(1)
			continue
		}
		if err := judge(put, err, 201); err != nil {
			return err
		}
		g.pushes.Add(1)
		return nil
	}
	return errors.New("200 times a blob was collected before the manifest")
}

// mount takes layers from the other repositories and makes images of them.
func (g *collecting) mount(ctx context.Context) {
	c := newClient(g.t, g.s, g.s.Admin(g.t), &g.retries)
	for ctx.Err() == nil && !g.t.Failed() {
		config := berthtest.NewBlob(berthtest.OCIConfig, []byte(`{"architecture":"arm64","os":"linux"}`))
		l, from := g.layers[rand.IntN(12)], fmt.Sprintf("gc/r%d", rand.IntN(3))
		post := c.Do(g.t, "POST", "/v2/gc/mounts/blobs/uploads/?mount="+l.Digest+"&from="+from, nil)
		if post.StatusCode != 201 {
			if post.StatusCode != 202 {
				g.t.Errorf("mount: %s %s", post.Status, post.Data)
			}
			continue
		}
		m := berthtest.Manifest(config, []berthtest.Blob{l}, nil)
		if err := c.blob(ctx, g.t, "gc/mounts", config); err != nil && ctx.Err() == nil {
			g.t.Errorf("push of a config: %v", err)
			return
		}
		put := c.Do(g.t, "PUT", "/v2/gc/mounts/manifests/m", m.Data, "Content-Type", m.MediaType)
		switch {
		case put.Code() == "MANIFEST_BLOB_UNKNOWN":
			g.again.Add(1)
			continue
		case put.StatusCode != 201:
			g.t.Errorf("manifest over a mounted layer: %s %s", put.Status, put.Data)
			return
		}
		g.mounts.Add(1)
		if err := c.image(g.t.Context(), g.t, "gc/mounts", m.Digest, m.Digest); err != nil {
			g.t.Errorf("an image over a mounted layer: %v", err)
			return
		}
	}
}

// age makes everything due at once that would wait for days: the settings know no less than an hour. Only the bytes of a
// dropped blob keep some seconds, for pulls that have begun, and for caches, which hear of it by NOTIFY.
func (g *collecting) age(ctx context.Context, db *pgx.Conn) {
	for _, sql := range []string{
		`UPDATE manifests SET deleted_at = now() - interval '30 days' WHERE id IN
				(SELECT id FROM manifests WHERE deleted_at > now() - interval '1 day' ORDER BY id FOR UPDATE SKIP LOCKED)`,
		`UPDATE deleted_tags SET deleted_at = now() - interval '30 days' WHERE id IN
				(SELECT id FROM deleted_tags WHERE deleted_at > now() - interval '1 day' ORDER BY id FOR UPDATE SKIP LOCKED)`,
		`UPDATE gc_manifests SET review_after = now() WHERE id IN
				(SELECT id FROM gc_manifests WHERE review_after > now() ORDER BY id FOR UPDATE SKIP LOCKED)`,
		`UPDATE gc_blobs SET review_after = now() WHERE digest IN
				(SELECT digest FROM gc_blobs WHERE review_after > now() ORDER BY digest FOR UPDATE SKIP LOCKED)`,
		`UPDATE storage_tombs SET delete_after = now() WHERE storage_key IN
				(SELECT storage_key FROM storage_tombs WHERE delete_after BETWEEN now() AND now() + interval '59 minutes 57 seconds'
				ORDER BY storage_key FOR UPDATE SKIP LOCKED)`,
	} {
		if _, err := db.Exec(ctx, sql); err != nil && ctx.Err() == nil {
			g.t.Errorf("%s: %v", sql, err)
		}
	}
}

// collect runs `berth gc` all the time, each time on what was made due before: a run goes on for as long as it finds
// something.
func (g *collecting) collect(ctx context.Context, db *pgx.Conn) {
	for ctx.Err() == nil {
		g.age(ctx, db)
		said := berthtest.Run(g.t, "gc", "--data", g.s.Dir)
		var m, b, o int64
		if _, err := fmt.Sscanf(said.Stdout, "%d manifests purged, %d blobs dropped, %d objects removed", &m, &b, &o); err != nil || said.Code != 0 {
			g.t.Errorf("berth gc: %v %+v", err, said)
			return
		}
		g.sum.runs.Add(1)
		g.sum.manifests.Add(m)
		g.sum.blobs.Add(b)
		g.sum.objects.Add(o)
	}
}
