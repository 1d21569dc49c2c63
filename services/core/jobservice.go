package core

import (
	"math"
	"strconv"

	"berth/appliance/fault"
	"berth/services/task"
)

// jobserviceRoutes are for watching and steering what runs in the background.
var jobserviceRoutes = []route{
	{"GET", v2 + "/jobservice/pools", system("jobservice-monitor", "list"), "List the processes that run jobs", handle((*API).listPools)},
	{"GET", v2 + "/jobservice/pools/{pool_id}/workers", system("jobservice-monitor", "list"), "List what a process runs; all is every process", handle((*API).listWorkers)},
	{"PUT", v2 + "/jobservice/jobs/{job_id}", system("jobservice-monitor", "stop"), "Stop a job; all is every job that runs", handle((*API).stopJob)},
	{"GET", v2 + "/jobservice/jobs/{job_id}/log", system("jobservice-monitor", "list"), "Get the log of a job", handle((*API).jobLog)},
	{"GET", v2 + "/jobservice/queues", system("jobservice-monitor", "list"), "List the queues of jobs", handle((*API).listQueues)},
	{"PUT", v2 + "/jobservice/queues/{job_type}", system("jobservice-monitor", "stop"), "Stop, pause or resume a queue; all is every queue", handle((*API).changeQueue)},
	{"GET", v2 + "/schedules", system("jobservice-monitor", "list"), "List schedules", handle((*API).listSchedules)},
	{"GET", v2 + "/schedules/{job_type}/paused", system("jobservice-monitor", "list"), "Ask whether schedules are paused", handle((*API).schedulesPaused)},
}

type workerPool struct {
	Concurrency int    `json:"concurrency"`
	Heartbeat   moment `json:"heartbeat_at"`
	PID         int    `json:"pid"`
	Started     moment `json:"start_at"`
	ID          string `json:"worker_pool_id"`
}

func (a *API) listPools(r *request, _ none) ([]workerPool, error) {
	pools, err := a.Tasks.Pools(r.Context())
	out := make([]workerPool, len(pools))
	for i, p := range pools {
		out[i] = workerPool{p.Concurrency, moment(p.Heartbeat), p.PID, moment(p.Started), p.ID}
	}
	return out, err
}

type workerEntry struct {
	ID      string `json:"id"`
	JobID   string `json:"job_id"`
	JobName string `json:"job_name"`
	PoolID  string `json:"pool_id"`
	Started moment `json:"start_at"`
}

func (a *API) listWorkers(r *request, in struct {
	Pool string `path:"pool_id"`
}) ([]workerEntry, error) {
	tasks, err := a.Tasks.AtWork(r.Context(), in.Pool)
	out := make([]workerEntry, len(tasks))
	for i, t := range tasks {
		id := strconv.FormatInt(t.ID, 10)
		out[i] = workerEntry{t.Worker + "/" + id, id, t.Vendor, t.Worker, moment(t.Started)}
	}
	return out, err
}

type jobPath struct {
	ID string `path:"job_id"`
}

// task reads the id, which is text in Harbor's API.
func (p jobPath) task() (int64, error) {
	id, err := strconv.ParseInt(p.ID, 10, 64)
	if err != nil {
		return 0, fault.New(fault.NotFound, "job %q not found", p.ID)
	}
	return id, nil
}

func (a *API) stopJob(r *request, in jobPath) (empty, error) {
	if in.ID == task.AllQueues {
		return empty{}, a.Tasks.StopRunning(r.Context())
	}
	id, err := in.task()
	if err != nil {
		return empty{}, err
	}
	return empty{}, a.Tasks.StopTask(r.Context(), id)
}

func (a *API) jobLog(r *request, in jobPath) (text, error) {
	id, err := in.task()
	if err != nil {
		return text{}, err
	}
	log, err := a.Tasks.Log(r.Context(), id)
	return text{"text/plain", log}, err
}

type jobQueue struct {
	Count   int    `json:"count,omitempty"`
	JobType string `json:"job_type"`
	Latency int64  `json:"latency,omitempty"` // seconds that the first has waited
	Paused  bool   `json:"paused"`
}

func (a *API) listQueues(r *request, _ none) ([]jobQueue, error) {
	queues, err := a.Tasks.Queues(r.Context())
	out := make([]jobQueue, len(queues))
	for i, q := range queues {
		out[i] = jobQueue{q.Count, q.Vendor, int64(math.Ceil(q.Latency.Seconds())), q.Paused}
	}
	return out, err
}

func (a *API) changeQueue(r *request, in struct {
	JobType string `path:"job_type"`
	Body    struct {
		Action string `json:"action"` // stop, pause, resume
	} `body:""`
}) (empty, error) {
	switch in.Body.Action {
	case "stop":
		return empty{}, a.Tasks.StopWaiting(r.Context(), in.JobType)
	case "pause", "resume":
		return empty{}, a.Tasks.Pause(r.Context(), in.JobType, in.Body.Action == "pause")
	}
	return empty{}, fault.New(fault.Invalid, "action must be stop, pause or resume, not %q", in.Body.Action).On("action")
}

type scheduleEntry struct {
	Cron       string `json:"cron"`
	ID         int64  `json:"id"`
	Updated    moment `json:"update_time"`
	VendorID   int64  `json:"vendor_id"`
	VendorType string `json:"vendor_type"`
}

func (a *API) listSchedules(r *request, in struct{ paging }) (list[scheduleEntry], error) {
	q, err := in.query()
	if err != nil {
		return list[scheduleEntry]{}, err
	}
	page, err := a.Tasks.Schedules(r.Context(), q)
	return paged(page, err, in.paging, func(p task.Planned) scheduleEntry {
		return scheduleEntry{p.Cron, p.ID, moment(p.Updated), p.VendorID, p.Vendor}
	})
}

type pausedAnswer struct {
	Paused bool `json:"paused"`
}

func (a *API) schedulesPaused(r *request, in struct {
	JobType string `path:"job_type"`
}) (pausedAnswer, error) {
	if in.JobType != task.AllQueues {
		return pausedAnswer{}, fault.New(fault.Invalid, "job_type must be all: schedules are paused together, not %q alone", in.JobType).On("job_type")
	}
	paused, err := a.Tasks.SchedulesPaused(r.Context())
	return pausedAnswer{paused}, err
}
