package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/reference"
)

// getManifest answers GET and HEAD of a manifest (OCI Distribution 1.1,
// "Pulling manifests"). The Accept header does not choose: a registry has one
// manifest under a name, and clients that cannot read it say so better than we.
func (s *Server) getManifest(c *call) error {
	m, err := s.findManifest(c)
	if err != nil {
		return err
	}
	h := c.w.Header()
	digest := m.Digest.String()
	cacheable(h, digest)
	if notModified(c.r, digest) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Type"] = []string{m.MediaType}
	h["Content-Length"] = []string{strconv.Itoa(len(m.Payload))}
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	c.w.Write(m.Payload)
	tag := ""
	if !reference.IsDigest(c.arg) {
		tag = c.arg
	}
	s.Pulls(PullRecord{m.ID, m.RepoID, c.name, tag, digest, s.origin(c)})
	return nil
}

func (s *Server) findManifest(c *call) (artifact.Manifest, error) {
	if reference.IsDigest(c.arg) {
		d, err := reference.ParseDigest(c.arg)
		if err != nil {
			return artifact.Manifest{}, err
		}
		return s.Artifacts.Manifest(c.r.Context(), c.name, d)
	}
	if reference.CheckTag(c.arg) != nil {
		return artifact.Manifest{}, fault.Wrap(fault.NotFound, artifact.ErrManifestUnknown, "there can be no such tag").
			WithHint("a tag has at most %d letters, digits, '_', '.' and '-'", reference.MaxTag)
	}
	if err := c.onTags(Pull, c.arg); err != nil {
		return artifact.Manifest{}, err
	}
	return s.Artifacts.Tagged(c.r.Context(), c.name, c.arg)
}

// octets is the media type of every blob: what it really is, its manifest says.
var octets = []string{"application/octet-stream"}

// getBlob answers GET and HEAD of a blob, with ranges and conditions (OCI
// Distribution 1.1, "Pulling blobs"; RFC 9110 §13-14).
func (s *Server) getBlob(c *call) error {
	d, err := reference.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	ctx := c.r.Context()
	find := s.Artifacts.Blob
	if c.r.Method == http.MethodHead && c.may&Push != 0 {
		find = s.Artifacts.BlobForPush // a pusher relies on the answer until its manifest is in
	}
	b, err := find(ctx, c.name, d)
	if err != nil {
		return err
	}
	h := c.w.Header()
	cacheable(h, c.arg)
	h["Content-Type"] = octets
	if c.r.Method == http.MethodGet {
		if to, err := s.Blobs.RedirectURL(c.r, b.Key); err != nil || to != "" {
			return s.redirect(c, to, err)
		}
	}
	f, err := s.Blobs.Open(ctx, b.Key)
	if err == nil && f.Size() != b.Size {
		f.Close()
		err = fault.New(fault.NotFound, "it has %d bytes instead of %d", f.Size(), b.Size)
	}
	if err != nil {
		return s.damaged(c, b, err)
	}
	defer f.Close()
	if ranges := c.r.Header["Range"]; ranges != nil && tooManyRanges(ranges[0]) {
		// Answering in full is always allowed (RFC 9110 §14.2).
		delete(c.r.Header, "Range")
	}
	http.ServeContent(c.w, c.r, "", time.Time{}, f)
	return nil
}

// tooManyRanges spots requests whose many small or overlapping ranges cost the
// server more than the client.
func tooManyRanges(header string) bool {
	n := 1
	for i := 0; i < len(header); i++ {
		if header[i] == ',' {
			n++
		}
	}
	return n > 8
}

func (s *Server) redirect(c *call, to string, err error) error {
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the blob store cannot be reached")
	}
	delete(c.w.Header(), "Content-Type")
	http.Redirect(c.w, c.r, to, http.StatusTemporaryRedirect)
	return nil
}

// damaged handles a blob whose row is there and whose bytes are not: it fails
// loudly, and from then on the blob counts as absent, so that a push heals it.
func (s *Server) damaged(c *call, b artifact.Blob, err error) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	s.Log.Error("a blob's bytes are missing or cut short", "digest", b.Digest.String(), "repository", c.name, "key", b.Key, "err", err)
	if err := s.Artifacts.MarkDamaged(c.r.Context(), b.Digest, b.Key); err != nil {
		return err
	}
	return fault.Wrap(fault.NotFound, artifact.ErrBlobUnknown, "blob %s is damaged in storage", b.Digest).WithHint("push the image again to heal it")
}

