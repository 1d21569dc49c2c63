package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

// end-3, end-7: a manifest is kept byte for byte, and is found by its tag and by its digest.
func TestManifestPushPull(t *testing.T) {
	r := newRepository(t)
	i := berthtest.NewImage(2, 1000)
	for _, b := range i.Blobs() {
		r.PushBlob(t, r.name, b)
	}
	for _, reference := range []string{"v1", i.Manifest.Digest} {
		put := r.do("201", "PUT", "manifests/"+reference, i.Manifest.Data, "Content-Type", berthtest.OCIManifest)
		r.header(put, "Docker-Content-Digest", i.Manifest.Digest)
		r.do("200", "GET", r.location(put), nil)
		head := r.do("200", "HEAD", "manifests/"+reference, nil, "Accept", berthtest.OCIManifest)
		r.header(head, "Content-Length", fmt.Sprint(len(i.Manifest.Data)))
		r.header(head, "Content-Type", berthtest.OCIManifest)
		r.header(head, "Docker-Content-Digest", i.Manifest.Digest)
		get := r.do("200", "GET", "manifests/"+reference, nil, "Accept", berthtest.OCIManifest)
		r.header(get, "Content-Type", berthtest.OCIManifest)
		r.header(get, "Docker-Content-Digest", i.Manifest.Digest)
		if !bytes.Equal(get.Data, i.Manifest.Data) {
			t.Errorf("%s came back changed", reference)
		}
		tag := get.Header.Get("ETag")
		if tag == "" {
			t.Errorf("%s has no ETag", reference)
		} else {
			r.do("304", "GET", "manifests/"+reference, nil, "Accept", berthtest.OCIManifest, "If-None-Match", tag)
		}
		// Clients that do not say what they accept get what there is.
		r.do("200", "GET", "manifests/"+reference, nil)
	}
	// A tag moves.
	next := r.pushImage("v1")
	r.header(r.do("200", "HEAD", "manifests/v1", nil), "Docker-Content-Digest", next.Manifest.Digest)
	r.do("200", "GET", "manifests/"+i.Manifest.Digest, nil)
}

// Every kind of manifest that is in use: Docker's, an index of images, an index in an index, artifacts with an empty
// config or with one of their own, unknown members and types.
func TestManifestKinds(t *testing.T) {
	r := newRepository(t)
	a, b := r.pushImage(""), r.pushImage("")
	empty := berthtest.NewBlob(berthtest.OCIEmpty, []byte("{}"))
	own := berthtest.NewBlob("application/vnd.example.config+json", []byte(`{"any":1}`))
	layer := berthtest.NewBlob("application/vnd.example.data", berthtest.Random(100))
	for _, x := range []berthtest.Blob{empty, own, layer} {
		r.PushBlob(t, r.name, x)
	}
	docker := berthtest.Blob{MediaType: berthtest.DockerManifest}
	docker.Data = []byte(strings.NewReplacer(berthtest.OCIManifest, berthtest.DockerManifest,
		berthtest.OCIConfig, berthtest.DockerConfig, berthtest.OCILayer, berthtest.DockerLayer).Replace(string(a.Manifest.Data)))
	docker.Digest = berthtest.Digest(docker.Data)
	list := berthtest.Index(a, b)
	list = berthtest.NewBlob(berthtest.DockerList, []byte(strings.Replace(string(list.Data), berthtest.OCIIndex, berthtest.DockerList, 1)))
	inner := berthtest.Index(a, b)
	r.PushManifest(t, r.name, "", inner)
	outer := berthtest.NewBlob(berthtest.OCIIndex, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		berthtest.OCIIndex, berthtest.OCIIndex, inner.Digest, len(inner.Data)))
	plain := berthtest.NewBlob(berthtest.OCIManifest, []byte(strings.Replace(string(b.Manifest.Data), `"mediaType":"`+berthtest.OCIManifest+`",`, "", 1)))
	foreign := berthtest.NewBlob(berthtest.OCIManifest, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[`+
			`{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":%q,"size":1000,"urls":["https://example.test/layer"]}]}`,
		berthtest.OCIManifest, a.Config.MediaType, a.Config.Digest, len(a.Config.Data), berthtest.Digest([]byte("elsewhere"))))

	for name, m := range map[string]berthtest.Blob{
		"docker":              docker,
		"docker-list":         list,
		"index":               inner,
		"index-of-index":      outer,
		"empty-index":         berthtest.NewBlob(berthtest.OCIIndex, []byte(`{"schemaVersion":2,"mediaType":"`+berthtest.OCIIndex+`","manifests":[]}`)),
		"artifact":            berthtest.Manifest(empty, []berthtest.Blob{layer}, map[string]any{"artifactType": "application/vnd.example"}),
		"own-config":          berthtest.Manifest(own, []berthtest.Blob{layer}, nil),
		"no-layers":           berthtest.Manifest(own, nil, nil),
		"annotations":         berthtest.Manifest(own, nil, map[string]any{"annotations": map[string]string{"a": "b"}}),
		"unknown-member":      berthtest.Manifest(own, nil, map[string]any{"x-more": []int{1}}),
		"no-media-type":       plain,
		"layer-elsewhere":     foreign,
		"blob-as-layer-again": berthtest.Manifest(own, []berthtest.Blob{layer, layer}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			put := r.do("201", "PUT", "manifests/"+name, m.Data, "Content-Type", m.MediaType)
			r.header(put, "Docker-Content-Digest", m.Digest)
			get := r.do("200", "GET", "manifests/"+name, nil, "Accept", m.MediaType)
			r.header(get, "Content-Type", m.MediaType)
			if !bytes.Equal(get.Data, m.Data) {
				t.Error("it came back changed")
			}
		})
	}
}

