package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/immutability"
	"berth/services/label"
	"berth/services/query"
	"berth/services/reference"
)

// Info is an artifact as lists show it.
type Info struct {
	ID, RepositoryID, ProjectID int64
	Repository                  string
	Digest                      reference.Digest
	MediaType, ConfigType       string // of the manifest and of its config
	ArtifactType                string
	Type                        string // IMAGE, CHART, … (see typeSQL)
	Size                        int64  // with everything it refers to
	Pushed, Pulled              time.Time
	Annotations                 map[string]string
	Attributes                  json.RawMessage // from the config; see FillAttributes
	Config                      reference.Digest
	Tags                        []Tag
	Children                    []Child
	Accessories                 []Accessory
	Labels                      []label.Label
}

// Tag is a name of an artifact.
type Tag struct {
	ID, RepositoryID, ArtifactID int64
	Name                         string
	Pushed, Pulled               time.Time
	Immutable                    bool // by the project's rules
}

// Child is what an index lists. A child that is not (or no longer) there has id 0.
type Child struct {
	ParentID, ID int64
	Digest       reference.Digest
	Platform     json.RawMessage
	Annotations  json.RawMessage
}

// Accessory is an artifact that refers to another one as its subject.
type Accessory struct {
	ID, SubjectID int64
	Digest        reference.Digest
	ArtifactType  string
	Size          int64
	Created       time.Time
}

// topSQL holds for what a list of artifacts shows: whatever is tagged by people,
// and what is neither part of an index nor about another artifact.
const topSQL = `(NOT m.attached AND EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id) OR (
	NOT EXISTS (SELECT FROM manifest_children c JOIN manifests i ON i.id = c.parent_id
		WHERE c.digest = m.digest AND i.repo_id = m.repo_id AND i.deleted_at IS NULL)
	AND NOT EXISTS (SELECT FROM manifests s WHERE s.repo_id = m.repo_id AND s.digest = m.subject AND s.deleted_at IS NULL)))`

// topProbe is topSQL for a page, which is found by looking at few rows: OFFSET 0
// keeps the planner from reading all tags into a hash table, which only pays for
// a count.
var topProbe = strings.NewReplacer("t.manifest_id = m.id)", "t.manifest_id = m.id OFFSET 0)",
	"deleted_at IS NULL)", "deleted_at IS NULL OFFSET 0)").Replace(topSQL)

// typeSQL is an artifact's type in Harbor's words: images and charts have names
// of their own, others the third word of their config's media type
// (application/vnd.<vendor>.<type>.config.<version>+json).
const typeSQL = `CASE
	WHEN m.config_type IN ('application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json')
		OR m.media_type IN ('` + TypeOCIIndex + `', '` + TypeDockerList + `') THEN 'IMAGE'
	WHEN m.config_type = 'application/vnd.cncf.helm.config.v1+json' THEN 'CHART'
	ELSE coalesce(upper(substring(m.config_type FROM '^application/vnd\.[^.]*\.([^.]*)\.config\.[^.]*\+json$')), 'UNKNOWN') END`

const infoColumns = `m.id, r.id, r.project_id, r.name, m.digest, m.media_type, m.config_type, m.artifact_type, ` + typeSQL + `,
	m.total_size, m.pushed_at, m.pulled_at, m.annotations, m.extra_attrs, m.config_digest`

const infoTables = ` FROM manifests m JOIN repositories r ON r.id = m.repo_id JOIN projects p ON p.id = r.project_id`

