package core

import (
	"encoding/json"
	"net/url"
	"strings"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/artifact"
	"berth/services/query"
	"berth/services/reference"
)

type repositoryWire struct {
	Artifacts   int    `json:"artifact_count"`
	Created     moment `json:"creation_time"`
	Description string `json:"description,omitempty"`
	ID          int64  `json:"id"`
	Name        string `json:"name"`
	ProjectID   int64  `json:"project_id"`
	Pulls       int64  `json:"pull_count"`
	Updated     moment `json:"update_time"`
}

func repositoryOf(r artifact.RepositoryInfo) repositoryWire {
	return repositoryWire{r.Artifacts, moment(r.Created), r.Description, r.ID, r.Name, r.ProjectID, r.Pulls, moment(r.Updated)}
}

// repositoryPath is the path to a repository, whose name is escaped twice.
type repositoryPath struct {
	namedProjectPath
	Name string `path:"repository_name" doc:"without the project, URL-encoded twice if it has a /"`
}

// whole is the repository's whole name.
func (p repositoryPath) whole() string { return p.Project + "/" + p.Name }

type artifactPath struct {
	repositoryPath
	Reference string `path:"reference" doc:"a tag or a digest"`
}

func (a *API) listAllRepositories(r *request, in struct{ paging }) (list[repositoryWire], error) {
	return a.repositories(r, in.paging, r.visible)
}

func (a *API) listRepositories(r *request, in struct {
	paging
	namedProjectPath
}) (list[repositoryWire], error) {
	return a.repositories(r, in.paging, artifact.InProject(r.target.ProjectID))
}

func (a *API) repositories(r *request, in paging, restrict func(*query.Where)) (list[repositoryWire], error) {
	q, err := in.query()
	if err != nil {
		return list[repositoryWire]{}, err
	}
	page, err := a.Artifacts.ListRepositories(r.Context(), q, restrict)
	return paged(page, err, in, repositoryOf)
}

func (a *API) getRepository(r *request, in struct{ repositoryPath }) (repositoryWire, error) {
	found, err := a.Artifacts.Repository(r.Context(), in.whole())
	return repositoryOf(found), err
}

// maxDescription is how long the description of a repository may be.
const maxDescription = 64 << 10

func (a *API) updateRepository(r *request, in struct {
	repositoryPath
	Body struct {
		Description string `json:"description"`
	} `body:""`
}) (empty, error) {
	if len(in.Body.Description) > maxDescription || strings.ContainsRune(in.Body.Description, 0) {
		return empty{}, fault.New(fault.Invalid, "a description is text of at most %d bytes", maxDescription).On("description")
	}
	return empty{}, a.Artifacts.Describe(r.Context(), in.whole(), in.Body.Description)
}

func (a *API) deleteRepository(r *request, in struct{ repositoryPath }) (empty, error) {
	if err := r.onTag(access.EveryTag, "repository", "delete"); err != nil {
		return empty{}, err
	}
	return empty{}, a.Artifacts.DeleteRepository(r.Context(), in.whole())
}

type artifactWire struct {
	Accessories       []accessory             `json:"accessories"`
	AdditionLinks     map[string]additionLink `json:"addition_links,omitempty"`
	Annotations       map[string]string       `json:"annotations,omitempty"`
	ArtifactType      string                  `json:"artifact_type"`
	Digest            string                  `json:"digest"`
	ExtraAttrs        json.RawMessage         `json:"extra_attrs,omitempty"`
	Icon              string                  `json:"icon"`
	ID                int64                   `json:"id"`
	Labels            []labelWire             `json:"labels"`
	ManifestMediaType string                  `json:"manifest_media_type"`
	MediaType         string                  `json:"media_type"`
	ProjectID         int64                   `json:"project_id"`
	Pulled            moment                  `json:"pull_time"`
	Pushed            moment                  `json:"push_time"`
	References        []referenceWire         `json:"references"`
	RepositoryID      int64                   `json:"repository_id"`
	Repository        string                  `json:"repository_name"`
	Size              int64                   `json:"size"`
	Tags              []tagWire               `json:"tags"`
	Type              string                  `json:"type"`
}

type additionLink struct {
	Absolute bool   `json:"absolute"`
	Href     string `json:"href"`
}

type referenceWire struct {
	Annotations json.RawMessage `json:"annotations,omitempty"`
	Digest      string          `json:"child_digest"`
	ID          int64           `json:"child_id"`
	ParentID    int64           `json:"parent_id"`
	Platform    json.RawMessage `json:"platform,omitempty"`
}

type tagWire struct {
	ArtifactID   int64  `json:"artifact_id"`
	ID           int64  `json:"id"`
	Immutable    bool   `json:"immutable"`
	Name         string `json:"name"`
	Pulled       moment `json:"pull_time"`
	Pushed       moment `json:"push_time"`
	RepositoryID int64  `json:"repository_id"`
}

