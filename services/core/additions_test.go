package core_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"berth/services/chart"
	"berth/services/reference"
)

// pushChart makes a Helm chart of some files, as `helm push` does.
func (b *bundle) pushChart(repo, tag string, files ...string) string {
	b.t.Helper()
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}); err != nil {
			b.t.Fatal(err)
		}
		fmt.Fprint(w, files[i+1])
	}
	if err := w.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		b.t.Fatal(err)
	}
	config := []byte(`{"name":"app","version":"1.2.3","appVersion":"9"}`)
	return b.put(repo, tag, "application/vnd.oci.image.manifest.v1+json", fmt.Sprintf(
		`{"schemaVersion":2,"config":{"mediaType":%q,"size":%d,"digest":%q},"layers":[{"mediaType":%q,"size":%d,"digest":%q}]}`,
		chart.ConfigType, len(config), b.blob(repo, config), chart.ContentType, archive.Len(), b.blob(repo, archive.Bytes())))
}

func TestChartAdditions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.pushChart("library/app", "1.2.3", "app/Chart.yaml", "name: app\ndependencies: [{name: db, version: 1.x, repository: 'https://r'}]", "app/values.yaml", "a: 1\n")
	const at = "/api/v2.0/projects/library/repositories/app/artifacts/1.2.3"
	got := decode[object](b.want(b.do("GET", at, root, ""), 200), t)
	attributes, _ := got["extra_attrs"].(map[string]any)
	links, _ := got["addition_links"].(map[string]any)
	if got["type"] != "CHART" || attributes["version"] != "1.2.3" || len(links) != 3 {
		t.Errorf("%v", got)
	}
	values := b.want(b.do("GET", at+"/additions/values.yaml", root, ""), 200)
	if values.body != "a: 1\n" || !strings.HasPrefix(values.header.Get("Content-Type"), "text/plain") {
		t.Errorf("%s %q", values.header.Get("Content-Type"), values.body)
	}
	if got := b.want(b.do("GET", at+"/additions/dependencies", root, ""), 200).body; got != `[{"name":"db","version":"1.x","repository":"https://r"}]` {
		t.Error(got)
	}
	b.want(b.do("GET", at+"/additions/readme.md", root, ""), 404)
	b.want(b.do("GET", at+"/additions/build_history", root, ""), 400)
	b.want(b.do("GET", at+"/additions/vulnerabilities", root, ""), 404)

	b.push("library/image", "v1", "x")
	image := decode[object](b.want(b.do("GET", "/api/v2.0/projects/library/repositories/image/artifacts/v1", root, ""), 200), t)
	if image["icon"] == got["icon"] {
		t.Error("an image and a chart look the same")
	}
	picture := decode[struct {
		Content string `json:"content"`
		Type    string `json:"content-type"`
	}](b.want(b.do("GET", fmt.Sprintf("/api/v2.0/icons/%s", image["icon"]), root, ""), 200), t)
	if svg, err := base64.StdEncoding.DecodeString(picture.Content); err != nil || !bytes.HasPrefix(svg, []byte("<svg")) || picture.Type != "image/svg+xml" {
		t.Errorf("%v %q %s", err, picture.Type, svg)
	}
	b.want(b.do("GET", "/api/v2.0/icons/sha256:0", root, ""), 404)
}

// What is not part of Berth yet is empty, cannot be added to, and says so.
func TestComing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/registries", "/replication/policies", "/replication/executions", "/scanners", "/projects/library/scanner/candidates",
		"/security/vul", "/p2p/preheat/instances", "/projects/library/preheat/policies"} {
		if a := b.want(b.do("GET", "/api/v2.0"+path, root, ""), 200); a.body != "[]\n" || a.header.Get("X-Total-Count") != "0" {
			t.Errorf("%s: %s, X-Total-Count %q", path, a.body, a.header.Get("X-Total-Count"))
		}
	}
	for _, path := range []string{"/registries", "/registries/ping", "/replication/policies", "/scanners", "/p2p/preheat/instances", "/projects/library/preheat/policies", "/export/cve"} {
		if a := b.want(b.do("POST", "/api/v2.0"+path, root, `{"name":"x"}`), 400); !strings.Contains(a.body, "this version does not") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	for _, path := range []string{"/registries/1", "/registries/1/info", "/replication/executions/1/tasks", "/scanners/x", "/export/cve/execution/1"} {
		b.want(b.do("GET", "/api/v2.0"+path, root, ""), 404)
	}
	if a := b.want(b.do("GET", "/api/v2.0/system/scanAll/schedule", root, ""), 200); a.body != "" {
		t.Errorf("a schedule of scans: %s", a.body)
	}
	b.push("library/image", "v1", "x")
	const at = "/api/v2.0/projects/library/repositories/image/artifacts/"
	b.want(b.do("POST", at+"v1/scan", root, ""), 412)
	b.want(b.do("POST", at+"nosuch/scan", root, ""), 404)
	if s := decode[object](b.want(b.do("GET", "/api/v2.0/security/summary", root, ""), 200), t); s["total_artifact"] != 1.0 || s["total_vuls"] != 0.0 {
		t.Errorf("%v", s)
	}
}

// A signature of cosign before 3 is known by its tag alone: it is an accessory of
// what it signs, and no artifact of its own in lists, until what it signs is gone.
func TestAttachedByTag(t *testing.T) {
	t.Parallel()
	b := setup(t)
	image := b.push("library/app", "v1", "x")
	signature := b.push("library/app", strings.Replace(image, ":", "-", 1)+".sig", "signature")
	const list = "/api/v2.0/projects/library/repositories/app/artifacts"
	digests := func() (all []string) {
		for _, a := range decode[[]object](b.want(b.do("GET", list, root, ""), 200), t) {
			all = append(all, fmt.Sprint(a["digest"]))
		}
		return all
	}
	if got := digests(); len(got) != 1 || got[0] != image {
		t.Errorf("listed: %v", got)
	}
	accessories := decode[[]object](b.want(b.do("GET", list+"/v1/accessories", root, ""), 200), t)
	if len(accessories) != 1 || accessories[0]["digest"] != signature || accessories[0]["type"] != "signature.cosign" {
		t.Errorf("%v", accessories)
	}
	d, err := reference.ParseDigest(image)
	if err != nil {
		t.Fatal(err)
	}
	if referrers, _, err := b.artifacts.Referrers(t.Context(), "library/app", d, "", 0, 10); err != nil || len(referrers) != 0 {
		t.Errorf("a manifest without a subject is a referrer: %v, %v", referrers, err)
	}
	// A tag that only looks like one attaches to nothing.
	b.push("library/app", "sha256-abc.sig", "other")
	if got := digests(); len(got) != 2 {
		t.Errorf("listed: %v", got)
	}
	b.want(b.do("DELETE", list+"/"+image, root, ""), 200)
	for _, d := range digests() {
		if d == image || d == signature {
			t.Errorf("%s outlived the image or what it signs", d)
		}
	}
}
