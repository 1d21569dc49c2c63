package blob

import (
	"context"
	"hash"
	"io"
	"sync/atomic"

	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/reference"
)

// Upload is one request's hold on an upload session. It is for one goroutine,
// and ends with Commit, Cancel or Close.
type Upload struct {
	store     *Store
	id        uuid.UUID
	algorithm reference.Algorithm
	sink      sink
	size      atomic.Int64 // read by Received, from other goroutines
	hash      hash.Hash    // of the first size bytes; nil if it was lost
	ended     bool
}

// sink is where a session's bytes go.
type sink interface {
	// write appends p. After an error the sink is good for discard only.
	write(p []byte) error
	// expect tells that n more bytes are to come, so that a store without
	// room for them can say so before they have crossed the network.
	expect(n int64) error
	// reread gives all bytes from the first on.
	reread(ctx context.Context) (io.ReadCloser, error)
	// publish makes the bytes durable under a key. After an error there is
	// nothing left of them.
	publish(ctx context.Context, d reference.Digest) (key string, err error)
	// keep ends the request, not the session.
	keep() error
	// discard removes all of it.
	discard(ctx context.Context) error
}

// Resume is an option of [Store.Upload].
type Resume func(*resume)

type resume struct {
	fresh  bool
	offset int64
	hash   []byte
}

// Fresh promises that the session has never received a byte, on any node. It
// saves asking an object store.
func Fresh() Resume { return func(r *resume) { r.fresh = true } }

// From hands in what [Upload.State] gave at the end of the last request,
// perhaps on another node. It is used if it fits what is stored.
func From(offset int64, hash []byte) Resume {
	return func(r *resume) { r.offset, r.hash = offset, hash }
}

// Upload opens the session of that id, or resumes it. There is nothing to
// create first: a session that nobody has written to has size 0 and costs
// nothing. While one request holds a session, another one gets a
// fault.Conflict at once.
func (s *Store) Upload(ctx context.Context, id uuid.UUID, a reference.Algorithm, options ...Resume) (*Upload, error) {
	var r resume
	for _, o := range options {
		o(&r)
	}
	u := &Upload{store: s, id: id, algorithm: a}
	if !s.uploads.claim(id, u) {
		return nil, fault.New(fault.Conflict, "another request is writing to this upload").
			WithHint("wait until it has ended, then ask for the upload's state")
	}
	size, err := s.openSink(ctx, u, r.fresh)
	if err != nil {
		s.uploads.release(id)
		return nil, s.failure(err, "resume an upload")
	}
	u.size.Store(size)
	offset, frozen := s.uploads.recall(id)
	switch {
	case size == 0:
		u.hash = a.New()
	case offset == size:
		u.hash = thaw(a, frozen)
	}
	if u.hash == nil && r.offset == size {
		u.hash = thaw(a, r.hash)
	}
	return u, nil
}

// openSink finds the session's bytes, and how many there are.
func (s *Store) openSink(ctx context.Context, u *Upload, fresh bool) (size int64, err error) {
	if k, ok := s.uploads.unpark(u.id); ok {
		u.sink = k
		return k.size, nil
	}
	if s.files != nil {
		u.sink, size, err = openFileSink(ctx, s, u.id)
	} else {
		u.sink, size, err = openObjectSink(ctx, s.driver, u.id, fresh)
	}
	return size, err
}

// Received gives how many bytes a session has, even while a request is writing
// to it.
func (s *Store) Received(ctx context.Context, id uuid.UUID) (int64, error) {
	if u := s.uploads.writer(id); u != nil {
		return u.Size(), nil
	}
	u, err := s.Upload(ctx, id, reference.SHA256)
	if err != nil {
		return 0, err
	}
	defer u.Close()
	return u.Size(), nil
}

// Size is how many bytes the session has.
func (u *Upload) Size() int64 { return u.size.Load() }

// State gives the running hash and how far it has come, for [From]. hash is
// nil if it was lost; it will be computed again from the stored bytes.
func (u *Upload) State() (offset int64, hash []byte) { return u.Size(), freeze(u.hash) }

