package core

import (
	"encoding/json"
	"fmt"
	"time"

	"berth/appliance/fault"
	"berth/services/retention"
	"berth/services/selector"
	"berth/services/task"
)

const ofRetention = v2 + "/retentions/{id}"

// retentionRoutes are for what projects keep of their artifacts. The path names
// no project: the handlers ask for the right in the policy's.
var retentionRoutes = []route{
	{"GET", v2 + "/retentions/metadatas", login(), "Describe what retention policies are made of", handle((*API).retentionMetadata)},
	{"POST", v2 + "/retentions", login(), "Give a project a retention policy", handle((*API).createRetention)},
	{"GET", ofRetention, login(), "Get a retention policy", handle((*API).getRetention)},
	{"PUT", ofRetention, login(), "Change a retention policy", handle((*API).updateRetention)},
	{"DELETE", ofRetention, login(), "Delete a retention policy", handle((*API).deleteRetention)},
	{"GET", ofRetention + "/executions", login(), "List a retention policy's runs", handle((*API).listRetentionRuns)},
	{"POST", ofRetention + "/executions", login(), "Run a retention policy, or say what a run would do", handle((*API).runRetention)},
	{"PATCH", ofRetention + "/executions/{eid}", login(), "Stop a run of a retention policy", handle((*API).stopRetention)},
	{"GET", ofRetention + "/executions/{eid}/tasks", login(), "List the repositories of a run", handle((*API).listRetentionTasks)},
	{"GET", ofRetention + "/executions/{eid}/tasks/{tid}", login(), "Get what a run decided in a repository, and why", handle((*API).retentionLog)},
}

type retentionWire struct {
	Algorithm string             `json:"algorithm"`
	ByTag     bool               `json:"by_tag,omitempty" doc:"decide for each tag, not for artifacts; Harbor has no such field"`
	ID        int64              `json:"id,omitempty"`
	Rules     []retention.Rule   `json:"rules"`
	Scope     retentionScope     `json:"scope"`
	Trigger   *retention.Trigger `json:"trigger"`
}

type retentionScope struct {
	Level string `json:"level"`
	Ref   int64  `json:"ref"`
}

func retentionOf(p retention.Stored) retentionWire {
	return retentionWire{p.Algorithm, p.ByTag, p.ID, p.Rules, retentionScope{"project", p.ProjectID}, &p.Trigger}
}

func (w retentionWire) policy() retention.Policy {
	p := retention.Policy{Algorithm: w.Algorithm, ByTag: w.ByTag, Rules: w.Rules}
	if w.Trigger != nil {
		p.Trigger = *w.Trigger
	}
	return p
}

type retentionMetadata struct {
	Scopes    []selectorKind      `json:"scope_selectors"`
	Tags      []selectorKind      `json:"tag_selectors"`
	Templates []retentionTemplate `json:"templates"`
}

type selectorKind struct {
	Decorations []string `json:"decorations"`
	Text        string   `json:"display_text"`
	Kind        string   `json:"kind"`
}

type retentionTemplate struct {
	Action string           `json:"action"`
	Text   string           `json:"display_text"`
	Params []retentionParam `json:"params"`
	Name   string           `json:"rule_template"`
}

type retentionParam struct {
	Required bool   `json:"required"`
	Type     string `json:"type"`
	Unit     string `json:"unit"`
}

func (a *API) retentionMetadata(*request, none) (retentionMetadata, error) {
	m := retentionMetadata{
		Scopes: []selectorKind{{[]string{selector.RepoMatches, selector.RepoExcludes}, "Repositories", selector.Kind}},
		Tags:   []selectorKind{{[]string{selector.Matches, selector.Excludes}, "Tags", selector.Kind}},
	}
	for _, t := range retention.Templates {
		w := retentionTemplate{"retain", t.Text, []retentionParam{}, t.Name}
		if t.Unit != "" {
			w.Params = append(w.Params, retentionParam{true, "int", t.Unit})
		}
		m.Templates = append(m.Templates, w)
	}
	return m, nil
}

// retentionTarget finds the project of a policy that the caller may do something
// with.
func (a *API) retentionTarget(r *request, project int64, action string) error {
	t, err := a.Projects.TargetByID(r.Context(), r.principal, project)
	if err != nil {
		return r.hidden(err)
	}
	return r.require(t, "tag-retention", action)
}

type retentionPath struct {
	ID int64 `path:"id"`
}

func (a *API) retentionFor(r *request, id int64, action string) (retention.Stored, error) {
	p, err := a.Retention.Policy(r.Context(), id)
	if err != nil {
		return p, r.hidden(err)
	}
	return p, a.retentionTarget(r, p.ProjectID, action)
}

func (a *API) createRetention(r *request, in struct {
	Body retentionWire `body:""`
}) (created, error) {
	b := in.Body
	if b.Scope.Level != "project" || b.Scope.Ref == 0 {
		return created{}, fault.New(fault.Invalid, "a policy's scope is a project: level project, ref its id").On("scope")
	}
	if err := a.retentionTarget(r, b.Scope.Ref, "create"); err != nil {
		return created{}, err
	}
	id, err := a.Retention.Create(r.Context(), b.Scope.Ref, b.policy())
	return created{location: fmt.Sprintf("%s/retentions/%d", v2, id)}, err
}

func (a *API) getRetention(r *request, in struct{ retentionPath }) (retentionWire, error) {
	p, err := a.retentionFor(r, in.ID, "read")
	return retentionOf(p), err
}