// What is refused, and in which words.
func TestManifestRefused(t *testing.T) {
	r := newRepository(t)
	i := r.pushImage("1")
	missing := bytesOf(100)
	for _, tc := range []struct {
		name, want, reference string
		body                  string
	}{
		{"not JSON", "400 MANIFEST_INVALID", "x", "{"},
		{"an empty body", "400 MANIFEST_INVALID", "x", ""},
		{"JSON of another kind", "400 MANIFEST_INVALID", "x", `[1]`},
		{"an old schema", "400 MANIFEST_INVALID", "x", strings.Replace(string(i.Manifest.Data), `"schemaVersion":2`, `"schemaVersion":1`, 1)},
		{"a bad digest inside", "400 MANIFEST_INVALID", "x", strings.Replace(string(i.Manifest.Data), i.Config.Digest, "sha256:1234", 1)},
		{"another digest", "400 DIGEST_INVALID", missing.Digest, string(i.Manifest.Data)},
		{"a tag with a bad sign", "400", "a%20b", string(i.Manifest.Data)},
		{"a tag of 129 letters", "400", strings.Repeat("a", 129), string(i.Manifest.Data)},
		{"a tag that begins with a dot", "400", ".a", string(i.Manifest.Data)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reply := r.in(t).do(tc.want, "PUT", "manifests/"+tc.reference, []byte(tc.body), "Content-Type", berthtest.OCIManifest)
			if reply.Code() == "" {
				t.Errorf("no error code in %s", reply.Data)
			}
		})
	}
	t.Run("a layer that is not there", func(t *testing.T) {
		m := berthtest.Manifest(i.Config, []berthtest.Blob{missing}, nil)
		reply := r.Do(t, "PUT", "/v2/"+r.name+"/manifests/x", m.Data, "Content-Type", m.MediaType)
		if reply.StatusCode != 404 && reply.StatusCode != 400 || reply.Code() != "MANIFEST_BLOB_UNKNOWN" {
			t.Errorf("%s %s, want 404 MANIFEST_BLOB_UNKNOWN", reply.Status, reply.Data)
		}
	})
	r.do("404 MANIFEST_UNKNOWN", "GET", "manifests/x", nil)
	r.do("404", "HEAD", "manifests/x", nil)
	r.do("404 MANIFEST_UNKNOWN", "GET", "manifests/"+missing.Digest, nil)
}

