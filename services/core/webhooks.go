package core

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"berth/services/query"
	"berth/services/task"
	"berth/services/webhook"
)

const webhookPolicy = ofProject + "/webhook/policies/{webhook_policy_id}"

// webhookRoutes are for telling others what happens in a project.
var webhookRoutes = []route{
	{"GET", ofProject + "/webhook/policies", inProject("notification-policy", "list"), "List a project's webhook policies", handle((*API).listWebhooks)},
	{"POST", ofProject + "/webhook/policies", inProject("notification-policy", "create"), "Create a webhook policy", handle((*API).createWebhook)},
	{"GET", webhookPolicy, inProject("notification-policy", "read"), "Get a webhook policy", handle((*API).getWebhook)},
	{"PUT", webhookPolicy, inProject("notification-policy", "update"), "Change a webhook policy", handle((*API).updateWebhook)},
	{"DELETE", webhookPolicy, inProject("notification-policy", "delete"), "Delete a webhook policy", handle((*API).deleteWebhook)},
	{"GET", webhookPolicy + "/executions", inProject("notification-policy", "read"), "List a webhook policy's deliveries", handle((*API).listWebhookExecutions)},
	{"GET", webhookPolicy + "/executions/{execution_id}/tasks", inProject("notification-policy", "read"), "List the tasks of a delivery, one for each target", handle((*API).listWebhookTasks)},
	{"GET", webhookPolicy + "/executions/{execution_id}/tasks/{task_id}/log", inProject("notification-policy", "read"), "Get the log of a delivery to a target", handle((*API).webhookLog)},
	{"GET", ofProject + "/webhook/events", inProject("notification-policy", "read"), "List what webhooks can tell of", handle((*API).webhookEvents)},
	{"GET", ofProject + "/webhook/lasttrigger", inProject("notification-policy", "read"), "List when webhook policies were last triggered", handle((*API).webhookTriggers)},
	{"GET", ofProject + "/webhook/jobs", inProject("notification-policy", "list"), "List a webhook policy's deliveries in the old form", handle((*API).webhookJobs)},
	{"POST", berth + "/projects/{project_name_or_id}/webhook/policies/{webhook_policy_id}/test", inProject("notification-policy", "update"), "Deliver a test to a webhook policy's targets", handle((*API).testWebhook)},
}

type webhookTarget struct {
	Address        string `json:"address"`
	AuthHeader     string `json:"auth_header,omitempty"`
	PayloadFormat  string `json:"payload_format,omitempty"`
	SkipCertVerify bool   `json:"skip_cert_verify"`
	Type           string `json:"type"`
	// HMACSecret is written and never read: what is sent is signed with it.
	HMACSecret *string `json:"hmac_secret,omitempty"`
}

type webhookEntry struct {
	Created     moment          `json:"creation_time"`
	Description string          `json:"description,omitempty"`
	Enabled     bool            `json:"enabled"`
	EventTypes  []string        `json:"event_types"`
	ID          int64           `json:"id"`
	Name        string          `json:"name"`
	ProjectID   int64           `json:"project_id"`
	Targets     []webhookTarget `json:"targets"`
	Updated     moment          `json:"update_time"`
}

func webhookEntryOf(p webhook.Policy) webhookEntry {
	e := webhookEntry{Created: moment(p.Created), Description: p.Description, Enabled: p.Enabled, EventTypes: p.EventTypes,
		ID: p.ID, Name: p.Name, ProjectID: p.ProjectID, Updated: moment(p.Updated)}
	for _, t := range p.Targets {
		e.Targets = append(e.Targets, webhookTarget{Address: t.Address, AuthHeader: t.AuthHeader, PayloadFormat: t.PayloadFormat, SkipCertVerify: t.SkipCertVerify, Type: t.Type})
	}
	return e
}

type webhookBody struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Enabled     bool            `json:"enabled"`
	EventTypes  []string        `json:"event_types"`
	Targets     []webhookTarget `json:"targets"`
}

// policy gives what the body asks for, and which targets lose their secret.
func (b webhookBody) policy(project, id int64) (p webhook.Policy, forget map[int]bool) {
	p = webhook.Policy{ID: id, ProjectID: project, Name: b.Name, Description: b.Description, Enabled: b.Enabled, EventTypes: b.EventTypes}
	forget = map[int]bool{}
	for i, t := range b.Targets {
		target := webhook.Target{Type: t.Type, Address: t.Address, AuthHeader: t.AuthHeader, SkipCertVerify: t.SkipCertVerify, PayloadFormat: t.PayloadFormat}
		if t.HMACSecret != nil {
			target.Secret = *t.HMACSecret
			forget[i] = *t.HMACSecret == ""
		}
		p.Targets = append(p.Targets, target)
	}
	return p, forget
}

