package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"golang.org/x/sys/unix"

	"berth/appliance/durable"
)

const (
	localName = "berth-local"
	// The umask decides whether the group may write, too.
	dirMode  = 0o770
	fileMode = 0o660
)

// Local is a storage driver over one directory. It is distribution's
// StorageDriver, with what a file system can do beyond it (see [Files]).
//
// Unlike upstream's filesystem driver it writes without a buffer of its own,
// makes names durable as well as bytes, and hands out files, so that the
// kernel can send them (sendfile).
//
// Paths are checked by their text. Symbolic links are followed, since imported
// trees are such links; clients can make none.
type Local struct{ root string }

var (
	_ storagedriver.StorageDriver = (*Local)(nil)
	_ Files                       = (*Local)(nil)
)

// NewLocal opens the driver on a directory, which is made if it is missing.
func NewLocal(dir string) (*Local, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot use the blob directory: %w", err)
	}
	if err := makeDirs(root); err != nil {
		return nil, fmt.Errorf("cannot make the blob directory: %w", err)
	}
	return &Local{root}, nil
}

// Name tells this driver's errors from others'.
func (l *Local) Name() string { return localName }

// resolve gives the file name of a path.
func (l *Local) resolve(path string) (string, error) {
	if !validPath(path) {
		return "", storagedriver.InvalidPathError{Path: path, DriverName: localName}
	}
	return l.root + path, nil
}

// resolveDir is resolve for what may be the root.
func (l *Local) resolveDir(path string) (string, error) {
	if path == "/" {
		return l.root, nil
	}
	return l.resolve(path)
}

// missing makes a driver's error of a file system's "no such file".
func missing(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return storagedriver.PathNotFoundError{Path: path, DriverName: localName}
	}
	return err
}

// GetContent reads a small file.
func (l *Local) GetContent(_ context.Context, path string) ([]byte, error) {
	name, err := l.resolve(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(name)
	return b, missing(err, path)
}

// PutContent replaces a small file, durably and at once.
func (l *Local) PutContent(_ context.Context, path string, content []byte) error {
	name, err := l.resolve(path)
	if err != nil {
		return err
	}
	if err := makeDirs(filepath.Dir(name)); err != nil {
		return err
	}
	return durable.WriteFile(name, content, fileMode)
}

// Reader opens a file at an offset.
func (l *Local) Reader(_ context.Context, path string, offset int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, storagedriver.InvalidOffsetError{Path: path, Offset: offset, DriverName: localName}
	}
	f, err := l.OpenFile(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenFile opens a file for reading.
func (l *Local) OpenFile(path string) (*os.File, error) {
	name, err := l.resolve(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, missing(err, path)
	}
	return f, nil
}

// AppendFile opens a file for reading and writing, and makes it and its
// directory if they are missing. Nothing of that is durable before Publish.
func (l *Local) AppendFile(path string) (*os.File, error) {
	name, err := l.resolve(path)
	if err != nil {
		return nil, err
	}
	const flags = os.O_RDWR | os.O_CREATE
	f, err := os.OpenFile(name, flags, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDirs(filepath.Dir(name)); err == nil {
			f, err = os.OpenFile(name, flags, fileMode)
		}
	}
	return f, err
}

// Publish gives the open file f, so far named from, the name to, and makes
// bytes and name durable:
//
//	rename(from, to), fsync(f), open(dir), fsync(dir)
//
// The rename comes first: ext4 then commits it in the same journal transaction
// as the file's own metadata, and the directory's fsync finds nothing left to
// do; the usual order costs a second commit. A crash in between may leave the
// new name with too few bytes. That is safe here and only here: nobody looks
// under a key before its row is in the database, and a name without a row is
// garbage that the orphan scan removes.
//
// After an error f is gone, under both names, and must not be synced again:
// the kernel drops the pages that it could not write, so a second fsync would
// succeed on bytes that are lost.
func (l *Local) Publish(f *os.File, from, to string) error {
	oldName, err := l.resolve(from)
	if err != nil {
		return err
	}
	newName, err := l.resolve(to)
	if err != nil {
		return err
	}
	if err := rename(oldName, newName); err != nil {
		os.Remove(oldName)
		return err
	}
	err = f.Sync()
	if err == nil {
		err = durable.SyncDir(filepath.Dir(newName))
	}
	if err != nil {
		os.Remove(newName)
	}
	return err
}

// rename makes the target's directory if that is what is missing.
func rename(oldName, newName string) error {
	err := os.Rename(oldName, newName)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(oldName); serr != nil {
			return err
		}
		if err = makeDirs(filepath.Dir(newName)); err == nil {
			err = os.Rename(oldName, newName)
		}
	}
	return err
}

// Stat describes a file or a directory.
func (l *Local) Stat(_ context.Context, path string) (storagedriver.FileInfo, error) {
	name, err := l.resolveDir(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, missing(err, path)
	}
	return describe(path, info), nil
}

func describe(path string, info fs.FileInfo) storagedriver.FileInfo {
	fields := storagedriver.FileInfoFields{Path: path, ModTime: info.ModTime(), IsDir: info.IsDir()}
	if !fields.IsDir {
		fields.Size = info.Size()
	}
	return storagedriver.FileInfoInternal{FileInfoFields: fields}
}

// List gives the paths of a directory's entries.
func (l *Local) List(_ context.Context, path string) ([]string, error) {
	name, err := l.resolveDir(path)
	if err != nil {
		return nil, err
	}
	d, err := os.Open(name)
	if err != nil {
		return nil, missing(err, path)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, missing(err, path)
	}
	slices.Sort(names)
	prefix := path + "/"
	if path == "/" {
		prefix = path
	}
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names, nil
}

// Move renames a file or a directory, durably. What was at the target is gone.
func (l *Local) Move(_ context.Context, from, to string) error {
	oldName, err := l.resolve(from)
	if err != nil {
		return err
	}
	newName, err := l.resolve(to)
	if err != nil {
		return err
	}
	if err := rename(oldName, newName); err != nil {
		return missing(err, from)
	}
	if err := durable.SyncDir(filepath.Dir(newName)); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(oldName))
}

