// Package artifact is the registry's truth: which repository holds which
// blobs, manifests and tags, what refers to what, and what may be thrown away.
//
// Bytes of blobs live in services/blob under storage keys; manifests live here,
// in PostgreSQL. Every change is one transaction, and its event is in it.
//
// # Locks
//
// Garbage collection runs beside pushes. What keeps it from deleting what a push
// is about to refer to is one order of locks, everywhere:
//
//	repository → gc_blobs row → blobs (sorted by digest) → manifests → tags → usage
//
// A repository is held FOR KEY SHARE by whatever adds to it, and FOR UPDATE by
// whatever takes something away, which so keeps pushes to it off. (A repository
// lock that comes later, by a foreign key, is one that the transaction has.)
// A push that refers to a blob holds it FOR KEY SHARE until it commits (by
// SELECT in PutManifest, by the foreign key of repo_blobs in CommitBlob and
// Mount); the collector takes it FOR UPDATE, and only then looks, in a statement
// of its own and so with a fresh snapshot, whether anything refers to it.
// All transactions are READ COMMITTED; they depend on seeing what others have
// committed while they waited for a lock.
package artifact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/maypok86/otter/v2"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/metric"
	"berth/services/reference"
)

// MaxManifest is the largest manifest that is accepted, in bytes. It is what
// the CNCF registry and zot accept; the OCI specification asks for at least
// 4 MiB ("Pushing Manifests").
const MaxManifest = 4 << 20

// Times are how long the store waits before it forgets things.
type Times struct {
	Grace     time.Duration // an unreferenced blob stays this long after its push, mount or HEAD
	TombGrace time.Duration // a dropped blob's bytes stay this long, for pulls that have begun and for stale caches
	Trash     time.Duration // deleted tags and artifacts stay restorable this long
}

// DefaultTimes are a day for pushes, an hour for pulls, a week for people.
var DefaultTimes = Times{Grace: 24 * time.Hour, TombGrace: time.Hour, Trash: 7 * 24 * time.Hour}

// Options configure a Store.
type Options struct {
	Pool   *pgxpool.Pool
	Outbox *event.Outbox
	Times  Times
	Log    *slog.Logger
	// SparseIndexes accepts an index whose children are not (all) there.
	SparseIndexes bool
	// Present reports whether a blob's bytes are there in full; a push of a
	// digest whose bytes are gone replaces them. Nil means they always are.
	Present func(ctx context.Context, key string, size int64) bool
	// Quotas reports whether projects' quotas are enforced. Nil means that they are.
	Quotas func(ctx context.Context) bool
}

// Store answers and changes. It is safe for concurrent use.
type Store struct {
	Options
	payloads *otter.Cache[reference.Digest, []byte] // manifests by digest: immutable, hence never stale
	links    *otter.Cache[link, Blob]               // pulls' link checks; short-lived, dropped on deletion
	repos    *otter.Cache[string, repo]             // by name; a wrong id fails a foreign key and is looked up again
	totals   *otter.Cache[string, int]              // how long long lists are; see infoPage
	tags     *tagLookups
	hits     struct{ payloads, links, repos metric.Hits }
	work     work
}

// payloadCache is how many bytes of manifests are kept in memory, linkLife how
// long a pull trusts a link that it has seen. The bytes of a blob outlive its
// link by Times.TombGrace, so a stale link is never a broken pull.
const (
	payloadCache = 24 << 20
	linkLife     = 30 * time.Second
)

type link struct {
	repo   string
	digest reference.Digest
}