func tagOf(t artifact.Tag) tagWire {
	return tagWire{t.ArtifactID, t.ID, t.Immutable, t.Name, moment(t.Pulled), moment(t.Pushed), t.RepositoryID}
}

type accessory struct {
	ArtifactID    int64  `json:"artifact_id"`
	Created       moment `json:"creation_time"`
	Digest        string `json:"digest"`
	ID            int64  `json:"id"`
	Size          int64  `json:"size"`
	SubjectDigest string `json:"subject_artifact_digest"`
	SubjectID     int64  `json:"subject_artifact_id"`
	SubjectRepo   string `json:"subject_artifact_repo"`
	Type          string `json:"type"`
}

func accessoriesOf(i artifact.Info) (all []accessory) {
	for _, x := range i.Accessories {
		all = append(all, accessory{x.ID, moment(x.Created), x.Digest.String(), x.ID, x.Size, i.Digest.String(), i.ID, i.Repository, accessoryType(x.ArtifactType)})
	}
	return all
}

// accessoryType names what refers to an artifact in Harbor's words.
func accessoryType(artifactType string) string {
	switch artifactType {
	case artifact.CosignSignature, "application/vnd.dev.sigstore.bundle.v0.3+json":
		return "signature.cosign"
	case "application/vnd.cncf.notary.signature":
		return "signature.notation"
	case "application/vnd.goharbor.harbor.sbom.v1":
		return "sbom.harbor"
	case "application/vnd.nydus.manifest.v1+json":
		return "accelerator.nydus"
	}
	return "subject.accessory"
}

func (a *API) artifactOf(i artifact.Info) artifactWire {
	w := artifactWire{
		Accessories: accessoriesOf(i), Annotations: i.Annotations, ArtifactType: i.ArtifactType, Digest: i.Digest.String(),
		ExtraAttrs: i.Attributes, ID: i.ID, ManifestMediaType: i.MediaType, MediaType: i.ConfigType, ProjectID: i.ProjectID,
		Pulled: moment(i.Pulled), Pushed: moment(i.Pushed), RepositoryID: i.RepositoryID, Repository: i.Repository, Size: i.Size, Type: i.Type, Icon: a.icons.of(i),
	}
	if w.MediaType == "" { // an index has no config
		w.MediaType = i.MediaType
	}
	if w.ArtifactType == "" {
		w.ArtifactType = w.MediaType
	}
	for _, name := range additionsOf(i) {
		if w.AdditionLinks == nil {
			w.AdditionLinks = map[string]additionLink{}
		}
		w.AdditionLinks[name] = additionLink{false, artifactHref(i) + "/additions/" + name}
	}
	for _, c := range i.Children {
		w.References = append(w.References, referenceWire{c.Annotations, c.Digest.String(), c.ID, c.ParentID, c.Platform})
	}
	for _, t := range i.Tags {
		w.Tags = append(w.Tags, tagOf(t))
	}
	for _, l := range i.Labels {
		w.Labels = append(w.Labels, labelOf(l))
	}
	return w
}

// artifactHref is where an artifact is in this API; the repository's name is
// escaped twice, as Harbor's clients expect it.
func artifactHref(i artifact.Info) string {
	project, rest := reference.Project(i.Repository)
	return v2 + "/projects/" + project + "/repositories/" + url.PathEscape(url.PathEscape(rest)) + "/artifacts/" + i.Digest.String()
}

// artifactParts say what an artifact is shown with. Whether tags are immutable is
// always told, and scans have no data yet: asking for them changes nothing.
type artifactParts struct {
	Tags        *bool `query:"with_tag" doc:"true if absent"`
	Labels      bool  `query:"with_label"`
	Scan        bool  `query:"with_scan_overview"`
	SBOM        bool  `query:"with_sbom_overview"`
	Immutable   bool  `query:"with_immutable_status"`
	Accessories bool  `query:"with_accessory"`
}

func (p artifactParts) with() artifact.With {
	return artifact.With{Tags: p.Tags == nil || *p.Tags, Children: true, Accessories: p.Accessories, Labels: p.Labels}
}

func (a *API) listArtifacts(r *request, in struct {
	paging
	repositoryPath
	artifactParts
}) (list[artifactWire], error) {
	return a.artifacts(r, in.paging, artifact.ListOptions{Repository: in.whole(), ProjectID: r.target.ProjectID, With: in.with()})
}

func (a *API) listProjectArtifacts(r *request, in struct {
	paging
	inProjectPath
	artifactParts
	Latest bool `query:"latest_in_repository" doc:"only the artifact of each repository that was pushed last"`
}) (list[artifactWire], error) {
	return a.artifacts(r, in.paging, artifact.ListOptions{ProjectID: r.target.ProjectID, LatestInRepo: in.Latest, With: in.with()})
}

