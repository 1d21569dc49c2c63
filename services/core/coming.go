package core

import (
	"strconv"

	"berth/appliance/fault"
	"berth/services/artifact"
)

// Replication, scanning and preheating are not part of Berth yet. Harbor's
// clients ask about them all the same, some at every start, and Harbor itself
// runs without them: these routes answer as a Harbor does where no registry, no
// scanner and no preheat instance has been added. Whatever would add one is
// refused with the reason.
var comingRoutes = []route{
	{"GET", v2 + "/replication/adapters", system("replication-adapter", "list"), "List the kinds of registries that can be added: none yet", handle((*API).noAdapters)},
	{"GET", v2 + "/replication/adapterinfos", system("replication-adapter", "list"), "Describe the kinds of registries that can be added: none yet", handle((*API).noAdapterInfos)},
	{"GET", v2 + "/registries", system("registry", "list"), "List other registries", handle((*API).emptyPage)},
	{"POST", v2 + "/registries", system("registry", "create"), "Add another registry: not yet", handle(refuse("no registry can be added: this version does not replicate"))},
	{"POST", v2 + "/registries/ping", system("registry", "read"), "Try another registry: not yet", handle(refuse("no registry can be tried: this version does not replicate"))},
	{"GET", v2 + "/registries/{id}", system("registry", "read"), "Get another registry", handle(noSuch("registry"))},
	{"PUT", v2 + "/registries/{id}", system("registry", "update"), "Change another registry", handle(noSuch("registry"))},
	{"DELETE", v2 + "/registries/{id}", system("registry", "delete"), "Remove another registry", handle(noSuch("registry"))},
	{"GET", v2 + "/registries/{id}/info", system("registry", "read"), "Tell what another registry can do", handle(noSuch("registry"))},
	{"GET", v2 + "/replication/policies", system("replication-policy", "list"), "List replication policies", handle((*API).emptyPage)},
	{"POST", v2 + "/replication/policies", system("replication-policy", "create"), "Make a replication policy: not yet", handle(refuse("no policy can be made: this version does not replicate"))},
	{"GET", v2 + "/replication/policies/{id}", system("replication-policy", "read"), "Get a replication policy", handle(noSuch("replication policy"))},
	{"PUT", v2 + "/replication/policies/{id}", system("replication-policy", "update"), "Change a replication policy", handle(noSuch("replication policy"))},
	{"DELETE", v2 + "/replication/policies/{id}", system("replication-policy", "delete"), "Delete a replication policy", handle(noSuch("replication policy"))},
	{"GET", v2 + "/replication/executions", system("replication", "list"), "List replications", handle((*API).emptyPage)},
	{"POST", v2 + "/replication/executions", system("replication", "create"), "Start a replication", handle((*API).startReplication)},
	{"GET", v2 + "/replication/executions/{id}", system("replication", "read"), "Get a replication", handle(noSuch("replication execution"))},
	{"PUT", v2 + "/replication/executions/{id}", system("replication", "create"), "Stop a replication", handle(noSuch("replication execution"))},
	{"GET", v2 + "/replication/executions/{id}/tasks", system("replication", "list"), "List a replication's tasks", handle(noSuch("replication execution"))},
	{"GET", v2 + "/replication/executions/{id}/tasks/{task_id}/log", system("replication", "read"), "Get the log of a replication's task", handle(noSuch("replication execution"))},

	{"GET", v2 + "/scanners", system("scanner", "list"), "List scanners", handle((*API).emptyPage)},
	{"POST", v2 + "/scanners", system("scanner", "create"), "Add a scanner: not yet", handle(refuse("no scanner can be added: this version does not scan"))},
	{"POST", v2 + "/scanners/ping", system("scanner", "read"), "Try a scanner: not yet", handle(refuse("no scanner can be tried: this version does not scan"))},
	{"GET", v2 + "/scanners/{registration_id}", system("scanner", "read"), "Get a scanner", handle(noScanner)},
	{"PUT", v2 + "/scanners/{registration_id}", system("scanner", "update"), "Change a scanner", handle(noScanner)},
	{"DELETE", v2 + "/scanners/{registration_id}", system("scanner", "delete"), "Remove a scanner", handle(noScanner)},
	{"PATCH", v2 + "/scanners/{registration_id}", system("scanner", "update"), "Make a scanner the default", handle(noScanner)},
	{"GET", v2 + "/scanners/{registration_id}/metadata", system("scanner", "read"), "Tell what a scanner can do", handle(noScanner)},
	{"GET", ofProject + "/scanner", inProject("scanner", "read"), "Get a project's scanner", handle((*API).projectScanner)},
	{"PUT", ofProject + "/scanner", inProject("scanner", "create"), "Choose a project's scanner", handle((*API).setProjectScanner)},
	{"GET", ofProject + "/scanner/candidates", inProject("scanner", "create"), "List the scanners that a project can choose", handle((*API).emptyProjectPage)},
	{"POST", ofArtifact + "/scan", inProject("scan", "create"), "Scan an artifact", handle((*API).scan)},
	{"POST", ofArtifact + "/scan/stop", inProject("scan", "stop"), "Stop the scan of an artifact", handle((*API).scan)},
	{"GET", ofArtifact + "/scan/{report_id}/log", inProject("scan", "read"), "Get the log of a scan", handle((*API).noReport)},
	{"GET", v2 + "/system/scanAll/schedule", system("scan-all", "read"), "Get the schedule of scans", handle((*API).nothing)},
	{"POST", v2 + "/system/scanAll/schedule", system("scan-all", "create"), "Set the schedule of scans, or scan everything now", handle((*API).scanAll)},
	{"PUT", v2 + "/system/scanAll/schedule", system("scan-all", "update"), "Change the schedule of scans", handle((*API).scanAll)},
	{"POST", v2 + "/system/scanAll/stop", system("scan-all", "stop"), "Stop scanning everything", handle((*API).stopScanAll)},
	{"GET", v2 + "/scans/all/metrics", system("scan-all", "read"), "Tell how far the scan of everything is", handle((*API).scanMetrics)},
	{"GET", v2 + "/scans/schedule/metrics", system("scan-all", "read"), "Tell how far the scheduled scan of everything is", handle((*API).scanMetrics)},
	{"GET", v2 + "/security/summary", system("security-hub", "read"), "Count vulnerabilities", handle((*API).securitySummary)},
	{"GET", v2 + "/security/vul", system("security-hub", "list"), "List vulnerabilities", handle((*API).emptyPage)},
	{"POST", v2 + "/export/cve", login(), "Export vulnerabilities: not yet", handle(refuse("there is nothing to export: this version does not scan"))},
	{"GET", v2 + "/export/cve/executions", login(), "List exports", handle((*API).noExports)},
	{"GET", v2 + "/export/cve/execution/{id}", login(), "Get an export", handle(noSuch("export"))},
	{"GET", v2 + "/export/cve/download/{id}", login(), "Download an export", handle(noSuch("export"))},

	{"GET", v2 + "/p2p/preheat/providers", system("preheat-instance", "list"), "List the kinds of preheat instances: none yet", handle((*API).noProviders)},
	{"GET", v2 + "/p2p/preheat/instances", system("preheat-instance", "list"), "List preheat instances", handle((*API).emptyPage)},
	{"POST", v2 + "/p2p/preheat/instances", system("preheat-instance", "create"), "Add a preheat instance: not yet", handle(refuse("no instance can be added: this version does not preheat"))},
	{"POST", v2 + "/p2p/preheat/instances/ping", system("preheat-instance", "read"), "Try a preheat instance: not yet", handle(refuse("no instance can be tried: this version does not preheat"))},
	{"GET", v2 + "/p2p/preheat/instances/{preheat_instance_name}", system("preheat-instance", "read"), "Get a preheat instance", handle(noInstance)},
	{"PUT", v2 + "/p2p/preheat/instances/{preheat_instance_name}", system("preheat-instance", "update"), "Change a preheat instance", handle(noInstance)},
	{"DELETE", v2 + "/p2p/preheat/instances/{preheat_instance_name}", system("preheat-instance", "delete"), "Remove a preheat instance", handle(noInstance)},
	{"GET", ofPreheat + "/providers", inProject("preheat-policy", "list"), "List the preheat instances that a project can use", handle((*API).noProjectProviders)},
	{"GET", ofPreheat + "/policies", inProject("preheat-policy", "list"), "List preheat policies", handle((*API).emptyNamedPage)},
	{"POST", ofPreheat + "/policies", inProject("preheat-policy", "create"), "Make a preheat policy: not yet", handle((*API).refusePreheat)},
	{"GET", preheatPolicy, inProject("preheat-policy", "read"), "Get a preheat policy", handle(noPolicy)},
	{"PUT", preheatPolicy, inProject("preheat-policy", "update"), "Change a preheat policy", handle(noPolicy)},
	{"POST", preheatPolicy, inProject("preheat-policy", "update"), "Preheat now", handle(noPolicy)},
	{"DELETE", preheatPolicy, inProject("preheat-policy", "delete"), "Delete a preheat policy", handle(noPolicy)},
	{"GET", preheatPolicy + "/executions", inProject("preheat-policy", "read"), "List what a preheat policy has done", handle(noPolicy)},
	{"GET", preheatPolicy + "/executions/{id}", inProject("preheat-policy", "read"), "Get one thing that a preheat policy has done", handle(noPolicy)},
	{"PATCH", preheatPolicy + "/executions/{id}", inProject("preheat-policy", "update"), "Stop what a preheat policy does", handle(noPolicy)},
	{"GET", preheatPolicy + "/executions/{id}/tasks", inProject("preheat-policy", "read"), "List the tasks of a preheat policy", handle(noPolicy)},
	{"GET", preheatPolicy + "/executions/{id}/tasks/{task_id}/logs", inProject("preheat-policy", "read"), "Get the log of a preheat policy's task", handle(noPolicy)},
}

