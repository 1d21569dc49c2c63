// Package label knows labels, and which artifacts bear them. A label is for the
// whole system or for one project; an artifact bears those of the system and of
// its own project.
package label

import (
	"context"
	"errors"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
)

// Label is a mark with a colour.
type Label struct {
	ID               int64
	ProjectID        int64 // 0: for the whole system
	Name             string
	Description      string
	Color            string // as CSS has it: #FFFFFF
	Created, Updated time.Time
}

const (
	maxName        = 128
	maxDescription = 1024
)

var colorForm = regexp.MustCompile(`^(#[0-9A-Fa-f]{3,8}|[A-Za-z]{1,32})?$`)

func (l Label) check() error {
	switch {
	case l.Name == "" || utf8.RuneCountInString(l.Name) > maxName:
		return fault.New(fault.Invalid, "a label's name has 1 to %d characters", maxName).On("name")
	case utf8.RuneCountInString(l.Description) > maxDescription:
		return fault.New(fault.Invalid, "a label's description has at most %d characters", maxDescription).On("description")
	case !colorForm.MatchString(l.Color):
		return fault.New(fault.Invalid, "%q is no colour", l.Color).On("color").WithHint("write it as #RRGGBB")
	}
	return nil
}

// Store is the labels in the database.
type Store struct {
	pool   *pgxpool.Pool
	outbox *event.Outbox
}

// New makes a store.
func New(pool *pgxpool.Pool, outbox *event.Outbox) *Store { return &Store{pool, outbox} }

// Columns of label l, in the order that Scan wants.
const Columns = `l.id, coalesce(l.project_id, 0), l.name, l.description, l.color, l.created_at, l.updated_at`

// Scan reads Columns, after what is in first.
func Scan(row pgx.CollectableRow, first ...any) (l Label, err error) {
	err = row.Scan(append(first, &l.ID, &l.ProjectID, &l.Name, &l.Description, &l.Color, &l.Created, &l.Updated)...)
	return l, err
}

func scan(row pgx.CollectableRow) (Label, error) { return Scan(row) }

var fields = query.Columns{
	"id": {SQL: "l.id", Type: query.Number}, "name": {SQL: "l.name"}, "description": {SQL: "l.description"}, "color": {SQL: "l.color"},
	"creationtime": {SQL: "l.created_at", Type: query.Moment}, "updatetime": {SQL: "l.updated_at", Type: query.Moment},
}

// List gives a page of a project's labels, or (with 0) of the system's.
func (s *Store) List(ctx context.Context, projectID int64, q query.Query) (query.Page[Label], error) {
	var w query.Where
	w.And("l.project_id IS NOT DISTINCT FROM %s", orNull(projectID))
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Label]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*) FROM labels l"+w.String(),
		"SELECT "+Columns+" FROM labels l"+w.String()+q.OrderBy(fields, "l.name")+q.Limit(), w.Args, scan)
	return page, database.Fault(err)
}

func orNull(id int64) *int64 {
	if id == 0 {
		return nil
	}
	return &id
}

// Label gives a label by id. Errors: NotFound.
func (s *Store) Label(ctx context.Context, id int64) (Label, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+Columns+` FROM labels l WHERE l.id = $1`, id)
	if err != nil {
		return Label{}, database.Fault(err)
	}
	l, err := pgx.CollectExactlyOneRow(rows, scan)
	return l, known(err, l, id)
}

// known turns the database's errors into what a caller may be told.
func known(err error, l Label, id int64) error {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fault.New(fault.NotFound, "label %d not found", id)
	case database.Code(err) == database.UniqueViolation:
		return fault.New(fault.Conflict, "label %s already exists", l.Name)
	case database.Code(err) == database.ForeignKeyViolation:
		return fault.New(fault.NotFound, "project %d not found", l.ProjectID)
	}
	return database.Fault(err)
}

// Create makes a label. Errors: Invalid, Conflict, NotFound (its project).
func (s *Store) Create(ctx context.Context, l Label) (id int64, err error) {
	if err := l.check(); err != nil {
		return 0, err
	}
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO labels (project_id, name, description, color) VALUES ($1, $2, $3, $4) RETURNING id`,
			orNull(l.ProjectID), l.Name, l.Description, l.Color).Scan(&id)
		if err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, labelEvent("create", l))
	})
	return id, known(err, l, id)
}

// Update changes a label's name, description and colour. Errors: Invalid,
// Conflict, NotFound.
func (s *Store) Update(ctx context.Context, l Label) error {
	if err := l.check(); err != nil {
		return err
	}
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `UPDATE labels SET name = $2, description = $3, color = $4, updated_at = now() WHERE id = $1 RETURNING coalesce(project_id, 0)`,
			l.ID, l.Name, l.Description, l.Color).Scan(&l.ProjectID)
		if err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, labelEvent("update", l))
	})
	return known(err, l, l.ID)
}

// Delete removes a label, also from the artifacts that bear it. Errors: NotFound.
func (s *Store) Delete(ctx context.Context, id int64) error {
	var l Label
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `DELETE FROM labels WHERE id = $1 RETURNING coalesce(project_id, 0), name`, id).Scan(&l.ProjectID, &l.Name)
		if err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, labelEvent("delete", l))
	})
	return known(err, l, id)
}

func labelEvent(operation string, l Label) event.Event {
	return event.Event{Operation: operation, ResourceType: "label", Resource: l.Name, Success: true, ProjectID: l.ProjectID,
		Description: operation + " label: " + l.Name}
}

// Add gives an artifact of a project a label. Errors: NotFound; Invalid if the
// label is another project's; Conflict if the artifact has it.
func (s *Store) Add(ctx context.Context, projectID, artifactID, id int64) error {
	l, err := s.Label(ctx, id)
	if err != nil {
		return err
	}
	if l.ProjectID != 0 && l.ProjectID != projectID {
		return fault.New(fault.Invalid, "label %d belongs to another project", id).On("id")
	}
	_, err = s.pool.Exec(ctx, `INSERT INTO artifact_labels (manifest_id, label_id) VALUES ($1, $2)`, artifactID, id)
	switch database.Code(err) {
	case database.UniqueViolation:
		return fault.New(fault.Conflict, "the artifact has the label %s already", l.Name)
	case database.ForeignKeyViolation: // the label or the artifact went meanwhile
		return fault.New(fault.NotFound, "label %d not found", id)
	}
	return database.Fault(err)
}

// Remove takes a label from an artifact. Errors: NotFound.
func (s *Store) Remove(ctx context.Context, artifactID, id int64) error {
	tag, err := s.pool.Exec(ctx, `DELETE FROM artifact_labels WHERE manifest_id = $1 AND label_id = $2`, artifactID, id)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New(fault.NotFound, "the artifact has no label %d", id)
	}
	return database.Fault(err)
}
