package artifact

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/event"
	"berth/services/immutability"
	"berth/services/reference"
)

// Candidate is an artifact as retention looks at it.
type Candidate struct {
	Digest         reference.Digest
	Pushed, Pulled time.Time // zero Pulled: never
	Tags           []Tag     // by name
}

// Candidates lists the artifacts of a repository that stand for themselves, the
// last pushed first: what lists show. Errors: NotFound.
func (s *Store) Candidates(ctx context.Context, repo string) ([]Candidate, error) {
	id, err := s.withContent(ctx, repo)
	if err != nil {
		return nil, err
	}
	var rules immutability.Rules
	err = s.Pool.QueryRow(ctx, `SELECT `+immutable+` FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.id = $1`, id).Scan(&rules, new(bool))
	if err != nil {
		return nil, wrap(err, "read the rules of %s", repo)
	}
	rows, err := s.Pool.Query(ctx, `
		SELECT m.digest, m.pushed_at, m.pulled_at, t.name, t.pushed_at, t.pulled_at
		FROM manifests m LEFT JOIN tags t ON t.manifest_id = m.id
		WHERE m.repo_id = $1 AND m.deleted_at IS NULL AND `+topSQL+`
		ORDER BY m.pushed_at DESC, m.id DESC, t.name`, id)
	if err != nil {
		return nil, wrap(err, "list the artifacts of %s", repo)
	}
	var list []Candidate
	var raw []byte
	var pushed time.Time
	var pulled, tagPushed, tagPulled *time.Time
	var tag *string
	_, err = pgx.ForEachRow(rows, []any{&raw, &pushed, &pulled, &tag, &tagPushed, &tagPulled}, func() error {
		d, err := reference.FromBytes(raw)
		if n := len(list); n == 0 || list[n-1].Digest != d {
			list = append(list, Candidate{Digest: d, Pushed: pushed, Pulled: orZero(pulled)})
		}
		if tag != nil {
			c := &list[len(list)-1]
			c.Tags = append(c.Tags, Tag{Name: *tag, Pushed: *tagPushed, Pulled: orZero(tagPulled), Immutable: rules.Hold(repo, *tag)})
		}
		return err
	})
	return list, wrap(err, "list the artifacts of %s", repo)
}

// Retire takes tags from an artifact, or, if that leaves none, the artifact away,
// provided that it is still as Candidates has shown it: neither pushed again nor
// tagged or pulled anew.
//
// Errors: NotFound; Conflict if an index lists it; Precondition if it has changed
// or is immutable.
func (s *Store) Retire(ctx context.Context, repo string, c Candidate, tags []string) error {
	return s.deleting(ctx, repo, func(tx pgx.Tx, r lockedRepo) (event.Event, error) {
		id, first, err := r.unlisted(ctx, tx, c.Digest)
		if err != nil {
			return event.Event{}, err
		}
		var pushed time.Time
		var pulled *time.Time
		var have []string
		if err := tx.QueryRow(ctx, `SELECT m.pushed_at, m.pulled_at, ARRAY(SELECT t.name FROM tags t WHERE t.manifest_id = m.id ORDER BY t.name)
			FROM manifests m WHERE m.id = $1`, id).Scan(&pushed, &pulled, &have); err != nil {
			return event.Event{}, err
		}
		if !pushed.Equal(c.Pushed) || !orZero(pulled).Equal(c.Pulled) || !slices.Equal(have, names(c.Tags)) {
			return event.Event{}, fault.New(fault.Precondition, "the artifact %s@%s has changed meanwhile", repo, c.Digest)
		}
		e := event.Event{Operation: "delete", ResourceType: "artifact", Resource: repo + "@" + c.Digest.String(),
			Description: "retention deletes artifact: " + repo + "@" + c.Digest.String(), Digest: c.Digest.String()}
		if len(tags) >= len(have) {
			e.Tag = first
			return e, s.trash(ctx, tx, r, []int64{id})
		}
		e.ResourceType, e.Resource, e.Tag = "tag", repo+":"+tags[0], tags[0]
		e.Description = "retention deletes tag: " + e.Resource
		if held := r.rules.Among(repo, tags); len(held) > 0 {
			return e, immutableFault(repo, held[0], "be deleted")
		}
		_, err = s.untag(ctx, tx, r, tags)
		return e, err
	})
}

func names(tags []Tag) []string {
	list := make([]string, len(tags))
	for i, t := range tags {
		list[i] = t.Name
	}
	slices.Sort(list)
	return list
}