func (a *API) updateRetention(r *request, in struct {
	retentionPath
	Body retentionWire `body:""`
}) (empty, error) {
	p, err := a.retentionFor(r, in.ID, "update")
	if err != nil {
		return empty{}, err
	}
	if in.Body.Scope.Ref != 0 && in.Body.Scope.Ref != p.ProjectID {
		return empty{}, fault.New(fault.Invalid, "a policy stays in its project").On("scope")
	}
	return empty{}, a.Retention.Update(r.Context(), in.ID, in.Body.policy())
}

func (a *API) deleteRetention(r *request, in struct{ retentionPath }) (empty, error) {
	if _, err := a.retentionFor(r, in.ID, "delete"); err != nil {
		return empty{}, err
	}
	return empty{}, a.Retention.Delete(r.Context(), in.ID)
}

// retentionRun has Go's times, as Harbor's has.
type retentionRun struct {
	DryRun  bool      `json:"dry_run"`
	End     time.Time `json:"end_time"`
	ID      int64     `json:"id"`
	Policy  int64     `json:"policy_id"`
	Start   time.Time `json:"start_time"`
	Status  string    `json:"status"`
	Trigger string    `json:"trigger"`
}

func retentionRunOf(e task.Execution) retentionRun {
	var extra struct {
		DryRun bool `json:"dry_run"`
	}
	_ = json.Unmarshal(e.Extra, &extra) // it is ours; without it the run is shown as a real one
	return retentionRun{extra.DryRun, e.Ended.UTC(), e.ID, e.VendorID, e.Started.UTC(), string(e.Status), e.Trigger}
}

func (a *API) listRetentionRuns(r *request, in struct {
	paging
	retentionPath
}) (list[retentionRun], error) {
	q, err := in.query()
	if err != nil {
		return list[retentionRun]{}, err
	}
	if _, err := a.retentionFor(r, in.ID, "list"); err != nil {
		return list[retentionRun]{}, err
	}
	page, err := a.Tasks.Executions(r.Context(), task.Of{Vendor: task.Retention, VendorID: in.ID}, q)
	return paged(page, err, in.paging, retentionRunOf)
}

func (a *API) runRetention(r *request, in struct {
	retentionPath
	Body struct {
		DryRun bool `json:"dry_run"`
	} `body:""`
}) (created, error) {
	if _, err := a.retentionFor(r, in.ID, "operate"); err != nil {
		return created{}, err
	}
	id, err := a.Retention.Run(r.Context(), in.ID, in.Body.DryRun)
	return created{location: fmt.Sprintf("%s/retentions/%d/executions/%d", v2, in.ID, id)}, err
}

type retentionRunPath struct {
	retentionPath
	Run int64 `path:"eid"`
}

// retentionRunFor finds a run of a policy that the caller may do something with.
func (a *API) retentionRunFor(r *request, in retentionRunPath, action string) error {
	if _, err := a.retentionFor(r, in.ID, action); err != nil {
		return err
	}
	_, err := a.Tasks.Execution(r.Context(), task.Of{Vendor: task.Retention, VendorID: in.ID}, in.Run)
	return err
}

func (a *API) stopRetention(r *request, in struct {
	retentionRunPath
	Body struct {
		Action string `json:"action"`
	} `body:""`
}) (empty, error) {
	if err := a.retentionRunFor(r, in.retentionRunPath, "operate"); err != nil {
		return empty{}, err
	}
	if in.Body.Action != "stop" {
		return empty{}, fault.New(fault.Invalid, "the action is stop, not %q", in.Body.Action).On("action")
	}
	return empty{}, a.Tasks.Stop(r.Context(), in.Run)
}

// retentionTask has times in full seconds, as Harbor's has.
type retentionTask struct {
	End        time.Time `json:"end_time"`
	Run        int64     `json:"execution_id"`
	ID         int64     `json:"id"`
	Job        string    `json:"job_id"`
	Repository string    `json:"repository"`
	Retained   int       `json:"retained"`
	Start      time.Time `json:"start_time"`
	Status     string    `json:"status"`
	Code       int       `json:"status_code"`
	Total      int       `json:"total"`
}

// statusCodes are Harbor's numbers of states.
var statusCodes = map[task.Status]int{task.Pending: 0, task.Scheduled: 1, task.Running: 2, task.Stopped: 3, task.Error: 3, task.Success: 3}

func retentionTaskOf(t task.Task) retentionTask {
	var extra struct {
		Repository      string
		Total, Retained int
	}
	_ = json.Unmarshal(t.Extra, &extra) // it is ours; without it the numbers are 0
	return retentionTask{t.Ended.UTC().Truncate(time.Second), t.ExecutionID, t.ID, fmt.Sprint(t.ID), extra.Repository, extra.Retained, t.Started.UTC().Truncate(time.Second),
		string(t.Status), statusCodes[t.Status], extra.Total}
}

func (a *API) listRetentionTasks(r *request, in struct {
	paging
	retentionRunPath
}) (list[retentionTask], error) {
	q, err := in.query()
	if err != nil {
		return list[retentionTask]{}, err
	}
	if err := a.retentionRunFor(r, in.retentionRunPath, "list"); err != nil {
		return list[retentionTask]{}, err
	}
	page, err := a.Tasks.Tasks(r.Context(), in.Run, q)
	return paged(page, err, in.paging, retentionTaskOf)
}

func (a *API) retentionLog(r *request, in struct {
	retentionRunPath
	Task int64 `path:"tid"`
}) (text, error) {
	if err := a.retentionRunFor(r, in.retentionRunPath, "read"); err != nil {
		return text{}, err
	}
	if _, err := a.Tasks.Task(r.Context(), in.Run, in.Task); err != nil {
		return text{}, err
	}
	log, err := a.Tasks.Log(r.Context(), in.Task)
	return text{"text/plain", log}, err
}
