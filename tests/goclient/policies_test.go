package goclient

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/artifact"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/immutable"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/retention"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/webhook"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/webhookjob"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// eventually waits for what happens in the background.
func (w *world) eventually(what string, happened func() bool) {
	w.Helper()
	for deadline := time.Now().Add(60 * time.Second); !happened(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("waited a minute for %s", what)
		}
	}
}

func immutability(w *world) {
	ctx := w.Context()
	w.newProject("stone", false)
	rule := models.ImmutableRule{Action: "immutable", Template: "immutable_template",
		TagSelectors:   []*models.ImmutableSelector{{Kind: "doublestar", Decoration: "matches", Pattern: "v*"}},
		ScopeSelectors: map[string][]models.ImmutableSelector{"repository": {{Kind: "doublestar", Decoration: "repoMatches", Pattern: "**"}}}}
	made, err := w.Immutable.CreateImmuRule(ctx, immutable.NewCreateImmuRuleParams().WithProjectNameOrID("stone").WithImmutableRule(&rule))
	w.need(err)
	id := lastID(w, made.Location)
	_, err = w.Immutable.CreateImmuRule(ctx, immutable.NewCreateImmuRuleParams().WithProjectNameOrID("stone").WithImmutableRule(&rule))
	w.refused(409, err)
	w.push("stone/app", "v1")
	_, err = w.Artifact.DeleteTag(ctx, artifact.NewDeleteTagParams().WithProjectName("stone").WithRepositoryName("app").WithReference("v1").WithTagName("v1"))
	w.refused(412, err)
	list, err := w.Immutable.ListImmuRules(ctx, immutable.NewListImmuRulesParams().WithProjectNameOrID("stone"))
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].ID != id {
		w.Fatalf("%+v", list.Payload)
	}
	change := *list.Payload[0]
	change.Disabled = true
	_, err = w.Immutable.UpdateImmuRule(ctx, immutable.NewUpdateImmuRuleParams().WithProjectNameOrID("stone").WithImmutableRuleID(id).WithImmutableRule(&change))
	w.need(err)
	_, err = w.Artifact.DeleteTag(ctx, artifact.NewDeleteTagParams().WithProjectName("stone").WithRepositoryName("app").WithReference("v1").WithTagName("v1"))
	w.need(err)
	_, err = w.Immutable.DeleteImmuRule(ctx, immutable.NewDeleteImmuRuleParams().WithProjectNameOrID("stone").WithImmutableRuleID(id))
	w.need(err)
}

func retain(w *world) {
	ctx := w.Context()
	project := w.newProject("keep", false)
	known, err := w.Retention.GetRentenitionMetadata(ctx, retention.NewGetRentenitionMetadataParams())
	w.need(err)
	if len(known.Payload.Templates) < 4 {
		w.Errorf("%+v", known.Payload)
	}
	for _, tag := range []string{"v1", "v2", "v3"} {
		w.push("keep/app", tag)
	}
	policy := models.RetentionPolicy{Algorithm: "or", Scope: &models.RetentionPolicyScope{Level: "project", Ref: project},
		Trigger: &models.RetentionRuleTrigger{Kind: "Schedule", Settings: map[string]any{"cron": ""}},
		Rules: []*models.RetentionRule{{Action: "retain", Template: "latestPushedK", Params: map[string]any{"latestPushedK": 1},
			TagSelectors:   []*models.RetentionSelector{{Kind: "doublestar", Decoration: "matches", Pattern: "**"}},
			ScopeSelectors: map[string][]models.RetentionSelector{"repository": {{Kind: "doublestar", Decoration: "repoMatches", Pattern: "**"}}}}}}
	made, err := w.Retention.CreateRetention(ctx, retention.NewCreateRetentionParams().WithPolicy(&policy))
	w.need(err)
	id := lastID(w, made.Location)
	got, err := w.Retention.GetRetention(ctx, retention.NewGetRetentionParams().WithID(id))
	w.need(err)
	_, err = w.Retention.UpdateRetention(ctx, retention.NewUpdateRetentionParams().WithID(id).WithPolicy(got.Payload))
	w.need(err)
	w.retained(id, true, 3)
	execution := w.retained(id, false, 1)
	_, err = w.Retention.OperateRetentionExecution(ctx, retention.NewOperateRetentionExecutionParams().WithID(id).WithEid(execution).
		WithBody(retention.OperateRetentionExecutionBody{Action: "stop"}))
	w.need(err)
	_, err = w.Retention.DeleteRetention(ctx, retention.NewDeleteRetentionParams().WithID(id))
	w.need(err)
	_, err = w.Retention.GetRetention(ctx, retention.NewGetRetentionParams().WithID(id))
	w.refused(404, err)
}

