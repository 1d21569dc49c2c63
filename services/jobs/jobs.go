// Package jobs does what need not be done while a client waits: it writes the
// audit trail from events, collects garbage, re-hashes blobs, sweeps what cut-off
// uploads left. River keeps the jobs in PostgreSQL; any number of nodes may run
// this service, and periodic jobs run on one of them at a time.
package jobs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"golang.org/x/sync/errgroup"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/services/artifact"
	"berth/services/audit"
	"berth/services/blob"
	"berth/services/event"
	"berth/services/quota"
	"berth/services/reference"
	"berth/services/task"
	"berth/services/trace"
)

// Options configure a Service.
type Options struct {
	Pool      *pgxpool.Pool
	Artifacts *artifact.Store
	Blobs     *blob.Store
	Tasks     *task.Store
	Log       *slog.Logger
	Every     Intervals
	// Kinds are the vendors whose tasks are run here.
	Kinds []task.Kind
	// Consumers are told of every event, at least once each, after it is in the
	// audit trail. They must know one that they have seen by its id.
	Consumers []Consumer
	// AuditRules are the administrators' settings of the audit trail; nil is none.
	AuditRules func(context.Context) (audit.Rules, error)
	// AuditChain links the entries of the trail; nil does not.
	AuditChain *audit.Chain
	// Heartbeat and Dead are task.RunnerOptions'.
	Heartbeat, Dead time.Duration
	// Metrics is where the service registers its own; nil = nowhere.
	Metrics prometheus.Registerer
	// Tracer makes spans of what events cause; nil = none.
	Tracer *trace.Tracer
}

// Consumer does what an event asks for. An error makes the event come again.
type Consumer func(ctx context.Context, e event.Event) error

// Intervals say how often periodic work runs. The zero value is DefaultIntervals.
type Intervals struct {
	Collect time.Duration // garbage collection: reviews what is due
	Sweep   time.Duration // abandoned uploads, and objects that nothing knows
	Scrub   time.Duration // a share of all blobs is re-hashed each time
	Verify  time.Duration // how old a blob's last verification may be
	Upkeep  time.Duration // audit partitions
}

// DefaultIntervals collect every half minute and re-hash everything monthly.
var DefaultIntervals = Intervals{Collect: 30 * time.Second, Sweep: 6 * time.Hour, Scrub: 10 * time.Minute, Verify: 30 * 24 * time.Hour, Upkeep: 12 * time.Hour}

// Service runs jobs.
type Service struct {
	Options
	client *river.Client[pgx.Tx]
	trail  *audit.Recorder
	runner *task.Runner
	meters *meters
}

// The periodic jobs. A kind of job is one type; its worker is a method below.
type (
	collectArgs struct{}
	sweepArgs   struct{}
	scrubArgs   struct{}
	upkeepArgs  struct{}
)

func (collectArgs) Kind() string { return "collect_garbage" }
func (sweepArgs) Kind() string   { return "sweep_storage" }
func (scrubArgs) Kind() string   { return "scrub_blobs" }
func (upkeepArgs) Kind() string  { return "audit_upkeep" }

// once keeps a periodic job from piling up behind one that takes long.
func once() *river.InsertOpts {
	return &river.InsertOpts{MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
	}}}
}

