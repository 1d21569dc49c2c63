package core

import (
	"berth/appliance/fault"
	"berth/services/query"
	"berth/services/quota"
)

// quotaRoutes are for how much storage projects may take.
var quotaRoutes = []route{
	{"GET", v2 + "/quotas", system("quota", "list"), "List the quotas of projects", handle((*API).listQuotas)},
	{"GET", v2 + "/quotas/{id}", system("quota", "read"), "Get the quota of a project", handle((*API).getQuota)},
	{"PUT", v2 + "/quotas/{id}", system("quota", "update"), "Set the limit of a project", handle((*API).setQuota)},
	{"POST", berth + "/quotas/{id}/recompute", system("quota", "update"), "Count again what a project holds", handle((*API).recomputeQuota)},
}

type quotaWire struct {
	Created moment         `json:"creation_time"`
	Hard    storageQuota   `json:"hard"`
	ID      int64          `json:"id"`
	Ref     quotaReference `json:"ref"`
	Updated moment         `json:"update_time"`
	Used    storageQuota   `json:"used"`
}

type quotaReference struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Owner string `json:"owner_name"`
}

func quotaOf(q quota.Quota) quotaWire {
	return quotaWire{moment(q.Created), storageQuota{q.Limit}, q.ID, quotaReference{q.ID, q.Project, q.Owner}, moment(q.Updated), storageQuota{q.Used}}
}

// quotaPath is the path to a quota, whose id is that of its project.
type quotaPath struct {
	ID int64 `path:"id"`
}

func (a *API) listQuotas(r *request, in struct {
	paging
	Reference string `query:"reference" doc:"project, which is all that has quotas"`
	Project   string `query:"reference_id" doc:"the project's id"`
}) (list[quotaWire], error) {
	q, err := in.query()
	if err != nil {
		return list[quotaWire]{}, err
	}
	if in.Reference != "" && in.Reference != "project" {
		return list[quotaWire]{items: []quotaWire{}, paging: in.paging}, nil
	}
	if in.Project != "" {
		q.Terms = append(q.Terms, query.Term{Field: "referenceid", Values: []string{in.Project}})
	}
	page, err := a.Quotas.List(r.Context(), q)
	return paged(page, err, in.paging, quotaOf)
}

func (a *API) getQuota(r *request, in struct{ quotaPath }) (quotaWire, error) {
	q, err := a.Quotas.Quota(r.Context(), in.ID)
	return quotaOf(q), err
}

func (a *API) setQuota(r *request, in struct {
	quotaPath
	Body struct {
		Hard map[string]int64 `json:"hard"`
	} `body:""`
}) (empty, error) {
	limit, ok := in.Body.Hard["storage"]
	if !ok || len(in.Body.Hard) != 1 {
		return empty{}, fault.New(fault.Invalid, "hard must hold storage and nothing else").On("hard")
	}
	return empty{}, a.Quotas.Set(r.Context(), in.ID, limit)
}

func (a *API) recomputeQuota(r *request, in struct{ quotaPath }) (quota.Drift, error) {
	return a.Quotas.Recompute(r.Context(), in.ID)
}