type webhookPath struct {
	inProjectPath
	ID int64 `path:"webhook_policy_id"`
}

func (a *API) listWebhooks(r *request, in struct {
	inProjectPath
	paging
}) (list[webhookEntry], error) {
	q, err := in.query()
	if err != nil {
		return list[webhookEntry]{}, err
	}
	page, err := a.Webhooks.List(r.Context(), r.target.ProjectID, q)
	return paged(page, err, in.paging, webhookEntryOf)
}

func (a *API) createWebhook(r *request, in struct {
	inProjectPath
	Body webhookBody `body:""`
}) (created, error) {
	p, _ := in.Body.policy(r.target.ProjectID, 0)
	id, err := a.Webhooks.Create(r.Context(), p)
	return created{location: fmt.Sprintf("%s/%d", strings.TrimSuffix(r.URL.EscapedPath(), "/"), id)}, err
}

func (a *API) getWebhook(r *request, in struct{ webhookPath }) (*webhookEntry, error) {
	p, err := a.Webhooks.Get(r.Context(), r.target.ProjectID, in.ID)
	if err != nil {
		return nil, err
	}
	e := webhookEntryOf(p)
	return &e, nil
}

func (a *API) updateWebhook(r *request, in struct {
	webhookPath
	Body webhookBody `body:""`
}) (empty, error) {
	p, forget := in.Body.policy(r.target.ProjectID, in.ID)
	return empty{}, a.Webhooks.Update(r.Context(), p, forget)
}

func (a *API) deleteWebhook(r *request, in struct{ webhookPath }) (empty, error) {
	return empty{}, a.Webhooks.Delete(r.Context(), r.target.ProjectID, in.ID)
}

func (a *API) testWebhook(r *request, in struct{ webhookPath }) (created, error) {
	id, err := a.Webhooks.Test(r.Context(), r.target.ProjectID, in.ID)
	return created{location: fmt.Sprintf("%s/projects/%d/webhook/policies/%d/executions/%d/tasks", v2, r.target.ProjectID, in.ID, id)}, err
}

// taskMetrics are the counts of an execution's tasks, in Harbor's form.
type taskMetrics struct {
	Error     int `json:"error_task_count,omitempty"`
	Pending   int `json:"pending_task_count,omitempty"`
	Running   int `json:"running_task_count,omitempty"`
	Scheduled int `json:"scheduled_task_count,omitempty"`
	Stopped   int `json:"stopped_task_count,omitempty"`
	Success   int `json:"success_task_count,omitempty"`
	Total     int `json:"task_count,omitempty"`
}

// executionEntry is an execution in Harbor's general form; its times are to the
// second.
type executionEntry struct {
	Ended      string          `json:"end_time"`
	Extra      json.RawMessage `json:"extra_attrs"`
	ID         int64           `json:"id"`
	Metrics    taskMetrics     `json:"metrics"`
	Started    string          `json:"start_time"`
	Status     string          `json:"status"`
	Message    string          `json:"status_message,omitempty"`
	Trigger    string          `json:"trigger"`
	VendorID   int64           `json:"vendor_id"`
	VendorType string          `json:"vendor_type"`
}

func executionEntryOf(e task.Execution) executionEntry {
	c := e.Tasks
	return executionEntry{
		Ended: seconds(e.Ended), Extra: e.Extra, ID: e.ID, Started: seconds(e.Started), Status: string(e.Status), Message: e.Message,
		Metrics: taskMetrics{c.Error, c.Pending, c.Running, c.Scheduled, c.Stopped, c.Success, c.Total()},
		Trigger: e.Trigger, VendorID: e.VendorID, VendorType: e.Vendor,
	}
}