// Manifests up to 4 MiB are taken; absurd ones are refused before they fill the memory.
func TestManifestSize(t *testing.T) {
	r := newRepository(t)
	i := r.pushImage("1")
	pad := func(size int) berthtest.Blob {
		m := berthtest.Manifest(i.Config, i.Layers, map[string]any{"annotations": map[string]string{"pad": ""}})
		data := bytes.Replace(m.Data, []byte(`"pad":""`), []byte(`"pad":"`+strings.Repeat("x", size-len(m.Data))+`"`), 1)
		return berthtest.NewBlob(m.MediaType, data)
	}
	largest := pad(4 << 20)
	r.PushManifest(t, r.name, "large", largest)
	if get := r.do("200", "GET", "manifests/large", nil); !bytes.Equal(get.Data, largest.Data) {
		t.Error("the large manifest came back changed")
	}
	r.do("413", "PUT", "manifests/larger", pad(64<<20).Data, "Content-Type", berthtest.OCIManifest)
}

// end-9: a deleted tag leaves the manifest, a deleted manifest takes its tags along.
func TestManifestDelete(t *testing.T) {
	r := newRepository(t)
	i := r.pushImage("a")
	r.PushManifest(t, r.name, "b", i.Manifest)
	r.PushManifest(t, r.name, "c", i.Manifest)

	r.do("202", "DELETE", "manifests/a", nil)
	r.do("404 MANIFEST_UNKNOWN", "GET", "manifests/a", nil)
	r.do("404 MANIFEST_UNKNOWN", "DELETE", "manifests/a", nil)
	r.do("200", "GET", "manifests/b", nil)
	r.do("200", "GET", "manifests/"+i.Manifest.Digest, nil)

	r.do("202", "DELETE", "manifests/"+i.Manifest.Digest, nil)
	for _, reference := range []string{"b", "c", i.Manifest.Digest} {
		r.do("404 MANIFEST_UNKNOWN", "GET", "manifests/"+reference, nil)
	}
	r.do("404 MANIFEST_UNKNOWN", "DELETE", "manifests/"+i.Manifest.Digest, nil)
	// The same again is a new beginning.
	r.PushImage(t, r.name, "a", i)
	r.do("200", "GET", "manifests/a", nil)
}

// tags asks for a page of tags and follows the Link to the end; it returns the pages.
func (r *repository) tags(query string) (pages [][]string) {
	r.t.Helper()
	target := "/v2/" + r.name + "/tags/list" + query
	for range 100 {
		reply := r.do("200", "GET", target, nil)
		var list struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(reply.Data, &list); err != nil || list.Name != r.name || list.Tags == nil {
			r.t.Fatalf("GET %s: %s (%v): want a name and an array", target, reply.Data, err)
		}
		pages = append(pages, list.Tags)
		link := reply.Header.Get("Link")
		if link == "" {
			return pages
		}
		next, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(rest, `"`, ""), "rel=next") {
			r.t.Fatalf("GET %s: Link is %q", target, link)
		}
		base, _ := url.Parse(target)
		u, err := base.Parse(next)
		if err != nil {
			r.t.Fatal(err)
		}
		target = u.RequestURI()
	}
	r.t.Fatal("the pages do not end")
	return nil
}

// end-8: tags in lexical order, whole or in pages that a Link strings together.
func TestTags(t *testing.T) {
	r := newRepository(t)
	r.do("404 NAME_UNKNOWN", "GET", "tags/list", nil)
	i := r.pushImage("")
	if pages := r.tags(""); len(slices.Concat(pages...)) != 0 {
		t.Errorf("an untagged repository has tags %v", pages)
	}
	all := []string{"1.0", "1.10", "1.2", "A", "_b", "a", "a-b", "a.b", "latest", "z"}
	for _, n := range []int{3, 9, 0, 5, 1, 7, 2, 8, 6, 4} { // not in their order
		r.PushManifest(t, r.name, all[n], i.Manifest)
	}
	for query, want := range map[string][][]string{
		"":                 {all},
		"?n=100":           {all},
		"?n=4":             {all[:4], all[4:8], all[8:]},
		"?last=a":          {all[6:]},
		"?last=a&n=3":      {all[6:9], all[9:]},
		"?last=absent&n=1": {all[8:9], all[9:]}, // a tag that is gone meanwhile does not break a walk
		"?last=z":          {{}},
	} {
		got := r.tags(query)
		if len(got) > 1 && len(got[len(got)-1]) == 0 && len(want) < len(got) {
			got = got[:len(got)-1] // an empty last page is allowed
		}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("tags/list%s: pages %v, want %v", query, got, want)
		}
	}
	var none struct{ Tags []string }
	if err := json.Unmarshal(r.do("200", "GET", "tags/list?n=0", nil).Data, &none); err != nil || len(none.Tags) != 0 {
		t.Errorf("n=0 gives %v (%v)", none.Tags, err)
	}
	// A page as large as anybody may ask for: some clients do (n=10000), and take an error for an empty repository.
	if got := slices.Concat(r.tags("?n=10000000")...); !slices.Equal(got, all) {
		t.Errorf("n=10000000 gives %v", got)
	}
	r.do("400", "GET", "tags/list?n=x", nil)
}