// New makes a Service.
func New(o Options) (*Service, error) {
	if o.Every == (Intervals{}) {
		o.Every = DefaultIntervals
	}
	s := &Service{Options: o, trail: audit.NewRecorder(o.Pool, o.AuditChain, o.AuditRules), meters: newMeters(o)}
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(s.event))
	river.AddWorker(workers, measured(s, "collect", s.collect))
	river.AddWorker(workers, measured(s, "sweep", s.sweep))
	river.AddWorker(workers, measured(s, "scrub", s.scrub))
	river.AddWorker(workers, measured(s, "audit", s.upkeep))
	queues := map[string]river.QueueConfig{
		river.QueueDefault: {MaxWorkers: 4},
		// Events come in bursts, and are written together.
		event.Queue: {MaxWorkers: 500, FetchCooldown: 100 * time.Millisecond, FetchPollInterval: time.Second},
	}
	name := processName()
	s.runner = task.NewRunner(o.Tasks, task.RunnerOptions{Pool: o.Pool, Kinds: o.Kinds, Log: o.Log, Name: name, Heartbeat: o.Heartbeat, Dead: o.Dead, Ended: s.meters.task})
	s.runner.Register(workers, queues)
	var err error
	s.client, err = river.NewClient(riverpgxv5.New(o.Pool), &river.Config{
		ID:                          name,
		Queues:                      queues,
		Workers:                     workers,
		Logger:                      slog.New(quiet{o.Log.Handler()}),
		FetchCooldown:               200 * time.Millisecond,
		FetchPollInterval:           2 * time.Second,
		CompletedJobRetentionPeriod: time.Hour,
		JobTimeout:                  30 * time.Minute,
		RescueStuckJobsAfter:        time.Hour,
		PeriodicJobs: []*river.PeriodicJob{
			periodic(o.Every.Collect, collectArgs{}),
			periodic(o.Every.Sweep, sweepArgs{}),
			periodic(o.Every.Scrub, scrubArgs{}),
			periodic(o.Every.Upkeep, upkeepArgs{}),
		},
	})
	return s, err
}

// measured counts how a periodic job's runs end.
func measured[T river.JobArgs](s *Service, name string, work func(context.Context, *river.Job[T]) error) river.Worker[T] {
	return river.WorkFunc(func(ctx context.Context, job *river.Job[T]) error {
		err := work(ctx, job)
		s.meters.run(name, err)
		return err
	})
}

// processName tells one life of a process from all others.
func processName() string {
	host, err := os.Hostname()
	if err != nil || len(host) > 60 {
		host = "host"
	}
	return host + "_" + uuid.NewString()
}

func periodic(every time.Duration, args river.JobArgs) *river.PeriodicJob {
	return river.NewPeriodicJob(river.PeriodicInterval(every), func() (river.JobArgs, *river.InsertOpts) { return args, once() },
		&river.PeriodicJobOpts{RunOnStart: true})
}

// Run works until ctx ends, then lets running jobs finish for 10 s.
func (s *Service) Run(ctx context.Context) error {
	// What writes for jobs begins before River does and ends after it.
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, behind := errgroup.WithContext(behind)
	defer func() { stop(); g.Wait() }()
	if err := s.runner.Enter(ctx); err != nil {
		return err
	}
	g.Go(func() error { return s.trail.Run(behind) })
	g.Go(func() error { return s.runner.Run(behind) })
	if err := s.client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-behind.Done(): // one of the two has failed: its error is the group's
	}
	s.runner.Leave()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := s.client.Stop(grace)
	if err != nil {
		// They are rescued by whoever runs jobs next.
		hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		err = s.client.StopAndCancel(hard)
	}
	stop()
	return errors.Join(g.Wait(), err)
}

// event writes one event into the audit trail and tells the others. They do not
// wait for one another: a syslog collector that is away must not keep webhooks
// from going out. Whatever fails makes the event come again to all of them.
func (s *Service) event(ctx context.Context, job *river.Job[event.Event]) (err error) {
	e := job.Args
	ctx, span := s.Tracer.Consume(trace.With(ctx, e.Trace), "event")
	defer func() { span.End(err) }()
	span.String("berth.event", e.Operation+"_"+e.ResourceType)
	ctx = logger.WithRequest(ctx, &logger.Request{ID: e.RequestID, TokenRequest: e.TokenRequest, TraceID: span.ID()})
	var all []error
	if e.Notice == nil {
		in, writing := s.Tracer.Start(ctx, "write audit trail")
		failure := s.trail.Record(in, e)
		writing.End(failure)
		all = append(all, failure)
	}
	for _, consume := range s.Consumers {
		all = append(all, consume(ctx, e))
	}
	err = errors.Join(all...)
	s.meters.event(e.Time, err)
	if err != nil {
		s.Log.WarnContext(ctx, "an event could not be handled, and will come again", "event", e.ID.String(), "operation", e.Operation, "resource", e.Resource, "attempt", job.Attempt, "err", err)
	} else {
		s.Log.InfoContext(ctx, "event handled", "event", e.ID.String(), "operation", e.Operation, "resource_type", e.ResourceType, "resource", e.Resource, "user", e.User)
	}
	return err
}

