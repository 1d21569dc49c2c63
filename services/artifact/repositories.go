package artifact

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/services/query"
)

// RepositoryInfo is a repository as lists show it.
type RepositoryInfo struct {
	ID, ProjectID    int64
	Project, Name    string // the name is the whole one, project first
	Public           bool
	Description      string
	Artifacts        int // that are tagged, or parts of nothing
	Pulls            int64
	Created, Updated time.Time
}

const repositoryColumns = `r.id, r.project_id, p.name, r.name, p.public, r.description,
	(SELECT count(*) FROM manifests m WHERE m.repo_id = r.id AND m.deleted_at IS NULL AND ` + topSQL + `),
	r.pull_count, r.created_at, r.updated_at`

const repositoryTables = ` FROM repositories r JOIN projects p ON p.id = r.project_id`

func scanRepository(row pgx.CollectableRow) (r RepositoryInfo, err error) {
	err = row.Scan(&r.ID, &r.ProjectID, &r.Project, &r.Name, &r.Public, &r.Description, &r.Artifacts, &r.Pulls, &r.Created, &r.Updated)
	return r, err
}

var repositoryFields = query.Columns{
	"repositoryid": {SQL: "r.id", Type: query.Number}, "id": {SQL: "r.id", Type: query.Number}, "name": {SQL: "r.name"},
	"description": {SQL: "r.description"}, "projectid": {SQL: "r.project_id", Type: query.Number},
	"pullcount": {SQL: "r.pull_count", Type: query.Number}, "creationtime": {SQL: "r.created_at", Type: query.Moment},
	"updatetime": {SQL: "r.updated_at", Type: query.Moment},
}

// ListRepositories gives a page of the repositories with content that restrict
// leaves; it may use the tables repositories r and projects p.
func (s *Store) ListRepositories(ctx context.Context, q query.Query, restrict func(*query.Where)) (query.Page[RepositoryInfo], error) {
	var w query.Where
	w.And("r.has_manifests")
	restrict(&w)
	if err := w.Terms(q.Terms, repositoryFields); err != nil {
		return query.Page[RepositoryInfo]{}, err
	}
	page, err := query.Fetch(ctx, s.Pool, "SELECT count(*)"+repositoryTables+w.String(),
		"SELECT "+repositoryColumns+repositoryTables+w.String()+q.OrderBy(repositoryFields, "r.name")+q.Limit(), w.Args, scanRepository)
	return page, wrap(err, "list repositories")
}

// InProject restricts a list to a project.
func InProject(id int64) func(*query.Where) {
	return func(w *query.Where) { w.And("p.id = %s", id) }
}

// Repository gives one repository with content. Errors: NotFound.
func (s *Store) Repository(ctx context.Context, name string) (RepositoryInfo, error) {
	rows, err := s.Pool.Query(ctx, `SELECT `+repositoryColumns+repositoryTables+` WHERE r.name = $1 AND r.has_manifests`, name)
	if err != nil {
		return RepositoryInfo{}, wrap(err, "read a repository")
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanRepository)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, nameUnknown(name)
	}
	return r, wrap(err, "read a repository")
}

// Describe sets a repository's description. Errors: NotFound.
func (s *Store) Describe(ctx context.Context, name, description string) error {
	tag, err := s.Pool.Exec(ctx, `
		UPDATE repositories SET description = $2, updated_at = now() WHERE name = $1 AND has_manifests`, name, description)
	if err == nil && tag.RowsAffected() == 0 {
		return nameUnknown(name)
	}
	return wrap(err, "describe a repository")
}
