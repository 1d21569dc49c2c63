// Package project knows the projects, their members and their settings.
//
// A project is a row: its repositories carry its name as the first component
// of theirs, and Rename rewrites both in one transaction. Target is what the
// registry and the token service ask on each request, one query each time.
// A user's roles are the user's own and those of the user's groups.
package project

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/artifact"
	"berth/services/database"
	"berth/services/event"
	"berth/services/query"
	"berth/services/quota"
	"berth/services/reference"
)

// Library is the public project that every Berth starts with; its id is 1.
const Library = "library"

// Project is a project as one principal sees it.
type Project struct {
	ID               int64
	Name             string
	OwnerID          int64  // 0: the owner's account is gone
	OwnerName        string // "" likewise
	Public           bool
	Metadata         map[string]string // public included
	Allowlist        Allowlist
	StorageLimit     int64         // bytes; -1 = none
	Repositories     int           // that have content
	Roles            []access.Role // the principal's
	Created, Updated time.Time
}

// Settings are what a project is made from or changed by. Nil leaves as is.
type Settings struct {
	Metadata     map[string]string // merged into what is there
	Allowlist    *Allowlist
	StorageLimit *int64 // of a new project; quota.Store.Set changes it
}

// Store is the projects in the database.
type Store struct {
	pool   *pgxpool.Pool
	outbox *event.Outbox
}

// New makes a store.
func New(pool *pgxpool.Pool, outbox *event.Outbox) *Store { return &Store{pool, outbox} }

// Target tells what access.May needs to know of a project and of p's roles in
// it. Errors: NotFound, Unavailable.
func (s *Store) Target(ctx context.Context, p access.Principal, name string) (access.Target, error) {
	if reference.CheckProject(name) != nil {
		return access.Target{}, projectFault(pgx.ErrNoRows, name) // there is none of such a name
	}
	return s.target(ctx, p, "name", name)
}

// TargetByID is Target for a project's id.
func (s *Store) TargetByID(ctx context.Context, p access.Principal, id int64) (access.Target, error) {
	return s.target(ctx, p, "id", id)
}

