package clients

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

// tool prepares a test of a program written in Go that trusts whom SSL_CERT_FILE names and keeps its logins where
// Docker does.
func tool(t *testing.T, name string) (*site, func(args ...string) string) {
	t.Helper()
	path := berthtest.Tool(t, name)
	s := newSite(t)
	s.sh.Env = append(s.sh.Env, "SSL_CERT_FILE="+berth.CAFile(), "SSL_CERT_DIR=/nonexistent", "DOCKER_CONFIG="+s.sh.Dir)
	return s, func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(s.sh.Run(t, path, args...))
	}
}

// crane pushes, lists, copies, extends, tags, deletes, and sees the catalog.
func TestCrane(t *testing.T) {
	s, crane := tool(t, "crane")
	image := berthtest.NewImage(2, 200_000)
	layout := s.layout("layout", "1", image.Manifest, image)
	path := berthtest.Tool(t, "crane")
	s.sh.Refused(t, denied, path, "push", layout, s.ref("app:1"))

	crane("auth", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	crane("push", layout, s.ref("app:1"))
	if got := crane("digest", s.ref("app:1")); got != image.Manifest.Digest {
		t.Errorf("digest %s, pushed %s", got, image.Manifest.Digest)
	}
	if got := crane("manifest", s.ref("app@", image.Manifest.Digest)); got != string(image.Manifest.Data) {
		t.Errorf("the manifest came back as %s", got)
	}
	crane("validate", "--remote", s.ref("app:1")) // reads every layer and checks every digest

	crane("copy", s.ref("app:1"), s.ref("copy:1"))
	crane("tag", s.ref("app:1"), "latest")
	layer := s.write("more.tar.gz", func() []byte {
		data, _ := berthtest.Layer(map[string][]byte{"more": berthtest.Random(1000)})
		return data
	}())
	crane("append", "--base", s.ref("app:1"), "--new_layer", layer, "--new_tag", s.ref("app:2"))
	var two struct{ Layers []berthtest.Descriptor }
	if err := json.Unmarshal([]byte(crane("manifest", s.ref("app:2"))), &two); err != nil || len(two.Layers) != 3 {
		t.Errorf("the extended image has %d layers (%v), want 3", len(two.Layers), err)
	}
	if got := strings.Fields(crane("ls", s.ref("app"))); !slices.Equal(got, []string{"1", "2", "latest"}) {
		t.Errorf("tags %v", got)
	}
	crane("pull", s.ref("copy:1"), s.path("copy.tar"))

	// The catalog of everything is the administrator's.
	admin := berth.Admin(t)
	crane("auth", "login", berth.Addr, "-u", admin.User, "-p", admin.Password)
	catalog := strings.Fields(crane("catalog", berth.Addr))
	for _, want := range []string{s.project + "/app", s.project + "/copy"} {
		if !slices.Contains(catalog, want) {
			t.Errorf("the catalog lacks %s: %v", want, catalog)
		}
	}

	crane("auth", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	crane("delete", s.ref("copy@", image.Manifest.Digest))
	s.gone("copy", "1")
	s.sh.Refused(t, notFound, path, "manifest", s.ref("copy:1"))
}

// crane pushes an image for two platforms as one index and takes one platform, or the whole, back.
func TestCraneIndex(t *testing.T) {
	s, crane := tool(t, "crane")
	crane("auth", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	a := berthtest.NewImage(1, 100_000)
	b := berthtest.NewImageFor(berthtest.Platform{OS: "linux", Architecture: "arm64"}, 1, 100_000)
	index := berthtest.Index(a, b)
	crane("push", "--index", s.layout("layout", "1", index, a, b), s.ref("app:nested"))
	crane("index", "list", s.ref("app:nested"))

	berth.Registry(t, s.user).PushManifest(t, s.project+"/app", "1", index)
	if got := crane("digest", "--platform", "linux/arm64", s.ref("app:1")); got != b.Manifest.Digest {
		t.Errorf("for arm64 got %s, want %s", got, b.Manifest.Digest)
	}
	crane("copy", s.ref("app:1"), s.ref("copy:1"))
	if got := crane("digest", s.ref("copy:1")); got != index.Digest {
		t.Errorf("the copy of the index is %s, want %s", got, index.Digest)
	}
	s.manifest("copy", a.Manifest.Digest)
	s.manifest("copy", b.Manifest.Digest)
}

// regctl, which replication uses the library of, copies with chunked uploads, attaches artifacts and deletes tags.
func TestRegctl(t *testing.T) {
	s, regctl := tool(t, "regctl")
	path := berthtest.Tool(t, "regctl")
	s.sh.Env = []string{"REGCTL_CONFIG=" + s.path("regctl.json"), "SSL_CERT_DIR=/nonexistent"}
	s.sh.Refused(t, badCA, path, "registry", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	ca, err := os.ReadFile(berth.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	// Chunks of 100 kB and nothing in one piece: a real client's chunked upload.
	regctl("registry", "set", berth.Addr, "--cacert", string(ca), "--blob-chunk", "100000", "--blob-max", "1000")
	s.sh.Refused(t, unauthorized, path, "registry", "login", berth.Addr, "-u", s.user.User, "-p", "Wrong-1")
	regctl("registry", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)

	image := berthtest.NewImage(2, 450_000)
	layout := s.layout("layout", "1", image.Manifest, image)
	regctl("image", "copy", "ocidir://"+layout+":1", s.ref("app:1"))
	if got := regctl("image", "digest", s.ref("app:1")); got != image.Manifest.Digest {
		t.Errorf("digest %s, pushed %s", got, image.Manifest.Digest)
	}
	regctl("image", "copy", s.ref("app:1"), s.ref("copy:1")) // mounts

	s.write("report.txt", []byte("all is well\n"))
	regctl("artifact", "put", "--artifact-type", "application/vnd.example.report", "--subject", s.ref("app:1"),
		"--file", s.path("report.txt"), "--file-media-type", "text/plain")
	var list struct {
		Descriptors []berthtest.Descriptor `json:"descriptors"`
	}
	out := regctl("artifact", "list", s.ref("app:1"), "--format", "{{json .}}")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Descriptors) != 1 ||
		list.Descriptors[0].ArtifactType != "application/vnd.example.report" {
		t.Fatalf("regctl lists %s (%v), want the one report", out, err)
	}
	if got := regctl("artifact", "get", "--subject", s.ref("app:1"), "--filter-artifact-type", "application/vnd.example.report"); got != "all is well" {
		t.Errorf("the attached report reads %q", got)
	}
	if got := strings.Fields(regctl("tag", "ls", s.ref("app"))); !slices.Equal(got, []string{"1"}) {
		t.Errorf("tags %v: with the referrers API there is no fallback tag", got)
	}

	regctl("image", "copy", s.ref("app:1"), s.ref("app:2"))
	regctl("tag", "delete", s.ref("app:2"))
	if got := strings.Fields(regctl("tag", "ls", s.ref("app"))); !slices.Equal(got, []string{"1"}) {
		t.Errorf("tags %v after deleting tag 2", got)
	}
	s.manifest("app", "1") // deleting a tag leaves the manifest under its other tag
	regctl("manifest", "delete", s.ref("app@", image.Manifest.Digest))
	s.gone("app", "1")
}

// helm keeps charts in the registry.
func TestHelm(t *testing.T) {
	path := berthtest.Tool(t, "helm")
	s := newSite(t)
	helm := func(args ...string) string {
		t.Helper()
		return s.sh.Run(t, path, args...)
	}
	s.sh.Refused(t, badCA, path, "registry", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	s.sh.Refused(t, unauthorized, path, "registry", "login", berth.Addr, "-u", s.user.User, "-p", "Wrong-1", "--ca-file", berth.CAFile())
	helm("registry", "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password, "--ca-file", berth.CAFile())

	helm("create", "shop")
	helm("package", "shop", "--version", "1.2.3+build.5")
	helm("push", "shop-1.2.3+build.5.tgz", "oci://"+s.ref("charts"), "--ca-file", berth.CAFile())
	// A plus cannot be in a tag: Helm writes an underscore for it, both ways.
	var stored struct{ Config berthtest.Descriptor }
	if err := json.Unmarshal(s.manifest("charts/shop", "1.2.3_build.5").Data, &stored); err != nil ||
		stored.Config.MediaType != "application/vnd.cncf.helm.config.v1+json" {
		t.Errorf("the stored chart's config is %+v (%v)", stored.Config, err)
	}
	chart := "oci://" + s.ref("charts/shop")
	if out := helm("show", "chart", chart, "--version", "1.2.3+build.5", "--ca-file", berth.CAFile()); !strings.Contains(out, "version: 1.2.3+build.5") {
		t.Errorf("helm shows:\n%s", out)
	}
	helm("pull", chart, "--version", "1.2.3+build.5", "--ca-file", berth.CAFile(), "--destination", s.path("shop")) // a directory that is there
	if got, want := s.read("shop/shop-1.2.3+build.5.tgz"), s.read("shop-1.2.3+build.5.tgz"); string(got) != string(want) {
		t.Error("the pulled chart differs from what was pushed")
	}
	// Without a version: the newest, which helm finds in the list of tags.
	helm("package", "shop", "--version", "1.10.0")
	helm("push", "shop-1.10.0.tgz", "oci://"+s.ref("charts"), "--ca-file", berth.CAFile())
	if out := helm("show", "chart", chart, "--ca-file", berth.CAFile()); !strings.Contains(out, "version: 1.10.0") {
		t.Errorf("the newest chart is:\n%s", out)
	}
	if out := helm("template", chart, "--version", "^1.2", "--ca-file", berth.CAFile()); !strings.Contains(out, "kind: Deployment") {
		t.Errorf("helm template says:\n%s", out)
	}
}

// oras stores any file, attaches files to it, and finds them with the referrers API.
func TestOras(t *testing.T) {
	path := berthtest.Tool(t, "oras")
	s := newSite(t, "DOCKER_CONFIG=/nonexistent")
	oras := func(command string, args ...string) string {
		t.Helper()
		all := append(strings.Fields(command), "--ca-file", berth.CAFile(), "--registry-config", s.path("oras.json"))
		return s.sh.Run(t, path, append(all, args...)...)
	}
	s.sh.Refused(t, badCA, path, "login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	s.sh.Refused(t, unauthorized, path, "login", berth.Addr, "-u", s.user.User, "-p", "Wrong-1", "--ca-file", berth.CAFile())
	oras("login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)

	s.write("model.bin", berthtest.Random(500_000))
	s.write("sbom.json", []byte(`{"bomFormat":"CycloneDX"}`))
	s.write("report.txt", []byte("fine\n"))
	oras("push", s.ref("model:1"), "model.bin", "--artifact-type", "application/vnd.example.model")
	oras("attach", s.ref("model:1"), "sbom.json", "--artifact-type", "application/vnd.cyclonedx+json")
	oras("attach", s.ref("model:1"), "report.txt", "--artifact-type", "application/vnd.example.report")

	discover := func(args ...string) (types []string) {
		t.Helper()
		// --distribution-spec: the referrers API or an error, no falling back on tags.
		out := oras("discover", append([]string{s.ref("model:1"), "--format", "json", "--distribution-spec", "v1.1-referrers-api"}, args...)...)
		var found struct{ Manifests []berthtest.Descriptor }
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("oras discover: %v: %s", err, out)
		}
		for _, m := range found.Manifests {
			types = append(types, m.ArtifactType)
		}
		slices.Sort(types)
		return types
	}
	if got := discover(); !slices.Equal(got, []string{"application/vnd.cyclonedx+json", "application/vnd.example.report"}) {
		t.Errorf("attached: %v", got)
	}
	if got := discover("--artifact-type", "application/vnd.cyclonedx+json"); !slices.Equal(got, []string{"application/vnd.cyclonedx+json"}) {
		t.Errorf("attached and filtered: %v", got)
	}
	if got := strings.Fields(oras("repo tags", s.ref("model"))); !slices.Equal(got, []string{"1"}) {
		t.Errorf("tags %v", got)
	}

	oras("pull", s.ref("model:1"), "--output", "back")
	if string(s.read("back/model.bin")) != string(s.read("model.bin")) {
		t.Error("the pulled file differs from what was pushed")
	}
	// A copy takes along what is attached.
	s.sh.Run(t, path, "cp", "-r", "--from-ca-file", berth.CAFile(), "--to-ca-file", berth.CAFile(),
		"--from-registry-config", s.path("oras.json"), "--to-registry-config", s.path("oras.json"), s.ref("model:1"), s.ref("copy:1"))
	digest := s.manifest("copy", "1").Header.Get("Docker-Content-Digest")
	referrers := berth.Registry(t, s.user).Do(t, "GET", "/v2/"+s.project+"/copy/referrers/"+digest, nil)
	if n := strings.Count(string(referrers.Data), `"artifactType"`); n != 2 {
		t.Errorf("%d artifacts are attached to the copy, want 2: %s", n, referrers.Data)
	}
	oras("manifest delete", s.ref("model:1"), "--force")
	s.gone("model", "1")
}

// cosign signs images with a key, in today's format and in the one before, and a stranger's signature does not pass.
func TestCosign(t *testing.T) {
	s, cosign := tool(t, "cosign")
	s.sh.Env = append(s.sh.Env, "COSIGN_PASSWORD=")
	path := berthtest.Tool(t, "cosign")
	cosign("login", berth.Addr, "-u", s.user.User, "-p", s.user.Password)
	image := berthtest.NewImage(1, 100_000)
	berth.Registry(t, s.user).PushImage(t, s.project+"/app", "1", image)
	name := s.ref("app@", image.Manifest.Digest)

	cosign("generate-key-pair", "--output-key-prefix", "mine")
	cosign("generate-key-pair", "--output-key-prefix", "other")
	// No transparency log and no time stamps: there is nobody to ask in a closed network.
	cosign("signing-config", "create", "--out", "offline.json")
	verify := func(key string) []string {
		return []string{"verify", "--key", key, "--insecure-ignore-tlog=true", name}
	}

	s.sh.Refused(t, []string{"no signatures found", "no matching signatures"}, path, verify("mine.pub")...)
	cosign("sign", "--yes", "--key", "mine.key", "--signing-config", "offline.json", name)
	cosign(verify("mine.pub")...)
	s.sh.Refused(t, []string{"no matching signatures", "invalid signature", "could not verify"}, path, verify("other.pub")...)

	s.write("claim.json", []byte(`{"tested":true}`))
	cosign("attest", "--yes", "--key", "mine.key", "--signing-config", "offline.json", "--type", "custom", "--predicate", "claim.json", name)
	cosign("verify-attestation", "--key", "mine.pub", "--insecure-ignore-tlog=true", "--type", "custom", name)

	// Both are in the registry as referrers: that is where other tools look.
	referrers := berth.Registry(t, s.user).Do(t, "GET", "/v2/"+s.project+"/app/referrers/"+image.Manifest.Digest, nil)
	if n := strings.Count(string(referrers.Data), "application/vnd.dev.sigstore.bundle.v0.3+json"); n < 2 {
		t.Errorf("the registry lists %d sigstore bundles, want 2: %s", n, referrers.Data)
	}

	// The format before cosign 3: a tag made of the digest.
	old := berthtest.NewImage(1, 100_000)
	berth.Registry(t, s.user).PushImage(t, s.project+"/old", "1", old)
	name = s.ref("old@", old.Manifest.Digest)
	cosign("sign", "--yes", "--key", "mine.key", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false", name)
	s.manifest("old", strings.Replace(old.Manifest.Digest, ":", "-", 1)+".sig")
	cosign(append(verify("mine.pub"), "--new-bundle-format=false")...)
	accessories := "/projects/" + s.project + "/repositories/old/artifacts/" + old.Manifest.Digest + "/accessories"
	if list := string(berth.API(t, berth.Admin(t), "GET", accessories, nil, 200)); !strings.Contains(list, `"signature.cosign"`) {
		t.Errorf("the signature is no accessory: %s", list)
	}
}
