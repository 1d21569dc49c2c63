package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"berth/tests/berthtest"
)

// end-4a, end-6: POST, then the whole blob in one PUT.
func TestUploadPostPut(t *testing.T) {
	r := newRepository(t)
	for _, size := range []int{0, 1, 4096, 3_000_000} {
		b := bytesOf(size)
		put := r.do("201", "PUT", berthtest.WithQuery(r.start(), "digest", b.Digest), b.Data, "Content-Type", "application/octet-stream")
		r.header(put, "Docker-Content-Digest", b.Digest)
		get := r.do("200", "GET", r.location(put), nil)
		if !bytes.Equal(get.Data, b.Data) {
			t.Errorf("the Location of a blob of %d bytes gives other bytes", size)
		}
		r.has(b)
		// Again: what is there already is no error.
		r.do("201", "PUT", berthtest.WithQuery(r.start(), "digest", b.Digest), b.Data, "Content-Type", "application/octet-stream")
		r.has(b)
	}
}

// end-4b: the whole blob in the POST.
func TestUploadSinglePost(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(100_000)
	post := r.do("201", "POST", "blobs/uploads/?digest="+b.Digest, b.Data, "Content-Type", "application/octet-stream")
	r.location(post)
	r.has(b)
	other := bytesOf(100)
	r.do("400 DIGEST_INVALID", "POST", "blobs/uploads/?digest="+other.Digest, b.Data, "Content-Type", "application/octet-stream")
	r.do("404", "HEAD", "blobs/"+other.Digest, nil)
}

// patch sends bytes [from, to) of a blob as a chunk.
func (r *repository) patch(want, location string, b berthtest.Blob, from, to int) *berthtest.Reply {
	r.t.Helper()
	return r.do(want, "PATCH", location, b.Data[from:to],
		"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", from, to-1))
}

// end-5, end-6, end-13: a blob in chunks, in order, each acknowledged with how much is there; a chunk out of order is
// refused and harms nothing; the state can be asked for, which is how an upload is resumed.
func TestUploadChunked(t *testing.T) {
	for _, last := range []string{"in a PATCH", "in the PUT"} {
		t.Run("last chunk "+last, func(t *testing.T) {
			r := newRepository(t)
			post := r.do("202", "POST", "blobs/uploads/", nil)
			chunk := 10_000
			if least, err := strconv.Atoi(post.Header.Get("OCI-Chunk-Min-Length")); err == nil {
				chunk = max(chunk, least)
			}
			b := bytesOf(3*chunk - 17)

			reply := r.patch("202", r.location(post), b, 0, chunk)
			r.header(reply, "Range", fmt.Sprintf("0-%d", chunk-1))
			here := r.location(reply)

			r.patch("416", here, b, 0, chunk)             // what is there already
			r.patch("416", here, b, 2*chunk, len(b.Data)) // what leaves a gap
			status := r.do("204", "GET", here, nil)
			r.header(status, "Range", fmt.Sprintf("0-%d", chunk-1))
			here = r.location(status)

			reply = r.patch("202", here, b, chunk, 2*chunk)
			r.header(reply, "Range", fmt.Sprintf("0-%d", 2*chunk-1))
			here = r.location(reply)
			if last == "in a PATCH" {
				here = r.location(r.patch("202", here, b, 2*chunk, len(b.Data)))
				r.do("201", "PUT", berthtest.WithQuery(here, "digest", b.Digest), nil)
			} else {
				r.do("201", "PUT", berthtest.WithQuery(here, "digest", b.Digest), b.Data[2*chunk:],
					"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", 2*chunk, len(b.Data)-1))
			}
			r.has(b)
			r.ended(here)
		})
	}
}

// ended fails the test unless an upload session has nothing of what was sent to it. A session is all in its Location
// (so that any node can go on with it, and opening one writes nothing), hence one that has ended looks like one that
// has just begun, and a client that goes on with it is told to begin at 0.
func (r *repository) ended(location string) {
	r.t.Helper()
	get := r.Do(r.t, "GET", location, nil)
	if get.StatusCode == http.StatusNotFound && get.Code() == "BLOB_UPLOAD_UNKNOWN" {
		return
	}
	if get.StatusCode != http.StatusNoContent || get.Header.Get("Range") != "0-0" {
		r.t.Errorf("GET of an upload that has ended: %s, Range %q %s; want 404, or an empty session", get.Status, get.Header.Get("Range"), get.Data)
	}
	empty := bytesOf(100)
	r.patch("416", location, empty, 50, 100)
}

