package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/tests/berthtest"
	"berth/tests/cmd/bench/load"
)

// Berth is `berth up` with its private PostgreSQL, as installed: token authentication, access log, all bytes durable.
type Berth struct {
	*child
	dir         string
	http, https string
	roots       *x509.CertPool
	basic       string
	client      *load.Client
	database    *pgx.Conn // for what no client may do: see whether jobs are left, forget a round's data
}

// StartBerth starts it on an empty directory below dir. Settings are lines for its settings file; without any, metrics
// are served on some port.
func StartBerth(ctx context.Context, dir string, settings ...string) (b *Berth, err error) {
	bin, err := berthtest.Binary()
	if err != nil {
		return nil, err
	}
	b = &Berth{dir: filepath.Join(dir, "berth")}
	if b.http, err = berthtest.FreeAddr("127.0.0.1"); err != nil {
		return nil, err
	}
	if b.https, err = berthtest.FreeAddr("127.0.0.1"); err != nil {
		return nil, err
	}
	out, config := filepath.Join(dir, "berth.out"), filepath.Join(dir, "berth.yaml")
	if len(settings) == 0 {
		settings = []string{"metrics: 127.0.0.1:0"}
	}
	if err := write(config, []byte("allow_targets: [127.0.0.1]\n"+strings.Join(settings, "\n"))); err != nil { // webhooks are told to the benchmark
		return nil, err
	}
	if b.child, err = start("Berth", out, nil, bin, "up", "--config", config, "--data", b.dir, "--https", b.https, "--http", b.http, "--hostname", "127.0.0.1"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.stop()
		}
	}()
	err = b.ready(ctx, func() bool {
		data, _ := os.ReadFile(out)
		return bytes.Contains(data, []byte("\nready https://"))
	})
	if err != nil {
		return nil, err
	}
	return b, b.connect(ctx)
}

func (b *Berth) connect(ctx context.Context) error {
	password, err := os.ReadFile(filepath.Join(b.dir, "admin-password"))
	if err != nil {
		return err
	}
	b.basic = "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+strings.TrimSpace(string(password))))
	if b.roots, err = rootsOf(filepath.Join(b.dir, "ca.crt")); err != nil {
		return err
	}
	if b.client, err = load.NewClient("http://"+b.http, nil, b.basic); err != nil {
		return err
	}
	socket := filepath.Join(b.dir, "run", "postgres")
	b.database, err = pgx.Connect(ctx, "host="+socket+" user=berth dbname=berth application_name=bench")
	if err != nil {
		return fmt.Errorf("cannot reach Berth's database: %w", err)
	}
	return nil
}

// Name is Berth.
func (b *Berth) Name() string { return "Berth" }

// Pids is the process of `berth up`, the parent of its database.
func (b *Berth) Pids() []int { return []int{b.pid()} }

// Address is where it listens.
func (b *Berth) Address(tls bool) string {
	if tls {
		return "https://" + b.https
	}
	return "http://" + b.http
}

// Roots has the certificate authority that Berth made for itself.
func (b *Berth) Roots() *x509.CertPool { return b.roots }

// Basic is the administrator's Authorization header.
func (b *Berth) Basic() string { return b.basic }

// TokenPath is where a client asks for a token.
func TokenPath(repos ...string) string {
	q := url.Values{"service": {"harbor-registry"}}
	for _, r := range repos {
		q.Add("scope", "repository:"+r+":pull,push")
	}
	return "/service/token?" + q.Encode()
}

// Auth gets a token.
func (b *Berth) Auth(ctx context.Context, repos ...string) (string, error) {
	r, err := b.client.Do(ctx, load.Request{Method: "GET", Target: TokenPath(repos...), Want: 200, Keep: true})
	if err != nil {
		return "", err
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(r.Body, &answer); err != nil {
		return "", fmt.Errorf("cannot read Berth's token: %w", err)
	}
	return "Bearer " + answer.Token, nil
}

// Tags pushes the manifest by digest with a hundred tags at a time.
func (b *Berth) Tags(ctx context.Context, repo string, count int) error {
	const most = 100
	for first := 0; first < count; first += most {
		q := url.Values{}
		for n := first; n < min(first+most, count); n++ {
			q.Add("tag", TagName(n))
		}
		if err := b.client.PushManifest(ctx, repo, load.Digest(note), load.IndexType, note, q.Encode()); err != nil {
			return err
		}
	}
	return nil
}

// Repositories pushes a manifest to each.
func (b *Berth) Repositories(ctx context.Context, count int) error {
	for n := range count {
		if err := b.client.PushManifest(ctx, RepoName(n), "latest", load.IndexType, note, ""); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes rows and files.
func (b *Berth) Forget(ctx context.Context, repos, digests []string) error {
	names := make([][]byte, 0, len(digests))
	for _, d := range digests {
		raw, err := hex.DecodeString(strings.TrimPrefix(d, "sha256:"))
		if err != nil {
			return err
		}
		names = append(names, append([]byte{1}, raw...)) // 1 is sha256: see services/reference
	}
	var keys []string
	err := pgx.BeginFunc(ctx, b.database, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(`DELETE FROM manifests WHERE repo_id IN (SELECT id FROM repositories WHERE name = ANY($1))`, repos)
		batch.Queue(`DELETE FROM repo_blobs WHERE repo_id IN (SELECT id FROM repositories WHERE name = ANY($1))`, repos)
		batch.Queue(`DELETE FROM gc_blobs WHERE digest = ANY($1)`, names)
		batch.Queue(`DELETE FROM blobs WHERE digest = ANY($1) RETURNING storage_key`, names).Query(func(rows pgx.Rows) (err error) {
			keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return fmt.Errorf("cannot remove a round's rows from Berth's database: %w", err)
	}
	for i, key := range keys {
		keys[i] = filepath.Join(b.dir, "storage", key)
	}
	return removeAll(keys)
}

// Settle waits until every event has been worked off.
func (b *Berth) Settle(ctx context.Context) error {
	limit := time.Now().Add(2 * time.Minute)
	for time.Now().Before(limit) {
		var left bool
		err := b.database.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_job WHERE queue = 'events' AND state IN ('available', 'running', 'retryable'))`).Scan(&left)
		if err != nil || !left {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("Berth has not worked off its events within 2 minutes")
}

// PostgreSQL is the database's version.
func (b *Berth) PostgreSQL(ctx context.Context) (version string, err error) {
	err = b.database.QueryRow(ctx, `SELECT current_setting('server_version')`).Scan(&version)
	return version, err
}

// Stop ends it.
func (b *Berth) Stop() error {
	if b.database != nil {
		b.database.Close(context.Background())
	}
	return b.stop()
}
