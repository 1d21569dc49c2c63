package blob

import (
	"strings"

	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/reference"
)

// The trees of a store. A key is a path below its root, without a leading '/'.
const (
	blobsTree    = "blobs"    // blobs/sha256/ab/<hex>.<nonce> in files, blobs/ab/<uuid> in an object store
	importedTree = "imported" // imported/<name>/...: somebody else's tree, linked in by LinkTree
	uploadsTree  = "uploads"  // uploads/<uuid>: sessions; files only
)

// CheckKey accepts the key of a blob: a clean path below blobs/ or imported/.
// Keys come from our own database, so a refusal means that somebody has
// tampered with it.
func CheckKey(key string) error {
	tree, _, _ := strings.Cut(key, "/")
	if (tree == blobsTree || tree == importedTree) && len(key) > len(tree) && validPath("/"+key) {
		return nil
	}
	return fault.New(fault.Internal, "a blob has a storage key that cannot be right").
		WithHint("the database was changed by other means than Berth's; restore it")
}

// validPath reports whether p is '/' and one or more components, parted by
// '/', of letters, digits, '.', '_' and '-', none of them "." or "..". It is
// what distribution's PathRegexp means, which lets ".." pass.
func validPath(p string) bool {
	if len(p) < 2 || p[0] != '/' {
		return false
	}
	start := 1
	for i := 1; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			if !validPathByte(p[i]) {
				return false
			}
			continue
		}
		if c := p[start:i]; c == "" || c == "." || c == ".." {
			return false
		}
		start = i + 1
	}
	return true
}

func validPathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '.' || c == '_' || c == '-'
}

// fileKey is the name of a blob in a directory tree. The digest keeps the
// store self-describing (the database can be rebuilt from a listing), the
// nonce makes the key one that never was and never will be again.
func fileKey(d reference.Digest) string {
	hex := d.Hex()
	return blobsTree + "/" + d.Algorithm().String() + "/" + hex[:2] + "/" + hex + "." + uuid.New().String()[:8]
}

// objectKey is the name of a blob in an object store, known when its upload
// starts, so that nothing is ever copied there. The last byte spreads it: the
// first ones of a version 7 UUID are its time.
func objectKey(id uuid.UUID) string {
	s := id.String()
	return blobsTree + "/" + s[len(s)-2:] + "/" + s
}

// importedBlob reports whether a path in an imported tree is a blob's: the
// layout of CNCF distribution, and so of Harbor, is .../blobs/<algorithm>/ab/<hex>/data.
func importedBlob(path string) bool {
	parts := strings.Split(path, "/")
	n := len(parts)
	return n >= 5 && parts[n-1] == "data" && parts[n-5] == "blobs" && strings.HasPrefix(parts[n-2], parts[n-3])
}
