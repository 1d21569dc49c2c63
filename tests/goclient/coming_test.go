package goclient

import (
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/preheat"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/registry"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/replication"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/scan"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/scan_all"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/scan_data_export"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/scanner"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/securityhub"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"
)

// empty checks a list of what is not part of Berth yet: the client reads it.
func empty[T any](w *world, list []T, err error) {
	w.Helper()
	w.need(err)
	if len(list) != 0 {
		w.Errorf("%+v", list)
	}
}

// coming is what every client asks for at some time, and what Berth has not yet.
func coming(w *world) {
	ctx := w.Context()
	registries, err := w.Registry.ListRegistries(ctx, registry.NewListRegistriesParams())
	w.need(err)
	empty(w, registries.Payload, err)
	_, err = w.Registry.CreateRegistry(ctx, registry.NewCreateRegistryParams().WithRegistry(&models.Registry{Name: "x", Type: "harbor", URL: "https://x"}))
	w.refused(400, err)
	kinds, err := w.Registry.ListRegistryProviderTypes(ctx, registry.NewListRegistryProviderTypesParams())
	w.need(err)
	empty(w, kinds.Payload, err)
	_, err = w.Registry.ListRegistryProviderInfos(ctx, registry.NewListRegistryProviderInfosParams())
	w.need(err)
	policies, err := w.Replication.ListReplicationPolicies(ctx, replication.NewListReplicationPoliciesParams())
	w.need(err)
	empty(w, policies.Payload, err)
	executions, err := w.Replication.ListReplicationExecutions(ctx, replication.NewListReplicationExecutionsParams())
	w.need(err)
	empty(w, executions.Payload, err)
	_, err = w.Replication.GetReplicationPolicy(ctx, replication.NewGetReplicationPolicyParams().WithID(1))
	w.refused(404, err)
	scanners, err := w.Scanner.ListScanners(ctx, scanner.NewListScannersParams())
	w.need(err)
	empty(w, scanners.Payload, err)
	_, err = w.Project.GetScannerOfProject(ctx, project.NewGetScannerOfProjectParams().WithProjectNameOrID("library"))
	w.need(err)
	_, err = w.Project.ListScannerCandidatesOfProject(ctx, project.NewListScannerCandidatesOfProjectParams().WithProjectNameOrID("library"))
	w.need(err)
	_, err = w.Project.SetScannerOfProject(ctx, project.NewSetScannerOfProjectParams().WithProjectNameOrID("library").WithPayload(&models.ProjectScanner{UUID: pointer("x")}))
	w.refused(404, err)
	_, err = w.Scan.ScanArtifact(ctx, scan.NewScanArtifactParams().WithProjectName("library").WithRepositoryName("nosuch").WithReference("v1"))
	w.refused(404, err)
	metrics, err := w.ScanAll.GetLatestScanAllMetrics(ctx, scan_all.NewGetLatestScanAllMetricsParams())
	w.need(err)
	if metrics.Payload.Ongoing {
		w.Error("something is scanned")
	}
	summary, err := w.Securityhub.GetSecuritySummary(ctx, securityhub.NewGetSecuritySummaryParams())
	w.need(err)
	if summary.Payload.TotalVuls != 0 {
		w.Errorf("%+v", summary.Payload)
	}
	exports, err := w.ScanDataExport.GetScanDataExportExecutionList(ctx, scan_data_export.NewGetScanDataExportExecutionListParams())
	w.need(err)
	empty(w, exports.Payload.Items, err)
	instances, err := w.Preheat.ListInstances(ctx, preheat.NewListInstancesParams())
	w.need(err)
	empty(w, instances.Payload, err)
	heat, err := w.Preheat.ListPolicies(ctx, preheat.NewListPoliciesParams().WithProjectName("library"))
	w.need(err)
	empty(w, heat.Payload, err)
}
