package clients

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// podman, skopeo and buildah share one library, and their ways of being told credentials and certificates.
func containers(t *testing.T, program string) *site {
	t.Helper()
	berthtest.Program(t, program)
	if os.Geteuid() != 0 && program != "skopeo" {
		t.Skipf("%s needs root here", program)
	}
	s := newSite(t)
	s.sh.Env = append(s.sh.Env, "REGISTRY_AUTH_FILE="+s.path("auth.json"))
	return s
}

func (s *site) login(program string, who berthtest.Login) {
	s.t.Helper()
	s.sh.Input(s.t, who.Password, program, "login", "--cert-dir", s.certDir(),
		"--username", who.User, "--password-stdin", berth.Addr)
}

// podman runs podman with storage of the test's own.
func (s *site) podman(args ...string) string {
	s.t.Helper()
	return s.sh.Run(s.t, "podman", append([]string{
		"--root", s.path("storage"), "--runroot", s.path("run"), "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--events-backend", "file",
	}, args...)...)
}

func (s *site) buildah(args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.sh.Run(s.t, "buildah", append([]string{
		"--root", s.path("storage"), "--runroot", s.path("run"), "--storage-driver", "vfs",
	}, args...)...))
}

// podman checks the certificate and the password, and pulls what it has pushed.
func TestPodmanPushPull(t *testing.T) {
	s := containers(t, "podman")
	s.sh.Refused(t, badCA, "podman", "login", "-u", s.user.User, "-p", s.user.Password, berth.Addr)
	s.sh.Refused(t, unauthorized, "podman", "login", "--cert-dir", s.certDir(), "-u", s.user.User, "-p", "Wrong-1", berth.Addr)
	s.login("podman", s.user)

	image := berthtest.NewImage(3, 300_000)
	name := s.ref("app", ":1")
	id := strings.TrimSpace(s.podman("pull", "-q", "oci:"+s.layout("layout", "1", image.Manifest, image)+":1"))
	s.podman("tag", id, name)
	s.podman("push", "--cert-dir", s.certDir(), name)
	s.manifest("app", "1")
	s.podman("rmi", "-f", id)
	if got := strings.TrimSpace(s.podman("pull", "-q", "--cert-dir", s.certDir(), name)); got != id {
		t.Errorf("pulled image %s, pushed %s", got, id)
	}
}

// podman pushes an image for two platforms as one, and gives each machine its own when pulling.
func TestPodmanManifestList(t *testing.T) {
	s := containers(t, "podman")
	s.login("podman", s.user)
	list := s.ref("multi", ":1")
	s.podman("manifest", "create", list)
	images := map[string]*berthtest.Image{}
	for _, arch := range []string{"amd64", "arm64"} {
		images[arch] = berthtest.NewImageFor(berthtest.Platform{OS: "linux", Architecture: arch}, 1, 100_000)
		s.podman("manifest", "add", list, "oci:"+s.layout(arch, "x", images[arch].Manifest, images[arch])+":x")
	}
	s.podman("manifest", "push", "--all", "--cert-dir", s.certDir(), list, "docker://"+list)
	s.podman("manifest", "rm", list)
	var stored struct {
		Manifests []berthtest.Descriptor
	}
	if err := json.Unmarshal(s.manifest("multi", "1").Data, &stored); err != nil || len(stored.Manifests) != 2 {
		t.Fatalf("the registry has %d platforms, want 2 (%v)", len(stored.Manifests), err)
	}
	for arch, image := range images {
		id := strings.TrimSpace(s.podman("pull", "-q", "--cert-dir", s.certDir(), "--arch", arch, list))
		if want := strings.TrimPrefix(image.Config.Digest, "sha256:"); id != want {
			t.Errorf("pulled for %s: image %s, want %s", arch, id, want)
		}
		s.podman("rmi", "-f", id)
	}
}