func scanInfo(row pgx.CollectableRow) (i Info, err error) {
	var digest, config []byte
	var pulled *time.Time
	if err = row.Scan(&i.ID, &i.RepositoryID, &i.ProjectID, &i.Repository, &digest, &i.MediaType, &i.ConfigType, &i.ArtifactType,
		&i.Type, &i.Size, &i.Pushed, &pulled, &i.Annotations, &i.Attributes, &config); err != nil {
		return i, err
	}
	i.Pulled = orZero(pulled)
	if config != nil {
		if i.Config, err = reference.FromBytes(config); err != nil {
			return i, err
		}
	}
	i.Digest, err = reference.FromBytes(digest)
	return i, err
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

var infoFields = query.Columns{
	"id": {SQL: "m.id", Type: query.Number}, "type": {SQL: "(" + typeSQL + ")"}, "mediatype": {SQL: "m.config_type"},
	"manifestmediatype": {SQL: "m.media_type"}, "artifacttype": {SQL: "m.artifact_type"}, "size": {SQL: "m.total_size", Type: query.Number},
	"pushtime": {SQL: "m.pushed_at", Type: query.Moment}, "pulltime": {SQL: "m.pulled_at", Type: query.Moment},
	"repositoryname": {SQL: "r.name"}, "repositoryid": {SQL: "r.id", Type: query.Number},
}

// ListOptions say which artifacts a list shows, and what of them.
type ListOptions struct {
	Repository   string // "" = of the whole project
	ProjectID    int64
	LatestInRepo bool // only the last pushed of each repository
	With         With
}

// With is what is read of an artifact beyond its own row.
type With struct{ Tags, Children, Accessories, Labels bool }

// ListArtifacts gives a page of artifacts, those pushed last first; NotFound if
// there is no such repository. Besides
// columns, the terms may name tags (* for tagged, nil for untagged, or a name),
// base (* lists parts and accessories too), digest and labels.
func (s *Store) ListArtifacts(ctx context.Context, q query.Query, o ListOptions) (query.Page[Info], error) {
	var w query.Where
	w.And("m.deleted_at IS NULL")
	if o.Repository != "" {
		// By its id, so that the page is a range of the index manifests_pushed.
		r, err := s.withContent(ctx, o.Repository)
		if err != nil {
			return query.Page[Info]{}, err
		}
		w.And("m.repo_id = %s", r)
	} else {
		w.And("r.project_id = %s", o.ProjectID)
	}
	if len(q.Take("base")) == 0 {
		w.And(topSQL)
	}
	if o.LatestInRepo {
		w.And("m.id = (SELECT n.id FROM manifests n WHERE n.repo_id = r.id AND n.deleted_at IS NULL ORDER BY n.pushed_at DESC, n.id DESC LIMIT 1)")
	}
	for _, t := range q.Take("tags") {
		tagTerm(&w, t)
	}
	for _, t := range q.Take("digest") {
		digestTerm(&w, t)
	}
	for _, t := range q.Take("labels") {
		if err := labelTerm(&w, t); err != nil {
			return query.Page[Info]{}, err
		}
	}
	if err := w.Terms(q.Terms, infoFields); err != nil {
		return query.Page[Info]{}, err
	}
	page, err := s.infoPage(ctx, w, q.OrderBy(infoFields, "m.pushed_at DESC, m.id DESC")+q.Limit())
	if err != nil {
		return page, wrap(err, "list artifacts")
	}
	return page, s.fill(ctx, page.Items, o.With)
}

// Counting many artifacts takes far longer than reading a page of them. So a
// total of longTotal and more may be totalLife old; a shorter one never is.
const (
	longTotal = 10_000
	totalLife = 10 * time.Second
)

func (s *Store) infoPage(ctx context.Context, w query.Where, order string) (page query.Page[Info], err error) {
	key := w.String() + fmt.Sprint(w.Args)
	rows := "SELECT " + infoColumns + infoTables + strings.Replace(w.String(), topSQL, topProbe, 1) + order
	if total, ok := s.totals.GetIfPresent(key); ok {
		found, err := s.Pool.Query(ctx, rows, w.Args...)
		if err != nil {
			return page, err
		}
		page.Total = total
		page.Items, err = pgx.CollectRows(found, scanInfo)
		return page, err
	}
	page, err = query.Fetch(ctx, s.Pool, "SELECT count(*)"+infoTables+w.String(), rows, w.Args, scanInfo)
	if err == nil && page.Total >= longTotal {
		s.totals.Set(key, page.Total)
	}
	return page, err
}

// withContent gives the id of a repository that has artifacts. Errors: NotFound.
func (s *Store) withContent(ctx context.Context, name string) (id int64, err error) {
	err = s.Pool.QueryRow(ctx, `SELECT id FROM repositories WHERE name = $1 AND has_manifests`, name).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nameUnknown(name)
	}
	return id, wrap(err, "read a repository")
}

func tagTerm(w *query.Where, t query.Term) {
	const tagged = "EXISTS (SELECT FROM tags g WHERE g.manifest_id = m.id"
	switch {
	case t.Op == query.Equal && t.Values[0] == "*":
		w.And(tagged + ")")
	case t.Op == query.Equal && t.Values[0] == "nil":
		w.And("NOT " + tagged + ")")
	case t.Op == query.Contains:
		w.And(tagged+" AND strpos(lower(g.name), lower(%s)) > 0)", t.Values[0])
	default:
		w.And(tagged+" AND g.name = ANY(%s))", t.Values)
	}
}

