package goclient

import (
	"bytes"
	"strings"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/configure"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/gc"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/health"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/jobservice"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/ldap"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/oidc"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/ping"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/purge"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/schedule"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/statistic"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/system_cve_allowlist"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/systeminfo"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"berth/tests/berthtest"
)

func information(w *world) {
	ctx := w.Context()
	stranger := w.as(berthtest.Login{})
	pong, err := stranger.Ping.GetPing(ctx, ping.NewGetPingParams())
	w.need(err)
	if pong.Payload != "Pong" {
		w.Errorf("%q", pong.Payload)
	}
	w.eventually("all components to be well", func() bool {
		well, err := stranger.Health.GetHealth(ctx, health.NewGetHealthParams())
		w.need(err)
		return well.Payload.Status == "healthy" && len(well.Payload.Components) > 3
	})
	info, err := w.Systeminfo.GetSystemInfo(ctx, systeminfo.NewGetSystemInfoParams())
	w.need(err)
	if info.Payload.HarborVersion == nil || !strings.HasPrefix(*info.Payload.HarborVersion, "v2.") {
		w.Errorf("%+v", info.Payload)
	}
	room, err := w.Systeminfo.GetVolumes(ctx, systeminfo.NewGetVolumesParams())
	w.need(err)
	if len(room.Payload.Storage) != 1 || room.Payload.Storage[0].Total == 0 {
		w.Errorf("%+v", room.Payload)
	}
	var ca bytes.Buffer
	_, err = stranger.Systeminfo.GetCert(ctx, systeminfo.NewGetCertParams(), &ca)
	w.need(err)
	if !strings.Contains(ca.String(), "BEGIN CERTIFICATE") {
		w.Errorf("%s", &ca)
	}
	count, err := w.Statistic.GetStatistic(ctx, statistic.NewGetStatisticParams())
	w.need(err)
	if count.Payload.TotalProjectCount < 1 {
		w.Errorf("%+v", count.Payload)
	}
	list := models.CVEAllowlist{Items: []*models.CVEAllowlistItem{{CVEID: "CVE-2026-1"}}}
	_, err = w.SystemCVEAllowlist.PutSystemCVEAllowlist(ctx, system_cve_allowlist.NewPutSystemCVEAllowlistParams().WithAllowlist(&list))
	w.need(err)
	allowed, err := w.SystemCVEAllowlist.GetSystemCVEAllowlist(ctx, system_cve_allowlist.NewGetSystemCVEAllowlistParams())
	w.need(err)
	if len(allowed.Payload.Items) != 1 || allowed.Payload.Items[0].CVEID != "CVE-2026-1" {
		w.Errorf("%+v", allowed.Payload)
	}
}

func settings(w *world) {
	ctx := w.Context()
	_, err := w.Configure.UpdateConfigurations(ctx, configure.NewUpdateConfigurationsParams().WithConfigurations(&models.Configurations{TokenExpiration: pointer[int64](45)}))
	w.need(err)
	got, err := w.Configure.GetConfigurations(ctx, configure.NewGetConfigurationsParams())
	w.need(err)
	if got.Payload.TokenExpiration.Value != 45 || got.Payload.AuthMode.Value != "db_auth" {
		w.Errorf("%+v", got.Payload)
	}
	_, err = w.Configure.UpdateConfigurations(ctx, configure.NewUpdateConfigurationsParams().WithConfigurations(&models.Configurations{TokenExpiration: pointer[int64](0)}))
	w.refused(400, err)
	_, err = w.Configure.GetInternalconfig(ctx, configure.NewGetInternalconfigParams())
	w.refused(401, err)
	// Nothing of a directory is set up: each says so in its way.
	pong, err := w.Ldap.PingLdap(ctx, ldap.NewPingLdapParams())
	w.need(err)
	if pong.Payload.Success || pong.Payload.Message == "" {
		w.Errorf("%+v", pong.Payload)
	}
	_, err = w.Ldap.SearchLdapUser(ctx, ldap.NewSearchLdapUserParams().WithUsername(pointer("x")))
	w.refused(400, err)
	_, err = w.Ldap.SearchLdapGroup(ctx, ldap.NewSearchLdapGroupParams().WithGroupname(pointer("x")))
	w.refused(400, err)
	_, err = w.Ldap.ImportLdapUser(ctx, ldap.NewImportLdapUserParams().WithUIDList(&models.LdapImportUsers{LdapUIDList: []string{"x"}}))
	w.refused(400, err)
	_, err = w.OIDC.PingOIDC(ctx, oidc.NewPingOIDCParams().WithEndpoint(oidc.PingOIDCBody{URL: "https://127.0.0.1:1", VerifyCert: true}))
	w.refused(400, err)
}

