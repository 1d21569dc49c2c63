package registry

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/artifact"
	"berth/services/blob"
	"berth/services/reference"
)

// maxTags is how many ?tag= one manifest PUT may carry.
const maxTags = 100

// putManifest stores a manifest under a tag or its digest (OCI Distribution
// 1.1, "Pushing Manifests").
func (s *Server) putManifest(c *call) error {
	push, err := s.readPush(c)
	if err != nil {
		return err
	}
	if err := c.onTags(Push, push.Tags...); err != nil {
		return err
	}
	done, err := s.Artifacts.PutManifest(c.r.Context(), push)
	if err != nil {
		return err
	}
	h := c.w.Header()
	digest := push.Digest.String()
	s.Log.InfoContext(c.r.Context(), "manifest pushed", "repository", c.name, "digest", digest, "tags", strings.Join(push.Tags, ","), "user", c.who.User)
	h["Docker-Content-Digest"] = []string{digest}
	h["Location"] = []string{"/v2/" + c.name + "/manifests/" + digest}
	if !done.Parsed.Subject.IsZero() {
		h["Oci-Subject"] = []string{done.Parsed.Subject.String()}
	}
	if reference.IsDigest(c.arg) {
		h["Oci-Tag"] = push.Tags
	}
	empty(c.w, http.StatusCreated)
	return nil
}

func (s *Server) readPush(c *call) (artifact.Push, error) {
	push := artifact.Push{Repo: c.name, MediaType: c.r.Header.Get("Content-Type")}
	algorithm := reference.SHA256
	var want reference.Digest
	var err error
	if reference.IsDigest(c.arg) {
		if want, err = reference.ParseDigest(c.arg); err != nil {
			return push, err
		}
		push.Tags = c.query()["tag"]
	} else {
		push.Tags = []string{c.arg}
		if d := c.query().Get("digest"); d != "" {
			if want, err = reference.ParseDigest(d); err != nil {
				return push, err
			}
		}
	}
	if len(push.Tags) > maxTags {
		return push, fault.New(fault.Invalid, "a push sets at most %d tags", maxTags).On("reference")
	}
	for _, tag := range push.Tags {
		if err := reference.CheckTag(tag); err != nil {
			return push, err
		}
	}
	if !want.IsZero() {
		algorithm = want.Algorithm()
	}
	if push.Payload, err = readLimited(c, artifact.MaxManifest); err != nil {
		return push, err
	}
	push.Digest = reference.Of(algorithm, push.Payload)
	if !want.IsZero() && push.Digest != want {
		return push, fault.New(fault.Invalid, "the manifest's digest is %s, not %s", push.Digest, want).On("digest")
	}
	return push, nil
}

func readLimited(c *call, limit int64) ([]byte, error) {
	tooLarge := fault.New(fault.TooLarge, "the manifest is larger than %d bytes", limit).On("manifest")
	if c.r.ContentLength > limit {
		return nil, tooLarge
	}
	s := c.r.ContentLength
	if s < 0 {
		s = 32 << 10
	}
	buf := make([]byte, 0, s+1)
	body := io.LimitReader(c.r.Body, limit+1)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return nil, tooLarge
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, fault.Wrap(fault.Invalid, err, "the manifest did not arrive in full").On("manifest")
		}
	}
}

// deleteManifest removes a tag, or a manifest with all its tags (OCI
// Distribution 1.1, "Content Management").
func (s *Server) deleteManifest(c *call) error {
	var err error
	if reference.IsDigest(c.arg) {
		var d reference.Digest
		if d, err = reference.ParseDigest(c.arg); err != nil {
			return err
		}
		if err = c.onTags(Delete, access.EveryTag); err == nil {
			err = s.Artifacts.DeleteManifest(c.r.Context(), c.name, d)
		}
	} else if err = reference.CheckTag(c.arg); err == nil {
		if err = c.onTags(Delete, c.arg); err == nil {
			err = s.Artifacts.DeleteTag(c.r.Context(), c.name, c.arg)
		}
	}
	if err != nil {
		return err
	}
	empty(c.w, http.StatusAccepted)
	return nil
}

func (s *Server) deleteBlob(c *call) error {
	d, err := reference.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	if err := s.Artifacts.DeleteBlob(c.r.Context(), c.name, d); err != nil {
		return err
	}
	empty(c.w, http.StatusAccepted)
	return nil
}

