package artifact_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/reference"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bench is a store on a database of its own, with projects p and q.
type bench struct {
	*artifact.Store
	pool *pgxpool.Pool
	ctx  context.Context
	t    testing.TB
}

func setup(t testing.TB, o artifact.Options) *bench {
	t.Helper()
	pool := dbtest.New(t)
	_, err := pool.Exec(t.Context(), `
		WITH u AS (INSERT INTO users (username) VALUES ('admin') RETURNING id)
		INSERT INTO projects (name, owner_id) SELECT x, u.id FROM u, unnest(ARRAY['p', 'q', 'p-x']) AS n(x)`)
	if err != nil {
		t.Fatal(err)
	}
	if o.Outbox, err = event.NewOutbox(pool); err != nil {
		t.Fatal(err)
	}
	o.Pool = pool
	s, err := artifact.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{s, pool, t.Context(), t}
}

func (b *bench) blob(repo, content string) reference.Digest {
	b.t.Helper()
	d := reference.Of(reference.SHA256, []byte(content))
	if _, err := b.CommitBlob(b.ctx, repo, artifact.Blob{Digest: d, Size: int64(len(content)), Key: "blobs/" + rand.Text()}, true); err != nil {
		b.t.Fatal(err)
	}
	return d
}

type desc map[string]any

func ref(mediaType string, d reference.Digest, size int) desc {
	return desc{"mediaType": mediaType, "digest": d.String(), "size": size}
}

func image(subject *reference.Digest, blobs ...reference.Digest) []byte {
	m := desc{"schemaVersion": 2, "mediaType": artifact.TypeOCIManifest, "config": ref("application/vnd.oci.image.config.v1+json", blobs[0], 1)}
	layers := []desc{}
	for _, d := range blobs[1:] {
		layers = append(layers, ref("application/vnd.oci.image.layer.v1.tar", d, 1))
	}
	m["layers"] = layers
	if subject != nil {
		m["subject"] = ref(artifact.TypeOCIManifest, *subject, 1)
	}
	b, _ := json.Marshal(m)
	return b
}

func index(children ...reference.Digest) []byte {
	list := []desc{}
	for i, d := range children {
		e := ref(artifact.TypeOCIManifest, d, 1)
		e["platform"] = desc{"os": "linux", "architecture": fmt.Sprintf("a%d", i)}
		list = append(list, e)
	}
	b, _ := json.Marshal(desc{"schemaVersion": 2, "mediaType": artifact.TypeOCIIndex, "manifests": list})
	return b
}

func (b *bench) push(repo string, payload []byte, tags ...string) (reference.Digest, error) {
	d := reference.Of(reference.SHA256, payload)
	_, err := b.PutManifest(b.ctx, artifact.Push{Repo: repo, Digest: d, Tags: tags, Payload: payload})
	return d, err
}

