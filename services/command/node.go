package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy"
	"berth/services/account"
	"berth/services/artifact"
	"berth/services/audit"
	"berth/services/blob"
	"berth/services/configuration"
	"berth/services/database"
	"berth/services/directory"
	"berth/services/event"
	"berth/services/metric"
	"berth/services/oidc"
	"berth/services/outbound"
	"berth/services/postgres"
	"berth/services/project"
	"berth/services/task"
	"berth/services/webhook"
)

// resolve makes the paths absolute and chooses a directory for sockets.
func resolve(s *setting.Settings) (err error) {
	if s.Data, err = filepath.Abs(s.Data); err != nil {
		return err
	}
	if dir := s.StorageDir(); dir != "" {
		if s.Storage, err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if s.Run == "" {
		s.Run = filepath.Join(s.Data, "run")
	}
	// A socket's path has at most 107 bytes (unix(7)); PostgreSQL's file name is
	// the longest below it.
	if len(filepath.Join(s.Run, "postgres", ".s.PGSQL.5432.lock")) > 100 {
		sum := sha256.Sum256([]byte(s.Data))
		s.Run = filepath.Join("/tmp", "berth-"+hex.EncodeToString(sum[:6]))
	}
	return nil
}

// prepareDirs makes the directories of a node, readable by nobody else. The
// private database's own user passes through two of them. In the appliance all
// of them are there, and root's.
func prepareDirs(s setting.Settings) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{s.Data, 0o711}, {s.Run, 0o711}, {s.Keys(), 0o700}} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fault.Wrap(fault.Invalid, err, "cannot make a directory").On("data")
		}
	}
	info, err := os.Lstat(s.Run)
	if err != nil || !info.IsDir() || !ours(info) {
		return fault.Wrap(fault.Precondition, err, "%s is not a directory of ours", s.Run).WithHint("remove it, or set run in the settings")
	}
	return nil
}

// The key files of a node.
const (
	berthKey = "berth.key" // seals what is secret in the database
	tokenKey = "token.key" // seals the keys that tokens are signed with; the token service's alone
)

// keyFile is where the key of that name is: with what systemd has handed to this
// unit (LoadCredential), or else in the node's own directory.
func keyFile(s setting.Settings, name string) string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(s.Keys(), name)
}

// proxyOf finds the web proxy for a request; nil if the settings name none.
func proxyOf(s setting.Settings) (func(*http.Request) (*url.URL, error), error) {
	if s.Proxy.HTTP == "" && s.Proxy.HTTPS == "" {
		return nil, nil
	}
	var password secret.Text
	if s.Proxy.Username != "" {
		var err error
		if password, err = webproxy.Password(keyFile(s, setting.ProxyPassword)); err != nil {
			return nil, fault.Wrap(fault.Precondition, err, "the proxy's password cannot be read").On("proxy.username")
		}
	}
	return webproxy.Choose(s.Proxy, password), nil
}

// cluster is the private PostgreSQL of a node.
func cluster(s setting.Settings, log *slog.Logger) *postgres.Cluster {
	return &postgres.Cluster{Dir: s.Cluster(), Socket: filepath.Join(s.Run, "postgres"), Log: log}
}

func databaseURL(s setting.Settings) string {
	if s.Database != "" {
		return s.Database
	}
	return cluster(s, nil).URL()
}

// node is the part of a service that is the same in all of them: the settings,
// a pool of connections and the stores over it.
type node struct {
	settings      setting.Settings
	log           *slog.Logger
	key           secret.Key
	proxy         func(*http.Request) (*url.URL, error) // nil = there is none
	pool          *pgxpool.Pool
	outbox        *event.Outbox
	accounts      *account.Store
	configuration *configuration.Store
	directory     *directory.Client
	projects      *project.Store
	tasks         *task.Store
}