func (s *Store) target(ctx context.Context, p access.Principal, column string, key any) (t access.Target, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT p.id, p.name, p.public, ARRAY(`+roles("$2", "$3")+`)
		FROM projects p WHERE p.`+column+` = $1`, key, userID(p), groups(p)).Scan(&t.ProjectID, &t.Project, &t.Public, &t.Roles)
	return t, projectFault(err, key)
}

// roles selects the roles in project p of the user and the groups that the
// placeholders stand for. Two probes of two indexes: an OR would read all of a
// project's members.
func roles(user, groups string) string {
	return `SELECT m.role FROM project_members m WHERE m.project_id = p.id AND m.user_id = ` + user + `
		UNION ALL SELECT m.role FROM project_members m WHERE m.project_id = p.id AND m.group_id = ANY(` + groups + `)`
}

// groups are the groups that memberships are found by.
func groups(p access.Principal) []int64 {
	if p.Kind != access.User || p.Groups == nil {
		return []int64{} // nil would be NULL
	}
	return p.Groups
}

// userID is the id that memberships are found by; nobody has id 0.
func userID(p access.Principal) int64 {
	if p.Kind == access.User {
		return p.ID
	}
	return 0
}

func projectFault(err error, key any) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "project %v not found", key)
	}
	return database.Fault(err)
}

// columns of a Project; $1 is the id of the user who asks, $2 the user's groups.
var columns = `p.id, p.name, coalesce(p.owner_id, 0), coalesce(u.username, ''), p.public,
	CASE WHEN p.read_only THEN p.metadata || '{"read_only": "true"}' ELSE p.metadata END, p.cve_allowlist, p.storage_limit,
	(SELECT count(*) FROM repositories r WHERE r.project_id = p.id AND r.has_manifests),
	ARRAY(` + roles("$1", "$2") + `), p.created_at, p.updated_at`

const tables = ` FROM projects p LEFT JOIN users u ON u.id = p.owner_id`

func scan(row pgx.CollectableRow) (p Project, err error) {
	err = row.Scan(&p.ID, &p.Name, &p.OwnerID, &p.OwnerName, &p.Public, &p.Metadata, &p.Allowlist, &p.StorageLimit,
		&p.Repositories, &p.Roles, &p.Created, &p.Updated)
	if p.Metadata == nil {
		p.Metadata = map[string]string{}
	}
	p.Metadata["public"] = fmt.Sprint(p.Public)
	if p.Allowlist.Items == nil {
		p.Allowlist.Items = []AllowedCVE{}
	}
	return p, err
}

// Project gives a project by id, as p sees it.
func (s *Store) Project(ctx context.Context, p access.Principal, id int64) (Project, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+columns+tables+` WHERE p.id = $3`, userID(p), groups(p), id)
	if err != nil {
		return Project{}, database.Fault(err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, scan)
	return found, projectFault(err, id)
}

var fields = query.Columns{
	"name": {SQL: "p.name"}, "projectid": {SQL: "p.id", Type: query.Number}, "id": {SQL: "p.id", Type: query.Number},
	"public": {SQL: "p.public", Type: query.Bool}, "owner": {SQL: "u.username"}, "ownerid": {SQL: "p.owner_id", Type: query.Number},
	"creationtime": {SQL: "p.created_at", Type: query.Moment}, "updatetime": {SQL: "p.updated_at", Type: query.Moment},
}

// List gives a page of the projects that p may see: all for a system
// administrator; else the public ones, those that a user is a member of, and
// those that a robot has permissions for.
func (s *Store) List(ctx context.Context, p access.Principal, q query.Query) (query.Page[Project], error) {
	w := query.Where{Args: []any{userID(p), groups(p)}}
	w.And("$1::bigint >= 0 AND $2::bigint[] IS NOT NULL") // both statements take the arguments
	Visible(&w, p, "p")
	if err := w.Terms(q.Terms, fields); err != nil {
		return query.Page[Project]{}, err
	}
	page, err := query.Fetch(ctx, s.pool, "SELECT count(*)"+tables+w.String(),
		"SELECT "+columns+tables+w.String()+q.OrderBy(fields, "p.name")+q.Limit(), w.Args, scan)
	return page, database.Fault(err)
}

// Visible restricts a statement to the projects, under their alias, that p may
// see in lists.
func Visible(w *query.Where, p access.Principal, alias string) {
	if only := limit(p); only != nil {
		w.And(alias+".id = ANY(%s)", only)
	}
	switch {
	case p.Sysadmin || p.Limit != nil && p.Limit.Sysadmin:
	case p.Kind == access.User:
		w.And("("+alias+".public OR "+alias+".id IN (SELECT v.project_id FROM project_members v WHERE v.user_id = %s UNION ALL "+
			"SELECT v.project_id FROM project_members v WHERE v.group_id = ANY(%s)))", p.ID, groups(p))
	case p.Kind == access.Robot:
		names, all := robotProjects(p)
		if !all {
			w.And("("+alias+".public OR "+alias+".name = ANY(%s))", names)
		}
	default:
		w.And(alias + ".public")
	}
}

func robotProjects(p access.Principal) (names []string, all bool) {
	names = []string{}
	for _, b := range p.Permissions {
		// Who is limited to some repositories of a project is not shown lists of all.
		if b.Kind == "project" && len(b.Repositories) == 0 {
			names = append(names, b.Namespace)
			all = all || b.Namespace == "*"
		}
	}
	return names, all || access.May(p, access.Target{}, "project", "list")
}

// Create makes a project, whose owner and first administrator p becomes. A
// robot's projects belong to the first system administrator, as in Harbor.
func (s *Store) Create(ctx context.Context, p access.Principal, name string, set Settings) (id int64, err error) {
	if err := reference.CheckProject(name); err != nil {
		return 0, err
	}
	c, err := checkSettings(set)
	if err != nil {
		return 0, err
	}
	err = database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var owner int64
		err := tx.QueryRow(ctx, `
			SELECT coalesce((SELECT id FROM users WHERE id = $1), (SELECT min(id) FROM users WHERE sysadmin))`, userID(p)).Scan(&owner)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `
			INSERT INTO projects (name, owner_id, public, metadata, storage_limit, cve_allowlist, read_only)
			VALUES ($1, $2, coalesce($3, false), $4, coalesce($5, -1), coalesce($6, '{}'::jsonb), coalesce($7, false)) RETURNING id`,
			name, owner, c.public, c.values, set.StorageLimit, set.Allowlist, c.readOnly).Scan(&id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO project_members (project_id, user_id, role) VALUES ($1, $2, $3)`,
			id, owner, access.ProjectAdmin); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, projectEvent("create", id, name))
	})
	if database.Code(err) == database.UniqueViolation {
		return 0, fault.New(fault.Conflict, "The project named %s already exists", name)
	}
	return id, database.Fault(err)
}

