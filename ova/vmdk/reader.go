package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/sync/errgroup"
)

// Image is an opened VMDK. Its methods may be called from several goroutines.
type Image struct {
	r         io.ReaderAt
	size      int64 // of the file
	h         *header
	directory []uint32
	streamed  bool // the directory is at the end, behind markers
	// Capacity is the disk's, in bytes.
	Capacity int64
	// Hardware, Tools and the like: the description's lines by their keys
	// (ddb.toolsVersion, createType), without quotes.
	Description map[string]string
}

// Open reads the header, the description and the directory of a file of size bytes.
// It takes what VMware's tools, qemu-img and Write make.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	if size < 2*sector {
		return nil, broken("it has %d bytes", size)
	}
	b := make([]byte, sector)
	if err := readAt(r, b, 0); err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	m := &Image{r: r, size: size, h: h, Capacity: int64(h.Capacity) * sector}
	if err := m.describe(); err != nil {
		return nil, err
	}
	if h.DirectoryOffset == atEnd {
		m.streamed = true
		if size%sector != 0 || size < 3*sector {
			return nil, broken("it is cut: %d bytes are no whole sectors", size)
		}
		if err := readAt(r, b, size-2*sector); err != nil {
			return nil, err
		}
		f, err := decodeHeader(b)
		if err != nil {
			return nil, broken("it is cut: there is no footer")
		}
		if f.Capacity != h.Capacity || f.GrainSize != h.GrainSize || f.DirectoryOffset == atEnd {
			return nil, broken("header and footer contradict each other")
		}
		m.h = f
	}
	return m, m.readDirectory()
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		if err == io.EOF {
			return broken("it ends before byte %d", at+int64(len(b)))
		}
		return err
	}
	return nil
}

// inside says whether n sectors from a sector on are in the file.
func (m *Image) inside(at, n uint64) bool {
	all := uint64(m.size+sector-1) / sector
	return n <= all && at <= all-n
}

