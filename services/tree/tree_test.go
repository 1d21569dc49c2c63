package tree_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/reference"
	"berth/services/tree"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// old writes a storage directory as the CNCF registry lays it out.
type old struct {
	t   *testing.T
	dir string
}

func (o old) write(path, content string) {
	o.t.Helper()
	file := filepath.Join(o.dir, "docker/registry/v2", path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

func (o old) blob(content string) reference.Digest {
	d := reference.Of(reference.SHA256, []byte(content))
	o.write("blobs/sha256/"+d.Hex()[:2]+"/"+d.Hex()+"/data", content)
	return d
}

func (o old) manifest(repo, payload string, tags ...string) reference.Digest {
	d := o.blob(payload)
	o.write("repositories/"+repo+"/_manifests/revisions/sha256/"+d.Hex()+"/link", d.String())
	for _, tag := range tags {
		o.write("repositories/"+repo+"/_manifests/tags/"+tag+"/current/link", d.String())
	}
	return d
}

func image(blobs ...string) string {
	type desc map[string]any
	var list []desc
	for _, b := range blobs {
		d := reference.Of(reference.SHA256, []byte(b))
		list = append(list, desc{"mediaType": "application/octet-stream", "digest": d.String(), "size": len(b)})
	}
	b, _ := json.Marshal(desc{"schemaVersion": 2, "mediaType": artifact.TypeOCIManifest, "config": list[0], "layers": list[1:]})
	return string(b)
}

type bench struct {
	ctx       context.Context
	artifacts *artifact.Store
	blobs     *blob.Store
	options   tree.Options
}

func setup(t *testing.T) *bench {
	pool := dbtest.New(t)
	b := &bench{ctx: t.Context()}
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	if b.artifacts, err = artifact.New(artifact.Options{Pool: pool, Outbox: outbox}); err != nil {
		t.Fatal(err)
	}
	if b.blobs, err = blob.OpenLocal(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	b.options = tree.Options{
		Artifacts: b.artifacts, Blobs: b.blobs, Project: "library", Report: func(tree.Progress) {},
		EnsureProject: func(ctx context.Context, name string) error {
			_, err := pool.Exec(ctx, `INSERT INTO projects (name) VALUES ($1) ON CONFLICT DO NOTHING`, name)
			return err
		},
	}
	return b
}

// A tree is taken over where it lies, twice if need be, and what is broken in it
// is named and left out.
func TestImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := old{t, t.TempDir()}
	for _, c := range []string{"config", "layer", "long layer"} {
		o.blob(c)
	}
	o.manifest("team/app", image("config", "layer"), "v1", "latest")
	child := o.manifest("team/deep/er", image("config", "long layer"))
	o.manifest("team/deep/er", `{"schemaVersion":2,"mediaType":"`+artifact.TypeOCIIndex+`","manifests":[{"mediaType":"`+artifact.TypeOCIManifest+
		`","size":1,"digest":"`+child.String()+`"}]}`, "multi")
	o.manifest("alpine", image("config"), "3")
	o.manifest("team/broken", image("config", "never stored"), "v1")
	o.write("repositories/team/broken/_manifests/tags/empty/current/link", "")
	rotten := o.manifest("team/broken", image("layer"), "rotten")
	o.write("blobs/sha256/"+rotten.Hex()[:2]+"/"+rotten.Hex()+"/data", "{}")

	tr, err := tree.Open(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tr.Import(b.ctx, b.options)
	if err != nil {
		t.Fatal(err)
	}
	if got.Manifests != 4 || got.Tags != 4 || got.Repositories != 4 {
		t.Errorf("got %+v", got)
	}
	var problems []string
	for _, p := range got.Problems {
		problems = append(problems, p.Repository+" "+p.What+": "+p.Reason)
	}
	text := strings.Join(problems, "\n")
	for _, want := range []string{"is missing", "link file is empty", "content hashes to"} {
		if len(problems) != 3 || !strings.Contains(text, want) {
			t.Errorf("%q is not among the 3 problems:\n%s", want, text)
		}
	}
	m, err := b.artifacts.Tagged(b.ctx, "team/app", "latest")
	if err != nil {
		t.Fatal(err)
	}
	parsed, _ := artifact.Parse("", m.Payload)
	row, err := b.artifacts.Blob(b.ctx, "team/app", parsed.Blobs[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.blobs.Open(b.ctx, row.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if content, _ := io.ReadAll(f); string(content) != "config" {
		t.Errorf("read %q", content)
	}
	if _, err := b.artifacts.Tagged(b.ctx, "library/alpine", "3"); err != nil {
		t.Error(err)
	}

	o.manifest("team/app", image("config", "layer", "long layer"), "v2")
	again, err := tr.Import(b.ctx, b.options)
	if err != nil || again.Manifests != 1 || again.Present != 4 {
		t.Errorf("again: %+v, %v", again.Progress, err)
	}
}

// Re-hashing finds what sizes do not tell.
func TestImportVerifies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := old{t, t.TempDir()}
	o.blob("config")
	d := o.blob("layer")
	o.manifest("team/app", image("config", "layer"), "v1")
	o.write("blobs/sha256/"+d.Hex()[:2]+"/"+d.Hex()+"/data", "lager")
	tr, err := tree.Open(filepath.Join(o.dir, "docker"))
	if err != nil {
		t.Fatal(err)
	}
	b.options.Verify = true
	got, err := tr.Import(b.ctx, b.options)
	if err != nil || got.Manifests != 0 || len(got.Problems) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOpenRefusesOtherDirectories(t *testing.T) {
	t.Parallel()
	if _, err := tree.Open(t.TempDir()); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}