const (
	ofPreheat     = v2 + "/projects/{project_name}/preheat"
	preheatPolicy = ofPreheat + "/policies/{preheat_policy_name}"
)

// emptyPage is a list that nothing is in.
func (a *API) emptyPage(_ *request, in struct{ paging }) (list[struct{}], error) {
	_, err := in.query()
	return list[struct{}]{items: []struct{}{}, paging: in.paging}, err
}

func (a *API) emptyProjectPage(r *request, in struct {
	paging
	inProjectPath
}) (list[struct{}], error) {
	return a.emptyPage(r, struct{ paging }{in.paging})
}

func (a *API) emptyNamedPage(r *request, in struct {
	paging
	namedProjectPath
}) (list[struct{}], error) {
	return a.emptyPage(r, struct{ paging }{in.paging})
}

// nothing is Harbor's answer for a schedule that is not set: no body.
func (a *API) nothing(*request, none) (empty, error) { return empty{}, nil }

type idPath struct {
	ID int64 `path:"id"`
}

// noSuch answers for one of a kind of things of which there are none.
func noSuch(what string) func(*API, *request, struct{ idPath }) (empty, error) {
	return func(_ *API, _ *request, in struct{ idPath }) (empty, error) {
		return empty{}, fault.New(fault.NotFound, "%s %d not found", what, in.ID)
	}
}