func (b *bench) mustPush(repo string, payload []byte, tags ...string) reference.Digest {
	b.t.Helper()
	d, err := b.push(repo, payload, tags...)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func wantFault(t testing.TB, err error, k fault.Kind, is error) {
	t.Helper()
	if !fault.Is(err, k) || is != nil && !errors.Is(err, is) {
		t.Errorf("got %v, want a fault of kind %q (%v)", err, k, is)
	}
}

// A push is visible at once, by tag and by digest, and its event is in the
// same transaction.
func TestPushAndPull(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	config, layer := b.blob("p/app", "config"), b.blob("p/app", "layer")
	d := b.mustPush("p/app", image(nil, config, layer), "v1", "v2")
	m, err := b.Tagged(b.ctx, "p/app", "v2")
	if err != nil || m.Digest != d || len(m.Payload) == 0 || m.MediaType != artifact.TypeOCIManifest {
		t.Fatalf("got %v, %v", m, err)
	}
	if _, err := b.Manifest(b.ctx, "p/app", d); err != nil {
		t.Error(err)
	}
	_, err = b.Tagged(b.ctx, "p/app", "v3")
	wantFault(t, err, fault.NotFound, artifact.ErrManifestUnknown)
	_, err = b.Manifest(b.ctx, "q/app", d)
	wantFault(t, err, fault.NotFound, artifact.ErrManifestUnknown)
	var events int
	if err := b.pool.QueryRow(b.ctx, `SELECT count(*) FROM river_job WHERE kind = 'event' AND args->>'digest' = $1 AND args->>'operation' = 'create'`, d.String()).Scan(&events); err != nil || events != 1 {
		t.Errorf("%d events, want 1 (%v)", events, err)
	}
}

// A manifest whose blobs are elsewhere, gone or damaged is refused whole, and
// the error names what is missing.
func TestPushWithMissingBlobs(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	config, elsewhere := b.blob("p/app", "config"), b.blob("q/other", "secret")
	payload := image(nil, config, elsewhere)
	_, err := b.push("p/app", payload, "v1")
	wantFault(t, err, fault.NotFound, artifact.ErrBlobUnknown)
	var missing *artifact.MissingError
	if !errors.As(err, &missing) || len(missing.Digests) != 1 || missing.Digests[0] != elsewhere {
		t.Errorf("missing %v, want just %s", missing, elsewhere)
	}
	_, err = b.Tagged(b.ctx, "p/app", "v1")
	wantFault(t, err, fault.NotFound, nil)

	_, err = b.push("nosuch/app", index(), "v1")
	wantFault(t, err, fault.NotFound, artifact.ErrNameUnknown)
}

// Blobs are stored once and linked: a mount needs the source to have it.
func TestMountAndLinks(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	d := b.blob("p/app", "layer")
	if _, err := b.Blob(b.ctx, "q/app", d); !fault.Is(err, fault.NotFound) {
		t.Errorf("a blob of another repository is visible: %v", err)
	}
	if done, err := b.Mount(b.ctx, "q/app", "p/other", d); done || err != nil {
		t.Errorf("mounted from a repository without it: %v, %v", done, err)
	}
	if done, err := b.Mount(b.ctx, "q/app", "p/app", d); !done || err != nil {
		t.Errorf("not mounted: %v, %v", done, err)
	}
	if _, err := b.Blob(b.ctx, "q/app", d); err != nil {
		t.Error(err)
	}
	if used, err := b.CommitBlob(b.ctx, "p-x/app", artifact.Blob{Digest: d, Size: 5, Key: "blobs/second"}, true); used || err != nil {
		t.Errorf("a second copy is used: %v, %v", used, err)
	}
}

// A damaged blob counts as absent, and a push of it heals it for everyone.
func TestDamageAndHealing(t *testing.T) {
	t.Parallel()
	gone := map[string]bool{}
	b := setup(t, artifact.Options{Present: func(_ context.Context, key string, _ int64) bool { return !gone[key] }})
	d := b.blob("p/app", "layer")
	first, err := b.BlobForPush(b.ctx, "p/app", d)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.MarkDamaged(b.ctx, d, first.Key); err != nil {
		t.Fatal(err)
	}
	_, err = b.Blob(b.ctx, "p/app", d)
	wantFault(t, err, fault.NotFound, artifact.ErrBlobUnknown)
	if used, err := b.CommitBlob(b.ctx, "q/app", artifact.Blob{Digest: d, Size: 5, Key: "blobs/new"}, true); !used || err != nil {
		t.Fatalf("the new bytes are not used: %v, %v", used, err)
	}
	healed, err := b.Blob(b.ctx, "p/app", d)
	if err != nil || healed.Key != "blobs/new" {
		t.Errorf("got %v, %v", healed, err)
	}
	// Gone without anybody having noticed: the next push notices.
	gone["blobs/new"] = true
	if used, err := b.CommitBlob(b.ctx, "q/app", artifact.Blob{Digest: d, Size: 5, Key: "blobs/newer"}, true); !used || err != nil {
		t.Errorf("the bytes are not replaced: %v, %v", used, err)
	}
}

// Lists are in byte order, page by page, with names that do not exist as cursor.
func TestLists(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	config := b.blob("p/app", "c")
	var tags []string
	for i := range 25 {
		tags = append(tags, fmt.Sprintf("v%d", i), fmt.Sprintf("V%d", i), fmt.Sprintf("_%d", i))
	}
	b.mustPush("p/app", image(nil, config), tags...)
	slices.Sort(tags)
	var got []string
	last := ""
	for {
		page, more, err := b.Tags(b.ctx, "p/app", last, 10)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if !more {
			break
		}
		last = page[len(page)-1]
	}
	if !slices.Equal(got, tags) {
		t.Errorf("got %v, want %v", got, tags)
	}
	if page, _, err := b.Tags(b.ctx, "p/app", "v24zzz", 10); err != nil || page[0] != "v3" {
		t.Errorf("got %v, %v, want what follows a cursor that does not exist", page, err)
	}
	if page, more, err := b.Tags(b.ctx, "p/app", "", 0); err != nil || more || len(page) != 0 {
		t.Errorf("n=0: got %v %v %v", page, more, err)
	}
	_, _, err := b.Tags(b.ctx, "p/none", "", 10)
	wantFault(t, err, fault.NotFound, artifact.ErrNameUnknown)

	for _, repo := range []string{"p/z", "p-x/a", "q/a"} {
		b.blob(repo, "c")
		b.mustPush(repo, image(nil, config), "1")
	}
	b.blob("q/only-a-blob", "c")
	names, _, err := b.Catalog(b.ctx, "", 100)
	if want := []string{"p-x/a", "p/app", "p/z", "q/a"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, %v, want %v", names, err, want)
	}
}

// Referrers are listed before and after their subject exists, filtered by type.
func TestReferrers(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	config := b.blob("p/app", "c")
	subject := image(nil, config)
	sd := reference.Of(reference.SHA256, subject)
	sig := desc{"schemaVersion": 2, "mediaType": artifact.TypeOCIManifest, "artifactType": "application/x.signature",
		"config": ref("application/vnd.oci.empty.v1+json", config, 1), "layers": []desc{}, "subject": ref(artifact.TypeOCIManifest, sd, 1),
		"annotations": desc{"by": "me"}}
	payload, _ := json.Marshal(sig)
	b.mustPush("p/app", payload)
	b.mustPush("p/app", image(&sd, config))
	b.mustPush("p/app", subject, "v1")
	all, next, err := b.Referrers(b.ctx, "p/app", sd, "", 0, 100)
	if err != nil || len(all) != 2 || next != 0 {
		t.Fatalf("got %v, %v, %v", all, next, err)
	}
	if all[0].ArtifactType != "application/x.signature" || all[0].Annotations["by"] != "me" || all[1].ArtifactType != "application/vnd.oci.image.config.v1+json" {
		t.Errorf("got %+v", all)
	}
	some, _, err := b.Referrers(b.ctx, "p/app", sd, "application/x.signature", 0, 100)
	if err != nil || len(some) != 1 {
		t.Errorf("got %v, %v", some, err)
	}
	one, next, err := b.Referrers(b.ctx, "p/app", sd, "", 0, 1)
	if err != nil || len(one) != 1 || next == 0 {
		t.Fatalf("got %v, %v, %v", one, next, err)
	}
	two, next, err := b.Referrers(b.ctx, "p/app", sd, "", next, 1)
	if err != nil || len(two) != 1 || next != 0 || two[0].Digest == one[0].Digest {
		t.Errorf("got %v, %v, %v", two, next, err)
	}
}

// Deleting an index takes its untagged children along; restoring brings all back.
func TestTrashAndRestore(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	c1, c2 := b.blob("p/app", "1"), b.blob("p/app", "2")
	m1, m2 := b.mustPush("p/app", image(nil, c1)), b.mustPush("p/app", image(nil, c2), "kept")
	ix := b.mustPush("p/app", index(m1, m2), "v1", "latest")
	wantFault(t, b.DeleteManifest(b.ctx, "p/app", m1), fault.Conflict, nil)
	if err := b.DeleteManifest(event.With(b.ctx, event.Origin{User: "eve"}), "p/app", ix); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []reference.Digest{ix, m1} {
		if _, err := b.Manifest(b.ctx, "p/app", gone); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if _, err := b.Tagged(b.ctx, "p/app", "kept"); err != nil {
		t.Errorf("a tagged child is gone: %v", err)
	}
	var project int64
	b.pool.QueryRow(b.ctx, `SELECT id FROM projects WHERE name = 'p'`).Scan(&project)
	bin, err := b.Trash(b.ctx, project, 10)
	if err != nil || len(bin) != 2 {
		t.Fatalf("got %+v, %v", bin, err)
	}
	entry := bin[slices.IndexFunc(bin, func(d artifact.Deleted) bool { return d.Digest == ix.String() })]
	if !slices.Equal(entry.Tags, []string{"latest", "v1"}) || entry.DeletedBy != "eve" {
		t.Errorf("got %+v", entry)
	}
	b.mustPush("p/app", image(nil, c1, c2), "latest") // taken meanwhile
	if err := b.Restore(b.ctx, project, artifact.DeletedArtifact, entry.ID); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Tagged(b.ctx, "p/app", "v1"); err != nil || m.Digest != ix {
		t.Errorf("got %v, %v", m.Digest, err)
	}
	if m, err := b.Tagged(b.ctx, "p/app", "latest"); err != nil || m.Digest == ix {
		t.Errorf("a newer tag was overwritten: %v, %v", m.Digest, err)
	}
	if _, err := b.Manifest(b.ctx, "p/app", m1); err != nil {
		t.Errorf("the child did not come back: %v", err)
	}
	wantFault(t, b.Restore(b.ctx, project, artifact.DeletedArtifact, entry.ID), fault.NotFound, nil)
}

// A deleted tag leaves its artifact, and can be restored.
func TestDeleteTag(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	c := b.blob("p/app", "1")
	d := b.mustPush("p/app", image(nil, c), "v1")
	if err := b.DeleteTag(b.ctx, "p/app", "v1"); err != nil {
		t.Fatal(err)
	}
	wantFault(t, b.DeleteTag(b.ctx, "p/app", "v1"), fault.NotFound, artifact.ErrManifestUnknown)
	if _, err := b.Manifest(b.ctx, "p/app", d); err != nil {
		t.Error(err)
	}
	wantFault(t, b.DeleteBlob(b.ctx, "p/app", c), fault.Conflict, nil)
	var project int64
	b.pool.QueryRow(b.ctx, `SELECT id FROM projects WHERE name = 'p'`).Scan(&project)
	bin, err := b.Trash(b.ctx, project, 10)
	if err != nil || len(bin) != 1 || bin[0].Kind != artifact.DeletedTag {
		t.Fatalf("got %+v, %v", bin, err)
	}
	if err := b.Restore(b.ctx, project, bin[0].Kind, bin[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Tagged(b.ctx, "p/app", "v1"); err != nil {
		t.Error(err)
	}
}

// What the recycle bin no longer keeps is collected: rows, then bytes.
func TestCollect(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{Times: artifact.Times{Grace: time.Millisecond, TombGrace: time.Millisecond, Trash: time.Millisecond}})
	shared, own := b.blob("p/app", "shared"), b.blob("p/app", "own")
	b.blob("q/app", "shared")
	b.mustPush("q/app", image(nil, shared), "stays")
	d := b.mustPush("p/app", image(nil, shared, own), "v1")
	if err := b.DeleteManifest(b.ctx, "p/app", d); err != nil {
		t.Fatal(err)
	}
	var removed []string
	for range 3 {
		time.Sleep(5 * time.Millisecond)
		if _, err := b.Collect(b.ctx, 100, func(_ context.Context, key string) error { removed = append(removed, key); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(removed) != 1 {
		t.Errorf("%d objects removed, want the one that nothing needs", len(removed))
	}
	if _, err := b.BlobForPush(b.ctx, "q/app", shared); err != nil {
		t.Errorf("a blob in use was collected: %v", err)
	}
	_, err := b.BlobForPush(b.ctx, "p/app", own)
	wantFault(t, err, fault.NotFound, nil)
	var left int
	if err := b.pool.QueryRow(b.ctx, `SELECT (SELECT count(*) FROM gc_manifests) + (SELECT count(*) FROM storage_tombs)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d queue rows are left (%v)", left, err)
	}
}

// A HEAD by a pusher keeps an unreferenced blob.
func TestHeadKeepsBlob(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{Times: artifact.Times{Grace: 2 * time.Hour, TombGrace: time.Hour, Trash: time.Hour}})
	d := b.blob("p/app", "layer")
	if _, err := b.pool.Exec(b.ctx, `UPDATE gc_blobs SET review_after = now() + interval '1 minute'`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.BlobForPush(b.ctx, "p/app", d); err != nil {
		t.Fatal(err)
	}
	var kept bool
	if err := b.pool.QueryRow(b.ctx, `SELECT review_after > now() + interval '1 hour' FROM gc_blobs`).Scan(&kept); err != nil || !kept {
		t.Errorf("the review was not put off (%v)", err)
	}
}

// Pulls are counted together, and the audit trail hears of them.
func TestPulls(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	c := b.blob("p/app", "1")
	b.mustPush("p/app", image(nil, c), "v1")
	m, err := b.Tagged(b.ctx, "p/app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	p := artifact.NewPulls(b.Store)
	for range 5 {
		p.Add(m.ID, m.RepoID, "p/app", "v1", m.Digest.String(), event.Origin{User: "eve"})
	}
	p.Add(m.ID, m.RepoID, "p/app", "", m.Digest.String(), event.Origin{User: "adam"})
	if err := p.Flush(b.ctx); err != nil {
		t.Fatal(err)
	}
	var count, events int
	var pulled bool
	err = b.pool.QueryRow(b.ctx, `SELECT r.pull_count, t.pulled_at IS NOT NULL AND m.pulled_at IS NOT NULL,
		(SELECT count(*) FROM river_job WHERE args->>'operation' = 'pull' AND (args->>'project_id')::bigint = r.project_id)
		FROM repositories r JOIN tags t ON t.repo_id = r.id JOIN manifests m ON m.id = t.manifest_id`).Scan(&count, &pulled, &events)
	if err != nil || count != 6 || !pulled || events != 2 {
		t.Errorf("count %d, pulled %v, events %d, %v; want 6, true, 2", count, pulled, events, err)
	}
}

// A copy brings children and signatures along.
func TestCopy(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	c1, c2 := b.blob("p/app", "1"), b.blob("p/app", "2")
	m1, m2 := b.mustPush("p/app", image(nil, c1)), b.mustPush("p/app", image(nil, c2))
	ix := b.mustPush("p/app", index(m1, m2), "v1")
	sig := b.mustPush("p/app", image(&ix, c2))
	if err := b.Copy(b.ctx, "p/app", ix, "q/app", []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Tagged(b.ctx, "q/app", "b"); err != nil || m.Digest != ix {
		t.Errorf("got %v, %v", m.Digest, err)
	}
	for _, d := range []reference.Digest{m1, m2, sig} {
		if _, err := b.Manifest(b.ctx, "q/app", d); err != nil {
			t.Errorf("%s did not come along: %v", d, err)
		}
	}
	wantFault(t, b.Copy(b.ctx, "p/app", ix, "nosuch/app", nil), fault.NotFound, nil)
}

// Whoever gives the recycle bin more time gives it to what is in it as well,
// and it is emptied all the same when that is over.
func TestTrashTimeMadeLonger(t *testing.T) {
	b := setup(t, artifact.Options{Times: artifact.Times{Grace: time.Hour, TombGrace: time.Hour, Trash: time.Nanosecond}})
	d := b.mustPush("p/r", image(nil, b.blob("p/r", "config")), "t")
	if err := b.DeleteManifest(b.ctx, "p/r", d); err != nil {
		t.Fatal(err)
	}
	collect := func(trash time.Duration, want int) {
		t.Helper()
		s, err := artifact.New(artifact.Options{Pool: b.pool, Outbox: b.Outbox, Times: artifact.Times{Grace: time.Hour, TombGrace: time.Hour, Trash: trash}})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := s.Collect(b.ctx, 10, nil); err != nil || c.Manifests != want {
			t.Errorf("with %v in the bin: %d manifests purged, want %d (%v)", trash, c.Manifests, want, err)
		}
	}
	time.Sleep(time.Millisecond)
	collect(time.Second, 0)
	time.Sleep(time.Second)
	collect(time.Second, 1)
}

// Text that PostgreSQL cannot store is the manifest's fault, not the server's.
func TestTextThatCannotBeStored(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	c := b.blob("p/app", "1")
	m := b.mustPush("p/app", image(nil, c))
	child := `{"mediaType":"a/b","size":1,"digest":"` + m.String() + `",`
	for name, payload := range map[string]string{
		"NUL in an annotation":     `{"schemaVersion":2,"manifests":[],"annotations":{"x":"a\u0000b"}}`,
		"NUL in a platform":        `{"schemaVersion":2,"manifests":[` + child + `"platform":{"os":"a\u0000b"}}]}`,
		"half a surrogate pair":    `{"schemaVersion":2,"manifests":[` + child + `"annotations":{"x":"\ud800"}}]}`,
		"bytes that are not UTF-8": `{"schemaVersion":2,"manifests":[` + child + "\"annotations\":{\"x\":\"\xff\"}}]}",
		"NUL in the artifact type": `{"schemaVersion":2,"manifests":[],"artifactType":"a/b\u0000"}`,
		"nesting":                  `{"schemaVersion":2,"manifests":[` + child + `"annotations":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}]}`,
	} {
		_, err := b.push("p/app", []byte(payload), "v1")
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Tagged(b.ctx, "p/app", "v1"); err != nil && !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// blobs uploads n new blobs.
func (b *bench) blobs(repo string, n int) []reference.Digest {
	b.t.Helper()
	list := make([]reference.Digest, n)
	for i := range list {
		list[i] = b.blob(repo, rand.Text())
	}
	return list
}
