package artifact

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/reference"
)

// Tagged finds the manifest that a tag names. The tag is read from the database
// every time, so that a pull sees every push that was acknowledged before it,
// on any node; the payload comes from memory when it is there.
func (s *Store) Tagged(ctx context.Context, repo, tag string) (Manifest, error) {
	r, err := s.findRepo(ctx, repo)
	if err == nil {
		var m Manifest
		if m, err = s.tags.look(ctx, tagName{r.id, tag}); err == nil {
			m.RepoID = r.id
			err = s.load(ctx, &m)
			return m, wrap(err, "read %s:%s", repo, tag)
		}
	}
	if errors.Is(err, pgx.ErrNoRows) || fault.Is(err, fault.NotFound) {
		return Manifest{}, fault.Wrap(fault.NotFound, ErrManifestUnknown, "artifact %s:%s not found", repo, tag)
	}
	return Manifest{}, wrap(err, "read %s:%s", repo, tag)
}

// Manifest finds a manifest by its digest.
func (s *Store) Manifest(ctx context.Context, repo string, d reference.Digest) (Manifest, error) {
	m, err := s.manifest(ctx, s.Pool.QueryRow(ctx, `
		SELECT m.id, m.repo_id, m.digest, m.media_type
		FROM repositories r JOIN manifests m ON m.repo_id = r.id
		WHERE r.name = $1 AND m.digest = $2 AND m.deleted_at IS NULL`, repo, d.Bytes()))
	if errors.Is(err, pgx.ErrNoRows) {
		return m, fault.Wrap(fault.NotFound, ErrManifestUnknown, "artifact %s@%s not found", repo, d)
	}
	return m, wrap(err, "read %s@%s", repo, d)
}

func (s *Store) manifest(ctx context.Context, row pgx.Row) (m Manifest, err error) {
	var raw []byte
	if err := row.Scan(&m.ID, &m.RepoID, &raw, &m.MediaType); err != nil {
		return m, err
	}
	if m.Digest, err = reference.FromBytes(raw); err != nil {
		return m, err
	}
	err = s.load(ctx, &m)
	return m, err
}

// load adds a manifest's payload.
func (s *Store) load(ctx context.Context, m *Manifest) error {
	if payload, ok := s.payloads.GetIfPresent(m.Digest); s.hits.payloads.Note(ok) {
		m.Payload = payload
		return nil
	}
	err := s.Pool.QueryRow(ctx, `SELECT payload FROM manifests WHERE id = $1`, m.ID).Scan(&m.Payload)
	if err == nil {
		s.payloads.Set(m.Digest, m.Payload)
	}
	return err
}

// Blob answers a pull: is the blob in the repository, and where are its bytes?
// A link that was seen is trusted for linkLife.
func (s *Store) Blob(ctx context.Context, repo string, d reference.Digest) (Blob, error) {
	at := link{repo, d}
	if b, ok := s.links.GetIfPresent(at); s.hits.links.Note(ok) {
		return b, nil
	}
	b, _, err := s.blobRow(ctx, repo, d, 0)
	if err == nil {
		s.links.Set(at, b)
	}
	return b, err
}

// MarkDamaged says that the bytes of a blob under key are missing or rotten.
// From then on the blob counts as absent, so that clients push it again, which
// heals it. It does nothing if the blob has other bytes by now.
func (s *Store) MarkDamaged(ctx context.Context, d reference.Digest, key string) error {
	_, err := s.Pool.Exec(ctx, `
		WITH hit AS (
			UPDATE blobs SET damaged_at = now() WHERE digest = $1 AND storage_key = $2 AND damaged_at IS NULL RETURNING digest)
		SELECT pg_notify('berth_artifact', 'damaged') FROM hit`, d.Bytes(), key)
	s.links.InvalidateAll()
	return wrap(err, "mark blob %s as damaged", d)
}

// Tags gives up to n tags after last, in byte order, and whether there are more.
func (s *Store) Tags(ctx context.Context, repo, last string, n int) (names []string, more bool, err error) {
	r, err := s.findRepo(ctx, repo)
	if err != nil || n == 0 {
		return []string{}, false, err
	}
	names, err = s.page(ctx, `SELECT string_agg(name, ',') FROM (
		SELECT name FROM tags WHERE repo_id = $1 AND name > $2 ORDER BY name LIMIT $3) AS page`, r.id, last, n+1)
	if err != nil {
		return nil, false, wrap(err, "list the tags of %s", repo)
	}
	return names[:min(n, len(names))], len(names) > n, nil
}

// Catalog gives up to n repositories with content after last, in byte order of
// their whole names, and whether there are more.
func (s *Store) Catalog(ctx context.Context, last string, n int) (names []string, more bool, err error) {
	if n == 0 {
		return []string{}, false, nil
	}
	names, err = s.page(ctx, `SELECT string_agg(name, ',') FROM (
		SELECT name FROM repositories WHERE has_manifests AND name > $1 ORDER BY name LIMIT $2) AS page`, last, n+1)
	if err != nil {
		return nil, false, wrap(err, "list the catalog")
	}
	return names[:min(n, len(names))], len(names) > n, nil
}

// page reads names that come as one text: a row for each costs both sides more
// than finding it. No name has a comma.
func (s *Store) page(ctx context.Context, sql string, args ...any) ([]string, error) {
	var all *string
	if err := s.Pool.QueryRow(ctx, sql, args...).Scan(&all); err != nil || all == nil {
		return []string{}, err
	}
	return strings.Split(*all, ","), nil
}

// Referrers lists the manifests of a repository whose subject is d, oldest
// first, after the id `last`, optionally of one artifact type (OCI Distribution
// 1.1, "Listing Referrers"). An unknown repository or digest has none. next is 0
// at the end of the list.
func (s *Store) Referrers(ctx context.Context, repo string, d reference.Digest, artifactType string, last int64, n int) (list []Descriptor, next int64, err error) {
	rows, err := s.Pool.Query(ctx, `
		SELECT m.id, m.media_type, m.digest, m.size, m.artifact_type, m.annotations
		FROM manifests m JOIN repositories r ON r.id = m.repo_id
		WHERE r.name = $1 AND m.subject = $2 AND NOT m.attached AND m.deleted_at IS NULL AND ($3 = '' OR m.artifact_type = $3) AND m.id > $4
		ORDER BY m.id LIMIT $5`, repo, d.Bytes(), artifactType, last, n+1)
	if err != nil {
		return nil, 0, wrap(err, "list the referrers of %s", d)
	}
	list = []Descriptor{}
	var e Descriptor
	var id, previous int64
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &e.MediaType, &raw, &e.Size, &e.ArtifactType, &e.Annotations}, func() error {
		if len(list) == n {
			next = previous
			return nil
		}
		var err error
		e.Digest, err = reference.FromBytes(raw)
		list = append(list, e)
		e.Annotations = nil
		previous = id
		return err
	})
	return list, next, wrap(err, "list the referrers of %s", d)
}

// Ping tells whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return database.Fault(s.Pool.Ping(ctx)) }