// openNode connects to the database. conns bounds the pool.
func openNode(ctx context.Context, s setting.Settings, log *slog.Logger, conns int, options ...database.Option) (*node, error) {
	n := &node{settings: s, log: log}
	var err error
	if n.key, err = secret.LoadKey(keyFile(s, berthKey)); err != nil {
		return nil, err
	}
	if n.proxy, err = proxyOf(s); err != nil {
		return nil, err
	}
	if n.pool, err = database.Open(ctx, databaseURL(s), conns, options...); err != nil {
		return nil, err
	}
	if n.outbox, err = event.NewOutbox(n.pool); err != nil {
		n.pool.Close()
		return nil, err
	}
	n.configuration = configuration.New(n.pool, n.key, n.outbox)
	n.configuration.Try("audit_log_forward_endpoint", audit.Reach)
	if n.tasks, err = task.NewStore(n.pool); err != nil {
		n.pool.Close()
		return nil, err
	}
	n.directory = directory.New(func(ctx context.Context) (directory.Settings, error) {
		s, err := n.configuration.Current(ctx)
		return directory.From(s), err
	}, n.dialer().DialContext)
	n.accounts = account.New(n.pool, n.key, n.outbox)
	n.accounts.Consult(n.configuration, n.directory)
	n.projects = project.New(n.pool, n.outbox)
	return n, nil
}

func (n *node) close() {
	n.directory.Close()
	n.pool.Close()
}

// follow keeps what is remembered of accounts, settings and more true.
func (n *node) follow(ctx context.Context, g *errgroup.Group, more ...database.Channel) {
	channels := append(more, n.accounts.Channel(), n.configuration.Channel())
	g.Go(func() error { return database.Listen(ctx, n.pool, channels...) })
	g.Go(func() error { return n.accounts.WriteUses(ctx) })
}

// measure registers what is the same in all services, before anything is used.
func (n *node) measure(r prometheus.Registerer) {
	metric.Pool(r, n.pool)
	metric.Caches(r, map[string]*metric.Hits{"configuration": &n.configuration.Hits})
}

// measureVolumes registers what is left of the file systems that Berth writes to.
func (n *node) measureVolumes(r prometheus.Registerer) {
	metric.Volume(r, "data", n.settings.Data)
	if dir := n.settings.StorageDir(); dir != "" {
		metric.Volume(r, "storage", dir)
	}
	if !n.settings.Logs.Off {
		metric.Volume(r, "logs", n.settings.LogsDir())
	}
}

// dialer connects to what users name. This machine's own addresses are open to
// it only where the front door is.
func (n *node) dialer() *outbound.Dialer {
	d := &outbound.Dialer{Allow: prefixes(n.settings.AllowTargets), Proxy: n.proxy}
	for _, address := range []string{n.settings.HTTPS, n.settings.HTTP} {
		_, port, err := net.SplitHostPort(address)
		if p, bad := strconv.ParseUint(port, 10, 16); err == nil && bad == nil {
			d.OwnPorts = append(d.OwnPorts, uint16(p))
		}
	}
	return d
}

// webhooks keeps and delivers webhooks.
func (n *node) webhooks() *webhook.Store {
	_, host, _ := strings.Cut(publicURL(n.settings), "://")
	return webhook.New(webhook.Options{Pool: n.pool, Key: n.key, Tasks: n.tasks, Configuration: n.configuration, Dialer: n.dialer(), Host: host})
}

// oidc is the provider that the settings name.
func (n *node) oidc() *oidc.Client {
	return oidc.New(func(ctx context.Context) (oidc.Settings, error) {
		s, err := n.configuration.Current(ctx)
		return oidc.From(s), err
	}, n.dialer())
}

// migrate waits up to a minute for the database, then brings its schema forward.
func (n *node) migrate(ctx context.Context) error {
	deadline := time.Now().Add(time.Minute)
	for {
		err := n.pool.Ping(ctx)
		if err == nil {
			return database.Migrate(ctx, n.pool)
		}
		if !database.Down(err) || time.Now().After(deadline) || ctx.Err() != nil {
			return fault.Wrap(fault.Unavailable, err, "cannot reach the database").On("database").
				WithHint("check that PostgreSQL runs, that the URL is right, and that its role may connect")
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// blobs opens the blob store that the settings name.
func (n *node) blobs(ctx context.Context) (*blob.Store, error) {
	if dir := n.settings.StorageDir(); dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "cannot make the directory").On("storage")
		}
		if info, err := os.Stat(dir); err == nil && info.Mode()&os.ModeSetgid != 0 {
			// A directory that several users share: what one of them makes, root at the
			// console too, the others can change.
			unix.Umask(0o007)
		}
		return blob.OpenLocal(dir)
	}
	s3, err := s3Settings(n.settings)
	if err != nil {
		return nil, err
	}
	return blob.OpenS3(ctx, s3)
}

