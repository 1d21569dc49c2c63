package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/sys/unix"
)

// pieceGrains is how many grains a worker takes at once: 1 MiB.
const pieceGrains = 16

// piece is some grains on their way from the disk to the file. It is used again.
type piece struct {
	first   int64 // its first grain
	n       int   // how many
	raw     [pieceGrains * grainBytes]byte
	packed  bytes.Buffer // markers and grains, each padded to whole sectors
	lengths []int        // of each grain in packed; 0: all zeros
	err     error
	done    chan struct{}
}

func (o Options) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return runtime.GOMAXPROCS(0)
}

func newDeflater(level int) (*zlib.Writer, error) {
	if level == 0 {
		level = 6
	}
	return zlib.NewWriterLevel(io.Discard, level)
}

var zeros [grainBytes]byte

func (p *piece) compress(raw io.ReaderAt, size int64, z *zlib.Writer) error {
	p.packed.Reset()
	p.lengths = p.lengths[:0]
	at := p.first * grainBytes
	want := int(min(int64(p.n*grainBytes), size-at))
	if n, err := raw.ReadAt(p.raw[:want], at); n < want {
		return fmt.Errorf("cannot read the disk at byte %d: %w", at+int64(n), err)
	}
	clear(p.raw[want:]) // the last grain is a whole one, too
	for i := range p.n {
		grain := p.raw[i*grainBytes : (i+1)*grainBytes]
		if bytes.Equal(grain, zeros[:]) {
			p.lengths = append(p.lengths, 0)
			continue
		}
		start := p.packed.Len()
		p.packed.Write(zeros[:12]) // the marker, when the length is known
		z.Reset(&p.packed)
		if _, err := z.Write(grain); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		m := p.packed.Bytes()[start:]
		binary.LittleEndian.PutUint64(m, uint64(p.first+int64(i))*grainSectors)
		binary.LittleEndian.PutUint32(m[8:], uint32(len(m)-12))
		if over := len(m) % sector; over != 0 {
			p.packed.Write(zeros[:sector-over])
		}
		p.lengths = append(p.lengths, p.packed.Len()-start)
	}
	return nil
}

// cut makes pieces of the bytes from..to, and queues them for the workers and, in
// their order, for the file.
func cut(ctx context.Context, from, to int64, free <-chan *piece, todo, ordered chan<- *piece) error {
	last := (to + grainBytes - 1) / grainBytes
	for g := from / grainBytes; g < last; g += pieceGrains {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-free:
			p.first, p.n = g, int(min(last-g, pieceGrains))
			todo <- p
			ordered <- p
		}
	}
	return nil
}

// Sparse is a disk that knows where it has data; *os.File needs no such method.
type Sparse interface {
	io.ReaderAt
	// NextData gives the first range of bytes at or after a place that has data; from
	// is negative if there is none.
	NextData(at int64) (from, to int64, err error)
}

// Blank is a disk of zeros that begins with some bytes, of any size.
func Blank(begin []byte) Sparse { return blank(begin) }

type blank []byte

func (d blank) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(d)) {
		copy(b, d[at:])
	}
	return len(b), nil
}

func (d blank) NextData(at int64) (int64, int64, error) {
	if at >= int64(len(d)) {
		return -1, 0, nil
	}
	return at, int64(len(d)), nil
}

// onDisk is a file whose file system knows its holes.
type onDisk struct{ *os.File }

func (f onDisk) NextData(at int64) (int64, int64, error) {
	from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return -1, 0, nil
	}
	if err != nil {
		return at, 1 << 62, nil // not a file system that knows
	}
	to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("cannot find the holes of %s: %w", f.Name(), err)
	}
	return from, to, nil
}

// extents calls f with the ranges of bytes that hold data, in whole grains, in
// order and without overlaps. What cannot tell its holes is one range.
func extents(raw io.ReaderAt, size int64, f func(from, to int64) error) error {
	disk, ok := raw.(Sparse)
	if file, isFile := raw.(*os.File); isFile {
		disk, ok = onDisk{file}, true
	}
	if !ok {
		return f(0, size)
	}
	for at := int64(0); at < size; {
		from, to, err := disk.NextData(at)
		if err != nil || from < 0 {
			return err
		}
		if from < at || to <= from {
			return fmt.Errorf("a disk with data from %d to %d, asked at %d", from, to, at)
		}
		from = max(at, from/grainBytes*grainBytes)
		to = min(to, size)
		to = min((to+grainBytes-1)/grainBytes*grainBytes, size)
		if from < to {
			if err := f(from, to); err != nil {
				return err
			}
		}
		at = max(to, from)
	}
	return nil
}
