package retention

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/reference"
	"berth/services/task"
)

// Stored is a project's policy with its id.
type Stored struct {
	ID        int64
	ProjectID int64
	Policy
	Created, Updated time.Time
}

// Store is the policies in the database.
type Store struct {
	pool   *pgxpool.Pool
	outbox *event.Outbox
	tasks  *task.Store
}

// New makes a store.
func New(pool *pgxpool.Pool, outbox *event.Outbox, tasks *task.Store) *Store {
	return &Store{pool, outbox, tasks}
}

func notFound(err error, id int64) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "retention policy %d not found", id)
	}
	return database.Fault(err)
}

// Policy gives a policy by id. Errors: NotFound.
func (s *Store) Policy(ctx context.Context, id int64) (p Stored, err error) {
	err = s.pool.QueryRow(ctx, `SELECT id, project_id, policy, created_at, updated_at FROM retention_policies WHERE id = $1`, id).
		Scan(&p.ID, &p.ProjectID, &p.Policy, &p.Created, &p.Updated)
	return p, notFound(err, id)
}

// Create gives a project a policy. Errors: Invalid, also if the project has one;
// NotFound (the project).
func (s *Store) Create(ctx context.Context, projectID int64, p Policy) (id int64, err error) {
	if err := p.Check(); err != nil {
		return 0, err
	}
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT id FROM retention_policies WHERE project_id = $1`, projectID).Scan(&id)
		if err == nil {
			return fault.New(fault.Invalid, "project %d already has retention policy %d", projectID, id).WithHint("change that one")
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err := tx.QueryRow(ctx, `INSERT INTO retention_policies (project_id, policy) VALUES ($1, $2) RETURNING id`, projectID, p).Scan(&id); err != nil {
			return err
		}
		return s.changed(ctx, tx, "create", id, projectID, p, fmt.Sprint(id))
	})
	switch database.Code(err) {
	case database.UniqueViolation:
		return 0, fault.New(fault.Invalid, "project %d already has a retention policy", projectID)
	case database.ForeignKeyViolation:
		return 0, fault.New(fault.NotFound, "project %d not found", projectID)
	}
	return id, database.Fault(err)
}

// Update replaces a policy. Errors: Invalid, NotFound.
func (s *Store) Update(ctx context.Context, id int64, p Policy) error {
	if err := p.Check(); err != nil {
		return err
	}
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var project int64
		err := tx.QueryRow(ctx, `UPDATE retention_policies SET policy = $2, updated_at = now() WHERE id = $1 RETURNING project_id`, id, p).Scan(&project)
		if err != nil {
			return err
		}
		return s.changed(ctx, tx, "update", id, project, p, fmt.Sprint(id))
	})
	return notFound(err, id)
}

// Delete removes a policy and the history of its runs. Errors: NotFound;
// Precondition while it runs.
func (s *Store) Delete(ctx context.Context, id int64) error {
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var project int64
		if err := tx.QueryRow(ctx, `DELETE FROM retention_policies WHERE id = $1 RETURNING project_id`, id).Scan(&project); err != nil {
			return err
		}
		if err := s.tasks.DeleteOf(ctx, tx, task.Retention, id); err != nil {
			return err
		}
		return s.changed(ctx, tx, "delete", id, project, Policy{}, "")
	})
	return notFound(err, id)
}

// changed makes what depends on a policy follow it: its schedule, the project's
// metadata retention_id ("" = none), the audit trail.
func (s *Store) changed(ctx context.Context, tx pgx.Tx, operation string, id, projectID int64, p Policy, mark string) error {
	var name string
	err := tx.QueryRow(ctx, `UPDATE projects SET metadata = CASE WHEN $2 = '' THEN metadata - 'retention_id'
		ELSE metadata || jsonb_build_object('retention_id', $2::text) END WHERE id = $1 RETURNING name`, projectID, mark).Scan(&name)
	if err != nil {
		return err
	}
	if cron := p.Trigger.Settings.Cron; cron != "" {
		_, err = s.tasks.Plan(ctx, tx, task.Planned{Vendor: task.Retention, VendorID: id, Cron: cron})
	} else {
		err = s.tasks.Unplan(ctx, tx, task.Retention, id)
	}
	if err != nil {
		return err
	}
	return s.outbox.Add(ctx, tx, event.Event{Operation: operation, ResourceType: "tag_retention", Resource: name, Success: true, ProjectID: projectID,
		Description: operation + " retention policy of project: " + name})
}

// params are an execution's parameters: the policy as it was when the run began.
type params struct {
	DryRun    bool   `json:"dry_run"`
	ProjectID int64  `json:"project_id"`
	Policy    Policy `json:"policy"`
}

// work is a task's parameters and its results.
type work struct {
	Repository string `json:"repository"` // without the project
	Total      int    `json:"total"`
	Retained   int    `json:"retained"`
}

// Run starts a run of a policy and gives its execution's id. Errors: NotFound.
func (s *Store) Run(ctx context.Context, id int64, dry bool) (execution int64, err error) {
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		execution, err = s.start(ctx, tx, id, dry, task.Manual)
		return err
	})
	return execution, notFound(err, id)
}

// start begins a run in tx, with a task for each repository that the policy
// selects.
func (s *Store) start(ctx context.Context, tx pgx.Tx, id int64, dry bool, trigger string) (int64, error) {
	in := params{DryRun: dry}
	err := tx.QueryRow(ctx, `SELECT project_id, policy FROM retention_policies WHERE id = $1`, id).Scan(&in.ProjectID, &in.Policy)
	if err != nil {
		return 0, err
	}
	rows, err := tx.Query(ctx, `SELECT name FROM repositories WHERE project_id = $1 AND has_manifests ORDER BY name`, in.ProjectID)
	if err != nil {
		return 0, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	var tasks []task.NewTask
	for _, name := range names {
		if _, rest := reference.Project(name); in.Policy.Selects(rest) {
			tasks = append(tasks, task.NewTask{Extra: work{Repository: rest}, MaxAttempts: 3})
		}
	}
	execution, err := s.tasks.Start(ctx, tx, task.New{Vendor: task.Retention, VendorID: id, Trigger: trigger, Extra: in}, tasks...)
	if err == nil && len(tasks) == 0 {
		err = s.tasks.Finish(ctx, tx, execution, task.Success, "no rule selects a repository")
	}
	return execution, err
}
