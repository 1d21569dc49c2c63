package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"berth/appliance/cert"
	"berth/appliance/fault"
	"berth/appliance/health"
	"berth/appliance/setting"
	"berth/services/blob"
	"berth/services/database"
	"berth/services/logs"
	"berth/services/task"
)

// patient is a Berth that is looked at from outside, whatever of it runs.
type patient struct {
	settings setting.Settings
	pool     *pgxpool.Pool
	units    bool // each service is a process of its own
}

func newPatient(ctx context.Context, s setting.Settings) (*patient, error) {
	if s.Database == "" {
		if _, err := os.Stat(s.Cluster()); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "there is no Berth in %s", s.Data).On("--data").
				WithHint("give the --data directory of `berth up`, or --config with the settings file")
		}
	}
	pool, err := database.Open(ctx, databaseURL(s), 4)
	if err != nil {
		return nil, err
	}
	p := &patient{settings: s, pool: pool}
	if s.Database != "" {
		_, err := os.Stat(debugSocket(s, ""))
		p.units = err != nil
	}
	return p, nil
}

func (p *patient) close() { p.pool.Close() }

// checks are all that `berth status` looks at.
func (p *patient) checks() []health.Check {
	s := p.settings
	var list []health.Check
	needs := func(names ...string) []string { return names }
	if !p.units {
		list = append(list, health.Check{Name: "process", About: "berth up runs", Probe: health.Answers("unix", debugSocket(s, "")),
			Hint: "start it: systemctl start berth, or berth up --data " + s.Data + "; what it said at its end is in its log"})
	}
	list = append(list, p.disks()...)
	list = append(list,
		health.Check{Name: "database", About: "PostgreSQL answers", DependsOn: needs("process", "data disk"), Probe: databaseProbe(p.pool, s.Database == "")},
		health.Check{Name: "schema", About: "the database is of this version", DependsOn: needs("database"), Probe: p.schema},
		health.Check{Name: "clock", About: "this machine and the database agree on the time", DependsOn: needs("database"), Probe: p.clock},
		health.Check{Name: "storage", About: "blobs can be written", DependsOn: needs("storage disk"), Probe: p.storage},
	)
	registry := health.Check{Name: "registry", About: "the front door answers", DependsOn: needs("process", "database", "storage", "schema"),
		Probe: func(ctx context.Context) error { return health.Unanswered(alive(ctx, s, services()[0])) }, Hint: unitHint("registry")}
	if s.HTTPS != "" {
		list = append(list, health.Check{Name: "certificate", About: "clients can trust it", Probe: health.Certificate(certificateFile(s))})
	}
	list = append(list, registry,
		health.Check{Name: "token", About: "tokens are given out", DependsOn: needs("process", "database", "schema"), Probe: health.Serves(s.Socket("token"), tokenProbe), Hint: unitHint("token")},
		health.Check{Name: "core", About: "the REST API answers", DependsOn: needs("process", "database", "schema"), Probe: health.Serves(s.Socket("core"), "/api/v2.0/ping"), Hint: unitHint("core")},
		health.Check{Name: "jobs", About: "background jobs are run", DependsOn: needs("process", "database", "schema"), Probe: jobsProbe(p.pool), Hint: unitHint("jobs")},
		health.Check{Name: "queue", About: "events do not wait", DependsOn: needs("jobs"), Probe: p.queue},
	)
	if !s.Logs.Off {
		list = append(list, health.Check{Name: "logs", About: "log messages are taken in", DependsOn: needs("process", "log disk"),
			Probe: health.Answers("unix", s.Socket("syslog")), Hint: unitHint("logs")})
	}
	if !s.Logs.Off && len(s.Logs.Forward) > 0 {
		list = append(list, health.Check{Name: "collectors", About: "log messages are forwarded", DependsOn: needs("logs"), Probe: p.collectors})
	}
	return list
}

// tokenProbe is a request for a token that takes the service to the database and
// gives nobody anything.
const tokenProbe = "/service/token?service=harbor-registry&scope=repository:library/health:pull"

func unitHint(service string) string {
	return "look at its log (berth logs, or journalctl -u berth-" + service + "), and restart it"
}

// certificateFile is the certificate that the front door shows.
func certificateFile(s setting.Settings) string {
	if s.Certificate != "" {
		return s.Certificate
	}
	return filepath.Join(s.TLS(), cert.ServerFile)
}

// disks are the file systems that Berth writes to, each once.
func (p *patient) disks() (list []health.Check) {
	seen := map[uint64]bool{}
	for _, d := range []struct{ name, dir string }{{"data disk", p.settings.Data}, {"storage disk", p.settings.StorageDir()}, {"log disk", p.settings.LogsDir()}} {
		var st syscall.Stat_t
		if d.dir == "" || syscall.Stat(d.dir, &st) != nil || seen[st.Dev] {
			continue // one that is missing is another check's business
		}
		seen[st.Dev] = true
		list = append(list, health.Check{Name: d.name, About: "there is room on " + d.dir, Probe: health.Room(d.dir)})
	}
	return list
}