// labelTerm picks artifacts by the ids of labels: labels=1, labels=(1 2) for
// those that have both, labels={1 2} for those that have one.
func labelTerm(w *query.Where, t query.Term) error {
	ids := make([]int64, len(t.Values))
	for i, v := range t.Values {
		var err error
		if ids[i], err = strconv.ParseInt(v, 10, 64); err != nil {
			return fault.New(fault.Invalid, "the value %q of labels is not the id of a label", v).On("q")
		}
	}
	const labelled = "EXISTS (SELECT FROM artifact_labels al WHERE al.manifest_id = m.id AND al.label_id = ANY(%s))"
	if t.Op != query.AllOf {
		w.And(labelled, ids)
		return nil
	}
	for _, id := range ids {
		w.And(labelled, []int64{id})
	}
	return nil
}

func digestTerm(w *query.Where, t query.Term) {
	var raw [][]byte
	for _, v := range t.Values {
		if d, err := reference.ParseDigest(v); err == nil {
			raw = append(raw, d.Bytes())
		}
	}
	w.And("m.digest = ANY(%s::bytea[])", raw)
}

// Artifact finds one artifact of a repository by tag or digest. Errors:
// NotFound.
func (s *Store) Artifact(ctx context.Context, repo, ref string, with With) (Info, error) {
	var w query.Where
	w.And("m.deleted_at IS NULL")
	w.And("r.name = %s", repo)
	separator := ":"
	if reference.IsDigest(ref) {
		separator = "@"
		d, err := reference.ParseDigest(ref)
		if err != nil {
			return Info{}, err
		}
		w.And("m.digest = %s", d.Bytes())
	} else {
		w.And("m.id = (SELECT t.manifest_id FROM tags t WHERE t.repo_id = r.id AND t.name = %s)", ref)
	}
	rows, err := s.Pool.Query(ctx, "SELECT "+infoColumns+infoTables+w.String(), w.Args...)
	if err != nil {
		return Info{}, wrap(err, "read an artifact")
	}
	info, err := pgx.CollectExactlyOneRow(rows, scanInfo)
	if errors.Is(err, pgx.ErrNoRows) {
		return info, fault.New(fault.NotFound, "artifact %s%s%s not found", repo, separator, ref)
	}
	if err != nil {
		return info, wrap(err, "read an artifact")
	}
	one := []Info{info}
	err = s.fill(ctx, one, with)
	return one[0], err
}

// fill reads what belongs to the artifacts of a page, in one round trip.
func (s *Store) fill(ctx context.Context, page []Info, with With) error {
	if len(page) == 0 || with == (With{}) {
		return nil
	}
	ids, at := make([]int64, len(page)), map[int64]*Info{}
	for i := range page {
		ids[i], at[page[i].ID] = page[i].ID, &page[i]
	}
	var b pgx.Batch
	if with.Tags {
		rules := map[int64]immutability.Rules{} // by project; read before the tags
		b.Queue(`SELECT i.project_id, jsonb_agg(i.rule) FROM immutable_rules i
			WHERE NOT i.disabled AND i.project_id = ANY($1) GROUP BY i.project_id`, projectsOf(page)).Query(func(rows pgx.Rows) error {
			var project int64
			var list immutability.Rules
			_, err := pgx.ForEachRow(rows, []any{&project, &list}, func() error { rules[project], list = list, nil; return nil })
			return err
		})
		b.Queue(`SELECT `+tagColumns+` FROM tags t WHERE t.manifest_id = ANY($1) ORDER BY t.name`, ids).
			Query(collect(scanTag, func(t Tag) {
				i := at[t.ArtifactID]
				t.Immutable = rules[i.ProjectID].Hold(i.Repository, t.Name)
				i.Tags = append(i.Tags, t)
			}))
	}
	if with.Labels {
		b.Queue(`SELECT al.manifest_id, `+label.Columns+` FROM artifact_labels al JOIN labels l ON l.id = al.label_id
			WHERE al.manifest_id = ANY($1) ORDER BY l.name, l.id`, ids).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var id int64
				l, err := label.Scan(rows, &id)
				if err != nil {
					return err
				}
				at[id].Labels = append(at[id].Labels, l)
			}
			return rows.Err()
		})
	}
	if with.Children {
		b.Queue(`
			SELECT c.parent_id, coalesce(m.id, 0), c.digest, c.platform, c.annotations
			FROM manifest_children c JOIN manifests i ON i.id = c.parent_id
			LEFT JOIN manifests m ON m.repo_id = i.repo_id AND m.digest = c.digest AND m.deleted_at IS NULL
			WHERE c.parent_id = ANY($1) ORDER BY c.parent_id, c.position`, ids).
			Query(collect(scanChild, func(c Child) { i := at[c.ParentID]; i.Children = append(i.Children, c) }))
	}
	if with.Accessories {
		b.Queue(`
			SELECT a.id, m.id, a.digest, a.artifact_type, a.total_size, a.pushed_at FROM manifests m
			JOIN manifests a ON a.repo_id = m.repo_id AND a.subject = m.digest
			WHERE m.id = ANY($1) AND a.deleted_at IS NULL ORDER BY a.id`, ids).
			Query(collect(scanAccessory, func(a Accessory) { i := at[a.SubjectID]; i.Accessories = append(i.Accessories, a) }))
	}
	return wrap(s.Pool.SendBatch(ctx, &b).Close(), "read the parts of artifacts")
}