// New makes a Store.
func New(o Options) (*Store, error) {
	if o.Times == (Times{}) {
		o.Times = DefaultTimes
	}
	if o.Present == nil {
		o.Present = func(context.Context, string, int64) bool { return true }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{Options: o, tags: &tagLookups{pool: o.Pool, waiting: map[tagName]*tagLookup{}}}
	var err error
	if s.payloads, err = otter.New(&otter.Options[reference.Digest, []byte]{
		MaximumWeight: payloadCache,
		Weigher:       func(_ reference.Digest, b []byte) uint32 { return uint32(len(b) + 200) },
	}); err != nil {
		return nil, err
	}
	if s.links, err = otter.New(&otter.Options[link, Blob]{
		MaximumSize:      20_000,
		ExpiryCalculator: otter.ExpiryWriting[link, Blob](linkLife),
	}); err != nil {
		return nil, err
	}
	if s.totals, err = otter.New(&otter.Options[string, int]{
		MaximumSize:      1000,
		ExpiryCalculator: otter.ExpiryWriting[string, int](totalLife),
	}); err != nil {
		return nil, err
	}
	s.repos, err = otter.New(&otter.Options[string, repo]{
		MaximumSize:      20_000,
		ExpiryCalculator: otter.ExpiryWriting[string, repo](linkLife),
	})
	return s, err
}

// Caches are the hits and misses of what is remembered, by what it is.
func (s *Store) Caches() map[string]*metric.Hits {
	return map[string]*metric.Hits{"manifests": &s.hits.payloads, "links": &s.hits.links, "repositories": &s.hits.repos}
}

// Blob is where a blob's bytes are.
type Blob struct {
	Digest reference.Digest
	Size   int64
	Key    string
}

// Manifest is a stored manifest.
type Manifest struct {
	ID        int64
	RepoID    int64
	Digest    reference.Digest
	MediaType string
	Payload   []byte
}

// Descriptor is an OCI content descriptor, as a referrers list has it.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       reference.Digest  `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// ErrBlobUnknown, ErrManifestUnknown and ErrNameUnknown tell which of the OCI
// specification's codes a NotFound fault stands for.
var (
	ErrBlobUnknown     = errors.New("blob unknown")
	ErrManifestUnknown = errors.New("manifest unknown")
	ErrNameUnknown     = errors.New("repository unknown")
	ErrInUse           = errors.New("in use") // of a Conflict: something else needs it
)

func blobUnknown(repo string, d reference.Digest) error {
	return fault.Wrap(fault.NotFound, ErrBlobUnknown, "blob %s not found in %s", d, repo)
}

func nameUnknown(repo string) error {
	return fault.Wrap(fault.NotFound, ErrNameUnknown, "repository %s not found", repo)
}

// repo is what is remembered of a repository.
type repo struct {
	id int64
	// bound says that its project has a limit or is read-only, so that blobs are
	// checked when they come. It may be out of date for as long as the cache, or
	// until its change is heard of; a manifest is always checked.
	bound bool
}

// findRepo finds a repository; fault NotFound if there is none.
func (s *Store) findRepo(ctx context.Context, name string) (repo, error) {
	if r, ok := s.repos.GetIfPresent(name); s.hits.repos.Note(ok) {
		return r, nil
	}
	var r repo
	err := s.Pool.QueryRow(ctx, `SELECT r.id, p.storage_limit >= 0 OR p.read_only
		FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.name = $1`, name).Scan(&r.id, &r.bound)
	if errors.Is(err, pgx.ErrNoRows) {
		return repo{}, nameUnknown(name)
	}
	if err != nil {
		return repo{}, database.Fault(err)
	}
	s.repos.Set(name, r)
	return r, nil
}

// ensureRepo finds or makes a repository. Its project must exist.
func (s *Store) ensureRepo(ctx context.Context, name string) (repo, error) {
	r, err := s.findRepo(ctx, name)
	if !fault.Is(err, fault.NotFound) {
		return r, err
	}
	project, _ := reference.Project(name)
	_, err = s.Pool.Exec(ctx, `INSERT INTO repositories (project_id, name) SELECT id, $2 FROM projects WHERE name = $1
		ON CONFLICT (name) DO NOTHING`, project, name)
	if err != nil {
		return repo{}, database.Fault(err)
	}
	// Whoever made it, it is there now; or there is no such project.
	if r, err = s.findRepo(ctx, name); fault.Is(err, fault.NotFound) {
		return repo{}, fault.Wrap(fault.NotFound, ErrNameUnknown, "project %s not found", project).
			WithHint("create the project first")
	}
	return r, err
}

// retryTx runs f in a transaction, and again as retry says.
func (s *Store) retryTx(ctx context.Context, f func(pgx.Tx) error) error {
	return retry(func() error { return pgx.BeginFunc(ctx, s.Pool, f) })
}

// retry runs a transaction. Deadlocks and repositories that vanish under a
// cached id are tried again; both are rare, and three tries are plenty.
func retry(transaction func() error) error {
	var err error
	for range 3 {
		err = transaction()
		switch database.Code(err) {
		case "40P01", "40001", database.ForeignKeyViolation:
			continue
		}
		break
	}
	return database.Fault(err)
}

// notify tells the caches of other processes what is gone. It is sent at commit.
func notify(ctx context.Context, tx pgx.Tx, what string) error {
	_, err := tx.Exec(ctx, `SELECT pg_notify('berth_artifact', $1)`, what)
	return err
}

// Channel tells of deletions and renames by other processes. They are rare:
// dropping everything costs a few queries and cannot forget one. While nothing
// can be heard the caches' short lives bound the harm.
func (s *Store) Channel() database.Channel {
	return database.Channel{Name: "berth_artifact", State: func(bool) { s.forget() }, Heard: func(string) { s.forget() }}
}

// forget drops what a deletion may have made wrong.
func (s *Store) forget() {
	s.links.InvalidateAll()
	s.repos.InvalidateAll()
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot %s: %w", fmt.Sprintf(format, args...), database.Fault(err))
}
