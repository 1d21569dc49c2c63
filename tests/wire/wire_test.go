// Package wire replays what a real Harbor was asked on /v2/ and /service/token
// against a whole Berth, front door included, and compares the answers. The REST
// API's captures are replayed by services/core.
package wire

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"berth/services/wiretest"
	"berth/tests/berthtest"
)

// Why Berth differs on purpose.
const (
	specification = "the OCI Distribution Specification's code, which clients branch on"
	always        = "a header of every answer on /v2/, as in the CNCF registry; Harbor leaves it out of some"
)

// differences are the captures where we answer otherwise, by what differs.
var differences = map[string]map[string]string{
	"059-robot-token.txt":      {"header Cache-Control": "a token is a secret that no cache should keep"},
	"065-v2-catalog-admin.txt": {"header Docker-Distribution-Api-Version": always},
	"068-v2-manifest-404.txt":  {"header Docker-Distribution-Api-Version": always, "code": specification},
	"070-v2-onelevel.txt":      {"header Docker-Distribution-Api-Version": always, "code": specification},
	"071-v2-tags.txt":          {"header Docker-Distribution-Api-Version": always},
	"074-v2-referrers.txt":     {"header Docker-Distribution-Api-Version": always, "header X-Total-Count": "the specification has none, and counting would cost a query"},
}

// prepare makes what the captures' Harbor held.
func prepare(t *testing.T, s *berthtest.Server, admin berthtest.Login) {
	t.Helper()
	r := s.Registry(t, admin)
	config, layer := berthtest.NewBlob("application/vnd.docker.container.image.v1+json", []byte("{}")),
		berthtest.NewBlob("application/vnd.docker.image.rootfs.diff.tar.gzip", []byte("layer"))
	image := berthtest.Manifest(config, []berthtest.Blob{layer}, map[string]any{"mediaType": docker})
	image.MediaType = docker
	for _, b := range []berthtest.Blob{config, layer} {
		r.PushBlob(t, "library/hello", b)
	}
	for _, tag := range []string{"v1", "v2"} {
		r.PushManifest(t, "library/hello", tag, image)
	}
	r.PushImage(t, "library/zzz", "v1", berthtest.NewImage(1, 100))
	s.CreateProject(t, "gp2497", false)
	s.API(t, admin, "POST", "/robots", map[string]any{"name": "r1", "level": "project", "duration": -1, "permissions": []any{
		map[string]any{"kind": "project", "namespace": "gp2497", "access": []any{map[string]any{"resource": "repository", "action": "pull"}}}}}, 201)
	s.API(t, admin, "PATCH", "/robots/1", map[string]any{"secret": "Harbor12345x"}, 200)
}

const docker = "application/vnd.docker.distribution.manifest.v2+json"

func TestWire(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	admin := s.Admin(t)
	prepare(t, s, admin)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	for _, file := range files {
		c := wiretest.Read(t, file)
		t.Run(c.Name, func(t *testing.T) {
			wiretest.Compare(t, c, ask(t, s, admin, c), differences[c.Name])
		})
	}
}

// ask sends a capture's request.
func ask(t *testing.T, s *berthtest.Server, admin berthtest.Login, c wiretest.Capture) wiretest.Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.Method, s.URL+c.Path, strings.NewReader(c.Body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(c.Headers); i += 2 {
		req.Header.Set(c.Headers[i], c.Headers[i+1])
	}
	if name, password, ok := strings.Cut(c.User, ":"); ok {
		if name == admin.User {
			password = admin.Password // ours is not Harbor's default
		}
		req.SetBasicAuth(name, password)
	}
	resp, err := s.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return wiretest.Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
}
