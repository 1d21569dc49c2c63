package artifact

import (
	"encoding/json"
	"mime"
	"strings"

	"berth/appliance/fault"
	"berth/services/reference"
)

// Media types that a manifest may have. The registry takes others too, and
// treats them as one of these shapes by their fields (OCI Image Specification
// 1.1, "Image Manifest" and "Image Index"; Docker Image Manifest V2 Schema 2).
const (
	TypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	TypeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeSchema1        = "application/vnd.docker.distribution.manifest.v1+" // json or prettyjws
)

// Limits on what one manifest may list: far above any real image, low enough
// that a stranger's manifest cannot make the database work for minutes.
const (
	maxBlobs    = 10_000
	maxChildren = 2_000
)

// Parsed is what the registry reads in a manifest.
type Parsed struct {
	MediaType    string // as pushed, without parameters
	ArtifactType string // artifactType, else the config's media type
	ConfigType   string
	Config       reference.Digest // zero when there is none
	Blobs        []Ref            // config and layers that must be there, each once
	Children     []Ref            // of an index, each once
	Subject      reference.Digest // zero when there is none
	Annotations  map[string]string
	Listed       int64 // sum of the sizes of Blobs
}

// Ref is a descriptor inside a manifest.
type Ref struct {
	Digest      reference.Digest
	Size        int64
	Platform    json.RawMessage
	Annotations json.RawMessage
}

type descriptorJSON struct {
	MediaType   string          `json:"mediaType"`
	Digest      string          `json:"digest"`
	Size        *int64          `json:"size"`
	URLs        []string        `json:"urls"`
	Platform    json.RawMessage `json:"platform"`
	Annotations json.RawMessage `json:"annotations"`
}

type manifestJSON struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *descriptorJSON   `json:"config"`
	Layers        []descriptorJSON  `json:"layers"`
	Manifests     []descriptorJSON  `json:"manifests"`
	Subject       *descriptorJSON   `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
	// Fields that must not be there: CVE-2021-41190 (a manifest that is also an
	// index means different images to different clients).
	FSLayers json.RawMessage `json:"fsLayers"`
}

func manifestInvalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "the manifest is invalid: "+format, args...).On("manifest")
}

// Parse checks a manifest and gives what it refers to. contentType is the
// request's header; "" lets the payload's own mediaType speak.
func Parse(contentType string, payload []byte) (*Parsed, error) {
	if len(payload) > MaxManifest {
		return nil, fault.New(fault.TooLarge, "the manifest is larger than %d bytes", MaxManifest).On("manifest")
	}
	var m manifestJSON
	if err := json.Unmarshal(payload, &m); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the manifest is not valid JSON").On("manifest")
	}
	p := &Parsed{Annotations: m.Annotations}
	if err := p.setMediaType(contentType, &m); err != nil {
		return nil, err
	}
	if m.FSLayers != nil || strings.HasPrefix(p.MediaType, typeSchema1) {
		return nil, fault.New(fault.Unsupported, "Docker image manifest schema 1 is not supported").On("manifest").
			WithHint("push with a client that writes schema 2 or OCI manifests")
	}
	index := p.MediaType == TypeOCIIndex || p.MediaType == TypeDockerList
	image := p.MediaType == TypeOCIManifest || p.MediaType == TypeDockerManifest
	switch {
	case m.SchemaVersion != 2 && (index || image):
		return nil, manifestInvalid("schemaVersion must be 2")
	case m.Manifests != nil && (m.Config != nil || m.Layers != nil):
		return nil, manifestInvalid("it has both manifests and config or layers")
	case index && m.Manifests == nil && (m.Config != nil || m.Layers != nil):
		return nil, manifestInvalid("an index has manifests, not config and layers")
	case image && m.Manifests != nil:
		return nil, manifestInvalid("an image manifest has config and layers, not manifests")
	case image && m.Config == nil:
		return nil, manifestInvalid("the config is missing")
	}
	if err := p.addRefs(&m); err != nil {
		return nil, err
	}
	p.ArtifactType = m.ArtifactType
	if p.ArtifactType == "" {
		p.ArtifactType = p.ConfigType
	}
	return p, nil
}

func (p *Parsed) setMediaType(contentType string, m *manifestJSON) error {
	p.MediaType = m.MediaType
	if contentType != "" {
		t, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return manifestInvalid("its Content-Type is not a media type")
		}
		// The header decides how clients will read the manifest, the field how
		// the manifest reads itself: the two must not differ.
		if m.MediaType != "" && m.MediaType != t {
			return manifestInvalid("its mediaType is not its Content-Type %s", clip(t))
		}
		p.MediaType = t
	}
	switch {
	case p.MediaType != "":
	case m.Manifests != nil:
		p.MediaType = TypeOCIIndex
	default:
		p.MediaType = TypeOCIManifest
	}
	if len(p.MediaType) > 255 || !strings.Contains(p.MediaType, "/") || len(m.ArtifactType) > 255 {
		return manifestInvalid("a media type has a '/' and at most 255 characters")
	}
	return nil
}

func (p *Parsed) addRefs(m *manifestJSON) error {
	seen := make(map[reference.Digest]bool, len(m.Layers)+1)
	if m.Config != nil {
		ref, err := m.Config.ref("config")
		if err != nil {
			return err
		}
		p.Config, p.ConfigType = ref.Digest, m.Config.MediaType
		if len(p.ConfigType) > 255 {
			return manifestInvalid("the config's media type is longer than 255 characters")
		}
		p.addBlob(ref, seen)
	}
	if len(m.Layers) > maxBlobs || len(m.Manifests) > maxChildren {
		return manifestInvalid("it lists more than %d layers or %d manifests", maxBlobs, maxChildren)
	}
	for i := range m.Layers {
		ref, err := m.Layers[i].ref("layers")
		if err != nil {
			return err
		}
		if foreign(&m.Layers[i]) {
			continue // its bytes need not be here
		}
		p.addBlob(ref, seen)
	}
	clear(seen)
	for i := range m.Manifests {
		ref, err := m.Manifests[i].ref("manifests")
		if err != nil {
			return err
		}
		if !seen[ref.Digest] {
			seen[ref.Digest] = true
			p.Children = append(p.Children, ref)
		}
	}
	if m.Subject != nil {
		ref, err := m.Subject.ref("subject")
		if err != nil {
			return err
		}
		p.Subject = ref.Digest
	}
	return nil
}

func (p *Parsed) addBlob(r Ref, seen map[reference.Digest]bool) {
	if seen[r.Digest] {
		return
	}
	seen[r.Digest] = true
	p.Blobs = append(p.Blobs, r)
	p.Listed += r.Size
}

func (d *descriptorJSON) ref(where string) (Ref, error) {
	digest, err := reference.ParseDigest(d.Digest)
	if err != nil {
		return Ref{}, fault.Wrap(fault.Invalid, err, "the manifest is invalid: a digest in %s is malformed", where).On("manifest")
	}
	if d.Size == nil || *d.Size < 0 || *d.Size > 1<<50 {
		return Ref{}, manifestInvalid("the size of %s in %s is missing or impossible", digest, where)
	}
	return Ref{Digest: digest, Size: *d.Size, Platform: d.Platform, Annotations: d.Annotations}, nil
}

// foreign reports whether a layer's bytes are elsewhere by design: Windows base
// layers and OCI's deprecated non-distributable ones.
func foreign(d *descriptorJSON) bool {
	return strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable.")
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
