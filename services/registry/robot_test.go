package registry_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/account"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/configuration"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/project"
	"berth/services/reference"
	"berth/services/registry"
	"berth/services/token"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// bench is a registry with its token service, and a private project p.
type bench struct {
	t        *testing.T
	server   http.Handler
	tokens   http.Handler
	accounts *account.Store
}

var root = access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}

func setup(t *testing.T) *bench {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pool, key, log := dbtest.New(t), secret.NewKey(make([]byte, 32)), slog.New(slog.DiscardHandler)
	outbox, err := event.NewOutbox(pool)
	must(err)
	b := &bench{t: t, accounts: account.New(pool, key, outbox)}
	projects := project.New(pool, outbox)
	_, err = b.accounts.EnsureAdmin(t.Context(), "Correct-Horse7")
	must(err)
	_, err = projects.Create(t.Context(), root, "p", project.Settings{})
	must(err)
	blobs, err := blob.OpenLocal(t.TempDir())
	must(err)
	t.Cleanup(func() { blobs.Close() })
	artifacts, err := artifact.New(artifact.Options{Pool: pool, Outbox: outbox})
	must(err)
	b.tokens, err = token.New(t.Context(), token.Options{Pool: pool, Key: secret.NewKey([]byte(strings.Repeat("t", 32))),
		Accounts: b.accounts, Projects: projects, Configuration: configuration.New(pool, key, outbox), Log: log})
	must(err)
	verifier, err := token.NewVerifier(pool, nil)
	must(err)
	b.server, err = registry.New(registry.Options{Artifacts: artifacts, Blobs: blobs, SessionKey: []byte("k"), Log: log,
		Auth: &registry.Auth{Tokens: verifier, Accounts: b.accounts, Projects: projects}})
	must(err)
	return b
}

// login authorises a request.
type login func(r *http.Request)

// basic sends name and password with each request, bearer gets a token first,
// as docker does.
func (b *bench) basic(name, password, _ string) login {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

func (b *bench) bearer(name, password, repo string) login {
	b.t.Helper()
	r := httptest.NewRequest("GET", "/service/token?"+url.Values{"service": {token.Audience}, "scope": {"repository:" + repo + ":pull,push,delete"}}.Encode(), nil)
	r.SetBasicAuth(name, password)
	w := httptest.NewRecorder()
	b.tokens.ServeHTTP(w, r)
	var got struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		b.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+got.Token) }
}

func (b *bench) do(as login, method, path, body string) int {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	as(r)
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	io.Copy(io.Discard, w.Body)
	return w.Code
}

const empty = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// A robot that is limited to patterns of repositories and tags keeps to them,
// whether it comes with a token or with its secret.
func TestLimitedRobot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pair := func(resource, action string) access.Pair { return access.Pair{Resource: resource, Action: action} }
	robot, password, err := b.accounts.CreateRobot(t.Context(), root, account.NewRobot{Name: "ci", Level: "project", Duration: -1, Permissions: []access.Permission{
		{Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull")}, Repositories: []string{"team-a/**"}},
		{Kind: "project", Namespace: "p", Access: []access.Pair{pair("repository", "pull"), pair("repository", "push"), pair("artifact", "delete")},
			Repositories: []string{"team-a/*"}, Tags: []string{"v*"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	admin := b.basic("admin", "Correct-Horse7", "")
	for _, at := range []string{"team-a/app/manifests/v1", "team-a/app/manifests/latest", "team-b/app/manifests/v1", "team-a/deep/app/manifests/v1"} {
		if got := b.do(admin, "PUT", "/v2/p/"+at, empty); got != 201 {
			t.Fatalf("%s: %d", at, got)
		}
	}
	digest := reference.Of(reference.SHA256, []byte(empty)).String()
	for name, as := range map[string]func(name, password, repo string) login{"secret": b.basic, "token": b.bearer} {
		for _, c := range []struct {
			method, repo, rest string
			want               int
		}{
			{"PUT", "team-a/app", "manifests/v2", 201},
			{"PUT", "team-a/app", "manifests/" + digest, 201},
			{"PUT", "team-a/app", "manifests/" + digest + "?tag=v3", 201},
			{"PUT", "team-a/app", "manifests/" + digest + "?tag=v3&tag=latest", 403},
			{"PUT", "team-a/app", "manifests/latest", 403},
			{"GET", "team-a/app", "manifests/latest", 200}, // its other block may pull everything
			{"GET", "team-a/app", "tags/list", 200},
			{"POST", "team-a/app", "blobs/uploads/", 202},
			{"DELETE", "team-a/app", "manifests/latest", 403},
			{"DELETE", "team-a/app", "manifests/v2", 202},
			{"DELETE", "team-a/app", "manifests/" + digest, 403},
			{"GET", "team-a/deep/app", "manifests/v1", 200},
			{"PUT", "team-a/deep/app", "manifests/v2", 401},
			{"GET", "team-b/app", "manifests/v1", 401},
			{"PUT", "team-b/app", "manifests/v1", 401},
			{"POST", "team-b/app", "blobs/uploads/", 401},
		} {
			if got := b.do(as(robot.Name, password.Reveal(), "p/"+c.repo), c.method, "/v2/p/"+c.repo+"/"+c.rest, empty); got != c.want {
				t.Errorf("with its %s: %s %s/%s: %d, want %d", name, c.method, c.repo, c.rest, got, c.want)
			}
		}
	}
}