// retained runs a retention policy and checks how many artifacts there are then.
func (w *world) retained(id int64, dry bool, left int) (execution int64) {
	w.Helper()
	ctx := w.Context()
	_, _, err := w.Retention.TriggerRetentionExecution(ctx, retention.NewTriggerRetentionExecutionParams().WithID(id).WithBody(retention.TriggerRetentionExecutionBody{DryRun: dry}))
	w.need(err)
	w.eventually("the retention", func() bool {
		list, err := w.Retention.ListRetentionExecutions(ctx, retention.NewListRetentionExecutionsParams().WithID(id))
		w.need(err)
		for _, e := range list.Payload {
			if e.DryRun == dry && strings.HasPrefix(e.Status, "Succe") {
				execution = e.ID
			}
		}
		return execution != 0
	})
	tasks, err := w.Retention.ListRetentionTasks(ctx, retention.NewListRetentionTasksParams().WithID(id).WithEid(execution))
	w.need(err)
	if len(tasks.Payload) != 1 || tasks.Payload[0].Total != 3 || tasks.Payload[0].Retained != 1 {
		w.Fatalf("%+v", tasks.Payload)
	}
	log, err := w.Retention.GetRetentionTaskLog(ctx, retention.NewGetRetentionTaskLogParams().WithID(id).WithEid(execution).WithTid(tasks.Payload[0].ID))
	w.need(err)
	if !strings.Contains(log.Payload, "v1") {
		w.Errorf("the log does not name what goes: %s", log.Payload)
	}
	list, err := w.Artifact.ListArtifacts(ctx, artifact.NewListArtifactsParams().WithProjectName("keep").WithRepositoryName("app"))
	w.need(err)
	if len(list.Payload) != left {
		w.Errorf("dry run %v: %d artifacts are left, want %d", dry, len(list.Payload), left)
	}
	return execution
}

func webhooks(w *world) {
	ctx := w.Context()
	var delivered atomic.Pointer[string]
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		said := r.Header.Get("Authorization") + " " + string(body)
		delivered.Store(&said)
	}))
	w.Cleanup(target.Close)
	w.newProject("loud", false)
	kinds, err := w.Webhook.GetSupportedEventTypes(ctx, webhook.NewGetSupportedEventTypesParams().WithProjectNameOrID("loud"))
	w.need(err)
	if len(kinds.Payload.EventType) < 10 || len(kinds.Payload.NotifyType) != 2 {
		w.Errorf("%+v", kinds.Payload)
	}
	policy := models.WebhookPolicy{Name: "tell", Enabled: true, EventTypes: []string{"PUSH_ARTIFACT"},
		Targets: []*models.WebhookTargetObject{{Type: "http", Address: target.URL, AuthHeader: "Bearer x"}}}
	made, err := w.Webhook.CreateWebhookPolicyOfProject(ctx, webhook.NewCreateWebhookPolicyOfProjectParams().WithProjectNameOrID("loud").WithPolicy(&policy))
	w.need(err)
	id := lastID(w, made.Location)
	w.push("loud/app", "v1")
	w.eventually("the webhook", func() bool { return delivered.Load() != nil })
	if said := *delivered.Load(); !strings.HasPrefix(said, "Bearer x ") || !strings.Contains(said, `"PUSH_ARTIFACT"`) || !strings.Contains(said, "loud/app") {
		w.Errorf("delivered: %s", said)
	}
	w.deliveries(id)
	got, err := w.Webhook.GetWebhookPolicyOfProject(ctx, webhook.NewGetWebhookPolicyOfProjectParams().WithProjectNameOrID("loud").WithWebhookPolicyID(id))
	w.need(err)
	got.Payload.Enabled = false
	_, err = w.Webhook.UpdateWebhookPolicyOfProject(ctx, webhook.NewUpdateWebhookPolicyOfProjectParams().WithProjectNameOrID("loud").WithWebhookPolicyID(id).WithPolicy(got.Payload))
	w.need(err)
	_, err = w.Webhook.DeleteWebhookPolicyOfProject(ctx, webhook.NewDeleteWebhookPolicyOfProjectParams().WithProjectNameOrID("loud").WithWebhookPolicyID(id))
	w.need(err)
	list, err := w.Webhook.ListWebhookPoliciesOfProject(ctx, webhook.NewListWebhookPoliciesOfProjectParams().WithProjectNameOrID("loud"))
	w.need(err)
	if len(list.Payload) != 0 {
		w.Errorf("%+v", list.Payload)
	}
}

func (w *world) deliveries(id int64) {
	w.Helper()
	ctx := w.Context()
	var execution int64
	w.eventually("the delivery's record", func() bool {
		list, err := w.Webhook.ListExecutionsOfWebhookPolicy(ctx, webhook.NewListExecutionsOfWebhookPolicyParams().WithProjectNameOrID("loud").WithWebhookPolicyID(id))
		w.need(err)
		for _, e := range list.Payload {
			if e.Status == "Success" {
				execution = e.ID
			}
		}
		return execution != 0
	})
	tasks, err := w.Webhook.ListTasksOfWebhookExecution(ctx, webhook.NewListTasksOfWebhookExecutionParams().WithProjectNameOrID("loud").WithWebhookPolicyID(id).WithExecutionID(execution))
	w.need(err)
	if len(tasks.Payload) != 1 {
		w.Fatalf("%+v", tasks.Payload)
	}
	_, err = w.Webhook.GetLogsOfWebhookTask(ctx, webhook.NewGetLogsOfWebhookTaskParams().WithProjectNameOrID("loud").WithWebhookPolicyID(id).WithExecutionID(execution).WithTaskID(tasks.Payload[0].ID))
	w.need(err)
	_, err = w.Webhook.LastTrigger(ctx, webhook.NewLastTriggerParams().WithProjectNameOrID("loud"))
	w.need(err)
	_, err = w.Webhookjob.ListWebhookJobs(ctx, webhookjob.NewListWebhookJobsParams().WithProjectNameOrID("loud").WithPolicyID(id))
	w.need(err)
}
