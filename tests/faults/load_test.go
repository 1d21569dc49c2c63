package faults

import (
	"context"
	"encoding/hex"
	"encoding/json"
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

// A load is pushers and pullers at work, and the book of what they were told.
type load struct {
	t       *testing.T
	server  *berthtest.Server
	who     berthtest.Login
	project string
	shared  []berthtest.Blob
	stop    context.CancelFunc
	work    sync.WaitGroup

	pushes, pulls, calls, retries atomic.Int64

	mu    sync.Mutex
	blobs map[[2]string]bool   // {repository, digest} that were acknowledged
	tags  map[[2]string]string // {repository, tag}: digest that was acknowledged
	list  [][2]string          // keys of tags
}

// newLoad makes the project that the load works in.
func newLoad(t *testing.T, s *berthtest.Server) *load {
	t.Helper()
	l := &load{t: t, server: s, project: "p-" + berthtest.Name(), blobs: map[[2]string]bool{}, tags: map[[2]string]string{}}
	s.CreateProject(t, l.project, false)
	l.who = s.CreateRobot(t, l.project, "load", "push", "pull", "delete")
	for range 4 {
		l.shared = append(l.shared, berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(300_000)))
	}
	return l
}

// start sets clients to work until end is called.
func (l *load) start(pushers, pullers int) {
	var ctx context.Context
	ctx, l.stop = context.WithCancel(l.t.Context())
	for n := range pushers {
		l.work.Go(func() { l.push(ctx, n) })
	}
	for range pullers {
		l.work.Go(func() { l.pull(ctx) })
	}
	l.work.Go(func() { l.call(ctx) })
}

// end lets the clients finish what they are at.
func (l *load) end() {
	l.stop()
	l.work.Wait()
	l.t.Logf("%d images pushed, %d pulled, %d API calls, %d things tried again", l.pushes.Load(), l.pulls.Load(), l.calls.Load(), l.retries.Load())
	if l.pushes.Load() < 10 || l.pulls.Load() < 10 || l.calls.Load() < 5 {
		l.t.Error("too little happened to prove anything")
	}
}

func (l *load) push(ctx context.Context, worker int) {
	for n := 0; ctx.Err() == nil && !l.t.Failed(); n++ {
		repo, tag := fmt.Sprintf("%s/r%d", l.project, worker%3), fmt.Sprintf("w%d-%d", worker, n)
		if err := l.pushOne(ctx, repo, tag); err != nil {
			l.t.Errorf("push of %s:%s: %v", repo, tag, err)
			return
		}
	}
}

// pushOne is one `docker push`: once begun it is brought to its end.
func (l *load) pushOne(ctx context.Context, repo, tag string) error {
	c, i := newClient(l.t, l.server, l.who, &l.retries), newImage(l.shared)
	ctx = context.WithoutCancel(ctx)
	for _, b := range i.Blobs() {
		if err := c.blob(ctx, l.t, repo, b); err != nil {
			return err
		}
		l.mu.Lock()
		l.blobs[[2]string{repo, b.Digest}] = true
		l.mu.Unlock()
	}
	if err := c.manifest(ctx, l.t, repo, tag, i.Manifest); err != nil {
		return err
	}
	l.pushes.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	at := [2]string{repo, tag}
	l.tags[at] = i.Manifest.Digest
	l.list = append(l.list, at)
	return nil
}

