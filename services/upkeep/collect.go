package upkeep

import (
	"context"
	"encoding/json"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/task"
)

// collectParams are Harbor's parameters of a collection.
type collectParams struct {
	DeleteUntagged bool `json:"delete_untagged"` // move untagged artifacts to the recycle bin first
	DeleteTag      bool `json:"delete_tag"`      // kept for Harbor's clients: tags are rows and need no cleaning
	DryRun         bool `json:"dry_run,omitempty"`
	Workers        int  `json:"workers"` // 1 to 10; 0 is 1
}

func checkCollect(raw json.RawMessage) (json.RawMessage, error) {
	var p collectParams
	if err := decode(raw, &p); err != nil {
		return nil, err
	}
	if p.Workers < 0 || p.Workers > 10 {
		return nil, fault.New(fault.Invalid, "parameters.workers must be between 1 and 10, not %d", p.Workers).On("parameters.workers")
	}
	return encode(p)
}

// collectBatch is how much is looked at between two checkpoints.
const collectBatch = 500

// collected is what a collection reports: Harbor's fields of job_parameters.
type collected struct {
	Freed     int64 `json:"freed_space"` // bytes of the blobs that were dropped; the files go within the hour
	Blobs     int   `json:"purged_blobs"`
	Manifests int   `json:"purged_manifests"`
	Untagged  int   `json:"untagged_artifacts,omitempty"` // moved to the recycle bin
}

// collectState is a collection's checkpoint.
type collectState struct {
	collected
	After int64 `json:"after,omitempty"` // the last untagged manifest that was looked at
	Swept bool  `json:"swept,omitempty"` // there are no more untagged ones
}

// Collector runs collections. remove unlinks an object by its storage key.
func Collector(artifacts *artifact.Store, remove func(ctx context.Context, key string) error) task.Kind {
	return task.Kind{Vendor: task.GarbageCollection, Keep: 100, Run: func(ctx context.Context, r *task.Run) error {
		var p collectParams
		if err := json.Unmarshal(r.Params, &p); err != nil {
			return task.Permanent(err)
		}
		r.Log.Info("garbage collection begins", "delete_untagged", p.DeleteUntagged, "dry_run", p.DryRun, "attempt", r.Task.Attempts)
		if p.DryRun {
			return dryRun(ctx, artifacts, r, p)
		}
		var state collectState
		if err := r.Decode(&state); err != nil {
			return err
		}
		for p.DeleteUntagged && !state.Swept {
			n, last, err := artifacts.DeleteUntagged(ctx, state.After, collectBatch)
			state.Untagged += n
			state.After, state.Swept = last, last == 0
			if err = report(ctx, r, state, err); err != nil {
				return err
			}
			r.Log.Info("untagged artifacts moved to the recycle bin", "artifacts", state.Untagged)
		}
		for {
			c, err := artifacts.Collect(ctx, collectBatch, remove)
			state.Blobs += c.Blobs
			state.Manifests += c.Manifests
			state.Freed += c.Dropped
			if err = report(ctx, r, state, err); err != nil {
				return err
			}
			r.Log.Info("collected", "manifests", c.Manifests, "blobs", c.Blobs, "bytes", c.Dropped, "objects_removed", c.Objects, "objects_left_for_later", c.Failed)
			if c.Manifests < collectBatch && c.Blobs < collectBatch && c.Objects < collectBatch {
				break
			}
		}
		r.Log.Info("garbage collection is done", "manifests", state.Manifests, "blobs", state.Blobs, "bytes", state.Freed)
		return nil
	}}
}

// report keeps what has been done, also when the next step has failed.
func report(ctx context.Context, r *task.Run, state collectState, failure error) error {
	after := context.WithoutCancel(ctx)
	if err := r.Checkpoint(after, state); err != nil {
		return err
	}
	if err := r.Annotate(after, state.collected); err != nil {
		return err
	}
	if failure == nil {
		failure = ctx.Err()
	}
	return failure
}

func dryRun(ctx context.Context, artifacts *artifact.Store, r *task.Run, p collectParams) error {
	c, err := artifacts.Collectable(ctx, p.DeleteUntagged)
	if err != nil {
		return err
	}
	r.Log.Info("nothing is changed; a collection would find", "manifests", c.Manifests, "blobs", c.Blobs, "bytes", c.Bytes)
	return r.Annotate(ctx, collected{Freed: c.Bytes, Blobs: c.Blobs, Manifests: c.Manifests})
}
