package blob

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"berth/services/reference"
)

const (
	// writeSlice is the length of one write(2). ext4 makes a folio of the page
	// cache as large as the write, and a large one may come from memory that a
	// virtual machine has not touched yet, at the price of a fault in the host:
	// with 64 KiB a GiB took 0.3 to 1.7 s of processor time from run to run, with
	// 16 KiB 0.35 to 0.45, with 4 KiB 0.7 (Linux 6.18 in a VM, 2026-11).
	writeSlice = 16 << 10
	// The kernel is told to start writing to the disk after the first
	// minWriteback bytes, then each time that as much again has come, at last
	// every maxWriteback bytes. So the disk works while the rest is received
	// and hashed, and the final fsync finds little left to do; without it a
	// blob of 1 MiB takes 1.6 times as long.
	minWriteback = 512 << 10
	maxWriteback = 8 << 20
	// reserveFrom is the length from which room for a body is reserved in one
	// piece. Below, the extra journal work costs more than it saves.
	reserveFrom = 8 << 20
)

// fileSink is an upload in a file of its own, uploads/<id>. The file comes
// with the first byte; its length is how much has been received.
type fileSink struct {
	store    *Store
	path     string
	f        *os.File // nil until it is needed
	size     int64
	flushed  int64 // up to here the kernel was told to write
	reserved bool
}

func openFileSink(ctx context.Context, s *Store, id uuid.UUID) (*fileSink, int64, error) {
	k := &fileSink{store: s, path: "/" + uploadsTree + "/" + id.String()}
	info, err := s.driver.Stat(ctx, k.path)
	if err != nil && !isNotFound(err) {
		return nil, 0, err
	}
	if err == nil {
		k.size = info.Size()
		k.flushed = k.size
	}
	return k, k.size, nil
}

// open makes the file, or opens it again.
func (k *fileSink) open() (err error) {
	if k.f == nil {
		k.f, err = k.store.files.AppendFile(k.path)
	}
	return err
}

func (k *fileSink) expect(n int64) error {
	if n < reserveFrom {
		return nil
	}
	if err := k.open(); err != nil {
		return err
	}
	// KEEP_SIZE, since the file's length is what the session has received.
	err := unix.Fallocate(int(k.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, k.size, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // it would only have helped
	}
	k.reserved = err == nil
	return err
}

func (k *fileSink) write(p []byte) error {
	if err := k.open(); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := k.f.WriteAt(p[:min(len(p), writeSlice)], k.size)
		k.size += int64(n)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	if k.size-k.flushed >= min(max(k.flushed, minWriteback), maxWriteback) {
		// Only a hint: fsync is what counts, and tells of errors.
		_ = unix.SyncFileRange(int(k.f.Fd()), k.flushed, k.size-k.flushed, unix.SYNC_FILE_RANGE_WRITE)
		k.flushed = k.size
	}
	return nil
}

func (k *fileSink) reread(context.Context) (io.ReadCloser, error) {
	if err := k.open(); err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(k.f, 0, k.size)), nil
}

func (k *fileSink) publish(_ context.Context, d reference.Digest) (string, error) {
	if err := k.open(); err != nil {
		return "", err
	}
	k.giveBack()
	key := fileKey(d)
	err := k.store.files.Publish(k.f, k.path, "/"+key)
	if cerr := k.f.Close(); err == nil {
		err = cerr
	}
	k.f = nil
	return key, err
}

// giveBack returns what was reserved and not used: cutting a file to the
// length that it has frees the blocks behind its end.
func (k *fileSink) giveBack() {
	if k.reserved {
		_ = k.f.Truncate(k.size)
		k.reserved = false
	}
}

func (k *fileSink) keep() error {
	if k.f == nil {
		return nil
	}
	k.giveBack()
	err := k.f.Close()
	k.f = nil
	return err
}

func (k *fileSink) discard(ctx context.Context) error {
	if k.f != nil {
		k.f.Close()
		k.f = nil
	}
	err := k.store.driver.Delete(ctx, k.path)
	if isNotFound(err) {
		return nil
	}
	return err
}
