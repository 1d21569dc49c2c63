package goclient

import (
	"strconv"
	"strings"

	harbor "github.com/goharbor/go-client/pkg/sdk/v2.0/client"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/auditlog"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/label"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project_metadata"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/quota"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/repository"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/search"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"
)

// lastID gives the id that a Location ends with, as the Terraform provider takes it.
func lastID(w *world, location string) int64 {
	w.Helper()
	id, err := strconv.ParseInt(location[strings.LastIndexByte(location, '/')+1:], 10, 64)
	if err != nil || !strings.HasPrefix(location, "/api/v2.0/") {
		w.Fatalf("Location %q", location)
	}
	return id
}

func (w *world) newProject(name string, public bool) int64 {
	w.Helper()
	made, err := w.Project.CreateProject(w.Context(), project.NewCreateProjectParams().WithProject(&models.ProjectReq{
		ProjectName: name, Metadata: &models.ProjectMetadata{Public: strconv.FormatBool(public)}}))
	w.need(err)
	return lastID(w, made.Location)
}

// repositories lists a project's repositories as somebody.
func (w *world) repositories(c *harbor.HarborAPI, project string) error {
	_, err := c.Repository.ListRepositories(w.Context(), repository.NewListRepositoriesParams().WithProjectName(project))
	return err
}

func projects(w *world) {
	ctx := w.Context()
	id := w.newProject("dock", false)
	_, err := w.Project.CreateProject(ctx, project.NewCreateProjectParams().WithProject(&models.ProjectReq{ProjectName: "dock"}))
	w.refused(409, err)
	_, err = w.Project.HeadProject(ctx, project.NewHeadProjectParams().WithProjectName("dock"))
	w.need(err)
	_, err = w.Project.HeadProject(ctx, project.NewHeadProjectParams().WithProjectName("nosuch"))
	w.refused(404, err)
	list, err := w.Project.ListProjects(ctx, project.NewListProjectsParams().WithName(pointer("doc")).WithPageSize(pointer[int64](1)))
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].ProjectID != int32(id) {
		w.Errorf("%+v", list.Payload)
	}
	_, err = w.Project.UpdateProject(ctx, project.NewUpdateProjectParams().WithProjectNameOrID("dock").WithProject(&models.ProjectReq{
		Metadata: &models.ProjectMetadata{Public: "true", AutoScan: pointer("true")}}))
	w.need(err)
	got, err := w.Project.GetProject(ctx, project.NewGetProjectParams().WithProjectNameOrID("dock"))
	w.need(err)
	if got.Payload.Metadata.Public != "true" || *got.Payload.Metadata.AutoScan != "true" {
		w.Errorf("%+v", got.Payload.Metadata)
	}
	summary, err := w.Project.GetProjectSummary(ctx, project.NewGetProjectSummaryParams().WithProjectNameOrID("dock"))
	w.need(err)
	if summary.Payload.ProjectAdminCount != 1 || summary.Payload.Quota == nil {
		w.Errorf("%+v", summary.Payload)
	}
	w.metadata("dock")
	w.push("dock/app", "v1")
	can, err := w.Project.GetProjectDeletable(ctx, project.NewGetProjectDeletableParams().WithProjectNameOrID("dock"))
	w.need(err)
	if can.Payload.Deletable {
		w.Error("a project with a repository can be deleted")
	}
	_, err = w.Project.DeleteProject(ctx, project.NewDeleteProjectParams().WithProjectNameOrID("dock"))
	w.refused(412, err)
	_, err = w.Repository.DeleteRepository(ctx, repository.NewDeleteRepositoryParams().WithProjectName("dock").WithRepositoryName("app"))
	w.need(err)
	_, err = w.Project.DeleteProject(ctx, project.NewDeleteProjectParams().WithProjectNameOrID("dock"))
	w.need(err)
}

func (w *world) metadata(name string) {
	ctx := w.Context()
	_, err := w.ProjectMetadata.AddProjectMetadatas(ctx, project_metadata.NewAddProjectMetadatasParams().WithProjectNameOrID(name).WithMetadata(map[string]string{"prevent_vul": "false"}))
	w.need(err)
	_, err = w.ProjectMetadata.UpdateProjectMetadata(ctx, project_metadata.NewUpdateProjectMetadataParams().WithProjectNameOrID(name).WithMetaName("prevent_vul").WithMetadata(map[string]string{"prevent_vul": "true"}))
	w.need(err)
	one, err := w.ProjectMetadata.GetProjectMetadata(ctx, project_metadata.NewGetProjectMetadataParams().WithProjectNameOrID(name).WithMetaName("prevent_vul"))
	w.need(err)
	if one.Payload["prevent_vul"] != "true" {
		w.Errorf("%v", one.Payload)
	}
	_, err = w.ProjectMetadata.DeleteProjectMetadata(ctx, project_metadata.NewDeleteProjectMetadataParams().WithProjectNameOrID(name).WithMetaName("prevent_vul"))
	w.need(err)
	all, err := w.ProjectMetadata.ListProjectMetadatas(ctx, project_metadata.NewListProjectMetadatasParams().WithProjectNameOrID(name))
	w.need(err)
	if _, still := all.Payload["prevent_vul"]; still || all.Payload["public"] != "true" {
		w.Errorf("%v", all.Payload)
	}
}

