package artifact_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/event"
	"berth/services/immutability"
	"berth/services/reference"
	"berth/services/selector"
)

func (b *bench) projectID(name string) (id int64) {
	b.t.Helper()
	if err := b.pool.QueryRow(b.ctx, `SELECT id FROM projects WHERE name = $1`, name).Scan(&id); err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *bench) sql(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.ctx, sql, args...); err != nil {
		b.t.Fatal(err)
	}
}

// freeze makes tags of all of a project's repositories immutable.
func (b *bench) freeze(project, tags string) (id int64, rules *immutability.Store) {
	b.t.Helper()
	outbox, err := event.NewOutbox(b.pool)
	if err != nil {
		b.t.Fatal(err)
	}
	rules = immutability.New(b.pool, outbox)
	id, err = rules.Create(b.ctx, b.projectID(project), immutability.Rule{
		Tag:        selector.Selector{Kind: selector.Kind, Decoration: selector.Matches, Pattern: tags},
		Repository: selector.Selector{Kind: selector.Kind, Decoration: selector.RepoExcludes, Pattern: "tmp/**"},
	}, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return id, rules
}

func immutable(t *testing.T, what string, err error) {
	t.Helper()
	if !fault.Is(err, fault.Precondition) || !errors.Is(err, artifact.ErrImmutable) {
		t.Errorf("%s: got %v", what, err)
	}
}

// An immutable tag can be made, and pushed again as it is; nothing moves it or
// takes it away.
func TestImmutableTags(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	id, rules := b.freeze("p", "v*")
	old := image(nil, b.blob("p/app", "one"))
	d := b.mustPush("p/app", old, "v1", "latest")
	other := image(nil, b.blob("p/app", "two"))
	_, err := b.push("p/app", other, "v1")
	immutable(t, "another image", err)
	_, err = b.push("p/app", other, "new", "v1")
	immutable(t, "another image with two tags", err)
	if _, err := b.Tagged(b.ctx, "p/app", "new"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a refused push has set a tag: %v", err)
	}
	b.mustPush("p/app", old, "v1")
	b.mustPush("p/app", other, "latest", "v2")
	immutable(t, "delete the tag", b.DeleteTag(b.ctx, "p/app", "v1"))
	immutable(t, "delete the artifact", b.DeleteManifest(b.ctx, "p/app", d))
	immutable(t, "delete the repository", b.DeleteRepository(b.ctx, "p/app"))
	immutable(t, "copy onto it", b.Copy(b.ctx, "p/app", reference.Of(reference.SHA256, other), "p/app", []string{"v1"}))
	if err := b.DeleteTag(b.ctx, "p/app", "latest"); err != nil {
		t.Error(err)
	}
	b.blob("p/tmp/x", "one") // the rule leaves this repository out
	b.mustPush("p/tmp/x", old, "v1")
	if err := b.DeleteTag(b.ctx, "p/tmp/x", "v1"); err != nil {
		t.Error(err)
	}

	b.sql(`UPDATE projects SET metadata = '{"immutable_strict": "true"}' WHERE name = 'p'`)
	_, err = b.push("p/app", old, "v1")
	immutable(t, "the same image, strictly", err)
	if err := rules.Disable(b.ctx, b.projectID("p"), id, true); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteManifest(b.ctx, "p/app", d); err != nil {
		t.Error(err)
	}
	// A rule that came later does not keep a tag in the bin, but what has its name now.
	b.mustPush("p/app", other, "v1")
	if err := rules.Disable(b.ctx, b.projectID("p"), id, false); err != nil {
		t.Fatal(err)
	}
	bin, err := b.Trash(b.ctx, b.projectID("p"), 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range bin {
		if e.Kind == artifact.DeletedArtifact {
			if err := b.Restore(b.ctx, b.projectID("p"), e.Kind, e.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if m, err := b.Tagged(b.ctx, "p/app", "v1"); err != nil || m.Digest != reference.Of(reference.SHA256, other) {
		t.Errorf("a restore has moved an immutable tag: %v, %v", m.Digest, err)
	}
}

// Of many first pushes of one immutable tag, one wins.
func TestImmutableRace(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	b.freeze("p", "v*")
	config := b.blob("p/app", "config")
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		payload := image(nil, config, b.blob("p/app", fmt.Sprint("layer", i)))
		wg.Go(func() {
			switch _, err := b.push("p/app", payload, "v1"); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, artifact.ErrImmutable):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d pushes won", won.Load())
	}
}

// Nothing is written to a read-only project, and everything is read.
func TestReadOnlyProject(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	payload := image(nil, b.blob("p/app", "one"))
	d := b.mustPush("p/app", payload, "v1")
	gone := b.mustPush("p/app", image(nil, b.blob("p/app", "two")), "v2")
	if err := b.DeleteManifest(b.ctx, "p/app", gone); err != nil {
		t.Fatal(err)
	}
	bin, err := b.Trash(b.ctx, b.projectID("p"), 1)
	if err != nil {
		t.Fatal(err)
	}
	b.sql(`UPDATE projects SET read_only = true WHERE name = 'p'`)
	refused := func(what string, err error) {
		t.Helper()
		if !fault.Is(err, fault.Forbidden) || !errors.Is(err, artifact.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = b.push("p/app", payload, "v1")
	refused("push", err)
	_, err = b.CommitBlob(b.ctx, "p/fresh", artifact.Blob{Digest: d, Size: 1, Key: "k"}, true)
	refused("blob", err)
	_, err = b.Mount(b.ctx, "p/fresh", "p/app", reference.Of(reference.SHA256, []byte("one")))
	refused("mount", err)
	refused("tag", b.CreateTag(b.ctx, "p/app", d, "v3"))
	refused("delete tag", b.DeleteTag(b.ctx, "p/app", "v1"))
	refused("delete", b.DeleteManifest(b.ctx, "p/app", d))
	refused("delete repository", b.DeleteRepository(b.ctx, "p/app"))
	refused("delete blob", b.DeleteBlob(b.ctx, "p/app", d))
	refused("copy", b.Copy(b.ctx, "p/app", d, "p/other", nil))
	refused("restore", b.Restore(b.ctx, b.projectID("p"), bin[0].Kind, bin[0].ID))
	if _, err := b.Tagged(b.ctx, "p/app", "v1"); err != nil {
		t.Error(err)
	}
	if err := b.Copy(b.ctx, "p/app", d, "q/app", nil); err != nil {
		t.Error(err)
	}
}
