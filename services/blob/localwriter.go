package blob

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"berth/appliance/durable"
)

// Writer opens a file for a stream of bytes. They are under the file's own
// name at once; Commit makes them durable. (Store's uploads do not come this
// way: see fileSink.)
func (l *Local) Writer(_ context.Context, path string, appendMode bool) (storagedriver.FileWriter, error) {
	f, err := l.AppendFile(path)
	if err != nil {
		return nil, err
	}
	w := &localWriter{f: f}
	if appendMode {
		w.size, err = f.Seek(0, io.SeekEnd)
	} else {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return w, nil
}

// localWriter is a file that a caller of the driver writes.
type localWriter struct {
	f                            *os.File
	size                         int64
	closed, committed, cancelled bool
}

var (
	errClosed    = errors.New("the writer is closed")
	errCommitted = errors.New("the writer is committed")
	errCancelled = errors.New("the writer is cancelled")
)

func (w *localWriter) usable() error {
	switch {
	case w.cancelled:
		return errCancelled
	case w.closed:
		return errClosed
	case w.committed:
		return errCommitted
	}
	return nil
}

func (w *localWriter) Write(p []byte) (int, error) {
	if err := w.usable(); err != nil {
		return 0, err
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	return n, err
}

func (w *localWriter) Size() int64 { return w.size }

func (w *localWriter) Commit(context.Context) error {
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	w.committed = true
	return durable.SyncDir(filepath.Dir(w.f.Name()))
}

func (w *localWriter) Cancel(context.Context) error {
	if err := w.usable(); err != nil {
		return err
	}
	w.cancelled = true
	return os.Remove(w.f.Name())
}

func (w *localWriter) Close() error {
	if w.closed {
		return errClosed
	}
	w.closed = true
	return w.f.Close()
}
