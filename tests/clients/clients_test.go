// Package clients drives the programs that people use with a registry against a whole Berth, over TLS with a private
// certificate authority that each of them is given the way its manual says.
package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"berth/tests/berthtest"
)

// What the tests of this package share: one Berth, and one Docker daemon once a test has asked for it.
var (
	berth *berthtest.Server
	// realTLS tells whether Berth listens outside 127.0.0.0/8, where clients do not excuse bad certificates.
	realTLS bool
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	host, remove, err := berthtest.LoopbackAddress()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Berth listens on 127.0.0.1:", err)
		host, remove = "127.0.0.1", func() {}
	}
	defer remove()
	realTLS = err == nil

	berth, err = berthtest.Launch(berthtest.Options{Host: host})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	dockerd.daemon.Stop()
	if err := berth.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// A site is what one test works in: a private project of its own, with a user who may push to it.
type site struct {
	project string
	user    berthtest.Login
	sh      *berthtest.Shell
	t       *testing.T
}

func newSite(t *testing.T, env ...string) *site {
	t.Helper()
	s := &site{project: "p-" + berthtest.Name(), sh: berthtest.NewShell(t, env...), t: t}
	t.Cleanup(func() { berth.ShowLog(t) })
	berth.CreateProject(t, s.project, false)
	s.user = berth.CreateUser(t, "u-"+berthtest.Name())
	berth.AddMember(t, s.project, s.user.User, berthtest.Maintainer)
	return s
}

// ref is the full name of a repository of the project, with a tag or digest if that is given.
func (s *site) ref(repository string, suffix ...string) string {
	name := berth.Addr + "/" + s.project + "/" + repository
	for _, x := range suffix {
		name += x
	}
	return name
}

// path is a file in the test's own directory.
func (s *site) path(name string) string { return filepath.Join(s.sh.Dir, name) }

// layout writes an image as an OCI layout into the test's directory and returns where.
func (s *site) layout(name, tag string, root berthtest.Blob, images ...*berthtest.Image) string {
	s.t.Helper()
	berthtest.WriteLayout(s.t, s.path(name), tag, root, images...)
	return s.path(name)
}

func (s *site) write(name string, data []byte) string {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), data, 0o644); err != nil {
		s.t.Fatal(err)
	}
	return s.path(name)
}

func (s *site) read(name string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// certDir is a directory with Berth's CA certificate, as podman, skopeo and buildah want it.
func (s *site) certDir() string {
	s.t.Helper()
	ca, err := os.ReadFile(berth.CAFile())
	if err != nil {
		s.t.Fatal(err)
	}
	return filepath.Dir(s.write("certs/ca.crt", ca))
}

// manifest is what the registry itself says about a tag or digest: the witness for what a client claims.
func (s *site) manifest(repository, reference string) *berthtest.Reply {
	s.t.Helper()
	r := berth.Registry(s.t, s.user).Do(s.t, "GET", "/v2/"+s.project+"/"+repository+"/manifests/"+reference, nil,
		"Accept", berthtest.OCIManifest, "Accept", berthtest.OCIIndex,
		"Accept", berthtest.DockerManifest, "Accept", berthtest.DockerList)
	if r.StatusCode != 200 {
		s.t.Fatalf("GET manifest %s of %s: %s: %s", reference, repository, r.Status, r.Data)
	}
	return r
}

// gone fails the test unless the registry says that it does not know a manifest.
func (s *site) gone(repository, reference string) {
	s.t.Helper()
	r := berth.Registry(s.t, s.user).Do(s.t, "GET", "/v2/"+s.project+"/"+repository+"/manifests/"+reference, nil)
	if r.StatusCode != 404 || r.Code() != "MANIFEST_UNKNOWN" && r.Code() != "NAME_UNKNOWN" {
		s.t.Fatalf("GET manifest %s of %s after its deletion: %s %s", reference, repository, r.Status, r.Data)
	}
}

// Texts with which clients report that a login was refused, that a right is missing, that a certificate is bad, and
// that something is not there.
var (
	unauthorized = []string{"unauthorized", "401", "authentication required", "invalid username/password"}
	denied       = []string{"denied", "unauthorized", "403", "401", "insufficient_scope", "forbidden"}
	badCA        = []string{"certificate signed by unknown authority", "x509"}
	notFound     = []string{"not found", "unknown", "404"}
)