// Append adds what r gives, up to length bytes, or up to its end if length is
// -1. It returns how many bytes were kept. That is as many as came when the
// connection broke, so that the client can resume there; but none of the whole
// session when the storage failed or is full, so that the room is given back.
func (u *Upload) Append(ctx context.Context, r io.Reader, length int64) (int64, error) {
	if u.ended {
		return 0, errEnded()
	}
	if length >= 0 {
		if err := u.sink.expect(length); err != nil {
			return 0, u.fail(ctx, err)
		}
		r = io.LimitReader(r, length)
	}
	before := u.Size()
	rerr, werr := u.receive(ctx, r, length)
	if werr != nil {
		return 0, u.fail(ctx, werr)
	}
	n := u.Size() - before
	if rerr == io.EOF && n < length {
		rerr = io.ErrUnexpectedEOF
	}
	if rerr != io.EOF {
		return n, broken(rerr, n)
	}
	return n, nil
}

// broken tells of a body that did not come to its end.
func broken(err error, n int64) error {
	if _, ok := err.(*fault.Error); ok {
		return err
	}
	return fault.Wrap(fault.Invalid, err, "the upload broke off after %d bytes", n).
		WithHint("ask for the upload's state and resume from there")
}

func errEnded() error { return fault.New(fault.Conflict, "this upload has ended") }

// fail ends the session after its storage has failed: what is there cannot be
// relied on.
func (u *Upload) fail(ctx context.Context, err error) error {
	u.end()
	u.size.Store(0)
	// The first error is the one to tell; what is left over, the sweep finds.
	_ = u.sink.discard(context.WithoutCancel(ctx))
	return u.store.failure(err, "take an upload")
}

// end gives up the hold on the session.
func (u *Upload) end() {
	u.ended = true
	u.store.uploads.release(u.id)
}

// Digest gives the digest of what has come so far. It comes from the running
// hash; only if that was lost, the bytes are read back.
func (u *Upload) Digest(ctx context.Context) (reference.Digest, error) {
	if u.ended {
		return reference.Digest{}, errEnded()
	}
	if u.hash == nil {
		h, err := u.rehash(ctx)
		if err != nil {
			return reference.Digest{}, u.store.failure(err, "read an upload back")
		}
		u.hash = h
	}
	return reference.FromHash(u.algorithm, u.hash), nil
}

func (u *Upload) rehash(ctx context.Context) (hash.Hash, error) {
	r, err := u.sink.reread(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	buf := u.store.buffers.get()
	defer u.store.buffers.put(buf)
	h := u.algorithm.New()
	for {
		n, err := r.Read(buf[:])
		h.Write(buf[:n])
		if err == io.EOF {
			return h, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
	}
}

// Commit makes the bytes durable if d is their digest, and gives the key that
// they have from now on. If d is not, that is a fault.Invalid and the session
// goes on; after any other error nothing is left of it.
func (u *Upload) Commit(ctx context.Context, d reference.Digest) (key string, err error) {
	got, err := u.Digest(ctx)
	if err != nil {
		return "", err
	}
	if got != d {
		return "", fault.New(fault.Invalid, "the content has the digest %s, not %s", got, d).On("digest")
	}
	key, err = u.sink.publish(ctx, d)
	u.end()
	if err != nil {
		u.size.Store(0)
		return "", u.store.failure(err, "commit an upload")
	}
	return key, nil
}

// Close ends the request and keeps the session, to be resumed. After Commit or
// Cancel it does nothing, so it can be deferred.
func (u *Upload) Close() error {
	if u.ended {
		return nil
	}
	defer u.end()
	if err := u.sink.keep(); err != nil {
		return u.store.failure(err, "keep an upload")
	}
	if u.hash != nil && u.Size() > 0 {
		u.store.uploads.remember(u.id, u.Size(), freeze(u.hash))
	}
	if k, ok := u.sink.(*objectSink); ok && k.size > 0 {
		if surplus, over := u.store.uploads.park(u.id, k); over {
			return u.store.failure(u.store.evict(surplus, (*objectSink).flush), "keep an upload")
		}
	}
	return nil
}

// Cancel removes the session with all its bytes.
func (u *Upload) Cancel(ctx context.Context) error {
	if u.ended {
		return nil
	}
	u.end()
	return u.store.failure(u.sink.discard(ctx), "remove an upload")
}