// maxPage caps a page of tags or repositories. A larger n is lowered, not
// refused (Renovate asks for 10,000).
const maxPage = 10_000

// pageSize reads n; without one a page is as large as may be.
func pageSize(q url.Values) (int, error) {
	if !q.Has("n") {
		return maxPage, nil
	}
	n, err := strconv.Atoi(q.Get("n"))
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		return maxPage, nil
	}
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "n must be a number that is not negative").On("n")
	}
	return min(n, maxPage), nil
}

// nextLink points to the page after last (RFC 8288).
func nextLink(h http.Header, path string, q url.Values) {
	h["Link"] = []string{"<" + path + "?" + q.Encode() + `>; rel="next"`}
}

// tags lists a repository's tags in byte order (OCI Distribution 1.1, "Content Discovery").
func (s *Server) tags(c *call) error {
	n, err := pageSize(c.query())
	if err != nil {
		return err
	}
	names, more, err := s.Artifacts.Tags(c.r.Context(), c.name, c.query().Get("last"), n)
	if err != nil {
		return err
	}
	if more {
		nextLink(c.w.Header(), "/v2/"+c.name+"/tags/list", url.Values{"n": {strconv.Itoa(n)}, "last": {names[len(names)-1]}})
	}
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	return replyList(c.w, `{"name":"`+c.name+`","tags":[`, names)
}

// catalog lists all repositories (Docker Registry HTTP API V2, "Listing Repositories").
func (s *Server) catalog(c *call) error {
	n, err := pageSize(c.query())
	if err != nil {
		return err
	}
	names, more, err := s.Artifacts.Catalog(c.r.Context(), c.query().Get("last"), n)
	if err != nil {
		return err
	}
	if more {
		nextLink(c.w.Header(), "/v2/_catalog", url.Values{"n": {strconv.Itoa(n)}, "last": {names[len(names)-1]}})
	}
	return replyList(c.w, `{"repositories":[`, names)
}

// replyList writes names, none of which needs escaping, as JSON.
func replyList(w http.ResponseWriter, head string, names []string) error {
	size := len(head) + 4
	for _, n := range names {
		size += len(n) + 3
	}
	b := append(make([]byte, 0, size), head...)
	for i, n := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, n...)
		b = append(b, '"')
	}
	reply(w, http.StatusOK, "application/json; charset=utf-8", append(b, "]}\n"...))
	return nil
}

// referrersPage is how many referrers one answer holds.
const referrersPage = 1000

// referrers lists what refers to a manifest (OCI Distribution 1.1, "Listing
// Referrers"). An unknown repository or digest has an empty list, not a 404.
func (s *Server) referrers(c *call) error {
	d, err := reference.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	q := c.query()
	var last int64
	if q.Has("last") {
		if last, err = strconv.ParseInt(q.Get("last"), 10, 64); err != nil || last < 0 {
			return fault.New(fault.Invalid, "last must come from a Link header").On("last")
		}
	}
	kind := q.Get("artifactType")
	list, next, err := s.Artifacts.Referrers(c.r.Context(), c.name, d, kind, last, referrersPage)
	if err != nil {
		return err
	}
	if kind != "" {
		c.w.Header()["Oci-Filters-Applied"] = []string{"artifactType"}
	}
	if next != 0 {
		page := url.Values{"last": {strconv.FormatInt(next, 10)}}
		if kind != "" {
			page.Set("artifactType", kind)
		}
		nextLink(c.w.Header(), "/v2/"+c.name+"/referrers/"+c.arg, page)
	}
	body, err := json.Marshal(struct {
		SchemaVersion int                   `json:"schemaVersion"`
		MediaType     string                `json:"mediaType"`
		Manifests     []artifact.Descriptor `json:"manifests"`
	}{2, artifact.TypeOCIIndex, list})
	if err != nil {
		return err
	}
	reply(c.w, http.StatusOK, artifact.TypeOCIIndex, body)
	return nil
}