type referrers struct {
	SchemaVersion int
	MediaType     string
	Manifests     []berthtest.Descriptor
}

func (r *repository) referrers(digest, query string) (referrers, *berthtest.Reply) {
	r.t.Helper()
	reply := r.do("200", "GET", "referrers/"+digest+query, nil)
	r.header(reply, "Content-Type", berthtest.OCIIndex)
	var list referrers
	if err := json.Unmarshal(reply.Data, &list); err != nil || list.SchemaVersion != 2 || list.MediaType != berthtest.OCIIndex || list.Manifests == nil {
		r.t.Fatalf("GET referrers/%s%s: %s (%v): want an image index", digest, query, reply.Data, err)
	}
	return list, reply
}

// end-12: what refers to a manifest, all of it or of one type.
func TestReferrers(t *testing.T) {
	r := newRepository(t)
	i := r.pushImage("1")
	if list, _ := r.referrers(i.Manifest.Digest, ""); len(list.Manifests) != 0 {
		t.Errorf("nothing refers to it, and %v does", list.Manifests)
	}
	note := map[string]string{"org.example.note": "hello"}
	sbom := r.attach(i.Manifest, "application/vnd.example.sbom", note)
	scan := r.attach(i.Manifest, "application/vnd.example.scan", nil)

	// Without an artifactType, the config's media type is it; an index may refer, too.
	config := berthtest.NewBlob("application/vnd.example.config", []byte("{}"))
	r.PushBlob(t, r.name, config)
	plain := berthtest.Manifest(config, nil, map[string]any{"subject": i.Manifest.Descriptor()})
	r.header(r.PushManifest(t, r.name, "plain", plain), "OCI-Subject", i.Manifest.Digest)
	subject, err := json.Marshal(i.Manifest.Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	index := berthtest.NewBlob(berthtest.OCIIndex, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.index","manifests":[],"subject":%s}`, berthtest.OCIIndex, subject))
	r.header(r.PushManifest(t, r.name, "", index), "OCI-Subject", i.Manifest.Digest)

	want := map[string]berthtest.Descriptor{}
	for artifactType, m := range map[string]berthtest.Blob{
		"application/vnd.example.sbom": sbom, "application/vnd.example.scan": scan,
		"application/vnd.example.config": plain, "application/vnd.example.index": index,
	} {
		d := m.Descriptor()
		d.ArtifactType = artifactType
		if m.Digest == sbom.Digest {
			d.Annotations = note
		}
		want[d.Digest] = d
	}
	list, reply := r.referrers(i.Manifest.Digest, "")
	if reply.Header.Get("OCI-Filters-Applied") != "" {
		t.Error("no filter was asked for, and one was applied")
	}
	if len(list.Manifests) != len(want) {
		t.Errorf("%d referrers, want %d", len(list.Manifests), len(want))
	}
	for _, got := range list.Manifests {
		if fmt.Sprint(got) != fmt.Sprint(want[got.Digest]) {
			t.Errorf("referrer %+v, want %+v", got, want[got.Digest])
		}
	}

	list, reply = r.referrers(i.Manifest.Digest, "?artifactType="+url.QueryEscape("application/vnd.example.sbom"))
	r.header(reply, "OCI-Filters-Applied", "artifactType")
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != sbom.Digest {
		t.Errorf("the SBOMs are %v, want %s", list.Manifests, sbom.Digest)
	}
	if list, _ = r.referrers(i.Manifest.Digest, "?artifactType=application/vnd.none"); len(list.Manifests) != 0 {
		t.Errorf("of a type that nothing has: %v", list.Manifests)
	}

	r.do("202", "DELETE", "manifests/"+scan.Digest, nil)
	if list, _ = r.referrers(i.Manifest.Digest, ""); len(list.Manifests) != len(want)-1 {
		t.Errorf("%d referrers after one was deleted, want %d", len(list.Manifests), len(want)-1)
	}
	r.do("400 DIGEST_INVALID", "GET", "referrers/sha256:short", nil)
}

// A signature may arrive before what it signs.
func TestReferrersBeforeSubject(t *testing.T) {
	r := newRepository(t)
	i := berthtest.NewImage(1, 100)
	early := r.attach(i.Manifest, "application/vnd.example.signature", nil)
	list, _ := r.referrers(i.Manifest.Digest, "")
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != early.Digest {
		t.Errorf("before the subject is there: %v", list.Manifests)
	}
	r.PushImage(t, r.name, "1", i)
	list, _ = r.referrers(i.Manifest.Digest, "")
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != early.Digest {
		t.Errorf("once the subject is there: %v", list.Manifests)
	}
}

// Names that are no names are refused, and the catalog of everything, for administrators, comes in pages.
func TestNamesAndCatalog(t *testing.T) {
	r := newRepository(t)
	for _, name := range []string{r.project + "/UPPER", r.project + "/a..b", r.project + "/-a", r.project + "/" + strings.Repeat("a", 300)} {
		reply := r.Do(t, "GET", "/v2/"+name+"/manifests/1", nil)
		if reply.StatusCode != 400 && reply.StatusCode != 404 || reply.Code() == "" {
			t.Errorf("GET manifest of %q: %s %s, want 400 NAME_INVALID or 404", name, reply.Status, reply.Data)
		}
	}
	i := berthtest.NewImage(1, 100)
	var want []string
	for _, n := range []string{"a", "b/c", "d"} {
		r.PushImage(t, r.project+"/"+n, "1", i)
		want = append(want, r.project+"/"+n)
	}
	admin := berth.Registry(t, berth.Admin(t))
	var got []string
	target := "/v2/_catalog?n=2"
	for range 10_000 {
		reply := admin.Do(t, "GET", target, nil)
		var page struct{ Repositories []string }
		if err := json.Unmarshal(reply.Data, &page); err != nil || reply.StatusCode != 200 || len(page.Repositories) > 2 {
			t.Fatalf("GET %s: %s %s (%v)", target, reply.Status, reply.Data, err)
		}
		got = append(got, page.Repositories...)
		link := reply.Header.Get("Link")
		if link == "" {
			break
		}
		target, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
	}
	if !slices.IsSorted(got) {
		t.Errorf("the catalog is not sorted: %v", got)
	}
	got = slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, r.project+"/") })
	if !slices.Equal(got, want) {
		t.Errorf("the catalog has %v of the project, want %v", got, want)
	}
}

// What the next version of the specification has: tags in the query of a push by digest, and the algorithm of a digest
// that is known only at the end of an upload.
func TestNextVersion(t *testing.T) {
	r := newRepository(t)
	i := r.pushImage("1")
	put := r.do("201", "PUT", "manifests/"+i.Manifest.Digest+"?tag=two&tag=three", i.Manifest.Data, "Content-Type", i.Manifest.MediaType)
	if got := put.Header.Values("OCI-Tag"); !slices.Equal(got, []string{"two", "three"}) {
		t.Errorf("OCI-Tag is %v", got)
	}
	for _, tag := range []string{"two", "three"} {
		r.header(r.do("200", "HEAD", "manifests/"+tag, nil), "Docker-Content-Digest", i.Manifest.Digest)
	}
	b := bytesOf(1000)
	b.Digest = sha512Of(b.Data)
	here := r.location(r.do("202", "POST", "blobs/uploads/?digest-algorithm=sha512", nil))
	here = r.location(r.patch("202", here, b, 0, len(b.Data)))
	r.header(r.do("201", "PUT", berthtest.WithQuery(here, "digest", b.Digest), nil), "Docker-Content-Digest", b.Digest)
	r.has(b)
}