// skopeo copies an image in and out without changing a byte of it, and looks at it without pulling.
func TestSkopeoCopyInspect(t *testing.T) {
	s := containers(t, "skopeo")
	s.sh.Refused(t, badCA, "skopeo", "login", "-u", s.user.User, "-p", s.user.Password, berth.Addr)
	s.sh.Refused(t, unauthorized, "skopeo", "login", "--cert-dir", s.certDir(), "-u", s.user.User, "-p", "Wrong-1", berth.Addr)
	s.login("skopeo", s.user)

	image := berthtest.NewImage(3, 300_000)
	from := "oci:" + s.layout("layout", "1", image.Manifest, image) + ":1"
	to := "docker://" + s.ref("deep/er/app")
	s.sh.Run(t, "skopeo", "copy", "--dest-cert-dir", s.certDir(), from, to+":1")

	var info struct {
		Name, Digest string
		RepoTags     []string
		Layers       []string
	}
	out := s.sh.Run(t, "skopeo", "inspect", "--cert-dir", s.certDir(), to+":1")
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatal(err)
	}
	if info.Digest != image.Manifest.Digest || fmt.Sprint(info.RepoTags) != "[1]" || len(info.Layers) != 3 {
		t.Errorf("skopeo sees %+v; pushed %s", info, image.Manifest.Digest)
	}

	s.sh.Run(t, "skopeo", "copy", "--src-cert-dir", s.certDir(), to+"@"+image.Manifest.Digest, "dir:"+s.path("back"))
	if got := berthtest.Digest(s.read("back/manifest.json")); got != image.Manifest.Digest {
		t.Errorf("the manifest came back as %s, was %s", got, image.Manifest.Digest)
	}
	for _, b := range image.Blobs() {
		if got := berthtest.Digest(s.read("back/" + strings.TrimPrefix(b.Digest, "sha256:"))); got != b.Digest {
			t.Errorf("blob %s came back as %s", b.Digest, got)
		}
	}

	// From one repository to the next, as a promotion pipeline does; then the Docker form of the same image.
	s.sh.Run(t, "skopeo", "copy", "--src-cert-dir", s.certDir(), "--dest-cert-dir", s.certDir(), to+":1", "docker://"+s.ref("released:1"))
	s.sh.Run(t, "skopeo", "copy", "--src-cert-dir", s.certDir(), "--dest-cert-dir", s.certDir(), "--format", "v2s2", to+":1", to+":docker")
	if got := s.manifest("deep/er/app", "docker").Header.Get("Content-Type"); got != berthtest.DockerManifest {
		t.Errorf("the converted manifest is of type %q", got)
	}

	s.sh.Run(t, "skopeo", "delete", "--cert-dir", s.certDir(), "docker://"+s.ref("released:1"))
	s.gone("released", "1")
	s.manifest("deep/er/app", "1") // the other repository keeps its own
}

// skopeo sync carries a whole repository with all tags out of the registry, and into it.
func TestSkopeoSync(t *testing.T) {
	s := containers(t, "skopeo")
	s.login("skopeo", s.user)
	registry := berth.Registry(t, s.user)
	digests := map[string]string{}
	for _, tag := range []string{"1.0", "1.1", "2.0"} {
		image := berthtest.NewImage(1, 50_000)
		registry.PushImage(t, s.project+"/app", tag, image)
		digests[tag] = image.Manifest.Digest
	}
	s.sh.Run(t, "skopeo", "sync", "--src", "docker", "--dest", "dir", "--src-cert-dir", s.certDir(), s.ref("app"), s.path("out"))
	s.sh.Run(t, "skopeo", "sync", "--src", "dir", "--dest", "docker", "--dest-cert-dir", s.certDir(), s.path("out"), s.ref("copy"))
	for tag, digest := range digests {
		if got := berthtest.Digest(s.manifest("copy/app", tag).Data); got != digest {
			t.Errorf("tag %s of the copy is %s, want %s", tag, got, digest)
		}
	}
	var list struct{ Tags []string }
	out := s.sh.Run(t, "skopeo", "list-tags", "--cert-dir", s.certDir(), "docker://"+s.ref("copy/app"))
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Tags) != 3 {
		t.Errorf("skopeo lists tags %v (%v), want 3", list.Tags, err)
	}
}

// buildah builds an image and pushes its layers as zstd:chunked, which comes back whole.
func TestBuildahZstdChunked(t *testing.T) {
	s := containers(t, "buildah")
	s.sh.Refused(t, unauthorized, "buildah", "login", "--cert-dir", s.certDir(), "-u", s.user.User, "-p", "Wrong-1", berth.Addr)
	s.login("buildah", s.user)

	// Text, so that there is something to compress.
	file := s.write("file", []byte(strings.Repeat("all work and no play ", 50_000)+berthtest.Name()))
	container := s.buildah("from", "scratch")
	s.buildah("add", "-q", container, file, "/file")
	id := s.buildah("commit", "-q", "--rm", container)
	name := s.ref("zstd", ":1")
	s.buildah("push", "-q", "--cert-dir", s.certDir(), "--compression-format", "zstd:chunked", "--format", "oci", id, "docker://"+name)

	var stored struct{ Layers []berthtest.Descriptor }
	if err := json.Unmarshal(s.manifest("zstd", "1").Data, &stored); err != nil || len(stored.Layers) != 1 {
		t.Fatalf("the registry has layers %v (%v), want 1", stored.Layers, err)
	}
	layer := stored.Layers[0]
	if layer.MediaType != "application/vnd.oci.image.layer.v1.tar+zstd" {
		t.Errorf("the layer's type is %q", layer.MediaType)
	}
	if layer.Annotations["io.containers.zstd-chunked.manifest-position"] == "" &&
		layer.Annotations["io.github.containers.zstd-chunked.manifest-position"] == "" {
		t.Errorf("the layer's annotations do not say where its table of contents is: %v", layer.Annotations)
	}

	s.buildah("rmi", "-f", id)
	s.buildah("pull", "-q", "--cert-dir", s.certDir(), name)
	container = s.buildah("from", name)
	if got, want := s.read(filepath.Join(mustRel(t, s.sh.Dir, s.buildah("mount", container)), "file")), s.read("file"); string(got) != string(want) {
		t.Error("the file in the pulled image differs from what was pushed")
	}
	s.buildah("umount", container)
	s.buildah("rm", container)
}