// A blob in one PATCH of unknown length, which is how Docker pushes.
func TestUploadStreamed(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(2_000_000)
	location := r.start()
	r.do("204", "GET", location, nil) // gets a token that is good for this path

	url := location
	if strings.HasPrefix(url, "/") {
		url = berth.URL + url
	}
	// A reader of no known type makes the client send it chunked, without Content-Length.
	req, err := http.NewRequestWithContext(t.Context(), "PATCH", url, struct{ io.Reader }{bytes.NewReader(b.Data)})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.SetBasicAuth(r.login.User, r.login.Password)
	resp, err := berth.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("streamed PATCH: %s %s", resp.Status, body)
	}
	if got, want := resp.Header.Get("Range"), fmt.Sprintf("0-%d", len(b.Data)-1); got != want {
		t.Errorf("Range is %q, want %q", got, want)
	}
	r.do("201", "PUT", berthtest.WithQuery(resp.Header.Get("Location"), "digest", b.Digest), nil)
	r.has(b)
}

// An upload whose bytes are not what the digest says stores nothing.
func TestUploadWrongDigest(t *testing.T) {
	r := newRepository(t)
	b, other := bytesOf(1000), bytesOf(1000)
	r.do("400 DIGEST_INVALID", "PUT", berthtest.WithQuery(r.start(), "digest", other.Digest), b.Data, "Content-Type", "application/octet-stream")
	r.do("404", "HEAD", "blobs/"+other.Digest, nil)
	r.do("404", "HEAD", "blobs/"+b.Digest, nil)
	for _, bad := range []string{"", "sha256", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + strings.Repeat("g", 64)} {
		r.do("400 DIGEST_INVALID", "PUT", berthtest.WithQuery(r.start(), "digest", bad), b.Data, "Content-Type", "application/octet-stream")
	}
}

// Sessions that do not exist, that were cancelled, or that belong to another repository are unknown.
func TestUploadSessions(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(100)
	here := r.start()
	here = r.location(r.patch("202", here, b, 0, len(b.Data)))
	r.do("204", "DELETE", here, nil)
	r.ended(here)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		r.do("404 BLOB_UPLOAD_UNKNOWN", method, "blobs/uploads/no-such-upload", nil)
	}

	here = r.start()
	other := strings.Replace(here, r.name, r.project+"/other", 1)
	if other == here {
		t.Fatalf("the Location %s does not name the repository", here)
	}
	r.do("404 BLOB_UPLOAD_UNKNOWN", "GET", other, nil)
	r.do("204", "GET", here, nil)
}

// end-11: a blob of one repository becomes part of another without being sent; where that cannot be, an upload begins.
func TestMount(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(5000)
	r.PushBlob(t, r.name, b)
	to := r.project + "/mounted"

	r.do("404 BLOB_UNKNOWN", "GET", "/v2/"+to+"/blobs/"+b.Digest, nil)
	post := r.do("201", "POST", "/v2/"+to+"/blobs/uploads/?mount="+b.Digest+"&from="+r.name, nil)
	r.header(post, "Docker-Content-Digest", b.Digest)
	get := r.do("200", "GET", r.location(post), nil)
	if !bytes.Equal(get.Data, b.Data) {
		t.Error("the mounted blob has other bytes")
	}

	unknown := bytesOf(10)
	here := r.location(r.do("202", "POST", "/v2/"+to+"/blobs/uploads/?mount="+unknown.Digest+"&from="+r.name, nil))
	r.do("201", "PUT", berthtest.WithQuery(here, "digest", unknown.Digest), unknown.Data, "Content-Type", "application/octet-stream")

	// From a project that the user cannot see: no different from a blob that does not exist.
	stranger := newRepository(t)
	secret := bytesOf(5000)
	stranger.PushBlob(t, stranger.name, secret)
	r.do("202", "POST", "/v2/"+to+"/blobs/uploads/?mount="+secret.Digest+"&from="+stranger.name, nil)
	r.do("404 BLOB_UNKNOWN", "GET", "/v2/"+to+"/blobs/"+secret.Digest, nil)
	// Nor does naming no source give it away.
	r.do("202", "POST", "/v2/"+to+"/blobs/uploads/?mount="+secret.Digest, nil)
}