// databaseProbe asks PostgreSQL for anything, and says in words what is wrong.
// private is whether it is a child of `berth up`.
func databaseProbe(pool *pgxpool.Pool, private bool) func(context.Context) error {
	hint := "check that PostgreSQL runs (systemctl status postgresql), and that the setting database is right"
	if private {
		hint = "restart Berth, which starts its PostgreSQL; the reason it ended is in Berth's log"
	}
	return func(ctx context.Context) error {
		_, err := pool.Exec(ctx, `SELECT`)
		if err == nil {
			return nil
		}
		f := fault.Wrap(fault.Unavailable, err, "the database does not answer").WithHint("%s", hint)
		switch code := database.Code(err); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
			f.Text = "PostgreSQL does not run"
		case errors.Is(err, context.DeadlineExceeded):
			f.Text = "PostgreSQL does not answer in time"
			f.Hint = "it may be overloaded, or its disk hang: look at its log and at the disk (iostat, dmesg)"
		case code == "53300":
			f.Text = "PostgreSQL takes no more connections"
			f.Hint = "raise its max_connections, or find out who holds them (SELECT * FROM pg_stat_activity)"
		case code == "57P03":
			f.Text = "PostgreSQL is starting up or shutting down"
			f.Hint = "wait; after a crash it reads its journal first"
		case len(code) == 5 && code[:2] == "28":
			f.Text = "PostgreSQL refuses the login"
			f.Hint = "check the role and the password in the setting database, and pg_hba.conf"
		case code == "3D000":
			f.Text = "the database does not exist"
			f.Hint = "create it, or correct its name in the setting database"
		}
		return f
	}
}

func (p *patient) schema(ctx context.Context) error {
	current, known, err := database.Version(ctx, p.pool)
	switch {
	case err != nil:
		return err
	case current > known:
		return fault.New(fault.Precondition, "the database's schema is version %d, and this Berth knows up to %d", current, known).
			WithHint("run the newer Berth that made it, or restore the backup taken before the update")
	case current < known:
		return health.Warning(fault.New(fault.Precondition, "%d steps of the schema are still to be made (version %d, this Berth knows %d)", known-current, current, known).
			WithHint("restart Berth, or run berth migrate: the running one may be older than this program"))
	}
	return nil
}

// skewed is how far clocks may differ. Tokens are refused from a minute on.
const skewed = 20 * time.Second

func (p *patient) clock(ctx context.Context) error {
	var theirs time.Time
	began := time.Now()
	if err := p.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the database cannot be asked")
	}
	ours := began.Add(time.Since(began) / 2)
	if d := ours.Sub(theirs).Abs(); d > skewed {
		return health.Warning(fault.New(fault.Precondition, "the clocks of this machine and of the database differ by %s", d.Round(time.Second)).
			WithHint("synchronise both (timedatectl): tokens are refused when clocks differ by more than a minute"))
	}
	return nil
}

func (p *patient) storage(ctx context.Context) error {
	if dir := p.settings.StorageDir(); dir != "" {
		return health.Writable(dir)(ctx)
	}
	s3, err := s3Settings(p.settings)
	if err != nil {
		return err
	}
	store, err := blob.OpenS3(ctx, s3)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the object store cannot be used").WithHint("check endpoint, bucket and keys in the S3 settings file")
	}
	defer store.Close()
	return storageProbe(store, "")(ctx)
}

// storageProbe asks a blob store: a directory takes a file, an object store
// answers.
func storageProbe(store *blob.Store, dir string) func(context.Context) error {
	if dir != "" {
		return health.Writable(dir)
	}
	return func(ctx context.Context) error {
		if _, err := store.Stat(ctx, "berth/health"); err != nil && !fault.Is(err, fault.NotFound) {
			return fault.Wrap(fault.Unavailable, err, "the object store does not answer").WithHint("check that it runs, and the endpoint, bucket and keys in the S3 settings file")
		}
		return nil
	}
}

// jobsProbe asks whether a process that runs jobs has lately said that it lives.
func jobsProbe(pool *pgxpool.Pool) func(context.Context) error {
	return func(ctx context.Context) error {
		var alive bool
		err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM job_pools WHERE heartbeat_at > now() - $1::interval)`, task.DefaultDead).Scan(&alive)
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "it cannot be asked for: the database does not say")
		}
		if !alive {
			return fault.New(fault.Unavailable, "no job service has renewed its lease")
		}
		return nil
	}
}

// collectors asks the log service how those get on that get a copy of its
// messages. One that is away is a warning: its messages wait.
func (p *patient) collectors(ctx context.Context) error {
	list, _, err := logs.NewClient(p.settings.Socket("logs")).Collectors(ctx)
	if err != nil {
		return health.Unanswered(err)
	}
	var all []error
	for _, c := range list {
		if c.Error != "" {
			all = append(all, fault.New(fault.Unavailable, "%s (%s): %s; %d messages wait", c.Name, c.To, c.Error, c.Waiting).WithHint("%s", c.Hint))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return health.Warning(errors.Join(all...))
}

// late is how long an event may wait: seconds are usual.
const late = 5 * time.Minute

func (p *patient) queue(ctx context.Context) error {
	var seconds float64
	err := p.pool.QueryRow(ctx, `SELECT coalesce((SELECT extract(epoch FROM now() - scheduled_at) FROM river_job
		WHERE state = 'available' AND queue = 'events' ORDER BY priority, scheduled_at LIMIT 1), 0)::float8`).Scan(&seconds)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the queue cannot be looked at")
	}
	if waited := time.Duration(seconds * float64(time.Second)); waited > late {
		return health.Warning(fault.New(fault.Unavailable, "events wait for %s to get into the audit trail and to webhooks", waited.Round(time.Second)).
			WithHint("look at the job service's log; a syslog collector of the audit trail that is away holds events back"))
	}
	return nil
}