func (a *API) artifacts(r *request, in paging, o artifact.ListOptions) (list[artifactWire], error) {
	q, err := in.query()
	if err != nil {
		return list[artifactWire]{}, err
	}
	page, err := a.Artifacts.ListArtifacts(r.Context(), q, o)
	if err == nil {
		err = a.Artifacts.FillAttributes(r.Context(), page.Items, a.OpenBlob)
	}
	return paged(page, err, in, a.artifactOf)
}

func (a *API) getArtifact(r *request, in struct {
	artifactPath
	artifactParts
}) (artifactWire, error) {
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, in.with())
	if err != nil {
		return artifactWire{}, err
	}
	one := []artifact.Info{i}
	err = a.Artifacts.FillAttributes(r.Context(), one, a.OpenBlob)
	return a.artifactOf(one[0]), err
}

func (a *API) copyArtifact(r *request, in struct {
	repositoryPath
	From string `query:"from,required" doc:"project/repository:tag or project/repository@digest"`
}) (created, error) {
	if err := reference.CheckName(in.whole()); err != nil {
		return created{}, err
	}
	repo, ref, tags := splitSource(in.From)
	project, rest := reference.Project(repo)
	source, err := a.Projects.Target(r.Context(), r.principal, project)
	if err != nil {
		return created{}, r.hidden(err)
	}
	source.Repository = rest
	for _, tag := range tags {
		source.Tag = tag
		if err := r.onTag(tag, "artifact", "create"); err != nil {
			return created{}, err
		}
	}
	if err := r.require(source, "repository", "pull"); err != nil {
		return created{}, err
	}
	i, err := a.Artifacts.Artifact(r.Context(), repo, ref, artifact.With{})
	if err != nil {
		return created{}, err
	}
	location := v2 + "/projects/" + in.Project + "/repositories/" + url.PathEscape(in.Name) + "/artifacts/" + ref
	return created{location: location}, a.Artifacts.Copy(r.Context(), repo, i.Digest, in.whole(), tags)
}

// splitSource parts what is to be copied into repository and reference; what is
// named by a tag gets that tag in the copy.
func splitSource(from string) (repo, ref string, tags []string) {
	if repo, ref, ok := strings.Cut(from, "@"); ok {
		return repo, ref, nil
	}
	i := strings.LastIndexByte(from, ':')
	if i < 0 {
		return from, "", nil
	}
	return from[:i], from[i+1:], []string{from[i+1:]}
}

func (a *API) deleteArtifact(r *request, in struct{ artifactPath }) (empty, error) {
	// It goes with all its tags.
	if err := r.onTag(access.EveryTag, "artifact", "delete"); err != nil {
		return empty{}, err
	}
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{})
	if err != nil {
		return empty{}, err
	}
	return empty{}, a.Artifacts.DeleteManifest(r.Context(), in.whole(), i.Digest)
}

func (a *API) listTags(r *request, in struct {
	paging
	artifactPath
	Immutable bool `query:"with_immutable_status"`
}) (list[tagWire], error) {
	q, err := in.query()
	if err != nil {
		return list[tagWire]{}, err
	}
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{})
	if err != nil {
		return list[tagWire]{}, err
	}
	page, err := a.Artifacts.ListTags(r.Context(), i, q)
	return paged(page, err, in.paging, tagOf)
}

// createTag answers without a Location, as Harbor does: a tag has no path of
// its own to be read at.
func (a *API) createTag(r *request, in struct {
	artifactPath
	Body struct {
		Name string `json:"name"`
	} `body:""`
}) (created, error) {
	if err := reference.CheckTag(in.Body.Name); err != nil {
		return created{}, err
	}
	if err := r.onTag(in.Body.Name, "tag", "create"); err != nil {
		return created{}, err
	}
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{})
	if err != nil {
		return created{}, err
	}
	return created{}, a.Artifacts.CreateTag(r.Context(), in.whole(), i.Digest, in.Body.Name)
}

func (a *API) deleteTag(r *request, in struct {
	artifactPath
	Tag string `path:"tag_name"`
}) (empty, error) {
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{Tags: true})
	if err != nil {
		return empty{}, err
	}
	for _, t := range i.Tags {
		if t.Name == in.Tag {
			return empty{}, a.Artifacts.DeleteTag(r.Context(), in.whole(), in.Tag)
		}
	}
	return empty{}, fault.New(fault.NotFound, "the artifact %s has no tag %s", in.Reference, in.Tag)
}

func (a *API) listAccessories(r *request, in struct {
	paging
	artifactPath
}) (list[accessory], error) {
	q, err := in.query()
	if err != nil {
		return list[accessory]{}, err
	}
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{Accessories: true})
	all := accessoriesOf(i)
	page := query.Page[accessory]{Total: len(all)}
	if from := min(q.Offset(), len(all)); q.Size > 0 {
		page.Items = all[from:min(from+q.Size, len(all))]
	} else {
		page.Items = all
	}
	return paged(page, err, in.paging, func(x accessory) accessory { return x })
}
