package clients

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/tests/berthtest"
)

// dockerd is the Docker daemon of this package's tests.
var dockerd struct {
	once   sync.Once
	daemon *berthtest.Docker
	skip   error
}

// docker prepares a test that uses the docker command, and returns its site.
func docker(t *testing.T) *site {
	t.Helper()
	berthtest.Program(t, "docker")
	berthtest.Program(t, "dockerd")
	dockerd.once.Do(func() { dockerd.daemon, dockerd.skip = berthtest.StartDocker() })
	if dockerd.skip != nil {
		t.Skipf("dockerd cannot start here: %v", dockerd.skip)
	}
	s := newSite(t)
	s.sh.Env = append(s.sh.Env,
		dockerd.daemon.Host(),
		"DOCKER_CONFIG="+s.sh.Dir,
		"DOCKER_BUILDKIT=0", // the daemon's own builder: the packaged one has no buildx
	)
	return s
}

// trust gives Berth's CA to Docker for this test, in the directory that Docker's manual names for a registry.
func (s *site) trust() {
	s.t.Helper()
	ca, err := os.ReadFile(berth.CAFile())
	if err != nil {
		s.t.Fatal(err)
	}
	dir := filepath.Join("/etc/docker/certs.d", berth.Addr)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	// Others (podman, regctl) look there, too, and their tests start without.
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) dockerLogin(who berthtest.Login) {
	s.t.Helper()
	s.sh.Input(s.t, who.Password, "docker", "login", "--username", who.User, "--password-stdin", berth.Addr)
}

// build makes an image of some layers of random data and returns its id.
func (s *site) build(name string, layers int) string {
	s.t.Helper()
	file := "FROM scratch\n"
	for n := range layers {
		s.write(fmt.Sprintf("build/%d", n), berthtest.Random(200_000))
		file += fmt.Sprintf("COPY %d /%d\n", n, n)
	}
	s.write("build/Dockerfile", []byte(file+"CMD [\"/0\"]\n"))
	s.sh.Run(s.t, "docker", "build", "-q", "-t", name, s.path("build"))
	return s.imageID(name)
}

func (s *site) imageID(name string) string {
	s.t.Helper()
	return strings.TrimSpace(s.sh.Run(s.t, "docker", "image", "inspect", "-f", "{{.Id}}", name))
}

// Docker refuses a registry whose certificate it cannot check, and accepts it once it has Berth's CA certificate.
func TestDockerChecksCertificate(t *testing.T) {
	s := docker(t)
	if !realTLS {
		t.Skip("Berth listens on 127.0.0.1, where Docker does not check certificates: needs root")
	}
	s.sh.Refused(t, badCA, "docker", "login", "-u", s.user.User, "-p", s.user.Password, berth.Addr)
	s.trust()
	s.dockerLogin(s.user)
}

// `docker login` takes the right password only.
func TestDockerLogin(t *testing.T) {
	s := docker(t)
	s.trust()
	s.sh.Refused(t, unauthorized, "docker", "login", "-u", s.user.User, "-p", "Wrong-"+s.user.Password, berth.Addr)
	s.sh.Refused(t, unauthorized, "docker", "login", "-u", "nobody-"+berthtest.Name(), "-p", s.user.Password, berth.Addr)
	s.dockerLogin(s.user)
	s.sh.Run(t, "docker", "logout", berth.Addr)
}

// An image built by Docker can be pushed, pushed again without sending its layers, pulled back unchanged, and deleted.
func TestDockerPushPullDelete(t *testing.T) {
	s := docker(t)
	s.trust()
	s.dockerLogin(s.user)
	name := s.ref("team/app", ":1.0")
	id := s.build(name, 3)

	out := s.sh.Run(t, "docker", "push", name)
	if strings.Count(out, "Pushed") != 3 || !strings.Contains(out, "1.0: digest: sha256:") {
		t.Errorf("the first push should send 3 layers:\n%s", out)
	}
	out = s.sh.Run(t, "docker", "push", name)
	if strings.Count(out, "Layer already exists") != 3 {
		t.Errorf("the second push should find 3 layers there:\n%s", out)
	}
	stored := s.manifest("team/app", "1.0")
	if got := berthtest.Digest(stored.Data); !strings.Contains(out, got) {
		t.Errorf("docker pushed %q, the registry has %s", out, got)
	}
	if got := stored.Header.Get("Content-Type"); got != berthtest.DockerManifest {
		t.Errorf("the manifest's type is %q", got)
	}

	s.sh.Run(t, "docker", "rmi", name)
	s.sh.Run(t, "docker", "pull", name)
	if got := s.imageID(name); got != id {
		t.Errorf("pulled image %s, pushed %s", got, id)
	}
	s.sh.Run(t, "docker", "create", "--name", s.project, "--network", "none", name)
	s.sh.Run(t, "docker", "cp", s.project+":/2", s.path("2"))
	s.sh.Run(t, "docker", "rm", s.project)
	if !bytes.Equal(s.read("2"), s.read("build/2")) {
		t.Error("a file of the pulled image differs from what was built")
	}

	s.sh.Run(t, "docker", "rmi", name)
	berth.DeleteArtifact(t, s.user, s.project, "team/app", "1.0")
	s.sh.Refused(t, notFound, "docker", "pull", name)
	s.gone("team/app", "1.0")
}