// beginUpload answers POST: it mounts, takes a whole blob at once, or opens a
// session (OCI Distribution 1.1, "Pushing a blob", "Mounting").
func (s *Server) beginUpload(c *call) error {
	q := c.query()
	algorithm := reference.SHA256
	if name := q.Get("digest-algorithm"); name != "" {
		var err error
		if algorithm, err = reference.ParseAlgorithm(name); err != nil {
			return err
		}
	}
	if q.Has("mount") {
		if done, err := s.mount(c); done || err != nil {
			return err
		}
	}
	now := time.Now()
	if q.Has("digest") {
		d, err := reference.ParseDigest(q.Get("digest"))
		if err != nil {
			return err
		}
		session, err := newSession(d.Algorithm(), now)
		if err != nil {
			return err
		}
		return s.finish(c, session, d)
	}
	if err := s.Artifacts.Writable(c.r.Context(), c.name); err != nil {
		return err
	}
	session, err := newSession(algorithm, now)
	if err != nil {
		return err
	}
	s.uploadHeaders(c, session, 0)
	empty(c.w, http.StatusAccepted)
	return nil
}

// mount links a blob from another repository, if the caller may read it there.
// Anything that stands in the way means an ordinary upload, not an error, so
// that nobody learns what is where.
func (s *Server) mount(c *call) (done bool, err error) {
	d, err := reference.ParseDigest(c.query().Get("mount"))
	if err != nil {
		return false, err
	}
	from := c.mountSource()
	if from == "" {
		return false, nil
	}
	may, err := c.who.May(c.r.Context(), from)
	if err != nil || may&Pull == 0 {
		if fault.Is(err, fault.Unavailable) {
			return false, err
		}
		return false, nil
	}
	if done, err = s.Artifacts.Mount(c.r.Context(), c.name, from, d); err != nil || !done {
		return false, err
	}
	s.created(c, d)
	return true, nil
}

func (s *Server) created(c *call, d reference.Digest) {
	digest := d.String()
	h := c.w.Header()
	h["Docker-Content-Digest"] = []string{digest}
	h["Location"] = []string{"/v2/" + c.name + "/blobs/" + digest}
	empty(c.w, http.StatusCreated)
}

// uploadHeaders tell where a session stands. Range is inclusive, and 0-0 for
// an empty session, as every registry has it.
func (s *Server) uploadHeaders(c *call, u session, size int64) {
	h := c.w.Header()
	h["Location"] = []string{"/v2/" + c.name + "/blobs/uploads/" + u.token(s.SessionKey, c.name)}
	h["Range"] = []string{"0-" + strconv.FormatInt(max(size-1, 0), 10)}
	h["Docker-Upload-Uuid"] = []string{u.id.String()}
}

