package artifact

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"berth/services/database"
	"berth/services/event"
)

// Pulls gathers pulls in memory and writes them down together: times, counts
// and audit events cost a pull one map update, never a write. What was gathered
// since the last flush is lost with the process, which R5 of the durability
// rules in docs/architecture.md allows.
type Pulls struct {
	store *Store
	mu    sync.Mutex
	seen  map[pullKey]*pulled
}

type pullKey struct {
	manifest, repo int64
	tag, user      string
}

type pulled struct {
	count        int64
	last         time.Time
	name, digest string
	by           event.Origin // of the last pull
}

// maxPulls bounds what is kept between flushes; beyond it pulls are not counted.
const maxPulls = 50_000

// NewPulls makes a gatherer for a store.
func NewPulls(s *Store) *Pulls { return &Pulls{store: s, seen: map[pullKey]*pulled{}} }

// Add notes one pull of a manifest, by tag ("" = by digest).
func (p *Pulls) Add(manifest, repo int64, name, tag, digest string, by event.Origin) {
	key := pullKey{manifest, repo, tag, by.User}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.seen[key]
	if e == nil {
		if len(p.seen) >= maxPulls {
			return
		}
		e = &pulled{name: name, digest: digest}
		p.seen[key] = e
	}
	e.count++
	e.last, e.by = time.Now(), by
}

// Run flushes every interval, and once more when ctx ends.
func (p *Pulls) Run(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return p.Flush(last)
		case <-tick.C:
			if err := p.Flush(ctx); err != nil {
				p.store.Log.Warn("cannot record pulls; they are tried again", "err", err)
			}
		}
	}
}

// Flush writes down what was gathered. On an error it is gathered again.
func (p *Pulls) Flush(ctx context.Context) error {
	p.mu.Lock()
	seen := p.seen
	p.seen = make(map[pullKey]*pulled, len(seen))
	p.mu.Unlock()
	if len(seen) == 0 {
		return nil
	}
	err := p.store.recordPulls(ctx, seen)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		for key, old := range seen {
			if e := p.seen[key]; e != nil {
				e.count += old.count
			} else {
				p.seen[key] = old
			}
		}
	}
	return err
}

func (s *Store) recordPulls(ctx context.Context, seen map[pullKey]*pulled) error {
	var manifests, repos, counts []int64
	var tags []string
	var times []time.Time
	events := make([]event.Event, 0, len(seen))
	for key, e := range seen {
		manifests, repos, counts = append(manifests, key.manifest), append(repos, key.repo), append(counts, e.count)
		tags, times = append(tags, key.tag), append(times, e.last)
		at := e.name + "@" + e.digest
		resource := at
		if key.tag != "" {
			resource = e.name + ":" + key.tag
		}
		events = append(events, event.Event{
			ID: uuid.New(), Time: e.last.UTC().Truncate(time.Microsecond), Operation: "pull", ResourceType: "artifact", Success: true,
			Resource: resource, Description: "pull artifact: " + at, User: key.user, Source: e.by.Source, RequestID: e.by.RequestID, TokenRequest: e.by.TokenRequest,
			RepositoryID: key.repo, Repository: e.name, Digest: e.digest, Tag: key.tag,
		})
	}
	return database.Fault(pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		// Rows are locked in the order of their ids, so two nodes' flushes cannot deadlock.
		batch.Queue(`SELECT id, project_id FROM repositories WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE`, repos).
			Query(func(rows pgx.Rows) error { return fillProjects(rows, events) })
		batch.Queue(`SELECT FROM manifests WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE`, manifests)
		batch.Queue(`UPDATE repositories r SET pull_count = pull_count + x.n
			FROM (SELECT id, sum(n) AS n FROM unnest($1::bigint[], $2::bigint[]) AS u(id, n) GROUP BY id) x WHERE r.id = x.id`, repos, counts)
		batch.Queue(`UPDATE manifests m SET pulled_at = GREATEST(m.pulled_at, x.at)
			FROM (SELECT id, max(at) AS at FROM unnest($1::bigint[], $2::timestamptz[]) AS u(id, at) GROUP BY id) x WHERE m.id = x.id`, manifests, times)
		batch.Queue(`UPDATE tags t SET pulled_at = GREATEST(t.pulled_at, x.at)
			FROM (SELECT repo, tag, max(at) AS at FROM unnest($1::bigint[], $2::text[], $3::timestamptz[]) AS u(repo, tag, at)
				WHERE tag <> '' GROUP BY repo, tag) x WHERE t.repo_id = x.repo AND t.name = x.tag`, repos, tags, times)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		return s.Outbox.Add(ctx, tx, events...)
	}))
}

// fillProjects gives events the projects of their repositories.
func fillProjects(rows pgx.Rows, events []event.Event) error {
	projects := map[int64]int64{}
	var repo, project int64
	_, err := pgx.ForEachRow(rows, []any{&repo, &project}, func() error {
		projects[repo] = project
		return nil
	})
	for i := range events {
		events[i].ProjectID = projects[events[i].RepositoryID]
	}
	return err
}