func garbage(w *world) {
	ctx := w.Context()
	manual := &models.Schedule{Schedule: &models.ScheduleObj{Type: "Manual"}, Parameters: map[string]any{"delete_untagged": true, "dry_run": true}}
	made, err := w.GC.CreateGCSchedule(ctx, gc.NewCreateGCScheduleParams().WithSchedule(manual))
	w.need(err)
	id := lastID(w, made.Location)
	w.eventually("the collection", func() bool {
		one, err := w.GC.GetGC(ctx, gc.NewGetGCParams().WithGCID(id))
		w.need(err)
		return one.Payload.JobStatus == "Success"
	})
	log, err := w.GC.GetGCLog(ctx, gc.NewGetGCLogParams().WithGCID(id))
	w.need(err)
	if log.Payload == "" {
		w.Error("an empty log")
	}
	history, err := w.GC.GetGCHistory(ctx, gc.NewGetGCHistoryParams())
	w.need(err)
	if len(history.Payload) != 1 {
		w.Errorf("%+v", history.Payload)
	}
	_, err = w.GC.StopGC(ctx, gc.NewStopGCParams().WithGCID(999999))
	w.refused(404, err)
	daily := &models.Schedule{Schedule: &models.ScheduleObj{Type: "Daily", Cron: "0 0 0 * * *"}}
	_, err = w.GC.CreateGCSchedule(ctx, gc.NewCreateGCScheduleParams().WithSchedule(daily))
	w.need(err)
	daily.Schedule = &models.ScheduleObj{Type: "Custom", Cron: "0 15 3 * * *"}
	_, err = w.GC.UpdateGCSchedule(ctx, gc.NewUpdateGCScheduleParams().WithSchedule(daily))
	w.need(err)
	got, err := w.GC.GetGCSchedule(ctx, gc.NewGetGCScheduleParams())
	w.need(err)
	if got.Payload.Schedule.Cron != "0 15 3 * * *" {
		w.Errorf("%+v", got.Payload.Schedule)
	}
}

func purging(w *world) {
	ctx := w.Context()
	manual := &models.Schedule{Schedule: &models.ScheduleObj{Type: "Manual"},
		Parameters: map[string]any{"audit_retention_hour": 24, "include_event_types": "create_project,pull_artifact", "dry_run": true}}
	made, err := w.Purge.CreatePurgeSchedule(ctx, purge.NewCreatePurgeScheduleParams().WithSchedule(manual))
	w.need(err)
	id := lastID(w, made.Location)
	w.eventually("the purge", func() bool {
		one, err := w.Purge.GetPurgeJob(ctx, purge.NewGetPurgeJobParams().WithPurgeID(id))
		w.need(err)
		return one.Payload.JobStatus == "Success"
	})
	_, err = w.Purge.GetPurgeJobLog(ctx, purge.NewGetPurgeJobLogParams().WithPurgeID(id))
	w.need(err)
	_, err = w.Purge.GetPurgeHistory(ctx, purge.NewGetPurgeHistoryParams())
	w.need(err)
	_, err = w.Purge.StopPurge(ctx, purge.NewStopPurgeParams().WithPurgeID(999999))
	w.refused(404, err)
	manual.Schedule = &models.ScheduleObj{Type: "Weekly", Cron: "0 0 0 * * 0"}
	_, err = w.Purge.UpdatePurgeSchedule(ctx, purge.NewUpdatePurgeScheduleParams().WithSchedule(manual))
	w.need(err)
	got, err := w.Purge.GetPurgeSchedule(ctx, purge.NewGetPurgeScheduleParams())
	w.need(err)
	if got.Payload.Schedule.Type != "Weekly" {
		w.Errorf("%+v", got.Payload.Schedule)
	}
}

func workers(w *world) {
	ctx := w.Context()
	pools, err := w.Jobservice.GetWorkerPools(ctx, jobservice.NewGetWorkerPoolsParams())
	w.need(err)
	if len(pools.Payload) == 0 {
		w.Fatal("no pool of workers")
	}
	_, err = w.Jobservice.GetWorkers(ctx, jobservice.NewGetWorkersParams().WithPoolID(pools.Payload[0].WorkerPoolID))
	w.need(err)
	queues, err := w.Jobservice.ListJobQueues(ctx, jobservice.NewListJobQueuesParams())
	w.need(err)
	if len(queues.Payload) == 0 {
		w.Fatal("no queue of jobs")
	}
	for _, action := range []string{"pause", "resume"} {
		_, err = w.Jobservice.ActionPendingJobs(ctx, jobservice.NewActionPendingJobsParams().WithJobType("GARBAGE_COLLECTION").WithActionRequest(&models.ActionRequest{Action: action}))
		w.need(err)
	}
	_, err = w.Jobservice.StopRunningJob(ctx, jobservice.NewStopRunningJobParams().WithJobID("999999"))
	w.refused(404, err)
	_, err = w.Jobservice.ActionGetJobLog(ctx, jobservice.NewActionGetJobLogParams().WithJobID("999999"))
	w.refused(404, err)
	plans, err := w.Schedule.ListSchedules(ctx, schedule.NewListSchedulesParams())
	w.need(err)
	if len(plans.Payload) == 0 {
		w.Error("no schedule, though collection and purge have one")
	}
	paused, err := w.Schedule.GetSchedulePaused(ctx, schedule.NewGetSchedulePausedParams().WithJobType("all"))
	w.need(err)
	if paused.Payload.Paused {
		w.Error("everything is paused")
	}
}