// jsonObject is a body whose fields nobody looks at.
type jsonObject map[string]any

// refuse answers a request for what cannot be had in this version.
func refuse(reason string) func(*API, *request, struct {
	Body jsonObject `body:""`
}) (created, error) {
	return func(*API, *request, struct {
		Body jsonObject `body:""`
	}) (created, error) {
		return created{}, fault.New(fault.Unsupported, "%s", reason)
	}
}

func (a *API) noAdapters(*request, none) ([]string, error)           { return []string{}, nil }
func (a *API) noAdapterInfos(*request, none) (map[string]any, error) { return map[string]any{}, nil }
func (a *API) noProviders(*request, none) ([]struct{}, error)        { return []struct{}{}, nil }

func (a *API) noProjectProviders(*request, struct{ namedProjectPath }) ([]struct{}, error) {
	return []struct{}{}, nil
}

func (a *API) startReplication(_ *request, in struct {
	Body struct {
		PolicyID int64 `json:"policy_id"`
	} `body:""`
}) (created, error) {
	return created{}, fault.New(fault.NotFound, "replication policy %d not found", in.Body.PolicyID)
}

func noScanner(_ *API, _ *request, in struct {
	ID string `path:"registration_id"`
}) (empty, error) {
	return empty{}, fault.New(fault.NotFound, "scanner %s not found", in.ID)
}

