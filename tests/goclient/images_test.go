package goclient

import (
	"strings"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/artifact"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/icon"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/label"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/repository"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"berth/tests/berthtest"
)

// push makes an image with a tag and gives its digest.
func (w *world) push(repo, tag string) string {
	w.Helper()
	i := berthtest.NewImage(1, 1000)
	w.server.Registry(w.T, w.admin).PushImage(w.T, repo, tag, i)
	return berthtest.Digest(i.Manifest.Data)
}

func images(w *world) {
	ctx := w.Context()
	w.newProject("hold", false)
	digest := w.push("hold/deep/app", "v1")
	const name = "deep%2Fapp" // the client escapes it once more
	list, err := w.Repository.ListRepositories(ctx, repository.NewListRepositoriesParams().WithProjectName("hold"))
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].Name != "hold/deep/app" || list.Payload[0].ArtifactCount != 1 {
		w.Errorf("%+v", list.Payload)
	}
	_, err = w.Repository.ListAllRepositories(ctx, repository.NewListAllRepositoriesParams().WithQ(pointer("name=~deep")))
	w.need(err)
	_, err = w.Repository.UpdateRepository(ctx, repository.NewUpdateRepositoryParams().WithProjectName("hold").WithRepositoryName(name).
		WithRepository(&models.Repository{Description: "what it is"}))
	w.need(err)
	one, err := w.Repository.GetRepository(ctx, repository.NewGetRepositoryParams().WithProjectName("hold").WithRepositoryName(name))
	w.need(err)
	if one.Payload.Description != "what it is" {
		w.Errorf("%+v", one.Payload)
	}
	got, err := w.Artifact.GetArtifact(ctx, artifact.NewGetArtifactParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1"))
	w.need(err)
	if got.Payload.Digest != digest || got.Payload.Type != "IMAGE" || len(got.Payload.Tags) != 1 {
		w.Errorf("%+v", got.Payload)
	}
	picture, err := w.Icon.GetIcon(ctx, icon.NewGetIconParams().WithDigest(got.Payload.Icon))
	w.need(err)
	if picture.Payload.Content == "" {
		w.Error("an empty icon")
	}
	// The client wants a string where Harbor, too, gives a list; it got its answer.
	_, err = w.Artifact.GetAddition(ctx, artifact.NewGetAdditionParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1").WithAddition("build_history"))
	if err == nil || !strings.Contains(err.Error(), "cannot unmarshal array") {
		w.Errorf("%v", err)
	}
	_, err = w.Artifact.GetVulnerabilitiesAddition(ctx, artifact.NewGetVulnerabilitiesAdditionParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1"))
	w.refused(404, err)
	of, err := w.Project.ListArtifactsOfProject(ctx, project.NewListArtifactsOfProjectParams().WithProjectNameOrID("hold"))
	w.need(err)
	if len(of.Payload) != 1 {
		w.Errorf("%d artifacts in the project", len(of.Payload))
	}
	w.tagsAndCopies(name, digest)
	w.artifactLabels(name)
	_, err = w.Artifact.DeleteArtifact(ctx, artifact.NewDeleteArtifactParams().WithProjectName("hold").WithRepositoryName(name).WithReference(digest))
	w.need(err)
	_, err = w.Artifact.GetArtifact(ctx, artifact.NewGetArtifactParams().WithProjectName("hold").WithRepositoryName(name).WithReference(digest))
	w.refused(404, err)
}

func (w *world) tagsAndCopies(name, digest string) {
	ctx := w.Context()
	_, err := w.Artifact.CreateTag(ctx, artifact.NewCreateTagParams().WithProjectName("hold").WithRepositoryName(name).WithReference(digest).WithTag(&models.Tag{Name: "stable"}))
	w.need(err)
	_, err = w.Artifact.CreateTag(ctx, artifact.NewCreateTagParams().WithProjectName("hold").WithRepositoryName(name).WithReference(digest).WithTag(&models.Tag{Name: "stable"}))
	w.refused(409, err)
	tags, err := w.Artifact.ListTags(ctx, artifact.NewListTagsParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1"))
	w.need(err)
	if len(tags.Payload) != 2 {
		w.Errorf("%d tags", len(tags.Payload))
	}
	_, err = w.Artifact.DeleteTag(ctx, artifact.NewDeleteTagParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1").WithTagName("stable"))
	w.need(err)
	made, err := w.Artifact.CopyArtifact(ctx, artifact.NewCopyArtifactParams().WithProjectName("hold").WithRepositoryName("copy").WithFrom("hold/deep/app:v1"))
	w.need(err)
	if !strings.HasSuffix(made.Location, "/repositories/copy/artifacts/v1") {
		w.Errorf("Location %q", made.Location)
	}
	accessories, err := w.Artifact.ListAccessories(ctx, artifact.NewListAccessoriesParams().WithProjectName("hold").WithRepositoryName("copy").WithReference("v1"))
	w.need(err)
	if len(accessories.Payload) != 0 {
		w.Errorf("%+v", accessories.Payload)
	}
}

func (w *world) artifactLabels(name string) {
	ctx := w.Context()
	made, err := w.Label.CreateLabel(ctx, label.NewCreateLabelParams().WithLabel(&models.Label{Name: "tested", Scope: "g"}))
	w.need(err)
	id := lastID(w, made.Location)
	_, err = w.Artifact.AddLabel(ctx, artifact.NewAddLabelParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1").WithLabel(&models.Label{ID: id}))
	w.need(err)
	with, err := w.Artifact.ListArtifacts(ctx, artifact.NewListArtifactsParams().WithProjectName("hold").WithRepositoryName(name).WithWithLabel(pointer(true)).
		WithQ(pointer("labels=("+itoa(id)+")")))
	w.need(err)
	if len(with.Payload) != 1 || len(with.Payload[0].Labels) != 1 || with.Payload[0].Labels[0].Name != "tested" {
		w.Errorf("%+v", with.Payload)
	}
	_, err = w.Artifact.RemoveLabel(ctx, artifact.NewRemoveLabelParams().WithProjectName("hold").WithRepositoryName(name).WithReference("v1").WithLabelID(id))
	w.need(err)
}