func projectsOf(page []Info) (ids []int64) {
	for _, i := range page {
		if !slices.Contains(ids, i.ProjectID) {
			ids = append(ids, i.ProjectID)
		}
	}
	return ids
}

func collect[T any](scan pgx.RowToFunc[T], use func(T)) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, scan)
		for _, v := range all {
			use(v)
		}
		return err
	}
}

const tagColumns = `t.id, t.repo_id, t.manifest_id, t.name, t.pushed_at, t.pulled_at`

func scanTag(row pgx.CollectableRow) (t Tag, err error) {
	var pulled *time.Time
	err = row.Scan(&t.ID, &t.RepositoryID, &t.ArtifactID, &t.Name, &t.Pushed, &pulled)
	t.Pulled = orZero(pulled)
	return t, err
}

func scanChild(row pgx.CollectableRow) (c Child, err error) {
	var digest []byte
	if err = row.Scan(&c.ParentID, &c.ID, &digest, &c.Platform, &c.Annotations); err == nil {
		c.Digest, err = reference.FromBytes(digest)
	}
	return c, err
}

func scanAccessory(row pgx.CollectableRow) (a Accessory, err error) {
	var digest []byte
	if err = row.Scan(&a.ID, &a.SubjectID, &digest, &a.ArtifactType, &a.Size, &a.Created); err == nil {
		a.Digest, err = reference.FromBytes(digest)
	}
	return a, err
}

var tagFields = query.Columns{
	"id": {SQL: "t.id", Type: query.Number}, "name": {SQL: "t.name"},
	"pushtime": {SQL: "t.pushed_at", Type: query.Moment}, "pulltime": {SQL: "t.pulled_at", Type: query.Moment},
}

// ListTags gives a page of an artifact's tags, those pushed last first.
func (s *Store) ListTags(ctx context.Context, of Info, q query.Query) (query.Page[Tag], error) {
	var w query.Where
	w.And("t.manifest_id = %s", of.ID)
	if err := w.Terms(q.Terms, tagFields); err != nil {
		return query.Page[Tag]{}, err
	}
	page, err := query.Fetch(ctx, s.Pool, "SELECT count(*) FROM tags t"+w.String(),
		"SELECT "+tagColumns+" FROM tags t"+w.String()+q.OrderBy(tagFields, "t.pushed_at DESC, t.name")+q.Limit(), w.Args, scanTag)
	if err != nil {
		return page, wrap(err, "list tags")
	}
	var rules immutability.Rules
	err = s.Pool.QueryRow(ctx, `SELECT jsonb_agg(rule) FROM immutable_rules WHERE project_id = $1 AND NOT disabled`, of.ProjectID).Scan(&rules)
	for n := range page.Items {
		page.Items[n].Immutable = rules.Hold(of.Repository, page.Items[n].Name)
	}
	return page, wrap(err, "list tags")
}

// StorageUsed gives how many bytes blobs and manifests take, each counted once.
func (s *Store) StorageUsed(ctx context.Context) (n int64, err error) {
	err = s.Pool.QueryRow(ctx, `
		SELECT (coalesce((SELECT sum(size) FROM blobs WHERE damaged_at IS NULL), 0)
			+ coalesce((SELECT sum(d.size) FROM (SELECT DISTINCT digest, size FROM manifests WHERE deleted_at IS NULL) AS d), 0))::bigint`).Scan(&n)
	return n, database.Fault(err)
}

// CountArtifacts gives how many artifacts there are.
func (s *Store) CountArtifacts(ctx context.Context) (n int64, err error) {
	err = s.Pool.QueryRow(ctx, `SELECT count(*) FROM manifests WHERE deleted_at IS NULL`).Scan(&n)
	return n, database.Fault(err)
}