func (l *load) pull(ctx context.Context) {
	for ctx.Err() == nil && !l.t.Failed() {
		l.mu.Lock()
		var at [2]string
		var digest string
		if len(l.list) > 0 {
			at = l.list[rand.IntN(len(l.list))]
			digest = l.tags[at]
		}
		l.mu.Unlock()
		if digest == "" {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		c := newClient(l.t, l.server, l.who, &l.retries)
		if err := c.image(context.WithoutCancel(ctx), l.t, at[0], at[1], digest); err != nil {
			l.t.Errorf("pull of %s:%s: %v", at[0], at[1], err)
			return
		}
		l.pulls.Add(1)
	}
}

// call uses the REST API, as a browser does that somebody left open.
func (l *load) call(ctx context.Context) {
	admin := l.server.Admin(l.t)
	for ctx.Err() == nil && !l.t.Failed() {
		c := newClient(l.t, l.server, admin, &l.retries)
		err := c.retry(context.WithoutCancel(ctx), func() error {
			got, err := c.Try(l.t, "GET", "/api/v2.0/projects/"+l.project+"/repositories", nil, "Authorization", basic(admin))
			return judge(got, err, 200)
		})
		if err != nil {
			l.t.Errorf("REST API: %v", err)
			return
		}
		l.calls.Add(1)
		time.Sleep(100 * time.Millisecond)
	}
}

// image pulls a manifest with all that it refers to, and checks every digest.
func (c *client) image(ctx context.Context, t testing.TB, repo, ref, digest string) error {
	data, err := c.get(ctx, t, repo, "manifests/"+ref, digest)
	if err != nil {
		return err
	}
	var m struct {
		Config berthtest.Descriptor
		Layers []berthtest.Descriptor
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	for _, d := range append(m.Layers, m.Config) {
		if _, err := c.get(ctx, t, repo, "blobs/"+d.Digest, d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// check holds the registry to the book: all that was acknowledged is there and whole, and whatever else can be seen is
// whole as well. Settings are the flags by which `berth verify` finds this Berth.
func (l *load) check(database string, settings ...string) {
	l.t.Helper()
	c := newClient(l.t, l.server, l.who, &l.retries)
	ctx := l.t.Context()
	for at := range l.blobs {
		if _, err := c.get(ctx, l.t, at[0], "blobs/"+at[1], at[1]); err != nil {
			l.t.Errorf("an acknowledged blob is not there: %v", err)
		}
	}
	seen := map[[2]string]bool{}
	for at, digest := range l.tags {
		if _, err := c.get(ctx, l.t, at[0], "manifests/"+at[1], digest); err != nil {
			l.t.Errorf("an acknowledged tag is not there: %v", err)
		}
	}
	for _, repo := range []string{l.project + "/r0", l.project + "/r1", l.project + "/r2"} {
		data, err := c.get(ctx, l.t, repo, "tags/list", "")
		var list struct{ Tags []string }
		if err == nil {
			err = json.Unmarshal(data, &list)
		}
		if err != nil {
			l.t.Errorf("tags of %s: %v", repo, err)
		}
		for _, tag := range list.Tags {
			seen[[2]string{repo, tag}] = true
			if err := c.image(ctx, l.t, repo, tag, l.tags[[2]string{repo, tag}]); err != nil {
				l.t.Errorf("%s:%s is visible and broken: %v", repo, tag, err)
			}
		}
	}
	for at := range l.tags {
		if !seen[at] {
			l.t.Errorf("%s:%s is not in the list of tags", at[0], at[1])
		}
	}
	invariant(l.t, connect(l.t, database))
	if said := berthtest.Run(l.t, append([]string{"verify"}, settings...)...); said.Code != 0 {
		l.t.Errorf("berth verify: %+v", said)
	}
}

// violations counts live manifests that refer to a blob which their repository does not have (the invariant of the
// package artifact, see its stress test).
const violations = `SELECT count(*) FROM manifests m JOIN manifest_blobs mb ON mb.manifest_id = m.id
	WHERE m.deleted_at IS NULL AND NOT EXISTS (SELECT FROM blobs b JOIN repo_blobs rb USING (digest)
		WHERE b.digest = mb.digest AND rb.repo_id = m.repo_id AND rb.deleted_at IS NULL)`

func invariant(t testing.TB, db *pgx.Conn) {
	t.Helper()
	var n int
	if err := db.QueryRow(t.Context(), violations).Scan(&n); err != nil || n > 0 {
		t.Errorf("%d references of manifests to blobs that are not there (%v)", n, err)
	}
}

// database is how to connect to the private database of `berth up`.
func database(s *berthtest.Server) string {
	return "host=" + filepath.Join(s.Dir, "run", "postgres") + " user=berth dbname=berth"
}

// connect opens a connection that ends with the test.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	return c
}

// exec runs SQL that must succeed and gives how many rows it touched.
func exec(t testing.TB, db *pgx.Conn, sql string, args ...any) int64 {
	t.Helper()
	tag, err := db.Exec(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected()
}

// storageKey is where the database says that a blob's bytes are.
func storageKey(t testing.TB, db *pgx.Conn, digest string) string {
	t.Helper()
	raw, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	var key string
	if err := db.QueryRow(t.Context(), `SELECT storage_key FROM blobs WHERE digest = $1`, append([]byte{1}, raw...)).Scan(&key); err != nil {
		t.Fatalf("blob %s: %v", digest, err)
	}
	return key
}

// files lists the files below a directory, with their names from there on.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