// Update changes a project's settings.
func (s *Store) Update(ctx context.Context, id int64, set Settings) error {
	c, err := checkSettings(set)
	if err != nil {
		return err
	}
	return s.change(ctx, id, "update", `
		UPDATE projects SET public = coalesce($2, public), metadata = metadata || $3, read_only = coalesce($4, read_only),
			cve_allowlist = coalesce($5, cve_allowlist), updated_at = now() WHERE id = $1 RETURNING name`,
		c.public, c.values, c.readOnly, set.Allowlist)
}

// change runs one statement on one project and tells of it.
func (s *Store) change(ctx context.Context, id int64, operation, sql string, args ...any) error {
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var name string
		if err := tx.QueryRow(ctx, sql, append([]any{id}, args...)...).Scan(&name); err != nil {
			return err
		}
		if err := quota.Announce(ctx, tx); err != nil { // the registry remembers what binds pushes
			return err
		}
		return s.outbox.Add(ctx, tx, projectEvent(operation, id, name))
	})
	return projectFault(err, id)
}

// notEmpty is why a project cannot be deleted.
const notEmpty = "the project contains repositories, can not be deleted"

// Deletable reports whether a project can be deleted, and if not why.
func (s *Store) Deletable(ctx context.Context, id int64) (ok bool, reason string, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT NOT EXISTS (SELECT FROM repositories r WHERE r.project_id = p.id AND r.has_manifests)
		FROM projects p WHERE p.id = $1`, id).Scan(&ok)
	if !ok {
		reason = notEmpty
	}
	return ok, reason, projectFault(err, id)
}

// Delete removes a project that has no repositories any more, its members and
// robots, and what the recycle bin still holds of it. Robots of the system lose
// what they were given in it: a later project may have its name.
func (s *Store) Delete(ctx context.Context, id int64) error {
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var name string
		// From here on no push can make a repository: its foreign key waits.
		if err := tx.QueryRow(ctx, `SELECT name FROM projects WHERE id = $1 FOR UPDATE`, id).Scan(&name); err != nil {
			return err
		}
		var used bool
		if err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM repositories WHERE project_id = $1 AND has_manifests)`, id).Scan(&used); err != nil {
			return err
		}
		if used {
			return fault.New(fault.Precondition, notEmpty).WithHint("delete its repositories first")
		}
		if err := artifact.PurgeProject(ctx, tx, id, artifact.DefaultTimes.Grace); err != nil {
			return err
		}
		if err := renameInRobots(ctx, tx, name, ""); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM projects WHERE id = $1`, id); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, projectEvent("delete", id, name))
	})
	return projectFault(err, id)
}

// Rename gives a project another name, and its repositories and robots with it.
func (s *Store) Rename(ctx context.Context, id int64, name string) error {
	if err := reference.CheckProject(name); err != nil {
		return err
	}
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		var old string
		if err := tx.QueryRow(ctx, `SELECT name FROM projects WHERE id = $1 FOR UPDATE`, id).Scan(&old); err != nil {
			return err
		}
		var tooLong bool
		err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM repositories WHERE project_id = $1 AND length(name) - length($2::text) + length($3::text) > $4)`,
			id, old, name, reference.MaxName).Scan(&tooLong)
		if err != nil {
			return err
		}
		if tooLong {
			return fault.New(fault.Invalid, "a repository's whole name would be longer than %d characters", reference.MaxName).On("project_name")
		}
		for _, sql := range []string{
			`UPDATE projects SET name = $3, updated_at = now() WHERE id = $1 AND name = $2`,
			`UPDATE repositories SET name = $3 || substr(name, length($2::text) + 1) WHERE project_id = $1`,
			`UPDATE robots SET login = $3 || substr(login, length($2::text) + 1) WHERE project_id = $1`,
		} {
			if _, err := tx.Exec(ctx, sql, id, old, name); err != nil {
				return err
			}
		}
		if err := renameInRobots(ctx, tx, old, name); err != nil {
			return err
		}
		// The registry remembers, for a moment, which repository has a blob.
		if _, err := tx.Exec(ctx, `SELECT pg_notify('berth_artifact', 'renamed')`); err != nil {
			return err
		}
		e := projectEvent("update", id, name)
		e.Description = fmt.Sprintf("rename project: %s to %s", old, name)
		return s.outbox.Add(ctx, tx, e)
	})
	if database.Code(err) == database.UniqueViolation {
		return fault.New(fault.Conflict, "The project named %s already exists", name)
	}
	return projectFault(err, id)
}

