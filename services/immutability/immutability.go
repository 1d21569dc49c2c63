// Package immutability knows the rules that keep tags where they are.
//
// A rule names tags and repositories of a project by patterns. A tag that one
// of the rules picks can be made, and then neither moved nor deleted, nor can
// the artifact that has it. The rules are enforced where tags change, in
// services/artifact, which reads them in the transaction of the change.
package immutability

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
	"berth/services/reference"
	"berth/services/selector"
)

// Rule picks the tags that the tag selector picks, in the repositories that the
// repository selector picks by their names without the project.
type Rule struct {
	Tag        selector.Selector `json:"tag"`
	Repository selector.Selector `json:"repository"`
}

// Check accepts a rule.
func (r Rule) Check() error {
	if err := r.Tag.CheckTag(); err != nil {
		return err
	}
	return r.Repository.CheckRepository()
}

// Rules are a project's rules that are in force.
type Rules []Rule

// Hold reports whether a tag of a repository, named with its project, is
// immutable.
func (rules Rules) Hold(repo, tag string) bool {
	if len(rules) == 0 {
		return false
	}
	_, name := reference.Project(repo)
	for _, r := range rules {
		if r.Repository.Picks(name) && r.Tag.Picks(tag) {
			return true
		}
	}
	return false
}

// Among gives those of a repository's tags that are immutable.
func (rules Rules) Among(repo string, tags []string) (immutable []string) {
	if len(rules) == 0 {
		return nil
	}
	for _, tag := range tags {
		if rules.Hold(repo, tag) {
			immutable = append(immutable, tag)
		}
	}
	return immutable
}

// Stored is a rule with its id.
type Stored struct {
	ID       int64
	Disabled bool
	Rule
}

// Store is the rules in the database.
type Store struct {
	pool   *pgxpool.Pool
	outbox *event.Outbox
}

// New makes a store.
func New(pool *pgxpool.Pool, outbox *event.Outbox) *Store { return &Store{pool, outbox} }

// maxRules is how many rules a project may have: each is tried on each tag.
const maxRules = 100

var fields = query.Columns{
	"id": {SQL: "i.id", Type: query.Number}, "disabled": {SQL: "i.disabled", Type: query.Bool},
	"creationtime": {SQL: "i.created_at", Type: query.Moment},
}

// List gives a page of a project's rules, those in force and the disabled ones.
func (s *Store) List(ctx context.Context, projectID int64, q query.Query) (query.Page[Stored], error) {
	var w query.Where
	w.And("i.project_id = %s", projectID)
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Stored]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*) FROM immutable_rules i"+w.String(),
		"SELECT i.id, i.disabled, i.rule FROM immutable_rules i"+w.String()+q.OrderBy(fields, "i.id")+q.Limit(), w.Args,
		func(row pgx.CollectableRow) (r Stored, err error) {
			err = row.Scan(&r.ID, &r.Disabled, &r.Rule)
			return r, err
		})
	return page, database.Fault(err)
}

// Create adds a rule to a project. Errors: Invalid; Conflict if the project has
// that rule.
func (s *Store) Create(ctx context.Context, projectID int64, r Rule, disabled bool) (id int64, err error) {
	if err := r.Check(); err != nil {
		return 0, err
	}
	err = s.change(ctx, projectID, "create", func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM immutable_rules WHERE project_id = $1`, projectID).Scan(&n); err != nil {
			return err
		}
		if n >= maxRules {
			return fault.New(fault.Precondition, "a project has at most %d rules of immutability", maxRules).
				WithHint("join rules with {a,b} patterns")
		}
		return tx.QueryRow(ctx, `INSERT INTO immutable_rules (project_id, disabled, rule) VALUES ($1, $2, $3) RETURNING id`,
			projectID, disabled, r).Scan(&id)
	})
	return id, err
}

// Update replaces a rule of a project. Errors: Invalid, NotFound, Conflict.
func (s *Store) Update(ctx context.Context, projectID, id int64, r Rule, disabled bool) error {
	if err := r.Check(); err != nil {
		return err
	}
	return s.change(ctx, projectID, "update", func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `UPDATE immutable_rules SET disabled = $3, rule = $4 WHERE id = $2 AND project_id = $1 RETURNING id`,
			projectID, id, disabled, r).Scan(&id)
	})
}

// Disable takes a rule out of force, or puts it back. Errors: NotFound.
func (s *Store) Disable(ctx context.Context, projectID, id int64, disabled bool) error {
	return s.change(ctx, projectID, "update", func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `UPDATE immutable_rules SET disabled = $3 WHERE id = $2 AND project_id = $1 RETURNING id`,
			projectID, id, disabled).Scan(&id)
	})
}

// Delete removes a rule of a project. Errors: NotFound.
func (s *Store) Delete(ctx context.Context, projectID, id int64) error {
	return s.change(ctx, projectID, "delete", func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `DELETE FROM immutable_rules WHERE id = $2 AND project_id = $1 RETURNING id`, projectID, id).Scan(&id)
	})
}

// change runs one change in the rules of one project and tells of it.
func (s *Store) change(ctx context.Context, projectID int64, operation string, f func(pgx.Tx) error) error {
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var name string
		if err := tx.QueryRow(ctx, `SELECT name FROM projects WHERE id = $1 FOR SHARE`, projectID).Scan(&name); err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, event.Event{Operation: operation, ResourceType: "immutable", Success: true,
			Resource: name, ProjectID: projectID, Description: operation + " immutable tag rule in project: " + name})
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "immutable rule not found")
	}
	if database.Code(err) == database.UniqueViolation {
		return fault.New(fault.Conflict, "immutable rule already exists")
	}
	return database.Fault(err)
}