// end-2: parts of a blob, and a blob that the client has already.
func TestBlobRanges(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(100_000)
	r.PushBlob(t, r.name, b)
	for header, want := range map[string][2]int{
		"bytes=0-99":        {0, 100},
		"bytes=500-":        {500, 100_000},
		"bytes=-10":         {99_990, 100_000},
		"bytes=99999-99999": {99_999, 100_000},
		"bytes=10-9999999":  {10, 100_000},
	} {
		get := r.do("206", "GET", "blobs/"+b.Digest, nil, "Range", header)
		r.header(get, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", want[0], want[1]-1, len(b.Data)))
		if !bytes.Equal(get.Data, b.Data[want[0]:want[1]]) {
			t.Errorf("Range %s gives other bytes", header)
		}
	}
	r.do("416", "GET", "blobs/"+b.Digest, nil, "Range", "bytes=100000-")
	head := r.do("200", "HEAD", "blobs/"+b.Digest, nil)
	r.header(head, "Accept-Ranges", "bytes")

	tag := head.Header.Get("ETag")
	if !strings.Contains(tag, b.Digest) {
		t.Fatalf("the ETag of a blob is %q, want its digest in quotes", tag)
	}
	if get := r.do("304", "GET", "blobs/"+b.Digest, nil, "If-None-Match", tag); len(get.Data) != 0 {
		t.Errorf("304 came with %d bytes", len(get.Data))
	}
	r.do("200", "GET", "blobs/"+b.Digest, nil, "If-None-Match", `"other"`)
}

// end-2, end-10: a blob that is not there, one that another repository has, and one that was deleted.
func TestBlobUnknownAndDeleted(t *testing.T) {
	r := newRepository(t)
	r.pushImage("other") // so that there is a repository
	b := bytesOf(100)
	r.do("404", "HEAD", "blobs/"+b.Digest, nil)
	r.do("404 BLOB_UNKNOWN", "GET", "blobs/"+b.Digest, nil)
	r.do("404 BLOB_UNKNOWN", "DELETE", "blobs/"+b.Digest, nil)
	r.do("400 DIGEST_INVALID", "GET", "blobs/sha256:short", nil)

	r.PushBlob(t, r.name, b)
	r.do("404 BLOB_UNKNOWN", "GET", "/v2/"+r.project+"/another/blobs/"+b.Digest, nil)
	r.do("202", "DELETE", "blobs/"+b.Digest, nil)
	r.do("404 BLOB_UNKNOWN", "GET", "blobs/"+b.Digest, nil)
	r.PushBlob(t, r.name, b)
	r.has(b)
}

// Content may be named by its SHA-512, and then has that name everywhere.
func TestSHA512(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(5000)
	b.Digest = sha512Of(b.Data)
	put := r.do("201", "PUT", berthtest.WithQuery(r.start(), "digest", b.Digest), b.Data, "Content-Type", "application/octet-stream")
	r.header(put, "Docker-Content-Digest", b.Digest)
	r.has(b)

	config := berthtest.NewBlob(berthtest.OCIConfig, []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`))
	config.Digest = sha512Of(config.Data)
	r.PushBlob(t, r.name, config)
	m := berthtest.Manifest(config, []berthtest.Blob{b}, nil)
	m.Digest = sha512Of(m.Data)
	reply := r.PushManifest(t, r.name, "", m)
	r.header(reply, "Docker-Content-Digest", m.Digest)
	get := r.do("200", "GET", "manifests/"+m.Digest, nil, "Accept", berthtest.OCIManifest)
	r.header(get, "Docker-Content-Digest", m.Digest)
	if !bytes.Equal(get.Data, m.Data) {
		t.Error("the manifest came back changed")
	}
	wrong := bytesOf(10)
	r.do("400 DIGEST_INVALID", "PUT", berthtest.WithQuery(r.start(), "digest", b.Digest), wrong.Data, "Content-Type", "application/octet-stream")
}

// A connection that breaks in the middle of an upload costs what was on the wire, no more: the session tells how much
// is there, and the rest is sent after it.
func TestUploadResumed(t *testing.T) {
	r := newRepository(t)
	b := bytesOf(8_000_000)
	location := r.start()
	url := location
	if strings.HasPrefix(url, "/") {
		url = berth.URL + url
	}
	cut := io.MultiReader(bytes.NewReader(b.Data[:5_000_000]), iotest.ErrReader(errors.New("the cable was pulled")))
	req, err := http.NewRequestWithContext(t.Context(), "PATCH", url, cut)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(b.Data))
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Content-Range", fmt.Sprintf("0-%d", len(b.Data)-1))
	req.SetBasicAuth(r.login.User, r.login.Password)
	if resp, err := berth.Client(t).Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("a PATCH cut short was answered %s", resp.Status)
	}
	broke := time.Now()

	// The server may not know yet that the connection is gone, and still be writing what it has of it.
	var status *berthtest.Reply
	for before := ""; ; time.Sleep(200 * time.Millisecond) {
		status = r.Do(t, "GET", location, nil)
		now := status.Header.Get("Range")
		if status.StatusCode == http.StatusNoContent && now == before {
			break
		}
		before = now
		if time.Since(broke) > 10*time.Second {
			t.Fatalf("10 s after the connection broke, the session says %s, Range %q %s", status.Status, now, status.Data)
		}
	}
	var last int
	if _, err := fmt.Sscanf(status.Header.Get("Range"), "0-%d", &last); err != nil {
		t.Fatalf("Range is %q", status.Header.Get("Range"))
	}
	have := last + 1
	if last == 0 {
		have = 0 // by convention: registries say 0-0 of an empty session
	}
	t.Logf("%d of 5000000 bytes survived", have)
	if have > 5_000_000 {
		t.Fatalf("%d bytes are there, 5000000 were sent", have)
	}
	here := r.location(r.patch("202", r.location(status), b, have, len(b.Data)))
	r.do("201", "PUT", berthtest.WithQuery(here, "digest", b.Digest), nil)
	r.has(b)
}

// Many clients that push the same at once all succeed, and what they pushed is there, once and whole.
func TestPushedAtOnce(t *testing.T) {
	r := newRepository(t)
	r.pushImage("warm") // gets the token for all of them
	i := berthtest.NewImage(3, 200_000)
	const clients = 12
	errs := make(chan error, clients)
	for range clients {
		go func() { errs <- r.tryPush(i, "same") }()
	}
	for range clients {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	get := r.do("200", "GET", "manifests/same", nil)
	if !bytes.Equal(get.Data, i.Manifest.Data) {
		t.Error("the manifest is not what was pushed")
	}
	for _, b := range i.Blobs() {
		r.has(b)
	}
}

// tryPush pushes an image and returns what went wrong: t.Fatal is not for goroutines.
func (r *repository) tryPush(i *berthtest.Image, tag string) error {
	expect := func(want int, method, target string, body []byte, mediaType string) (*berthtest.Reply, error) {
		reply, err := r.Try(r.t, method, target, body, "Content-Type", mediaType)
		if err == nil && reply.StatusCode != want {
			err = fmt.Errorf("%s %s: %s %s, want %d", method, target, reply.Status, reply.Data, want)
		}
		return reply, err
	}
	for _, b := range i.Blobs() {
		post, err := expect(202, "POST", "/v2/"+r.name+"/blobs/uploads/", nil, "application/octet-stream")
		if err != nil {
			return err
		}
		if _, err := expect(201, "PUT", berthtest.WithQuery(post.Header.Get("Location"), "digest", b.Digest), b.Data, "application/octet-stream"); err != nil {
			return err
		}
	}
	_, err := expect(201, "PUT", "/v2/"+r.name+"/manifests/"+tag, i.Manifest.Data, i.Manifest.MediaType)
	return err
}
