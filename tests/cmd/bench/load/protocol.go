package load

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"strings"
)

// A How is a way to upload a blob.
type How int

// PUT after POST in one body; or, as docker does, HEAD first, then POST, one streamed PATCH, and an empty PUT.
const (
	Monolithic How = iota
	Streamed
	LikeDocker
)

// PushBlob uploads a blob.
func (c *Client) PushBlob(ctx context.Context, repo string, b Blob, how How) error {
	if how == LikeDocker {
		if _, err := c.Do(ctx, Request{Method: "HEAD", Target: "/v2/" + repo + "/blobs/" + b.Digest, Want: 404}); err != nil {
			return err
		}
	}
	r, err := c.Do(ctx, Request{Method: "POST", Target: "/v2/" + repo + "/blobs/uploads/", Want: 202})
	if err != nil {
		return err
	}
	put := Request{Method: "PUT", Type: "application/octet-stream", Want: 201}
	if how == Monolithic {
		put.Body, put.Size = b.Reader(), b.Size
	} else {
		r, err = c.Do(ctx, Request{Method: "PATCH", Target: r.Header.Get("Location"), Type: "application/octet-stream",
			Body: b.Reader(), Size: -1, Want: 202})
		if err != nil {
			return err
		}
	}
	if put.Target, err = withDigest(r.Header.Get("Location"), b.Digest); err != nil {
		return err
	}
	_, err = c.Do(ctx, put)
	return err
}

// withDigest adds ?digest= to a Location.
func withDigest(location, digest string) (string, error) {
	if location == "" {
		return "", errors.New("the server gave no Location for an upload")
	}
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	return location + sep + "digest=" + url.QueryEscape(digest), nil
}

// PushManifest stores a manifest under a tag or its digest. More is a query string, or "".
func (c *Client) PushManifest(ctx context.Context, repo, reference, mediaType string, data []byte, more string) error {
	if more != "" {
		more = "?" + more
	}
	_, err := c.Do(ctx, Request{Method: "PUT", Target: "/v2/" + repo + "/manifests/" + reference + more, Type: mediaType,
		Body: bytes.NewReader(data), Size: int64(len(data)), Want: 201})
	return err
}

// PushImage uploads an image's blobs one after another, then its manifest.
func (c *Client) PushImage(ctx context.Context, repo, tag string, i Image, how How) error {
	for _, b := range i.Blobs {
		if err := c.PushBlob(ctx, repo, b, how); err != nil {
			return err
		}
	}
	return c.PushManifest(ctx, repo, tag, ManifestType, i.Manifest, "")
}

// Get reads something and throws it away.
func (c *Client) Get(ctx context.Context, path string, size int64) error {
	r, err := c.Do(ctx, Request{Method: "GET", Target: path, Accept: ManifestType + ", " + IndexType, Want: 200})
	if err == nil && size >= 0 && r.Bytes != size {
		return errors.New("GET " + path + " gave another number of bytes than expected")
	}
	return err
}

// Walk follows a list through all its pages and tells how many there were.
func (c *Client) Walk(ctx context.Context, path string) (pages int, err error) {
	for path != "" {
		r, err := c.Do(ctx, Request{Method: "GET", Target: path, Want: 200})
		if err != nil {
			return pages, err
		}
		pages++
		path = ""
		if link := r.Header.Get("Link"); link != "" {
			rest, _ := strings.CutPrefix(link, "<")
			path, _, _ = strings.Cut(rest, ">")
		}
	}
	return pages, nil
}