func seconds(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// taskEntry is a task in Harbor's general form.
type taskEntry struct {
	Created     string          `json:"creation_time"`
	Ended       string          `json:"end_time"`
	ExecutionID int64           `json:"execution_id"`
	Extra       json.RawMessage `json:"extra_attrs"`
	ID          int64           `json:"id"`
	RunCount    int             `json:"run_count"`
	Started     string          `json:"start_time"`
	Status      string          `json:"status"`
	Message     string          `json:"status_message,omitempty"`
	Updated     string          `json:"update_time"`
}

func taskEntryOf(t task.Task) taskEntry {
	return taskEntry{
		Created: seconds(t.Created), Ended: seconds(t.Ended), ExecutionID: t.ExecutionID, Extra: t.Extra, ID: t.ID, RunCount: t.Attempts,
		Started: seconds(t.Started), Status: string(t.Status), Message: t.Message, Updated: seconds(t.Updated),
	}
}

func (a *API) listWebhookExecutions(r *request, in struct {
	webhookPath
	paging
}) (list[executionEntry], error) {
	q, err := in.query()
	if err != nil {
		return list[executionEntry]{}, err
	}
	if _, err := a.Webhooks.Get(r.Context(), r.target.ProjectID, in.ID); err != nil {
		return list[executionEntry]{}, err
	}
	page, err := a.Tasks.Executions(r.Context(), task.Of{Vendor: task.Webhook, VendorID: in.ID}, q)
	return paged(page, err, in.paging, executionEntryOf)
}

type webhookExecutionPath struct {
	webhookPath
	Execution int64 `path:"execution_id"`
}

// ours checks that an execution is one of the policy, and the policy one of the
// project.
func (p webhookExecutionPath) ours(a *API, r *request) error {
	if _, err := a.Webhooks.Get(r.Context(), r.target.ProjectID, p.ID); err != nil {
		return err
	}
	_, err := a.Tasks.Execution(r.Context(), task.Of{Vendor: task.Webhook, VendorID: p.ID}, p.Execution)
	return err
}

func (a *API) listWebhookTasks(r *request, in struct {
	webhookExecutionPath
	paging
}) (list[taskEntry], error) {
	q, err := in.query()
	if err == nil {
		err = in.ours(a, r)
	}
	if err != nil {
		return list[taskEntry]{}, err
	}
	page, err := a.Tasks.Tasks(r.Context(), in.Execution, q)
	return paged(page, err, in.paging, taskEntryOf)
}

func (a *API) webhookLog(r *request, in struct {
	webhookExecutionPath
	Task int64 `path:"task_id"`
}) (text, error) {
	if err := in.ours(a, r); err != nil {
		return text{}, err
	}
	if _, err := a.Tasks.Task(r.Context(), in.Execution, in.Task); err != nil {
		return text{}, err
	}
	log, err := a.Tasks.Log(r.Context(), in.Task)
	return text{"text/plain", log}, err
}

type webhookFormats struct {
	Formats    []string `json:"formats"`
	NotifyType string   `json:"notify_type"`
}

type webhookAbilities struct {
	EventTypes  []string         `json:"event_type"`
	NotifyTypes []string         `json:"notify_type"`
	Formats     []webhookFormats `json:"payload_formats"`
}

func (a *API) webhookEvents(*request, struct{ inProjectPath }) (webhookAbilities, error) {
	return webhookAbilities{webhook.EventTypes(), []string{webhook.HTTP, webhook.Slack},
		[]webhookFormats{{[]string{webhook.Default, webhook.CloudEvents}, webhook.HTTP}}}, nil
}

type webhookTrigger struct {
	Created moment `json:"creation_time"`
	Enabled bool   `json:"enabled"`
	Type    string `json:"event_type"`
	Last    moment `json:"last_trigger_time"`
	Policy  string `json:"policy_name"`
}

func (a *API) webhookTriggers(r *request, _ struct{ inProjectPath }) ([]webhookTrigger, error) {
	triggers, err := a.Webhooks.Triggers(r.Context(), r.target.ProjectID)
	out := make([]webhookTrigger, len(triggers))
	for i, t := range triggers {
		out[i] = webhookTrigger{moment(t.Created), t.Enabled, t.Type, moment(t.Last), t.Policy}
	}
	return out, err
}

// webhookJob is a delivery as Harbor had it before executions.
type webhookJob struct {
	Created    moment `json:"creation_time"`
	EventType  string `json:"event_type"`
	ID         int64  `json:"id"`
	JobDetail  string `json:"job_detail"`
	NotifyType string `json:"notify_type"`
	PolicyID   int64  `json:"policy_id"`
	Status     string `json:"status"`
	Updated    moment `json:"update_time"`
}

func (a *API) webhookJobs(r *request, in struct {
	inProjectPath
	paging
	Policy int64  `query:"policy_id,required" doc:"of this policy"`
	Status string `query:"status" doc:"in this state"`
}) (list[webhookJob], error) {
	q, err := in.query()
	if err != nil {
		return list[webhookJob]{}, err
	}
	if _, err := a.Webhooks.Get(r.Context(), r.target.ProjectID, in.Policy); err != nil {
		return list[webhookJob]{}, err
	}
	if in.Status != "" {
		q.Terms = append(q.Terms, query.Term{Field: "status", Op: query.Equal, Values: []string{in.Status}})
	}
	page, err := a.Tasks.Executions(r.Context(), task.Of{Vendor: task.Webhook, VendorID: in.Policy}, q)
	return paged(page, err, in.paging, func(e task.Execution) webhookJob {
		var n struct {
			Type    string `json:"event_type"`
			Payload string `json:"payload"`
		}
		if json.Unmarshal(e.Extra, &n) != nil {
			n.Payload = string(e.Extra) // what is not ours is shown as it is
		}
		return webhookJob{moment(e.Started), n.Type, e.ID, n.Payload, webhook.HTTP, e.VendorID, string(e.Status), moment(e.Updated)}
	})
}
