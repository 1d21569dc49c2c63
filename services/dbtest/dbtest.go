// Package dbtest gives tests a real, empty, migrated database of their own.
//
// A test package calls Main from its TestMain; the first New starts a private
// PostgreSQL cluster for the package, and every New copies a migrated template.
package dbtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
	"berth/services/postgres"
)

var server struct {
	once    sync.Once
	cluster *postgres.Cluster
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
	dir     string
	count   atomic.Int64
}

// Main runs the package's tests and removes the cluster afterwards.
func Main(m *testing.M) {
	code := m.Run()
	if server.cancel != nil {
		server.cancel()
		<-server.done
	}
	if server.dir != "" {
		os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

// New gives a pool on a database that only this test uses; both go away with it.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := database.Open(t.Context(), URL(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// URL makes a migrated database that only this test uses and says how to connect.
func URL(t testing.TB) string {
	t.Helper()
	server.once.Do(start)
	if server.err != nil {
		t.Fatalf("cannot start PostgreSQL for the tests: %v", server.err)
	}
	name := fmt.Sprintf("t%d", server.count.Add(1))
	admin(t, "CREATE DATABASE "+name+" TEMPLATE template_berth STRATEGY file_copy")
	t.Cleanup(func() { admin(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	return fmt.Sprintf("host=%s user=%s dbname=%s", server.cluster.Socket, postgres.Name, name)
}

func admin(t testing.TB, sql string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func start() {
	server.dir, server.err = os.MkdirTemp("", "berth-pg-")
	if server.err != nil {
		return
	}
	os.Chmod(server.dir, 0o711) // the server's own user passes through
	server.cluster = &postgres.Cluster{
		Dir: filepath.Join(server.dir, "data"), Socket: filepath.Join(server.dir, "run"), NoSync: true,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	ctx, cancel := context.WithCancel(context.Background())
	server.cancel, server.done = cancel, make(chan struct{})
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(server.done)
		failed <- server.cluster.Run(ctx, func() { close(ready) })
	}()
	select {
	case <-ready:
		server.err = template(ctx)
	case server.err = <-failed:
	case <-time.After(90 * time.Second):
		server.err = fmt.Errorf("not ready after 90 s")
	}
}

func template(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, server.cluster.URL())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE template_berth")
	conn.Close(ctx)
	if err != nil {
		return err
	}
	pool, err := database.Open(ctx, fmt.Sprintf("host=%s user=%s dbname=template_berth", server.cluster.Socket, postgres.Name), 4)
	if err != nil {
		return err
	}
	defer pool.Close()
	return database.Migrate(ctx, pool)
}