func mustRel(t *testing.T, base, path string) string {
	t.Helper()
	rel, err := filepath.Rel(base, path)
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

// containerd of this test's own; ctr talks to it.
func containerd(t *testing.T) (s *site, ctr func(args ...string) string) {
	t.Helper()
	berthtest.Program(t, "containerd")
	berthtest.Program(t, "ctr")
	if os.Geteuid() != 0 {
		t.Skip("containerd needs root")
	}
	s = newSite(t)
	config := s.write("config.toml", fmt.Appendf(nil, "version = 2\nroot = %q\nstate = %q\n"+
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		s.path("root"), s.path("state"), s.path("sock")))
	log, err := os.Create(s.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command("containerd", "--config", config)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		c.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(20 * time.Second):
			c.Process.Kill()
			<-exited
		}
	})
	for deadline := time.Now().Add(time.Minute); ; {
		if exec.Command("ctr", "--address", s.path("sock"), "version").Run() == nil {
			break
		}
		select {
		case <-exited:
			t.Skipf("containerd cannot start here: %s", berthtest.LastLines(log.Name()))
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd is not ready after a minute: %s", berthtest.LastLines(log.Name()))
		}
	}
	return s, func(args ...string) string {
		t.Helper()
		return s.sh.Run(t, "ctr", append([]string{"--address", s.path("sock"), "--namespace", "test"}, args...)...)
	}
}

// containerd, which Kubernetes nodes run, pushes and pulls an image for two platforms, with the CA on the command line
// and in a hosts directory.
func TestContainerdPushPull(t *testing.T) {
	s, ctr := containerd(t)
	a := berthtest.NewImage(2, 200_000)
	b := berthtest.NewImageFor(berthtest.Platform{OS: "linux", Architecture: "arm64"}, 2, 200_000)
	index := berthtest.Index(a, b)
	name := s.ref("app", ":1")
	s.layout("layout", name, index, a, b)
	s.sh.Run(t, "tar", "-C", s.path("layout"), "-cf", s.path("image.tar"), ".")

	credentials := s.user.User + ":" + s.user.Password
	ctr("images", "import", "--no-unpack", "--all-platforms", "--digests", s.path("image.tar"))
	local := strings.Fields(ctr("images", "ls", "-q"))
	if len(local) == 0 {
		t.Fatal("nothing was imported")
	}
	s.sh.Refused(t, badCA, "ctr", "--address", s.path("sock"), "--namespace", "test", "images", "push",
		"--user", credentials, name, local[0])
	s.sh.Refused(t, denied, "ctr", "--address", s.path("sock"), "--namespace", "test", "images", "push",
		"--tlscacert", berth.CAFile(), "--user", s.user.User+":Wrong-1", name, local[0])
	ctr("images", "push", "--tlscacert", berth.CAFile(), "--user", credentials, name, local[0])
	if got := berthtest.Digest(s.manifest("app", "1").Data); got != index.Digest {
		t.Fatalf("the registry has %s, pushed %s", got, index.Digest)
	}

	ctr(append([]string{"images", "rm", "--sync"}, local...)...)
	ctr("images", "pull", "--tlscacert", berth.CAFile(), "--user", credentials, name)
	if out := ctr("images", "ls"); !strings.Contains(out, index.Digest) {
		t.Errorf("the pulled image is not %s:\n%s", index.Digest, out)
	}

	// The way Kubernetes nodes are set up: certs.d/HOST/hosts.toml.
	ctr("images", "rm", "--sync", name)
	s.write("certs.d/"+berth.Addr+"/hosts.toml", fmt.Appendf(nil,
		"server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %q\n", berth.URL, berth.URL, berth.CAFile()))
	ctr("images", "pull", "--hosts-dir", s.path("certs.d"), "--user", credentials, "--all-platforms", name)
	check := ctr("images", "check")
	if !strings.Contains(check, "complete") {
		t.Errorf("the pulled image is not complete:\n%s", check)
	}
}
