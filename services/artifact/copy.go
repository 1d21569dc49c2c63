package artifact

import (
	"context"

	"berth/appliance/fault"
	"berth/services/reference"
)

// maxDepth is how deep indexes may be nested for Copy.
const maxDepth = 8

// Copy gives another repository an artifact, with its children and what refers
// to it, without moving a byte. Each manifest is one transaction, children
// first, so a copy that is cut off leaves whole artifacts and can be repeated.
//
// Errors: NotFound (the artifact, or the target's project).
func (s *Store) Copy(ctx context.Context, from string, d reference.Digest, to string, tags []string) error {
	return s.copy(ctx, from, d, to, tags, maxDepth)
}

func (s *Store) copy(ctx context.Context, from string, d reference.Digest, to string, tags []string, depth int) error {
	if depth == 0 {
		return fault.New(fault.Invalid, "indexes are nested deeper than %d", maxDepth)
	}
	m, err := s.Manifest(ctx, from, d)
	if err != nil {
		return err
	}
	parsed, err := Parse(m.MediaType, m.Payload)
	if err != nil {
		return err
	}
	for _, b := range parsed.Blobs {
		if _, err := s.Mount(ctx, to, from, b.Digest); err != nil { // one that is missing fails the push below, by name
			return err
		}
	}
	for _, c := range parsed.Children {
		err := s.copy(ctx, from, c.Digest, to, nil, depth-1)
		if err != nil && !(s.SparseIndexes && fault.Is(err, fault.NotFound)) {
			return err
		}
	}
	if _, err := s.PutManifest(ctx, Push{Repo: to, Digest: d, Tags: tags, MediaType: m.MediaType, Payload: m.Payload}); err != nil {
		return err
	}
	var next int64
	for {
		referrers, more, err := s.Referrers(ctx, from, d, "", next, 100)
		if err != nil {
			return err
		}
		for _, r := range referrers {
			if err := s.copy(ctx, from, r.Digest, to, nil, depth-1); err != nil {
				return err
			}
		}
		if next = more; next == 0 {
			return nil
		}
	}
}
