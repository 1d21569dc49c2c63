package artifact

import (
	"strings"

	"berth/services/reference"
)

// What tags of the form sha256-<hex>.<suffix> attach to the artifact with that
// digest: the way of cosign before version 3, and of registries without
// referrers. Such a manifest names no subject itself, so it is no referrer in the
// OCI specification's sense, but an accessory in Harbor's.
var attachments = map[string]string{
	"sig":  CosignSignature,
	"att":  "application/vnd.dev.cosign.artifact.att.v1+json",
	"sbom": "application/vnd.dev.cosign.artifact.sbom.v1+json",
}

// CosignSignature is the artifact type of cosign's signatures.
const CosignSignature = "application/vnd.dev.cosign.artifact.sig.v1+json"

// attachment finds a tag that attaches, and says to what and as what.
func attachment(tags []string) (subject reference.Digest, artifactType string, ok bool) {
	for _, tag := range tags {
		name, suffix, dotted := strings.Cut(tag, ".")
		artifactType, known := attachments[suffix]
		algorithm, hex, dashed := strings.Cut(name, "-")
		if !dotted || !known || !dashed {
			continue
		}
		if d, err := reference.ParseDigest(algorithm + ":" + hex); err == nil {
			return d, artifactType, true
		}
	}
	return reference.Digest{}, "", false
}
