// Package database opens the PostgreSQL database that all services share and
// brings its schema to the version that this binary needs.
//
// There is one schema. Its steps are the files in migrations, numbered,
// forward-only, one transaction each (goose), then River's own. Any number of
// nodes may call Migrate at once: an advisory lock lets one do the work.
// The SQL that uses a table stands in the package that owns the table.
package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"berth/appliance/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock's key; any constant that no one else uses.
const migrationLock = 0x6265727468 // "berth"

// Option changes a pool.
type Option func(*pgxpool.Config)

// Tracer is told of each statement and of each batch.
type Tracer interface {
	pgx.QueryTracer
	pgx.BatchTracer
}

// Trace tells t of what the pool does; nil is nobody.
func Trace(t Tracer) Option {
	return func(cfg *pgxpool.Config) {
		if t != nil {
			cfg.ConnConfig.Tracer = t
		}
	}
}

// IndexProbes is for services all of whose statements look up rows by an index.
// It keeps the planner from reading a whole table because the table was small
// when the statement was prepared: the plan would stay while the table grows.
func IndexProbes(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["enable_seqscan"] = "off" }

// Open connects to url (a PostgreSQL URL or key=value string) with a pool of at
// most conns connections. It does not wait for the server: the first query does.
func Open(ctx context.Context, url string, conns int, options ...Option) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// pgx's error redacts the password.
		return nil, fault.Wrap(fault.Invalid, err, "not a usable PostgreSQL URL").On("database")
	}
	cfg.MaxConns = int32(conns)
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.MaxConnLifetime = time.Hour
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	params := cfg.ConnConfig.RuntimeParams
	if params["application_name"] == "" {
		params["application_name"] = "berth"
	}
	// A 201 means that the row is on disk, whatever the server's own default is.
	params["synchronous_commit"] = "on"
	params["timezone"] = "UTC"
	params["statement_timeout"] = "60000"
	params["idle_in_transaction_session_timeout"] = "60000"
	params["plan_cache_mode"] = "force_generic_plan" // all our statements are index probes: planning them again gains nothing
	for _, o := range options {
		o(cfg)
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// Migrate brings the schema forward. It is idempotent and safe from several
// nodes at once. A schema newer than this binary knows is refused, for an older
// binary must not write to it.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("cannot reach the database: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SET statement_timeout = 0"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return fmt.Errorf("cannot take the migration lock: %w", err)
	}
	defer func() {
		// A connection that cannot unlock is broken, and its end unlocks.
		clean := context.WithoutCancel(ctx)
		conn.Exec(clean, "SELECT pg_advisory_unlock($1)", int64(migrationLock))
		conn.Exec(clean, "SET statement_timeout = 60000")
	}()

	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, steps, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("cannot read the migrations: %w", err)
	}
	if err := refuseNewer(ctx, provider); err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("cannot migrate the database (nothing of the failed step was kept): %w", err)
	}
	river, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	if _, err := river.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("cannot migrate the job tables: %w", err)
	}
	// River makes two GIN indexes for searches by hand, which neither it nor we
	// use. They cost a push more than the rest of its event (measured).
	if _, err := conn.Exec(ctx, `DROP INDEX IF EXISTS river_job_args_index, river_job_metadata_index`); err != nil {
		return fmt.Errorf("cannot drop unused indexes of the job tables: %w", err)
	}
	return nil
}

// Version gives the schema's version and the one that this binary knows, and
// changes nothing. A database without a schema has version 0.
func Version(ctx context.Context, pool *pgxpool.Pool) (current, known int64, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, 0, err
	}
	for _, f := range files {
		n, err := goose.NumericComponent(f)
		if err != nil {
			return 0, 0, err
		}
		known = max(known, n)
	}
	var there bool
	if err = pool.QueryRow(ctx, `SELECT to_regclass('goose_db_version') IS NOT NULL`).Scan(&there); err != nil || !there {
		return 0, known, Fault(err)
	}
	err = pool.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&current)
	return current, known, Fault(err)
}

func refuseNewer(ctx context.Context, p *goose.Provider) error {
	current, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the schema's version: %w", err)
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	if current > known {
		return fault.New(fault.Precondition, "the database's schema is version %d, and this Berth knows up to %d", current, known).
			On("database").WithHint("run the newer Berth that made it, or restore the backup taken before the update")
	}
	return nil
}

// InTx runs f in one READ COMMITTED transaction and commits it if f returns nil.
func InTx(ctx context.Context, pool *pgxpool.Pool, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, pool, f)
}

// Code gives the SQLSTATE of a PostgreSQL error, or "".
func Code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// SQLSTATEs that callers branch on (PostgreSQL manual, appendix A).
const (
	ForeignKeyViolation = "23503"
	UniqueViolation     = "23505"
	CheckViolation      = "23514"
)

// Fault turns an error of the database into what a caller may be told: a
// server that is down or restarting is Unavailable; the rest stays as it is.
func Fault(err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if !Down(err) {
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "the database cannot be reached").WithHint("try again in a moment")
}

// Down reports whether err says that the server is away rather than that a
// statement is wrong: connection failures and SQLSTATE classes 08 and 57P.
func Down(err error) bool {
	if c := Code(err); c != "" {
		return c[:2] == "08" || c[:3] == "57P" || c == "53300"
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	return pgconn.SafeToRetry(err) || brokenPipe(err)
}