// s3Settings reads the settings file of an S3 storage; bucket and prefix of the
// URL go over it.
func s3Settings(s setting.Settings) (blob.S3Settings, error) {
	bucket, prefix, file := s.S3()
	out, err := blob.ReadS3(file)
	if err != nil && out.Bucket == "" && out.Endpoint == "" && out.Region == "" {
		return out, err
	}
	out.Bucket = bucket
	if prefix != "" {
		out.RootDirectory = prefix
	}
	return out, out.Check()
}

// checkStorage finds faults in the S3 settings file.
func checkStorage(s setting.Settings) error {
	if !strings.Contains(s.Storage, "://") {
		return nil
	}
	_, err := s3Settings(s)
	return err
}

// artifacts opens the metadata store over a blob store.
func (n *node) artifacts(blobs *blob.Store) (*artifact.Store, error) {
	return artifact.New(artifact.Options{
		Pool: n.pool, Outbox: n.outbox, Log: n.log, SparseIndexes: n.settings.SparseIndexes, Quotas: n.quotasBind,
		Times: artifact.Times{Grace: n.settings.Grace(), TombGrace: min(time.Hour, n.settings.Grace()), Trash: n.settings.Trash()},
		Present: func(ctx context.Context, key string, size int64) bool {
			info, err := blobs.Stat(ctx, key)
			// Only a clear no counts: a store that cannot be asked has lost nothing.
			return err != nil && !fault.Is(err, fault.NotFound) || err == nil && info.Size == size
		},
	})
}

// quotasBind reports whether projects are held to their limits. When the
// settings cannot be read they are.
func (n *node) quotasBind(ctx context.Context) bool {
	s, err := n.configuration.Current(ctx)
	return err != nil || s.QuotaEnabled
}

// withNode runs f for a command that works on a node's data, whether the node
// is running or not: if its private database is down it is started for as long.
func (a *app) withNode(ctx context.Context, s setting.Settings, f func(context.Context, *node) error) error {
	log := quietly(a.stderr, s)
	if s.Database == "" {
		if _, err := os.Stat(s.Cluster()); err != nil {
			return fault.Wrap(fault.Invalid, err, "there is no Berth in %s", s.Data).On("--data").
				WithHint("give the --data directory of `berth up`, or --database")
		}
		unlock, err := lock(s.Data)
		if err == nil {
			defer unlock()
			return a.withCluster(ctx, s, log, f)
		}
		if !errors.As(err, new(*lockedError)) {
			return err
		}
	}
	// With an external database this may be the first command ever (`berth migrate`).
	if err := prepareDirs(s); err != nil {
		return err
	}
	n, err := openNode(ctx, s, log, 4)
	if err != nil {
		return err
	}
	defer n.close()
	return f(ctx, n)
}

func (a *app) withCluster(ctx context.Context, s setting.Settings, log *slog.Logger, f func(context.Context, *node) error) error {
	ctx, cancel := context.WithCancel(ctx)
	done, ready := make(chan error, 1), make(chan struct{})
	quiet := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	go func() { done <- cluster(s, quiet).Run(ctx, func() { close(ready) }) }()
	defer func() { cancel(); <-done }()
	select {
	case err := <-done:
		done <- nil
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-ready:
	}
	n, err := openNode(ctx, s, log, 4)
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.migrate(ctx); err != nil {
		return err
	}
	return f(ctx, n)
}

// ensureFirstThings makes the administrator and the library project, once.
func (n *node) ensureFirstThings(ctx context.Context, password secret.Text) (created bool, err error) {
	if created, err = n.accounts.EnsureAdmin(ctx, password.Reveal()); err != nil {
		return false, fmt.Errorf("cannot make the administrator: %w", err)
	}
	if err := n.projects.EnsureLibrary(ctx); err != nil {
		return false, fmt.Errorf("cannot make the project library: %w", err)
	}
	return created, nil
}

// stores are the blob store and the metadata over it.
type stores struct {
	blobs     *blob.Store
	artifacts *artifact.Store
}

// stores opens both. The caller closes blobs.
func (n *node) stores(ctx context.Context) (s stores, err error) {
	if s.blobs, err = n.blobs(ctx); err != nil {
		return s, err
	}
	if s.artifacts, err = n.artifacts(s.blobs); err != nil {
		s.blobs.Close()
	}
	return s, err
}