// renameInRobots puts a project's new name into the permissions of all robots,
// or takes the blocks of a project out that has none any more.
func renameInRobots(ctx context.Context, tx pgx.Tx, old, name string) error {
	_, err := tx.Exec(ctx, `
		UPDATE robots SET permissions = (
			SELECT coalesce(jsonb_agg(CASE WHEN hit THEN jsonb_set(block, '{namespace}', to_jsonb($2::text)) ELSE block END ORDER BY n), '[]')
			FROM (
				SELECT block, n, block->>'kind' = 'project' AND block->>'namespace' = $1 AS hit
				FROM jsonb_array_elements(permissions) WITH ORDINALITY AS e (block, n)
			) AS blocks WHERE NOT hit OR $2::text <> '')
		WHERE permissions @> jsonb_build_array(jsonb_build_object('kind', 'project', 'namespace', $1::text))`, old, name)
	return err
}

// EnsureLibrary makes the public project library, with id 1, if there are no
// projects at all.
func (s *Store) EnsureLibrary(ctx context.Context) error {
	err := database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		// Nodes that start together must not both find the table empty.
		if _, err := tx.Exec(ctx, `LOCK TABLE projects IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO projects (id, name, owner_id, public)
			SELECT 1, $1, (SELECT min(id) FROM users WHERE sysadmin), true WHERE NOT EXISTS (SELECT FROM projects)`, Library)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT setval(pg_get_serial_sequence('projects', 'id'), 1)`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO project_members (project_id, user_id, role)
			SELECT id, owner_id, $1 FROM projects WHERE owner_id IS NOT NULL`, access.ProjectAdmin); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, projectEvent("create", 1, Library))
	})
	return database.Fault(err)
}

func projectEvent(operation string, id int64, name string) event.Event {
	return event.Event{Operation: operation, ResourceType: "project", Resource: name, ProjectID: id, Success: true,
		Description: operation + " project: " + name}
}

// Summary counts what is in a project.
type Summary struct {
	Repositories int
	Members      map[access.Role]int
	StorageLimit int64
	StorageUsed  int64
}

// Summary gives a project's counts.
func (s *Store) Summary(ctx context.Context, id int64) (Summary, error) {
	sum := Summary{Members: map[access.Role]int{}}
	err := s.pool.QueryRow(ctx, `
		SELECT p.storage_limit,
			(SELECT count(*) FROM repositories r WHERE r.project_id = p.id AND r.has_manifests),
			`+quota.Used+`,
			coalesce((SELECT jsonb_object_agg(role, n) FROM (
				SELECT role, count(*) AS n FROM project_members m WHERE m.project_id = p.id GROUP BY role) AS c), '{}')
		FROM projects p WHERE p.id = $1`, id).Scan(&sum.StorageLimit, &sum.Repositories, &sum.StorageUsed, &sum.Members)
	return sum, projectFault(err, id)
}

// Counts are how many projects and repositories there are, as p sees them.
type Counts struct{ PublicProjects, PrivateProjects, PublicRepositories, PrivateRepositories int }

// Counts counts the projects that p sees in lists, and their repositories.
func (s *Store) Counts(ctx context.Context, p access.Principal) (c Counts, err error) {
	var w query.Where
	Visible(&w, p, "p")
	err = s.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE p.public), count(*) FILTER (WHERE NOT p.public),
			coalesce(sum(n.repositories) FILTER (WHERE p.public), 0)::bigint,
			coalesce(sum(n.repositories) FILTER (WHERE NOT p.public), 0)::bigint
		FROM projects p LEFT JOIN (
			SELECT project_id, count(*) AS repositories FROM repositories WHERE has_manifests GROUP BY project_id
		) AS n ON n.project_id = p.id`+w.String(), w.Args...).
		Scan(&c.PublicProjects, &c.PrivateProjects, &c.PublicRepositories, &c.PrivateRepositories)
	return c, database.Fault(err)
}

// Metadata gives a project's metadata.
func (s *Store) Metadata(ctx context.Context, id int64) (map[string]string, error) {
	p, err := s.Project(ctx, access.Principal{}, id)
	return maps.Clone(p.Metadata), err
}