// Layers that a repository of the registry has are mounted by Docker into another, not sent again.
func TestDockerMountsLayers(t *testing.T) {
	s := docker(t)
	s.trust()
	s.dockerLogin(s.user)
	first, second := s.ref("first", ":1"), s.ref("second", ":1")
	id := s.build(first, 2)
	s.sh.Run(t, "docker", "push", first)
	s.sh.Run(t, "docker", "tag", first, second)
	out := s.sh.Run(t, "docker", "push", second)
	if strings.Count(out, "Mounted from "+s.project+"/first") != 2 {
		t.Errorf("both layers should be mounted:\n%s", out)
	}
	s.sh.Run(t, "docker", "rmi", first, second)
	s.sh.Run(t, "docker", "pull", second)
	if got := s.imageID(second); got != id {
		t.Errorf("pulled image %s, pushed %s", got, id)
	}
}

// A private project is closed to those who are not its members; a robot that may pull cannot push; a public project is
// open to everyone for pulling and to nobody else for pushing.
func TestDockerRights(t *testing.T) {
	s := docker(t)
	s.trust()
	s.dockerLogin(s.user)
	name := s.ref("app", ":1")
	s.build(name, 1)
	s.sh.Run(t, "docker", "push", name)
	s.sh.Run(t, "docker", "tag", name, s.ref("app", ":2"))

	stranger := berth.CreateUser(t, "u-"+berthtest.Name())
	s.dockerLogin(stranger)
	s.sh.Refused(t, append(denied, notFound...), "docker", "pull", name)
	s.sh.Refused(t, denied, "docker", "push", s.ref("app", ":2"))

	s.dockerLogin(berth.CreateRobot(t, s.project, "puller", "pull"))
	s.sh.Run(t, "docker", "pull", name)
	s.sh.Refused(t, denied, "docker", "push", s.ref("app", ":2"))

	s.dockerLogin(berth.CreateRobot(t, s.project, "pusher", "pull", "push"))
	s.sh.Run(t, "docker", "push", s.ref("app", ":2"))

	s.sh.Run(t, "docker", "logout", berth.Addr)
	s.sh.Refused(t, append(denied, notFound...), "docker", "pull", name)
	berth.API(t, berth.Admin(t), "PUT", "/projects/"+s.project, map[string]any{
		"metadata": map[string]string{"public": "true"}}, 200)
	s.sh.Run(t, "docker", "rmi", name)
	s.sh.Run(t, "docker", "pull", name)
	s.sh.Refused(t, denied, "docker", "push", s.ref("app", ":2"))
}

// The docker command puts images for two platforms together under one tag, and a machine pulls its own.
func TestDockerManifestList(t *testing.T) {
	s := docker(t)
	s.trust()
	s.dockerLogin(s.user)
	list := s.ref("multi", ":1")
	ids := map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		ids[arch] = s.build(s.ref("multi", ":"+arch), 1)
		s.sh.Run(t, "docker", "push", s.ref("multi", ":"+arch))
	}
	s.sh.Run(t, "docker", "manifest", "create", list, s.ref("multi", ":amd64"), s.ref("multi", ":arm64"))
	s.sh.Run(t, "docker", "manifest", "annotate", list, s.ref("multi", ":arm64"), "--os", "linux", "--arch", "arm64")
	s.sh.Run(t, "docker", "manifest", "push", list)
	if got := s.manifest("multi", "1").Header.Get("Content-Type"); got != berthtest.DockerList {
		t.Errorf("the list's type is %q", got)
	}
	for arch, id := range ids {
		s.sh.Run(t, "docker", "rmi", s.ref("multi", ":"+arch))
		s.sh.Run(t, "docker", "pull", "--platform", "linux/"+arch, list)
		if got := s.imageID(list); got != id {
			t.Errorf("pulled for %s: image %s, want %s", arch, got, id)
		}
	}
}
