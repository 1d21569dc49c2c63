// Package blob keeps the bytes of blobs: layers, configurations, anything that
// is pushed by digest. Which blobs there are, and who may read them, is the
// database's business; a [Store] only knows bytes under keys.
//
// A key is unique and never used again, even for the same content. So nothing
// is ever overwritten, a commit copies nothing, the garbage collector may
// delete a key without a lock, and a push that races with a deletion simply
// makes another key. Bytes that no row of the database names are garbage: the
// orphan scan ([Store.Keys]) finds them.
//
//	blobs/sha256/ab/<hex>.<nonce>   a blob in files
//	blobs/ab/<uuid>                 a blob in an object store
//	imported/<name>/...             a tree of CNCF distribution or Harbor, used where it lies
//	uploads/<uuid>                  an upload in files, not yet committed
//
// Bytes come in through an [Upload]: opened or resumed by its id for the time
// of one request, appended to, and committed when its digest is right. After
// Commit they are durable; before it, losing them costs the client a restart.
//
// Storage is a distribution StorageDriver: [Local] for a directory,
// distribution's own for S3. What only files can do (sendfile, rename) is
// found by type assertion: see [Files].
package blob

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/reference"
)

// Files is what a storage driver can do beyond distribution's interface when
// its objects are files of this machine. A driver without it is an object
// store: uploads are written under their final key, and nothing is renamed.
type Files interface {
	OpenFile(path string) (*os.File, error)
	AppendFile(path string) (*os.File, error)
	Publish(f *os.File, from, to string) error
	Link(path, target string) error
	Free() (free, total int64, err error)
}

// Store keeps blobs through a storage driver. It is safe for concurrent use.
type Store struct {
	driver   storagedriver.StorageDriver
	files    Files // nil for an object store
	redirect bool
	abandon  func(ctx context.Context, olderThan time.Duration) (int, error) // ends uploads that the object store still holds; may be nil
	uploads  sessions
	buffers  buffers
}

// New makes a store over a driver.
func New(driver storagedriver.StorageDriver) *Store {
	s := &Store{driver: driver}
	s.files, _ = driver.(Files)
	s.uploads.init()
	return s
}

// OpenLocal makes a store over a directory, with the 256 directories for each
// algorithm that its blobs will be spread over, so that no push ever waits for
// a mkdir.
func OpenLocal(dir string) (*Store, error) {
	l, err := NewLocal(dir)
	if err != nil {
		return nil, err
	}
	for _, a := range []reference.Algorithm{reference.SHA256, reference.SHA512} {
		if err := l.fanOut("/" + blobsTree + "/" + a.String()); err != nil {
			return nil, err
		}
	}
	for _, tree := range []string{uploadsTree, importedTree} {
		if err := makeDirs(l.root + "/" + tree); err != nil {
			return nil, err
		}
	}
	return New(l), nil
}

// File is a blob opened for reading, fit for http.ServeContent.
type File interface {
	io.ReadSeekCloser
	Size() int64
}

// localFile is an *os.File that knows its size. Embedding keeps SyscallConn,
// by which net finds that it may use sendfile.
type localFile struct {
	*os.File
	size int64
}

func (f localFile) Size() int64 { return f.size }

// Open opens a blob. From files it is an *os.File underneath, which
// http.ServeContent sends without a copy; from an object store it reads lazily
// from where it was last set to, so that ranges fetch only themselves. ctx
// bounds the reading. A missing blob is fault.NotFound.
func (s *Store) Open(ctx context.Context, key string) (File, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	if s.files == nil {
		return s.openObject(ctx, key)
	}
	f, size, err := s.openFile(key)
	if err != nil {
		return nil, err
	}
	return localFile{f, size}, nil
}

// OpenFile opens a blob that is a file of this machine. On an object store it
// is fault.Unsupported.
func (s *Store) OpenFile(key string) (*os.File, error) {
	if s.files == nil {
		return nil, fault.New(fault.Unsupported, "the blobs of this server are not files")
	}
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	f, _, err := s.openFile(key)
	return f, err
}

func (s *Store) openFile(key string) (*os.File, int64, error) {
	f, err := s.files.OpenFile("/" + key)
	if err != nil {
		return nil, 0, s.failure(err, "open a blob")
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = storagedriver.PathNotFoundError{Path: key, DriverName: s.driver.Name()}
	}
	if err != nil {
		f.Close()
		return nil, 0, s.failure(err, "open a blob")
	}
	return f, info.Size(), nil
}

// Info describes stored bytes.
type Info struct {
	Size     int64
	Modified time.Time
}

// Stat describes a blob. A missing one is fault.NotFound.
func (s *Store) Stat(ctx context.Context, key string) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, err
	}
	info, err := s.driver.Stat(ctx, "/"+key)
	if err == nil && info.IsDir() {
		err = storagedriver.PathNotFoundError{Path: key, DriverName: s.driver.Name()}
	}
	if err != nil {
		return Info{}, s.failure(err, "look at a blob")
	}
	return Info{info.Size(), info.ModTime()}, nil
}

