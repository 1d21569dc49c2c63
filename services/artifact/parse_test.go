package artifact_test

import (
	"encoding/json"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/services/artifact"
)

const zeroes = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func TestParse(t *testing.T) {
	t.Parallel()
	ok := `{"mediaType":"a/b","digest":"` + zeroes + `","size":1}`
	for _, tt := range []struct{ name, contentType, payload, fault string }{
		{"an OCI manifest", "", `{"schemaVersion":2,"config":` + ok + `,"layers":[` + ok + `]}`, ""},
		{"a Docker list", artifact.TypeDockerList, `{"schemaVersion":2,"manifests":[` + ok + `]}`, ""},
		{"parameters of the type", artifact.TypeOCIIndex + "; charset=utf-8", `{"schemaVersion":2,"manifests":[]}`, ""},
		{"any media type", "application/x.whatever+json", `{"hello":"world"}`, ""},
		{"a foreign layer", "", `{"schemaVersion":2,"config":` + ok + `,"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"` + zeroes + `","size":1,"urls":["https://x"]}]}`, ""},
		{"no JSON", "", `{`, "not valid JSON"},
		{"more than JSON", "", `{"schemaVersion":2,"manifests":[]}{}`, "not valid JSON"},
		{"both an image and an index", "", `{"schemaVersion":2,"config":` + ok + `,"layers":[],"manifests":[]}`, "both"},
		{"an index that is an image", artifact.TypeOCIIndex, `{"schemaVersion":2,"config":` + ok + `,"layers":[]}`, "an index has manifests"},
		{"two media types", artifact.TypeOCIIndex, `{"schemaVersion":2,"mediaType":"` + artifact.TypeOCIManifest + `","config":` + ok + `}`, "is not its Content-Type"},
		{"schema 1", "", `{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		{"schema 1 by its type", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":2}`, "schema 1"},
		{"no schema version", "", `{"config":` + ok + `,"layers":[]}`, "schemaVersion"},
		{"no config", "", `{"schemaVersion":2,"layers":[]}`, "config is missing"},
		{"a bad digest", "", `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:xyz","size":1}}`, "malformed"},
		{"no size", "", `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"` + zeroes + `"}}`, "size"},
		{"a negative size", "", `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"` + zeroes + `","size":-1}}`, "size"},
		{"a Content-Type that is none", "nonsense nonsense", `{"schemaVersion":2,"manifests":[]}`, "not a media type"},
		{"too many layers", "", `{"schemaVersion":2,"config":` + ok + `,"layers":[` + strings.Repeat(ok+",", 10_000) + ok + `]}`, "more than"},
		{"too large", "", `{"x":"` + strings.Repeat("x", artifact.MaxManifest) + `"}`, "larger than"},
	} {
		_, err := artifact.Parse(tt.contentType, []byte(tt.payload))
		switch {
		case tt.fault == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)):
			t.Errorf("%s: got %v, want a fault with %q", tt.name, err, tt.fault)
		case err != nil && fault.Of(err).Kind == fault.Internal:
			t.Errorf("%s: %v is an internal error", tt.name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("", []byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"`+zeroes+`","size":1},"layers":[]}`))
	f.Add(artifact.TypeOCIIndex, []byte(`{"schemaVersion":2,"manifests":[{"digest":"`+zeroes+`","size":1,"platform":{"os":"linux"}}],"subject":{"digest":"`+zeroes+`","size":0}}`))
	f.Fuzz(func(t *testing.T, contentType string, payload []byte) {
		p, err := artifact.Parse(contentType, payload)
		if err != nil {
			if fault.Of(err).Kind == fault.Internal {
				t.Errorf("an internal error: %v", err)
			}
			return
		}
		if !json.Valid(payload) {
			t.Error("accepted what is not JSON")
		}
		if p.MediaType == "" || len(p.Blobs) > 10_001 || p.Listed < 0 {
			t.Errorf("parsed into %+v", p)
		}
		for _, c := range p.Children {
			if c.Digest.IsZero() || c.Size < 0 || (len(c.Platform) > 0 && !json.Valid(c.Platform)) {
				t.Errorf("child %+v", c)
			}
		}
	})
}
