package blob

import (
	"bytes"
	"context"
	"errors"
	"io"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/reference"
)

// singlePut is up to which size an object goes up in one request; a multipart
// upload takes at least three.
const singlePut = 1 << 20

// objectSink is an upload straight to the key that the blob will have in an
// object store. Between two requests it stays in memory (see sessions.park):
// closing a multipart upload leaves a part that is too small to be followed by
// another one, and going on then costs the store a copy of all before it.
type objectSink struct {
	driver storagedriver.StorageDriver
	path   string
	head   bytes.Buffer             // all bytes, while there are few
	w      storagedriver.FileWriter // nil while head is enough
	size   int64
	whole  bool // the object is complete under its key
}

// openObjectSink finds out what the store has of a session that is not in this
// process: nothing, or what another node has flushed.
func openObjectSink(ctx context.Context, d storagedriver.StorageDriver, id uuid.UUID, fresh bool) (*objectSink, int64, error) {
	k := &objectSink{driver: d, path: "/" + objectKey(id)}
	if fresh {
		return k, 0, nil
	}
	// A writer keeps the context that it was opened with for all that it does.
	w, err := d.Writer(context.WithoutCancel(ctx), k.path, true)
	if isNotFound(err) {
		return k, 0, nil
	}
	if err != nil {
		if _, serr := d.Stat(ctx, k.path); serr == nil {
			return nil, 0, fault.Wrap(fault.NotFound, err, "this upload is complete").WithHint("start a new one")
		}
		return nil, 0, err
	}
	if k.size = w.Size(); k.size > 0 {
		k.w = w
		return k, k.size, nil
	}
	// Begun without a byte: begin anew. Close only gives a buffer back.
	err = w.Cancel(ctx)
	_ = w.Close()
	return k, 0, err
}

func (k *objectSink) expect(int64) error { return nil }

func (k *objectSink) write(p []byte) error {
	if k.whole {
		return fault.New(fault.Conflict, "this upload is complete")
	}
	if k.w == nil && k.head.Len()+len(p) <= singlePut {
		k.head.Write(p)
		k.size += int64(len(p))
		return nil
	}
	if err := k.begin(); err != nil {
		return err
	}
	_, err := k.w.Write(p)
	k.size += int64(len(p))
	return err
}

// begin goes over to a multipart upload.
func (k *objectSink) begin() (err error) {
	if k.w != nil {
		return nil
	}
	// The upload outlives the request that has begun it.
	if k.w, err = k.driver.Writer(context.Background(), k.path, false); err != nil {
		return err
	}
	_, err = k.w.Write(k.head.Bytes())
	k.head = bytes.Buffer{}
	return err
}

// complete makes the object readable under its key. It is in no row yet, so
// that nobody sees it.
func (k *objectSink) complete(ctx context.Context) error {
	if k.whole {
		return nil
	}
	if k.w == nil {
		if err := k.driver.PutContent(ctx, k.path, k.head.Bytes()); err != nil {
			return err
		}
		k.whole = true
		return nil
	}
	if err := k.w.Commit(ctx); err != nil {
		return err
	}
	k.whole = true
	return k.w.Close()
}

// reread has to complete the object first: a store gives nothing back of an
// upload that is under way.
func (k *objectSink) reread(ctx context.Context) (io.ReadCloser, error) {
	if !k.whole && k.w == nil {
		return io.NopCloser(bytes.NewReader(k.head.Bytes())), nil
	}
	if err := k.complete(ctx); err != nil {
		return nil, err
	}
	return k.driver.Reader(ctx, k.path, 0)
}

func (k *objectSink) publish(ctx context.Context, _ reference.Digest) (string, error) {
	if err := k.complete(ctx); err != nil {
		_ = k.discard(context.WithoutCancel(ctx)) // the first error is the one to tell
		return "", err
	}
	return k.path[1:], nil
}

// keep leaves all as it is. An object that was completed to be read back, and
// did not have the right digest, cannot be continued and goes.
func (k *objectSink) keep() error {
	if k.whole {
		k.size = 0
		return k.discard(context.Background())
	}
	return nil
}

// flush brings what is in memory to the store, for another process to resume.
func (k *objectSink) flush() error {
	if err := k.begin(); err != nil {
		return err
	}
	return k.w.Close()
}

func (k *objectSink) discard(ctx context.Context) error {
	k.head = bytes.Buffer{}
	if k.whole {
		err := k.driver.Delete(ctx, k.path)
		if isNotFound(err) {
			return nil
		}
		return err
	}
	if k.w == nil {
		return nil
	}
	// Cancel first: closing would send what is left in the buffer.
	return k.w.Cancel(ctx)
}

// openObject opens a blob of an object store.
func (s *Store) openObject(ctx context.Context, key string) (File, error) {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	return &objectFile{ctx: ctx, store: s, path: "/" + key, size: info.Size}, nil
}

// objectFile reads an object. Nothing is fetched before the first Read, which
// then starts at the offset that was sought, so that a range costs only itself.
type objectFile struct {
	ctx    context.Context
	store  *Store
	path   string
	size   int64
	offset int64
	body   io.ReadCloser // at offset; nil if there is none open
}

func (f *objectFile) Size() int64 { return f.size }

func (f *objectFile) Read(p []byte) (int, error) {
	if f.offset >= f.size {
		return 0, io.EOF
	}
	if f.body == nil {
		body, err := f.store.driver.Reader(f.ctx, f.path, f.offset)
		if err != nil {
			return 0, f.store.failure(err, "read a blob")
		}
		f.body = body
	}
	n, err := f.body.Read(p)
	f.offset += int64(n)
	if err == io.EOF && f.offset < f.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (f *objectFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, errors.New("cannot seek before the start of a blob")
	}
	if offset != f.offset {
		f.offset = offset
		return offset, f.Close()
	}
	return offset, nil
}

// Close may be called any number of times; a Read after it opens again.
func (f *objectFile) Close() error {
	if f.body == nil {
		return nil
	}
	err := f.body.Close()
	f.body = nil
	return err
}
