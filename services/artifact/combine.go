package artifact

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/reference"
)

// tagLookups reads tags for many pulls at once. While as many queries are under
// way as help, further lookups wait and then share one: a hundred nodes that
// pull one tag cost one index probe, and a lookup on an idle server waits for
// nothing. A lookup never shares a query that was sent before it came, so it
// sees all that had been committed by then.
type tagLookups struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	waiting map[tagName]*tagLookup
	queries int // under way
}

type tagName struct {
	repo int64
	tag  string
}

type tagLookup struct {
	done     chan struct{}
	manifest Manifest // without RepoID and Payload
	err      error    // pgx.ErrNoRows if there is no such tag
}

const (
	// atOnce is how many queries are sent beside one another: enough to keep
	// the database's processes busy on a small machine.
	atOnce = 3
	// lookupTime bounds a query that several clients wait for.
	lookupTime = 15 * time.Second
)

// look finds what a tag names.
func (t *tagLookups) look(ctx context.Context, name tagName) (Manifest, error) {
	t.mu.Lock()
	l := t.waiting[name]
	if l == nil {
		l = &tagLookup{done: make(chan struct{})}
		t.waiting[name] = l
	}
	if t.queries < atOnce {
		t.queries++
		batch := t.take()
		t.mu.Unlock()
		t.run(ctx, batch)
	} else {
		t.mu.Unlock()
	}
	select {
	case <-l.done:
		return l.manifest, l.err
	case <-ctx.Done():
		return Manifest{}, ctx.Err()
	}
}

// take empties the waiting room. The caller holds mu.
func (t *tagLookups) take() map[tagName]*tagLookup {
	batch := t.waiting
	t.waiting = make(map[tagName]*tagLookup, len(batch))
	return batch
}

// run answers a batch, and sends another goroutine for those who came meanwhile.
func (t *tagLookups) run(ctx context.Context, batch map[tagName]*tagLookup) {
	// Others may wait for this answer when its first client is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTime)
	defer cancel()
	if len(batch) == 1 {
		for name, l := range batch {
			l.manifest, l.err = t.one(ctx, name)
		}
	} else if err := t.many(ctx, batch); err != nil {
		for _, l := range batch {
			l.err = err
		}
	}
	for _, l := range batch {
		close(l.done)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.queries--
		return
	}
	next := t.take()
	go t.run(ctx, next)
}

func (t *tagLookups) one(ctx context.Context, name tagName) (m Manifest, err error) {
	var raw []byte
	err = t.pool.QueryRow(ctx, `SELECT m.id, m.digest, m.media_type FROM tags t JOIN manifests m ON m.id = t.manifest_id
		WHERE t.repo_id = $1 AND t.name = $2 AND m.deleted_at IS NULL`, name.repo, name.tag).Scan(&m.ID, &raw, &m.MediaType)
	if err == nil {
		m.Digest, err = reference.FromBytes(raw)
	}
	return m, err
}

func (t *tagLookups) many(ctx context.Context, batch map[tagName]*tagLookup) error {
	repos, tags := make([]int64, 0, len(batch)), make([]string, 0, len(batch))
	for name, l := range batch {
		repos, tags = append(repos, name.repo), append(tags, name.tag)
		l.err = pgx.ErrNoRows // until a row says otherwise
	}
	rows, err := t.pool.Query(ctx, `SELECT t.repo_id, t.name, m.id, m.digest, m.media_type
		FROM unnest($1::bigint[], $2::text[]) AS x(repo, tag) JOIN tags t ON t.repo_id = x.repo AND t.name = x.tag
		JOIN manifests m ON m.id = t.manifest_id WHERE m.deleted_at IS NULL`, repos, tags)
	if err != nil {
		return err
	}
	var name tagName
	var m Manifest
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&name.repo, &name.tag, &m.ID, &raw, &m.MediaType}, func() (err error) {
		l := batch[name]
		l.manifest = m
		l.manifest.Digest, l.err = reference.FromBytes(raw)
		return nil
	})
	return err
}
