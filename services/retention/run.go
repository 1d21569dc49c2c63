package retention

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/event"
	"berth/services/reference"
	"berth/services/task"
)

// Kind runs retentions: what a jobs service needs to know.
func (s *Store) Kind(artifacts *artifact.Store) task.Kind {
	return task.Kind{
		Vendor: task.Retention, Workers: 2, Keep: 50,
		Run: func(ctx context.Context, r *task.Run) error { return s.run(ctx, artifacts, r) },
		Fire: func(ctx context.Context, tx pgx.Tx, p task.Planned) error {
			_, err := s.start(ctx, tx, p.VendorID, false, task.Schedule)
			if errors.Is(err, pgx.ErrNoRows) { // it went with its project
				err = s.tasks.Unplan(ctx, tx, task.Retention, p.VendorID)
			}
			return err
		},
	}
}

// run does one repository.
func (s *Store) run(ctx context.Context, artifacts *artifact.Store, r *task.Run) error {
	var in params
	if err := json.Unmarshal(r.Params, &in); err != nil {
		return task.Permanent(fmt.Errorf("cannot read the parameters of a retention: %w", err))
	}
	var w work
	if err := r.Decode(&w); err != nil {
		return err
	}
	// The project may have another name than when the run began.
	var repo string
	err := s.pool.QueryRow(ctx, `SELECT r.name FROM repositories r JOIN projects p ON p.id = r.project_id
		WHERE p.id = $1 AND r.name = p.name || '/' || $2 AND r.has_manifests`, in.ProjectID, w.Repository).Scan(&repo)
	if errors.Is(err, pgx.ErrNoRows) {
		r.Log.Info("the repository is gone", "repository", w.Repository)
		return nil
	}
	if err != nil {
		return err
	}
	found, err := artifacts.Candidates(ctx, repo)
	if err != nil {
		return err
	}
	verdicts := in.Policy.Decide(w.Repository, candidates(found, in.Policy.ByTag), time.Now())
	r.Log.Info("retention begins", "repository", w.Repository, "candidates", len(verdicts), "dry_run", in.DryRun)
	w.Total, w.Retained = len(verdicts), 0
	for _, v := range verdicts {
		what := "delete"
		if v.Keep {
			what = "keep"
			w.Retained++
		}
		r.Log.Info(what, "digest", v.Digest.String(), "tags", strings.Join(v.Tags, ","), "pushed", day(v.Pushed), "pulled", day(v.Pulled), "reason", v.Reason)
	}
	if err := r.Checkpoint(ctx, w); err != nil || in.DryRun {
		return err
	}
	ctx = event.With(ctx, event.Origin{User: "retention", Source: "jobs"})
	gone, n, err := apply(ctx, artifacts, repo, found, verdicts, r.Log)
	w.Retained = w.Total - n
	if err := errors.Join(err, r.Checkpoint(context.WithoutCancel(ctx), w)); err != nil {
		return err
	}
	r.Log.Info("retention is done", "total", w.Total, "retained", w.Retained)
	return s.tell(ctx, in, r.VendorID, repo, w, gone)
}

func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// candidates gives what a policy decides about: artifacts, or their tags and
// those that have none.
func candidates(found []artifact.Candidate, byTag bool) (list []Candidate) {
	for _, a := range found {
		if !byTag || len(a.Tags) == 0 {
			c := Candidate{Digest: a.Digest, Pushed: a.Pushed, Pulled: a.Pulled}
			for _, t := range a.Tags {
				c.Tags = append(c.Tags, t.Name)
				c.Immutable = c.Immutable || t.Immutable
			}
			list = append(list, c)
			continue
		}
		for _, t := range a.Tags {
			list = append(list, Candidate{a.Digest, []string{t.Name}, t.Pushed, t.Pulled, t.Immutable})
		}
	}
	return list
}

// apply moves what is not kept to the recycle bin, an artifact in a transaction,
// so that pushes never wait for long. What has changed since it was looked at
// stays: a later run decides again. It names what went, and says how many
// candidates that were.
func apply(ctx context.Context, artifacts *artifact.Store, repo string, found []artifact.Candidate, verdicts []Verdict, log *slog.Logger) (gone []deleted, count int, err error) {
	type doom struct {
		tags       []string // that go
		candidates int
	}
	doomed := map[reference.Digest]doom{}
	for _, v := range verdicts {
		if d := doomed[v.Digest]; !v.Keep {
			doomed[v.Digest] = doom{append(d.tags, v.Tags...), d.candidates + 1}
		}
	}
	for _, a := range found {
		d, ok := doomed[a.Digest]
		if !ok {
			continue
		}
		if ctx.Err() != nil {
			return gone, count, context.Cause(ctx)
		}
		switch err := artifacts.Retire(ctx, repo, a, d.tags); {
		case err == nil:
			count += d.candidates
			if len(d.tags) == 0 {
				gone = append(gone, deleted{"image", "SUCCESS", repo + "@" + a.Digest.String()})
			}
			for _, tag := range d.tags {
				gone = append(gone, deleted{"image", "SUCCESS", repo + ":" + tag})
			}
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict), fault.Is(err, fault.Precondition):
			log.Warn("kept after all", "digest", a.Digest.String(), "reason", fault.Of(err).Text)
		default:
			return gone, count, err
		}
	}
	return gone, count, nil
}

// deleted is an entry of Harbor's notice of a retention.
type deleted struct {
	Type   string `json:"type"`
	Status string `json:"status"`
	Name   string `json:"name_tag"`
}

// maxNamed is how much of what went a notice names.
const maxNamed = 500

// tell makes an event of a repository's retention, if anything went.
func (s *Store) tell(ctx context.Context, in params, policy int64, repo string, w work, gone []deleted) error {
	if len(gone) == 0 {
		return nil
	}
	project, _ := reference.Project(repo)
	notice, err := json.Marshal(map[string]any{"retention": map[string]any{
		"total": w.Total, "retained": w.Retained, "project_name": project, "retention_policy_id": policy, "result": "SUCCESS",
		"deleted_artifact": gone[:min(len(gone), maxNamed)],
	}})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		return s.outbox.Add(ctx, tx, event.Event{Operation: event.Retained, ResourceType: "tag_retention", Resource: repo, Success: true, Notice: notice,
			ProjectID: in.ProjectID, Repository: repo, Description: fmt.Sprintf("retention: %d of %d kept in %s", w.Retained, w.Total, repo)})
	})
}
