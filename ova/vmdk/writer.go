package vmdk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/sync/errgroup"
)

// Options say how a disk is written.
type Options struct {
	// Name is the file's own name, which the description has.
	Name string
	// Hardware is the number of the virtual hardware's version; 0 means 17.
	Hardware int
	// Level is deflate's, 1 (fast) to 9 (small); 0 means 6.
	Level int
	// Workers is how many goroutines compress; 0 means one for each core.
	Workers int
}

// Written says what Write made.
type Written struct {
	Capacity int64 // bytes of the disk
	Grains   int64 // grains that are not all zeros
	Size     int64 // bytes of the file
}

// Populated is how many bytes of the disk are in the file, before compression.
func (w Written) Populated() int64 { return min(w.Grains*grainBytes, w.Capacity) }

// Write reads a raw disk of size bytes, a multiple of 512, and writes it to w as a
// streamOptimized VMDK. Of an *os.File, holes are not read at all. It holds some 5 MiB
// for each worker, whatever the size.
func Write(ctx context.Context, w io.Writer, raw io.ReaderAt, size int64, o Options) (Written, error) {
	if size <= 0 || size%sector != 0 || size > maxCapacity {
		return Written{}, fmt.Errorf("cannot make a VMDK of %d bytes: the size must be a multiple of 512, and 62 TiB at most", size)
	}
	s := &stream{w: w, header: header{
		Magic: magic, Version: 3, Flags: flagNewlines | flagDeflate | flagMarkers,
		Capacity: uint64(size / sector), GrainSize: grainSectors,
		DescriptorOffset: 1, TableEntries: tableGrains,
		DirectoryOffset: atEnd, Overhead: overhead,
		Newlines: [4]byte{'\n', ' ', '\r', '\n'}, Compression: deflate,
	}}
	text := description(size, o)
	s.header.DescriptorSize = 20 // as in VMware's own; the text has less
	s.directory = make([]uint32, s.header.tables())
	front := make([]byte, overhead*sector)
	copy(front, s.header.encode())
	copy(front[sector:], text)
	if err := s.write(front); err != nil {
		return Written{}, err
	}
	if err := compressAll(ctx, raw, size, o, s.grains); err != nil {
		return Written{}, err
	}
	if err := s.end(); err != nil {
		return Written{}, err
	}
	return Written{Capacity: size, Grains: s.count, Size: s.at * sector}, nil
}

// stream is the file that is being written.
type stream struct {
	w         io.Writer
	at        int64 // sectors written
	header    header
	directory []uint32
	table     [tableGrains]uint32
	current   int64 // the table that is being filled
	filled    bool
	count     int64
}

func (s *stream) write(b []byte) error {
	if s.at > 1<<32-1 {
		return fmt.Errorf("the VMDK grows over 2 TiB")
	}
	s.at += int64(len(b) / sector)
	_, err := s.w.Write(b)
	return err
}

// grains takes what a piece has become, pieces in order.
func (s *stream) grains(p *piece) error {
	rest := p.packed.Bytes()
	for i, n := range p.lengths {
		if n == 0 {
			continue
		}
		grain := p.first + int64(i)
		if t := grain / tableGrains; t != s.current {
			if err := s.endTable(); err != nil {
				return err
			}
			s.current = t
		}
		s.table[grain%tableGrains], s.filled = uint32(s.at), true
		s.count++
		if err := s.write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (s *stream) endTable() error {
	if !s.filled {
		return nil
	}
	if err := s.write(marker(tableSectors, grainTable)); err != nil {
		return err
	}
	s.directory[s.current] = uint32(s.at)
	b, _ := binary.Append(make([]byte, 0, tableGrains*4), binary.LittleEndian, s.table[:])
	s.table, s.filled = [tableGrains]uint32{}, false
	return s.write(b)
}

func (s *stream) end() error {
	if err := s.endTable(); err != nil {
		return err
	}
	sectors := (len(s.directory)*4 + sector - 1) / sector
	if err := s.write(marker(uint64(sectors), grainDirectory)); err != nil {
		return err
	}
	s.header.DirectoryOffset = uint64(s.at)
	b, _ := binary.Append(make([]byte, 0, sectors*sector), binary.LittleEndian, s.directory)
	for _, part := range [][]byte{b[:sectors*sector], marker(1, footer), s.header.encode(), marker(0, endOfStream)} {
		if err := s.write(part); err != nil {
			return err
		}
	}
	return nil
}

// marker is a sector that says what follows it: size 0 tells it from a grain.
func marker(sectors uint64, kind uint32) []byte {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, sectors)
	binary.LittleEndian.PutUint32(b[12:], kind)
	return b
}

// description is the text that is in the file. vSphere makes a new content id when
// it imports a disk; here it only must not be ffffffff (none), and the same each time.
func description(size int64, o Options) string {
	hardware := o.Hardware
	if hardware == 0 {
		hardware = 17
	}
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r > '~' {
			return '_'
		}
		return r
	}, o.Name[:min(len(o.Name), 200)])
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, size))
	id[0] &= 0x7f
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY %d SPARSE "%s"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%x"
ddb.toolsInstallType = "4"
ddb.toolsVersion = "2147483647"
ddb.virtualHWVersion = "%d"
`, id[:4], size/sector, name, min(max(size/sector/(255*63), 1), 65535), id[:16], hardware)
}

// compressAll reads what is not a hole in pieces, compresses them on several cores
// and hands them to take in their order.
func compressAll(ctx context.Context, raw io.ReaderAt, size int64, o Options, take func(*piece) error) error {
	workers := o.workers()
	g, ctx := errgroup.WithContext(ctx)
	deflaters := make([]*zlib.Writer, workers)
	for i := range deflaters {
		var err error
		if deflaters[i], err = newDeflater(o.Level); err != nil {
			return err
		}
	}
	free := make(chan *piece, 2*workers+1) // bounds the memory
	for range cap(free) {
		free <- &piece{done: make(chan struct{}, 1)}
	}
	todo, ordered := make(chan *piece, cap(free)), make(chan *piece, cap(free))
	g.Go(func() error {
		defer close(todo)
		defer close(ordered)
		return extents(raw, size, func(from, to int64) error { return cut(ctx, from, to, free, todo, ordered) })
	})
	for _, z := range deflaters {
		g.Go(func() error {
			for p := range todo {
				p.err = p.compress(raw, size, z)
				p.done <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		for p := range ordered {
			<-p.done
			if p.err != nil {
				return p.err
			}
			if err := take(p); err != nil {
				return err
			}
			free <- p
		}
		return ctx.Err()
	})
	return g.Wait()
}