// Delete removes a file, or a directory with all that it holds. It is not
// made durable: a name that comes back after a power cut is an orphan again.
func (l *Local) Delete(_ context.Context, path string) error {
	name, err := l.resolve(path)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(name); err != nil {
		return missing(err, path)
	}
	return os.RemoveAll(name)
}

// RedirectURL is always empty: files are sent from here.
func (l *Local) RedirectURL(*http.Request, string) (string, error) { return "", nil }

// Walk visits what lies below a path, in the order of names.
func (l *Local) Walk(ctx context.Context, path string, visit storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	return storagedriver.WalkFallback(ctx, l, path, visit, options...)
}

// Free gives the room on the file system, as an unprivileged user has it.
func (l *Local) Free() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(l.root, &st); err != nil {
		return 0, 0, fmt.Errorf("cannot measure the blob directory: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// Link makes a durable symbolic link at path to the directory target.
func (l *Local) Link(path, target string) error {
	name, err := l.resolve(path)
	if err != nil {
		return err
	}
	if err := makeDirs(filepath.Dir(name)); err != nil {
		return err
	}
	if old, err := os.Readlink(name); err == nil && old == target {
		return nil
	}
	if err := os.Symlink(target, name); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(name))
}

// makeDirs makes a directory and those above it, durably. One that exists
// costs a single system call.
func makeDirs(dir string) error {
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDirs(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, dirMode)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// fanOut makes dir and its 256 directories 00 to ff, durably. Each one that is
// new is synced, since an empty directory has a block of its own; only the
// first of those syncs does any work, they all share a journal transaction.
func (l *Local) fanOut(path string) error {
	dir := l.root + path
	if err := makeDirs(dir); err != nil {
		return err
	}
	made := false
	for i := range 256 {
		sub := fmt.Sprintf("%s/%02x", dir, i)
		err := os.Mkdir(sub, dirMode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = durable.SyncDir(sub)
		}
		if err != nil {
			return fmt.Errorf("cannot prepare the blob directory: %w", err)
		}
		made = true
	}
	if !made {
		return nil
	}
	return durable.SyncDir(dir)
}

// eachBlob visits the blobs, and those of imported trees. It reads directories
// as they lie instead of sorting them, and follows the links of imports.
func (l *Local) eachBlob(ctx context.Context, visit func(key string, size int64, modified time.Time) error) error {
	walk := func(dir, key string, wanted func(string) bool) error {
		return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			if err == nil {
				err = ctx.Err()
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			sub := key + strings.TrimPrefix(name, dir)
			if err != nil || !entry.Type().IsRegular() || !wanted(sub) {
				return err
			}
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			return visit(sub, info.Size(), info.ModTime())
		})
	}
	if err := walk(l.root+"/"+blobsTree, blobsTree, func(string) bool { return true }); err != nil {
		return err
	}
	trees, err := os.ReadDir(l.root + "/" + importedTree)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, tree := range trees {
		key := importedTree + "/" + tree.Name()
		target, err := filepath.EvalSymlinks(l.root + "/" + key)
		if err != nil {
			return fmt.Errorf("cannot follow the imported tree %s: %w", tree.Name(), err)
		}
		if err := walk(target, key, importedBlob); err != nil {
			return err
		}
	}
	return nil
}
