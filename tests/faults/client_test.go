package faults

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// patience is how long a client goes on trying one thing. docker gives up earlier, and whoever runs it tries again.
const patience = 40 * time.Second

// A client pushes and pulls as docker does: what fails for a reason that may pass is tried again, and an upload that
// broke or that the registry no longer knows is begun again.
type client struct {
	*berthtest.Registry
	retries *atomic.Int64
}

// newClient has connections and tokens of its own, as a new `docker push` has.
func newClient(t testing.TB, s *berthtest.Server, who berthtest.Login, retries *atomic.Int64) *client {
	t.Helper()
	r := s.Registry(t, who)
	r.HTTP = &http.Client{Transport: s.Client(t).Transport, CheckRedirect: s.Client(t).CheckRedirect, Timeout: 20 * time.Second}
	return &client{r, retries}
}

// errPassing marks what may be better the next time.
var errPassing = errors.New("passing")

// judge tells what a client makes of an answer: nil if it is one of want, errPassing if trying again may help.
func judge(r *berthtest.Reply, err error, want ...int) error {
	if err != nil {
		return fmt.Errorf("%w: %w", errPassing, err)
	}
	for _, w := range want {
		if r.StatusCode == w {
			return nil
		}
	}
	said := fmt.Errorf("%s %s: %s %.300s", r.Request.Method, r.Request.URL.Path, r.Status, r.Data)
	code := r.Code()
	if r.StatusCode >= 500 || r.StatusCode == 429 || r.StatusCode == 416 || code == "BLOB_UPLOAD_UNKNOWN" || code == "BLOB_UPLOAD_INVALID" {
		return fmt.Errorf("%w: %w", errPassing, said)
	}
	return said
}

// retry calls f until it succeeds, fails for good, or patience is over.
func (c *client) retry(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(patience)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if err == nil || !errors.Is(err, errPassing) || ctx.Err() != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("given up after %v: %w", patience, err)
		}
		c.retries.Add(1)
		time.Sleep(pause)
	}
}

// blob pushes a blob: HEAD, POST, PATCH, PUT.
func (c *client) blob(ctx context.Context, t testing.TB, repo string, b berthtest.Blob) error {
	return c.retry(ctx, func() error {
		head, err := c.Try(t, "HEAD", "/v2/"+repo+"/blobs/"+b.Digest, nil)
		if err := judge(head, err, 200, 404); err != nil || head.StatusCode == 200 {
			return err
		}
		post, err := c.Try(t, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
		if err := judge(post, err, 202); err != nil {
			return err
		}
		patch, err := c.Try(t, "PATCH", post.Header.Get("Location"), b.Data, "Content-Type", "application/octet-stream")
		if err := judge(patch, err, 202); err != nil {
			return err
		}
		put, err := c.Try(t, "PUT", berthtest.WithQuery(patch.Header.Get("Location"), "digest", b.Digest), nil)
		return judge(put, err, 201)
	})
}

func (c *client) manifest(ctx context.Context, t testing.TB, repo, tag string, m berthtest.Blob) error {
	return c.retry(ctx, func() error {
		put, err := c.Try(t, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Data, "Content-Type", m.MediaType)
		return judge(put, err, 201)
	})
}

// get fetches a manifest or a blob ("manifests/TAG", "blobs/DIGEST") and checks its digest, if it is given.
func (c *client) get(ctx context.Context, t testing.TB, repo, what, digest string) (data []byte, err error) {
	err = c.retry(ctx, func() error {
		got, err := c.Try(t, "GET", "/v2/"+repo+"/"+what, nil)
		if err := judge(got, err, 200); err != nil {
			return err
		}
		if is := berthtest.Digest(got.Data); digest != "" && is != digest {
			return fmt.Errorf("GET %s of %s gave %d bytes with the digest %s, want %s", what, repo, len(got.Data), is, digest)
		}
		data = got.Data
		return nil
	})
	return data, err
}

// newImage is an image of small, middling and large layers, some of which other images have as well.
func newImage(shared []berthtest.Blob) *berthtest.Image {
	var seed [3]byte
	rand.Read(seed[:])
	i := berthtest.NewImage(1, 1000+int(seed[0])*200)
	i.Layers = append(i.Layers, berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(200_000+int(seed[1])*10_000)))
	i.Layers = append(i.Layers, shared[int(seed[2])%len(shared)])
	i.Manifest = berthtest.Manifest(i.Config, i.Layers, nil)
	return i
}