func labels(w *world) {
	ctx := w.Context()
	made, err := w.Label.CreateLabel(ctx, label.NewCreateLabelParams().WithLabel(&models.Label{Name: "blue", Color: "#0000FF", Scope: "g"}))
	w.need(err)
	id := lastID(w, made.Location)
	_, err = w.Label.ListLabels(ctx, label.NewListLabelsParams())
	w.refused(400, err)
	list, err := w.Label.ListLabels(ctx, label.NewListLabelsParams().WithScope(pointer("g")).WithName(pointer("blue")))
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].ID != id {
		w.Errorf("%+v", list.Payload)
	}
	_, err = w.Label.UpdateLabel(ctx, label.NewUpdateLabelParams().WithLabelID(id).WithLabel(&models.Label{Name: "green", Color: "#00FF00", Scope: "g"}))
	w.need(err)
	one, err := w.Label.GetLabelByID(ctx, label.NewGetLabelByIDParams().WithLabelID(id))
	w.need(err)
	if one.Payload.Name != "green" {
		w.Errorf("%+v", one.Payload)
	}
	_, err = w.Label.DeleteLabel(ctx, label.NewDeleteLabelParams().WithLabelID(id))
	w.need(err)
	_, err = w.Label.GetLabelByID(ctx, label.NewGetLabelByIDParams().WithLabelID(id))
	w.refused(404, err)
}

func quotas(w *world) {
	ctx := w.Context()
	project := strconv.FormatInt(w.newProject("small", false), 10)
	list, err := w.Quota.ListQuotas(ctx, quota.NewListQuotasParams().WithReference(pointer("project")).WithReferenceID(&project))
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].Hard["storage"] != -1 {
		w.Fatalf("%+v", list.Payload)
	}
	id := list.Payload[0].ID
	_, err = w.Quota.UpdateQuota(ctx, quota.NewUpdateQuotaParams().WithID(id).WithHard(&models.QuotaUpdateReq{Hard: models.ResourceList{"storage": 1000}}))
	w.need(err)
	_, err = w.Quota.UpdateQuota(ctx, quota.NewUpdateQuotaParams().WithID(id).WithHard(&models.QuotaUpdateReq{Hard: models.ResourceList{"storage": 0}}))
	w.refused(400, err)
	one, err := w.Quota.GetQuota(ctx, quota.NewGetQuotaParams().WithID(id))
	w.need(err)
	if one.Payload.Hard["storage"] != 1000 || one.Payload.Used["storage"] != 0 {
		w.Errorf("%+v", one.Payload)
	}
}

func trail(w *world) {
	ctx := w.Context()
	w.newProject("traced", false)
	types, err := w.Auditlog.ListAuditLogEventTypes(ctx, auditlog.NewListAuditLogEventTypesParams())
	w.need(err)
	if len(types.Payload) != 18 {
		w.Errorf("%d types of events", len(types.Payload))
	}
	w.eventually("the project's creation in the audit trail", func() bool {
		list, err := w.Auditlog.ListAuditLogExts(ctx, auditlog.NewListAuditLogExtsParams().WithQ(pointer("resource=traced,operation=create")))
		w.need(err)
		return len(list.Payload) == 1 && list.Payload[0].Username == "admin"
	})
	_, err = w.Auditlog.ListAuditLogs(ctx, auditlog.NewListAuditLogsParams())
	w.need(err)
	of, err := w.Project.GetLogExts(ctx, project.NewGetLogExtsParams().WithProjectName("traced"))
	w.need(err)
	if len(of.Payload) == 0 {
		w.Error("the project has no trail")
	}
	_, err = w.Project.GetLogs(ctx, project.NewGetLogsParams().WithProjectName("traced"))
	w.need(err)
}

func searching(w *world) {
	w.newProject("findme", true)
	found, err := w.Search.Search(w.Context(), search.NewSearchParams().WithQ("findm"))
	w.need(err)
	if len(found.Payload.Project) != 1 || found.Payload.Project[0].Name != "findme" {
		w.Errorf("%+v", found.Payload)
	}
}
