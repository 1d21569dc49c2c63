package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/appliance/health"
	"berth/appliance/secret"
	"berth/services/account"
	"berth/services/artifact"
	"berth/services/configuration"
	"berth/services/core"
	"berth/services/dbtest"
	"berth/services/directory"
	"berth/services/event"
	"berth/services/immutability"
	"berth/services/label"
	"berth/services/oidc"
	"berth/services/outbound"
	"berth/services/project"
	"berth/services/quota"
	"berth/services/reference"
	"berth/services/retention"
	"berth/services/session"
	"berth/services/task"
	"berth/services/upkeep"
	"berth/services/webhook"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const password = "Harbor12345"

// bundle is a Berth with its first administrator and project, behind HTTP.
type bundle struct {
	t         testing.TB
	pool      *pgxpool.Pool
	artifacts *artifact.Store
	blobs     map[string][]byte // by storage key
	options   core.Options
	handler   http.Handler
}

func setup(t testing.TB) *bundle {
	t.Helper()
	pool := dbtest.New(t)
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{t: t, pool: pool, blobs: map[string][]byte{}}
	key := secret.NewKey(make([]byte, 32))
	settings := configuration.New(pool, key, outbox)
	dialer := &outbound.Dialer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}} // where tests have their servers
	people := directory.New(func(ctx context.Context) (directory.Settings, error) {
		s, err := settings.Current(ctx)
		return directory.From(s), err
	}, dialer.DialContext)
	t.Cleanup(people.Close)
	provider := oidc.New(func(ctx context.Context) (oidc.Settings, error) {
		s, err := settings.Current(ctx)
		return oidc.From(s), err
	}, dialer)
	accounts, projects := account.New(pool, key, outbox), project.New(pool, outbox)
	if b.artifacts, err = artifact.New(artifact.Options{Pool: pool, Outbox: outbox}); err != nil {
		t.Fatal(err)
	}
	accounts.Consult(settings, people)
	if _, err := accounts.EnsureAdmin(t.Context(), password); err != nil {
		t.Fatal(err)
	}
	if err := projects.EnsureLibrary(t.Context()); err != nil {
		t.Fatal(err)
	}
	tasks, err := task.NewStore(pool)
	if err != nil {
		t.Fatal(err)
	}
	b.options = core.Options{
		Tasks: tasks, Upkeep: upkeep.New(pool, tasks), Webhooks: webhook.New(webhook.Options{Pool: pool, Key: key, Tasks: tasks}),
		Log:  slog.New(slog.NewTextHandler(t.Output(), nil)),
		Pool: pool, Accounts: accounts, Projects: projects, Artifacts: b.artifacts,
		Labels: label.New(pool, outbox), Retention: retention.New(pool, outbox, tasks), Quotas: quota.New(pool, outbox), Immutability: immutability.New(pool, outbox),
		Configuration: settings, Directory: people, OIDC: provider, Dialer: dialer, Sessions: session.New(pool, key, outbox), Key: key,
		ExternalURL: "https://registry.example.com", StorageName: "filesystem",
		Checks: []health.Check{{Name: "core"}, {Name: "database", Probe: pool.Ping}},
		Volume: func() (uint64, uint64, error) { return 100, 40, nil },
		OpenBlob: func(_ context.Context, key string) (io.ReadCloser, error) {
			blob, ok := b.blobs[key]
			if !ok {
				return nil, fault.New(fault.NotFound, "no blob %s", key)
			}
			return io.NopCloser(bytes.NewReader(blob)), nil
		},
	}
	b.handler, err = core.New(b.options)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (b *bundle) do(method, path, user, body string, headers ...string) answer {
	b.t.Helper()
	var content io.Reader = http.NoBody
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, path, content)
	if err != nil {
		b.t.Fatal(err)
	}
	r.RequestURI = path
	if name, pw, ok := strings.Cut(user, ":"); ok {
		r.SetBasicAuth(name, pw)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return answer{w.Code, w.Result().Header, w.Body.String()}
}

const root = "admin:" + password

// want checks an answer's status.
func (b *bundle) want(a answer, status int) answer {
	b.t.Helper()
	if a.status != status {
		b.t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// user makes a user and gives its credentials.
func (b *bundle) user(name string) string {
	b.t.Helper()
	b.want(b.do("POST", "/api/v2.0/users", root, fmt.Sprintf(`{"username":%q,"email":"%s@example.com","realname":"R","password":%q}`, name, name, password)), 201)
	return name + ":" + password
}

func (b *bundle) blob(repo string, content []byte) string {
	b.t.Helper()
	d := reference.Of(reference.SHA256, content)
	key := "blobs/" + d.Hex()
	b.blobs[key] = content
	if _, err := b.artifacts.CommitBlob(b.t.Context(), repo, artifact.Blob{Digest: d, Size: int64(len(content)), Key: key}, true); err != nil {
		b.t.Fatal(err)
	}
	return d.String()
}

// push makes an image with a tag, as the registry would, and gives its digest.
func (b *bundle) push(repo, tag, flavour string) string {
	b.t.Helper()
	config := fmt.Appendf(nil, `{"architecture":"","os":"","flavour":%q,"history":[{"created":"0001-01-01T00:00:00Z"}]}`, flavour)
	layer := []byte("layer " + flavour)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":%d,"digest":%q},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":%d,"digest":%q}]}`,
		artifact.TypeDockerManifest, len(config), b.blob(repo, config), len(layer), b.blob(repo, layer))
	return b.put(repo, tag, artifact.TypeDockerManifest, manifest)
}

func (b *bundle) put(repo, tag, mediaType, manifest string) string {
	b.t.Helper()
	d := reference.Of(reference.SHA256, []byte(manifest))
	var tags []string
	if tag != "" {
		tags = []string{tag}
	}
	if _, err := b.artifacts.PutManifest(b.t.Context(), artifact.Push{Repo: repo, Digest: d, Tags: tags, MediaType: mediaType, Payload: []byte(manifest)}); err != nil {
		b.t.Fatal(err)
	}
	return d.String()
}

// decode reads an answer's JSON.
func decode[T any](a answer, t testing.TB) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}