// collectLimit bounds one run; what is left waits for the next.
const collectLimit = 10_000

func (s *Service) collect(ctx context.Context, _ *river.Job[collectArgs]) error {
	c, err := s.Artifacts.Collect(ctx, collectLimit, s.Blobs.Delete)
	if c != (artifact.Collected{}) {
		s.Log.Info("garbage collected", "manifests", c.Manifests, "blobs", c.Blobs, "objects", c.Objects, "bytes", c.Bytes, "failed", c.Failed)
	}
	return errors.Join(err, quota.Gather(ctx, s.Pool))
}

// orphanAge is how old an object must be before it may count as left over; no
// push takes longer from its bytes to its row.
const orphanAge = 48 * time.Hour

func (s *Service) sweep(ctx context.Context, _ *river.Job[sweepArgs]) error {
	uploads, err := s.Blobs.SweepUploads(ctx, orphanAge)
	if err != nil {
		return err
	}
	if err := s.Artifacts.ForgetUploads(ctx); err != nil {
		return err
	}
	objects, err := s.Artifacts.Adopt(ctx, orphanAge, s.Blobs.Keys)
	if uploads+objects > 0 {
		s.Log.Info("storage swept", "uploads", uploads, "objects", objects)
	}
	return err
}

// scrub re-hashes the blobs whose last verification is the oldest: as many as
// it takes to get round in Intervals.Verify, and at least ten.
func (s *Service) scrub(ctx context.Context, _ *river.Job[scrubArgs]) error {
	var total int
	if err := s.Pool.QueryRow(ctx, `SELECT count(*) FROM blobs`).Scan(&total); err != nil {
		return err
	}
	n := max(10, int(float64(total)*float64(s.Every.Scrub)/float64(s.Every.Verify)))
	_, err := s.Artifacts.Verify(ctx, n, time.Now().Add(-s.Every.Verify), Hash(s.Blobs), Missing, func(c artifact.Check) {
		s.meters.verified.Inc()
		if c.Damaged {
			s.meters.damaged.Inc()
			s.Log.Error("a blob is damaged; push an image that has it again to heal it", "digest", c.Digest.String(), "key", c.Key, "reason", c.Reason)
		}
	})
	return err
}

func (s *Service) upkeep(ctx context.Context, _ *river.Job[upkeepArgs]) error {
	return audit.EnsurePartitions(ctx, s.Pool, time.Now())
}

// Hash gives a function that re-hashes stored bytes, for artifact.Store.Verify.
func Hash(store *blob.Store) func(context.Context, string, reference.Algorithm) (reference.Digest, int64, error) {
	return func(ctx context.Context, key string, a reference.Algorithm) (reference.Digest, int64, error) {
		f, err := store.Open(ctx, key)
		if err != nil {
			return reference.Digest{}, 0, err
		}
		defer f.Close()
		h := a.New()
		n, err := io.Copy(h, contextReader{ctx, f})
		return reference.FromHash(a, h), n, err
	}
}

// Missing reports whether an error of Hash says that the bytes are not there.
func Missing(err error) bool { return fault.Is(err, fault.NotFound) }

// contextReader stops a long read when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return c.r.Read(p)
}

// quiet passes River's warnings and errors on, and not its reports of every few
// seconds, nor what it says when we stop it in the middle of something.
type quiet struct{ slog.Handler }

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	stopping := false
	r.Attrs(func(a slog.Attr) bool {
		stopping = stopping || strings.Contains(a.Value.String(), context.Canceled.Error())
		return !stopping
	})
	if stopping {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func (quiet) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler       { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(g string) slog.Handler            { return quiet{q.Handler.WithGroup(g)} }