func (a *API) projectScanner(*request, struct{ inProjectPath }) (struct{}, error) {
	return struct{}{}, nil
}

func (a *API) setProjectScanner(_ *request, in struct {
	inProjectPath
	Body struct {
		UUID string `json:"uuid"`
	} `body:""`
}) (empty, error) {
	return empty{}, fault.New(fault.NotFound, "scanner %q not found", in.Body.UUID)
}

// scan answers as Harbor without a scanner, once it has found the artifact.
func (a *API) scan(r *request, in struct{ artifactPath }) (empty, error) {
	if _, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{}); err != nil {
		return empty{}, err
	}
	return empty{}, fault.New(fault.Precondition, "no available scanner for project: %d", r.target.ProjectID)
}

func (a *API) noReport(r *request, in struct {
	artifactPath
	Report string `path:"report_id"`
}) (empty, error) {
	return empty{}, fault.New(fault.NotFound, "report %s not found", in.Report)
}

func (a *API) scanAll(*request, struct {
	Body jsonObject `body:""`
}) (empty, error) {
	return empty{}, fault.New(fault.Precondition, "no scanner is configured, it's not possible to scan")
}

func (a *API) stopScanAll(*request, none) (empty, error) {
	return empty{}, fault.New(fault.Precondition, "nothing is being scanned")
}

type scanStats struct {
	Completed int64 `json:"completed"`
	Ongoing   bool  `json:"ongoing"`
	Total     int64 `json:"total"`
}

func (a *API) scanMetrics(*request, none) (scanStats, error) { return scanStats{}, nil }

type securitySummary struct {
	Critical  int64 `json:"critical_cnt"`
	Fixable   int64 `json:"fixable_cnt"`
	High      int64 `json:"high_cnt"`
	Low       int64 `json:"low_cnt"`
	Medium    int64 `json:"medium_cnt"`
	None      int64 `json:"none_cnt"`
	Scanned   int64 `json:"scanned_cnt"`
	Artifacts int64 `json:"total_artifact"`
	Total     int64 `json:"total_vuls"`
	Unknown   int64 `json:"unknown_cnt"`
}

func (a *API) securitySummary(r *request, _ none) (securitySummary, error) {
	n, err := a.Artifacts.CountArtifacts(r.Context())
	return securitySummary{Artifacts: n}, err
}

type exports struct {
	Items []struct{} `json:"items"`
}

func (a *API) noExports(*request, none) (exports, error) { return exports{[]struct{}{}}, nil }

func noInstance(_ *API, _ *request, in struct {
	Name string `path:"preheat_instance_name"`
}) (empty, error) {
	return empty{}, fault.New(fault.NotFound, "preheat instance %s not found", in.Name)
}

func (a *API) refusePreheat(*request, struct {
	namedProjectPath
	Body jsonObject `body:""`
}) (created, error) {
	return created{}, fault.New(fault.Unsupported, "no policy can be made: this version does not preheat")
}

func noPolicy(_ *API, _ *request, in struct {
	namedProjectPath
	Name string `path:"preheat_policy_name"`
}) (empty, error) {
	return empty{}, fault.New(fault.NotFound, "preheat policy %s not found", strconv.Quote(in.Name))
}
