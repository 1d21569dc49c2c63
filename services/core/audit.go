package core

import (
	"berth/services/access"
	"berth/services/audit"
	"berth/services/event"
)

type auditEntry struct {
	ID           int64  `json:"id"`
	Time         moment `json:"op_time"`
	Operation    string `json:"operation"`
	Description  string `json:"operation_description"`
	Success      bool   `json:"operation_result"`
	Resource     string `json:"resource"`
	ResourceType string `json:"resource_type"`
	Username     string `json:"username"`
}

func auditEntryOf(e audit.Entry) auditEntry {
	return auditEntry{e.ID, moment(e.Time), e.Operation, e.Description, e.Success, e.Resource, e.ResourceType, e.Username}
}

// oldAuditEntry is an entry as Harbor's audit log before 2.13 had it.
type oldAuditEntry struct {
	ID           int64  `json:"id"`
	Time         moment `json:"op_time"`
	Operation    string `json:"operation"`
	Resource     string `json:"resource"`
	ResourceType string `json:"resource_type"`
	Username     string `json:"username"`
}

func oldAuditEntryOf(e audit.Entry) oldAuditEntry {
	return oldAuditEntry{e.ID, moment(e.Time), e.Operation, e.Resource, e.ResourceType, e.Username}
}

func (a *API) auditLogs(r *request, in auditPaging) (list[auditEntry], error) {
	scope, err := a.auditScope(r)
	if err != nil {
		return list[auditEntry]{}, err
	}
	return auditPage(a, r, in, scope, auditEntryOf)
}

func (a *API) oldAuditLogs(r *request, in auditPaging) (list[oldAuditEntry], error) {
	scope, err := a.auditScope(r)
	if err != nil {
		return list[oldAuditEntry]{}, err
	}
	return auditPage(a, r, in, scope, oldAuditEntryOf)
}

func (a *API) projectAuditLogs(r *request, in struct {
	auditPaging
	namedProjectPath
}) (list[auditEntry], error) {
	return auditPage(a, r, in.auditPaging, audit.Scope{Projects: []int64{r.target.ProjectID}}, auditEntryOf)
}

func (a *API) projectLogs(r *request, in struct {
	auditPaging
	namedProjectPath
}) (list[oldAuditEntry], error) {
	return auditPage(a, r, in.auditPaging, audit.Scope{Projects: []int64{r.target.ProjectID}}, oldAuditEntryOf)
}

// auditScope is everything for whoever may list the system's trail, and for
// others the projects that they administer.
func (a *API) auditScope(r *request) (audit.Scope, error) {
	if access.May(r.principal, access.Target{}, "audit-log", "list") {
		return audit.Scope{All: true}, nil
	}
	ids, err := a.Projects.Administered(r.Context(), r.principal)
	return audit.Scope{Projects: ids}, err
}

// auditPaging has, besides the number of a page, where the page before ended: the
// link to the next page carries it, and whoever follows the link pays the same
// for every page.
type auditPaging struct {
	paging
	After string `query:"after" doc:"from the link to this page: the entry before it"`
}

func auditPage[T any](a *API, r *request, in auditPaging, scope audit.Scope, wire func(audit.Entry) T) (list[T], error) {
	q, err := in.query()
	if err != nil {
		return list[T]{}, err
	}
	var after *audit.Cursor
	if in.After != "" {
		if after, err = audit.ParseCursor(in.After); err != nil {
			return list[T]{}, err
		}
	}
	page, err := audit.List(r.Context(), a.Pool, scope, q, after)
	l, err := paged(page, err, in.paging, wire)
	if n := len(page.Items); n > 0 && in.Sort == "" {
		last := page.Items[n-1]
		l.after = audit.Cursor{Time: last.Time, ID: last.ID}.String()
	}
	return l, err
}

type auditEvent struct {
	Type string `json:"event_type"`
}

func (a *API) auditEvents(*request, none) ([]auditEvent, error) {
	var events []auditEvent
	for _, t := range event.Types() {
		events = append(events, auditEvent{t})
	}
	return events, nil
}