// upload answers GET, PATCH, PUT and DELETE of a session.
func (s *Server) upload(c *call) error {
	session, err := parseSession(c.arg, s.SessionKey, c.name, time.Now())
	if err != nil {
		return err
	}
	if _, over := s.ended.GetIfPresent(session.id); over {
		return errUploadUnknown
	}
	switch c.r.Method {
	case http.MethodPut:
		d, err := reference.ParseDigest(c.query().Get("digest"))
		if err != nil {
			return err
		}
		return s.finish(c, session, d)
	case http.MethodPatch:
		return s.patch(c, session)
	}
	if c.r.Method == http.MethodGet {
		size, err := s.Blobs.Received(c.r.Context(), session.id)
		if err != nil {
			return err
		}
		s.uploadHeaders(c, session, size)
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	u, err := s.Blobs.Upload(c.r.Context(), session.id, session.algorithm)
	if err != nil {
		return err
	}
	if err := u.Cancel(c.r.Context()); err != nil {
		return err
	}
	s.ended.Set(session.id, struct{}{})
	empty(c.w, http.StatusNoContent)
	return nil
}

// patch appends a chunk, or a stream of unknown length.
func (s *Server) patch(c *call, session session) error {
	u, err := s.receive(c, session, session.algorithm)
	if err != nil {
		return err
	}
	defer u.Close()
	offset, hash := u.State()
	if err := u.Close(); err != nil {
		return err
	}
	if s.Blobs.Shared() {
		if err := s.Artifacts.SaveUpload(c.r.Context(), session.id, offset, hash, sessionLife); err != nil {
			s.Log.Warn("cannot keep the state of an upload; its bytes will be hashed again", "err", err)
		}
	}
	s.uploadHeaders(c, session, u.Size())
	empty(c.w, http.StatusAccepted)
	return nil
}

// receive opens a session and appends the request's body. The caller closes it.
func (s *Server) receive(c *call, session session, a reference.Algorithm) (*blob.Upload, error) {
	u, err := s.open(c, session, a)
	if err != nil {
		return nil, ofSession(err)
	}
	if err = s.inOrder(c, session, u); err == nil && c.r.ContentLength != 0 {
		in, span := s.Tracer.Start(c.r.Context(), "write blob")
		var n int64
		n, err = u.Append(in, c.r.Body, c.r.ContentLength)
		span.Int("berth.bytes", n)
		span.End(err)
	}
	if err != nil {
		u.Close()
		return nil, ofSession(err)
	}
	return u, nil
}

// ofSession gives the faults of an upload the specification's code for them.
func ofSession(err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Invalid && f.Kind != fault.Conflict {
		return err
	}
	return &fault.Error{Kind: f.Kind, Field: f.Field, Text: f.Text, Hint: f.Hint, Err: errors.Join(errSession, f.Err)}
}

// open resumes a session, on a shared storage with the hash that another node
// may have begun.
func (s *Server) open(c *call, session session, a reference.Algorithm) (*blob.Upload, error) {
	ctx := c.r.Context()
	if !s.Blobs.Shared() {
		return s.Blobs.Upload(ctx, session.id, a)
	}
	if c.end == endUploads {
		return s.Blobs.Upload(ctx, session.id, a, blob.Fresh())
	}
	offset, hash, err := s.Artifacts.Upload(ctx, session.id)
	if err != nil {
		return nil, err
	}
	return s.Blobs.Upload(ctx, session.id, a, blob.From(offset, hash))
}

// lostTail reports whether another node has acknowledged more of an upload than
// the shared storage has: an object store takes large parts only, and what does
// not fill one yet is in that node's memory. The client then begins again.
func (s *Server) lostTail(c *call, session session, size int64) bool {
	if !s.Blobs.Shared() {
		return false
	}
	acknowledged, _, err := s.Artifacts.Upload(c.r.Context(), session.id)
	return err == nil && acknowledged > size-max(c.r.ContentLength, 0)
}

// inOrder refuses a chunk that does not begin where the session ends: 416, with
// the headers that let the client go on from there.
func (s *Server) inOrder(c *call, session session, u *blob.Upload) error {
	header := c.r.Header.Get("Content-Range")
	if header == "" {
		return nil
	}
	first, last, err := parseContentRange(header)
	if err == nil && c.r.ContentLength >= 0 && last-first+1 != c.r.ContentLength {
		err = fault.Wrap(fault.Invalid, errSession, "Content-Range and Content-Length do not agree")
	}
	if err != nil {
		return err
	}
	if first != u.Size() {
		s.uploadHeaders(c, session, u.Size())
		empty(c.w, http.StatusRequestedRangeNotSatisfiable)
		return errAnswered
	}
	return nil
}

// errAnswered says that the answer is written already.
var errAnswered = errors.New("answered")

// parseContentRange reads "<first>-<last>", as the OCI specification has it, or
// RFC 9110's "bytes <first>-<last>/<size>".
func parseContentRange(h string) (first, last int64, err error) {
	h = strings.TrimPrefix(h, "bytes ")
	h, _, _ = strings.Cut(h, "/")
	a, b, ok := strings.Cut(h, "-")
	first, e1 := strconv.ParseInt(a, 10, 64)
	last, e2 := strconv.ParseInt(b, 10, 64)
	if !ok || e1 != nil || e2 != nil || first < 0 || last < first || a[0] == '+' || b[0] == '+' {
		return 0, 0, fault.Wrap(fault.Invalid, errSession, "Content-Range must be <first byte>-<last byte>")
	}
	return first, last, nil
}

// finish takes what is left of a blob, checks it against its digest, and makes
// it part of the repository. Only then does it say 201.
func (s *Server) finish(c *call, session session, d reference.Digest) error {
	if t := c.r.Header.Get("Content-Type"); t != "" {
		if _, _, err := mime.ParseMediaType(t); err != nil {
			return fault.Wrap(fault.Invalid, errSession, "the Content-Type is not a media type")
		}
	}
	ctx := c.r.Context()
	u, err := s.receive(c, session, d.Algorithm())
	if err != nil {
		return err
	}
	defer u.Close()
	got, err := u.Digest(ctx)
	if err != nil {
		return err
	}
	if got != d {
		// Nothing can be added that would make it right.
		lost := s.lostTail(c, session, u.Size())
		u.Cancel(ctx)
		s.ended.Set(session.id, struct{}{})
		if lost {
			return errUploadUnknown
		}
		return fault.New(fault.Invalid, "the uploaded content's digest is %s, not %s", got, d).On("digest")
	}
	size := u.Size()
	in, span := s.Tracer.Start(ctx, "commit blob")
	key, err := u.Commit(in, d)
	span.End(err)
	if err != nil {
		return err
	}
	s.ended.Set(session.id, struct{}{})
	used, err := s.Artifacts.CommitBlob(ctx, c.name, artifact.Blob{Digest: d, Size: size, Key: key}, true)
	if err != nil || !used {
		// Our bytes have no row: the digest was here before, or the row failed.
		// After an error the row may be there all the same (the answer of a
		// commit can be lost), so only the orphan scan may remove them.
		if err == nil {
			err = s.Blobs.Delete(ctx, key)
		}
		if err != nil {
			return err
		}
	}
	s.created(c, d)
	return nil
}