// Delete removes a blob. One that is gone already is no error.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	err := s.driver.Delete(ctx, "/"+key)
	if isNotFound(err) {
		return nil
	}
	return s.failure(err, "delete a blob")
}

// RedirectURL gives the address where the client of r may fetch a blob itself.
// It is empty when the bytes are to be sent from here.
func (s *Store) RedirectURL(r *http.Request, key string) (string, error) {
	if !s.redirect {
		return "", nil
	}
	if err := CheckKey(key); err != nil {
		return "", err
	}
	url, err := s.driver.RedirectURL(r, "/"+key)
	return url, s.failure(err, "sign an address")
}

// Keys visits every key under which there are bytes, those of imported trees
// included, in no particular order, until visit returns an error. A key that
// comes or goes meanwhile may be visited or not.
func (s *Store) Keys(ctx context.Context, visit func(key string, size int64, modified time.Time) error) error {
	if l, ok := s.driver.(*Local); ok {
		return s.failure(l.eachBlob(ctx, visit), "list its blobs")
	}
	for _, tree := range []string{blobsTree, importedTree} {
		err := s.driver.Walk(ctx, "/"+tree, func(info storagedriver.FileInfo) error {
			key := strings.TrimPrefix(info.Path(), "/")
			if info.IsDir() || tree == importedTree && !importedBlob(key) {
				return nil
			}
			return visit(key, info.Size(), info.ModTime())
		})
		if err != nil && !isNotFound(err) {
			return s.failure(err, "list its blobs")
		}
	}
	return nil
}

// LinkTree makes the directory dir readable under the key prefix that it
// returns, "imported/<name>/", durably. Doing it again is no error, doing it
// with another directory under the same name is a fault.Conflict.
func (s *Store) LinkTree(name, dir string) (prefix string, err error) {
	if s.files == nil {
		return "", fault.New(fault.Unsupported, "a tree can be imported in place only into blob storage on files")
	}
	prefix = importedTree + "/" + name + "/"
	if strings.Contains(name, "/") || !validPath("/"+name) {
		return "", fault.New(fault.Invalid, "the name of an imported tree has letters, digits, '.', '_' and '-' only").On("name")
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || !strings.HasPrefix(dir, "/") {
		return "", fault.Wrap(fault.Invalid, err, "%s is not a directory", dir).On("dir").
			WithHint("give the absolute path of the storage's root directory")
	}
	err = s.files.Link("/"+importedTree+"/"+name, dir)
	if os.IsExist(err) {
		return "", fault.Wrap(fault.Conflict, err, "another tree is imported as %s", name).WithHint("choose another name")
	}
	return prefix, s.failure(err, "link a tree")
}

// Shared reports whether other processes on the same storage can go on with an
// upload that this one began.
func (s *Store) Shared() bool { return s.files == nil }

// Free gives the room that is left and the room that there is, in bytes; -1
// and -1 where nobody knows, as with an object store.
func (s *Store) Free(context.Context) (free, total int64, err error) {
	if s.files == nil {
		return -1, -1, nil
	}
	free, total, err = s.files.Free()
	return free, total, s.failure(err, "be measured")
}

// Close keeps what unfinished uploads still have in memory, so that another
// process can resume them. The store is not to be used afterwards.
func (s *Store) Close() error {
	var first error
	for _, id := range s.uploads.idle(0) {
		if err := s.evict(id, (*objectSink).flush); err != nil && first == nil {
			first = err
		}
	}
	return s.failure(first, "keep an upload")
}

// SweepUploads removes the uploads that nobody has touched for so long. It
// gives how many they were.
func (s *Store) SweepUploads(ctx context.Context, olderThan time.Duration) (int, error) {
	n := 0
	for _, id := range s.uploads.idle(olderThan) {
		if err := s.evict(id, func(k *objectSink) error { return k.discard(ctx) }); err != nil {
			return n, s.failure(err, "remove an upload")
		}
		n++
	}
	more, err := s.sweepStored(ctx, olderThan)
	return n + more, s.failure(err, "remove an upload")
}

// sweepStored removes uploads that are in the storage but not in memory.
func (s *Store) sweepStored(ctx context.Context, olderThan time.Duration) (n int, err error) {
	if s.files == nil {
		if s.abandon == nil {
			return 0, nil
		}
		return s.abandon(ctx, olderThan)
	}
	paths, err := s.driver.List(ctx, "/"+uploadsTree)
	if err != nil {
		if isNotFound(err) {
			return 0, nil
		}
		return 0, err
	}
	for _, path := range paths {
		info, err := s.driver.Stat(ctx, path)
		if err != nil || time.Since(info.ModTime()) < olderThan {
			continue // gone meanwhile, or in use
		}
		id, err := uuid.Parse(strings.TrimPrefix(path, "/"+uploadsTree+"/"))
		if err != nil || !s.uploads.claim(id, nil) {
			continue
		}
		err = s.driver.Delete(ctx, path)
		s.uploads.release(id)
		if err != nil && !isNotFound(err) {
			return n, err
		}
		n++
	}
	return n, nil
}