func (m *Image) describe() error {
	h := m.h
	m.Description = map[string]string{}
	if h.DescriptorOffset == 0 {
		return nil
	}
	if h.DescriptorSize > maxText/sector || !m.inside(h.DescriptorOffset, h.DescriptorSize) {
		return broken("its description is not in it")
	}
	b := make([]byte, h.DescriptorSize*sector)
	if err := readAt(m.r, b, int64(h.DescriptorOffset)*sector); err != nil {
		return err
	}
	text, _, _ := bytes.Cut(b, []byte{0})
	for line := range strings.Lines(string(text)) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(key, "#") {
			m.Description[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return nil
}

func (m *Image) readDirectory() error {
	n := uint64(m.h.tables())
	at := m.h.DirectoryOffset
	if at == 0 || !m.inside(at, (n*4+sector-1)/sector) {
		return broken("its directory of %d tables is not in it", n)
	}
	b := make([]byte, n*4) // no more than the file has
	if err := readAt(m.r, b, int64(at)*sector); err != nil {
		return err
	}
	m.directory = make([]uint32, n)
	var last uint64
	for i := range m.directory {
		t := binary.LittleEndian.Uint32(b[i*4:])
		if t == 0 {
			continue
		}
		// Tables in ascending order: none is read twice, so the work is bounded by the file.
		if uint64(t) < last || !m.inside(uint64(t), tableSectors) {
			return broken("table %d is not where the directory says", i)
		}
		m.directory[i], last = t, uint64(t)+tableSectors
	}
	return nil
}

// Extract writes the disk to w, which must read as zeros: an empty file. Grains of
// zeros are left out, so the file is sparse; if w can be truncated it gets the
// disk's size. It gives the number of bytes that were written.
func (m *Image) Extract(ctx context.Context, w io.WriterAt) (int64, error) {
	if f, ok := w.(interface{ Truncate(int64) error }); ok {
		if err := f.Truncate(m.Capacity); err != nil {
			return 0, err
		}
	}
	var written atomic.Int64
	err := m.each(ctx, func(grain int64, b []byte) error {
		at := grain * int64(m.h.GrainSize) * sector
		b = b[:min(int64(len(b)), m.Capacity-at)]
		n, err := w.WriteAt(b, at)
		written.Add(int64(n))
		return err
	})
	return written.Load(), err
}

// Check reads and inflates every grain, and compares the tables with the stream, as
// vSphere reads it. It gives the number of grains.
func (m *Image) Check(ctx context.Context) (grains int64, err error) {
	var count atomic.Int64
	if err := m.each(ctx, func(int64, []byte) error { count.Add(1); return nil }); err != nil {
		return 0, err
	}
	if m.streamed {
		if err := m.walk(ctx, count.Load()); err != nil {
			return 0, err
		}
	}
	return count.Load(), nil
}

// each calls f with every grain that is in the file, from several goroutines.
func (m *Image) each(ctx context.Context, f func(grain int64, b []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	free := make(chan *inflater, runtime.GOMAXPROCS(0))
	for range cap(free) {
		free <- m.newInflater()
	}
	for i, at := range m.directory {
		if at == 0 {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			z := <-free
			defer func() { free <- z }()
			return z.table(ctx, int64(i)*tableGrains, int64(at)*sector, f)
		})
	}
	stopped := ctx.Err() // before Wait, which ends ctx itself
	if err := g.Wait(); err != nil {
		return err
	}
	return stopped
}

// inflater reads grains, with memory of its own.
type inflater struct {
	m      *Image
	packed []byte
	raw    []byte
	src    bytes.Reader
	z      io.ReadCloser
}

func (m *Image) newInflater() *inflater {
	grain := int(m.h.GrainSize) * sector
	return &inflater{m: m, packed: make([]byte, 12+2*grain), raw: make([]byte, grain+1)}
}

func (z *inflater) table(ctx context.Context, first, at int64, f func(int64, []byte) error) error {
	b := make([]byte, tableGrains*4)
	if err := readAt(z.m.r, b, at); err != nil {
		return err
	}
	grains := (int64(z.m.h.Capacity) + int64(z.m.h.GrainSize) - 1) / int64(z.m.h.GrainSize)
	for i := range int64(tableGrains) {
		where := binary.LittleEndian.Uint32(b[i*4:])
		if where <= 1 {
			continue // 0: not there; 1: zeros
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if first+i >= grains {
			return broken("grain %d is behind the disk's end", first+i)
		}
		raw, err := z.grain(first+i, int64(where)*sector)
		if err != nil {
			return err
		}
		if err := f(first+i, raw); err != nil {
			return err
		}
	}
	return nil
}

func (z *inflater) grain(n, at int64) ([]byte, error) {
	if at > z.m.size-12 {
		return nil, broken("grain %d is not in it", n)
	}
	if err := readAt(z.m.r, z.packed[:12], at); err != nil {
		return nil, err
	}
	lba, size := binary.LittleEndian.Uint64(z.packed), int64(binary.LittleEndian.Uint32(z.packed[8:]))
	if lba != uint64(n)*z.m.h.GrainSize {
		return nil, broken("where grain %d should be is that of sector %d", n, lba)
	}
	if size == 0 || size > int64(len(z.packed)-12) || at+12+size > z.m.size {
		return nil, broken("grain %d has %d bytes", n, size)
	}
	if err := readAt(z.m.r, z.packed[12:12+size], at+12); err != nil {
		return nil, err
	}
	z.src.Reset(z.packed[12 : 12+size])
	var err error
	if z.z == nil {
		z.z, err = zlib.NewReader(&z.src)
	} else {
		err = z.z.(zlib.Resetter).Reset(&z.src, nil)
	}
	if err != nil {
		z.z = nil
		return nil, broken("grain %d: %v", n, err)
	}
	got, err := io.ReadFull(z.z, z.raw) // one byte more than a grain: to see its end and its checksum
	if err != io.ErrUnexpectedEOF {
		return nil, broken("grain %d inflates to something else than a grain: %v", n, err)
	}
	left := (z.m.h.Capacity - uint64(n)*z.m.h.GrainSize) * sector
	if full := len(z.raw) - 1; got != full && uint64(got) != left {
		return nil, broken("grain %d has %d of %d bytes", n, got, full)
	}
	return z.raw[:got], nil
}

// walk follows the markers from the first to the last, which is what a reader does
// that cannot go back. Grains must ascend, and be as many as the tables name.
func (m *Image) walk(ctx context.Context, want int64) error {
	at, next, grains := m.h.Overhead, uint64(0), int64(0)
	b := make([]byte, 16)
	for ctx.Err() == nil {
		if !m.inside(at, 1) {
			return broken("it has no end marker")
		}
		if err := readAt(m.r, b, int64(at)*sector); err != nil {
			return err
		}
		value, size, kind := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		switch {
		case size != 0:
			if value < next {
				return broken("the grain of sector %d comes too late in the stream", value)
			}
			next = value + m.h.GrainSize
			grains++
			at += (uint64(size) + 12 + sector - 1) / sector
		case kind == endOfStream:
			if int64(at+1)*sector != m.size {
				return broken("something follows its end marker, or it is in the middle")
			}
			if grains != want {
				return broken("%d grains are in the stream, and %d in the tables", grains, want)
			}
			return nil
		case kind <= footer && m.inside(at+1, value):
			at += 1 + value
		default:
			return broken("a marker of type %d at sector %d", kind, at)
		}
	}
	return ctx.Err()
}
