package segment

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/bits"
	"os"
	"slices"
)

// An index file has what is known of a sealed segment's blocks, and where its
// request ids are. Numbers are little-endian.
//
//	 0  magic "BERTHIX1"
//	 8  CRC-32C of the bytes from 12 to the directory
//	12  offset of the directory
//	16  size of the segment file, 24 its raw size, 32 number of messages
//	40  number of blocks
//	44  bits: there are 1<<bits buckets
//	48  sets of components: how many, then of each its names; set 0 is "any"
//	    blocks, 43 bytes each: the entry
//	    directory: for each bucket and for the end, where its pairs begin, and their CRC-32C
//	    pairs: hash of a request id, number of a block; 6 bytes, sorted
//
// A hash is in the bucket of its first bits. So a look-up is one read of the
// directory and one of a bucket, whatever the number of ids.
const (
	indexMagic  = "BERTHIX1"
	indexHeader = 48
	entrySize   = 43
	pairSize    = 6
	perBucket   = 128
)

// index is how a segment's index file is used.
type index struct {
	size      int64 // of the file; 0 = there is none
	directory int64 // offset
	bits      uint8
}

// pairsAt is where the pairs begin.
func (x *index) pairsAt() int64 { return x.directory + (1<<x.bits+1)*8 }

func bucketOf(hash uint32, bits uint8) uint32 { return uint32(uint64(hash) << bits >> 32) }

// writeIndex makes the index of a segment, whose hashes are all known. It is
// written beside its place, synced and moved there.
func writeIndex(path string, g *segment, sets [][]string) (x index, err error) {
	x.bits = uint8(max(0, bits.Len(uint(g.hashed/perBucket))-1))
	meta := indexMeta(g, sets, &x)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o640)
	if err != nil {
		return x, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.WriteAt(meta, 0); err != nil {
		return x, err
	}
	if x.size, err = writePairs(f, g.hashes, &x); err != nil {
		return x, err
	}
	if err = f.Sync(); err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return x, err
}

// indexMeta encodes what comes before the directory.
func indexMeta(g *segment, sets [][]string, x *index) []byte {
	le := binary.LittleEndian
	b := make([]byte, indexHeader, indexHeader+len(g.entries)*entrySize+1024)
	copy(b, indexMagic)
	numbers, used := map[uint16]uint16{0: 0}, []uint16{}
	for i := range g.entries {
		if _, ok := numbers[g.entries[i].set]; !ok {
			used = append(used, g.entries[i].set)
			numbers[g.entries[i].set] = uint16(len(used))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(used)))
	for _, n := range used {
		b = appendWords(b, sets[n])
	}
	for i := range g.entries {
		e := &g.entries[i]
		b = le.AppendUint64(b, e.first)
		b = le.AppendUint64(b, uint64(e.min))
		b = le.AppendUint64(b, uint64(e.max))
		b = le.AppendUint32(b, e.rawBefore)
		b = le.AppendUint32(b, e.offset)
		b = le.AppendUint32(b, e.size)
		b = le.AppendUint32(b, e.count)
		b = le.AppendUint16(b, numbers[e.set])
		b = append(b, e.severities)
	}
	x.directory = int64(len(b))
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint64(b[16:], uint64(g.size))
	le.PutUint64(b[24:], uint64(g.raw))
	le.PutUint64(b[32:], uint64(g.messages))
	le.PutUint32(b[40:], uint32(len(g.entries)))
	le.PutUint32(b[44:], uint32(x.bits))
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// writePairs merges the blocks' sorted hashes bucket by bucket, so that it takes
// no memory but a bucket's. It gives the file's size.
func writePairs(f *os.File, hashes [][]uint32, x *index) (int64, error) {
	le := binary.LittleEndian
	directory := make([]byte, 0, (1<<x.bits+1)*8)
	out := bufio.NewWriterSize(io.NewOffsetWriter(f, x.pairsAt()), 64<<10)
	position := make([]int, len(hashes))
	var pairs []uint64
	var bucket []byte
	at := uint32(0)
	for n := range uint32(1) << x.bits {
		pairs, bucket = pairs[:0], bucket[:0]
		for i, list := range hashes {
			p := position[i]
			for p < len(list) && bucketOf(list[p], x.bits) == n {
				pairs = append(pairs, uint64(list[p])<<16|uint64(i))
				p++
			}
			position[i] = p
		}
		slices.Sort(pairs)
		for _, p := range pairs {
			bucket = le.AppendUint32(bucket, uint32(p>>16))
			bucket = le.AppendUint16(bucket, uint16(p))
		}
		directory = le.AppendUint32(directory, at)
		directory = le.AppendUint32(directory, crc32.Checksum(bucket, castagnoli))
		at += uint32(len(bucket))
		if _, err := out.Write(bucket); err != nil {
			return 0, err
		}
	}
	directory = le.AppendUint32(directory, at)
	directory = le.AppendUint32(directory, 0)
	if err := out.Flush(); err != nil {
		return 0, err
	}
	_, err := f.WriteAt(directory, x.directory)
	return x.pairsAt() + int64(at), err
}

// loadIndex takes a segment's blocks from its index, if that is whole and about
// this very file.
func (s *Store) loadIndex(g *segment, size int64) bool {
	f, err := os.Open(s.path(g.name, indexExt))
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	meta, err := readIndexMeta(f, info.Size())
	if err != nil {
		return false
	}
	g.index.size = info.Size()
	if err := s.parseIndex(g, meta, size); err != nil {
		*g = segment{name: g.name, size: int64(len(segmentMagic)), last: g.last, made: g.made}
		return false
	}
	return true
}

// readIndexMeta reads what is before the directory, and checks it.
func readIndexMeta(f io.ReaderAt, size int64) ([]byte, error) {
	le := binary.LittleEndian
	b, err := readAt(f, 0, min(size, indexHeader), nil)
	if err != nil {
		return nil, err
	}
	if len(b) < indexHeader || string(b[:8]) != indexMagic {
		return nil, errRuined
	}
	end, sum := int64(le.Uint32(b[12:])), le.Uint32(b[8:])
	if end < indexHeader || end > size || end > maxBlocks*(entrySize+maxHeader) {
		return nil, errRuined
	}
	if b, err = readAt(f, 0, end, b); err != nil {
		return nil, err
	}
	if crc32.Checksum(b[12:], castagnoli) != sum {
		return nil, errRuined
	}
	return b, nil
}

// parseIndex fills g from an index's first part.
func (s *Store) parseIndex(g *segment, b []byte, size int64) error {
	le := binary.LittleEndian
	if len(b) < indexHeader || int64(le.Uint64(b[16:])) != size {
		return errRuined
	}
	n, bits := int(le.Uint32(b[40:])), le.Uint32(b[44:])
	g.index.directory, g.index.bits = int64(len(b)), uint8(bits)
	if bits > 16 || n == 0 || n > maxBlocks || g.index.pairsAt() > g.index.size {
		return errRuined
	}
	sets, rest, err := s.parseSets(b[indexHeader:])
	if err != nil || len(rest) != n*entrySize {
		return errRuined
	}
	g.entries = make([]entry, n)
	for i := range g.entries {
		r := rest[i*entrySize:]
		set := int(le.Uint16(r[40:]))
		if set >= len(sets) {
			return errRuined
		}
		e := entry{first: le.Uint64(r), min: int64(le.Uint64(r[8:])), max: int64(le.Uint64(r[16:])), rawBefore: le.Uint32(r[24:]),
			offset: le.Uint32(r[28:]), size: le.Uint32(r[32:]), count: le.Uint32(r[36:]), set: sets[set], severities: r[42]}
		if i == 0 {
			g.min, g.max = e.min, e.max
		} else if e.first < g.entries[i-1].end() {
			return errRuined
		}
		g.min, g.max = min(g.min, e.min), max(g.max, e.max)
		g.messages += int64(e.count)
		g.entries[i] = e
	}
	if g.entries[0].first < s.next || g.entries[n-1].end() < g.entries[n-1].first {
		return errRuined
	}
	g.size, g.raw = size, int64(le.Uint64(b[24:]))
	return nil
}

// parseSets reads the sets of components and gives the store's numbers of them.
func (s *Store) parseSets(b []byte) (sets []uint16, rest []byte, err error) {
	d := fields{b: b}
	n := d.number()
	if d.bad || n > maxSets {
		return nil, nil, errRuined
	}
	sets = append(sets, 0)
	rest = d.b
	for range n {
		var names []string
		if names, rest, err = cutWords(rest, nil); err != nil {
			return nil, nil, err
		}
		sets = append(sets, s.components.set(names, len(names) == 0))
	}
	return sets, rest, nil
}

// lookUp gives the numbers of the blocks that may have a request id.
func lookUp(path string, x index, hash uint32) ([]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var room [1024 + pairSize*perBucket]byte
	b := room[:16]
	if _, err := f.ReadAt(b, x.directory+int64(bucketOf(hash, x.bits))*8); err != nil {
		return nil, ruinedIfShort(err)
	}
	le := binary.LittleEndian
	from, sum, to := le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])
	if to < from || x.pairsAt()+int64(to) > x.size || (to-from)%pairSize != 0 {
		return nil, errRuined
	}
	if b = room[:]; int(to-from) > len(b) {
		b = make([]byte, to-from)
	}
	b = b[:to-from]
	if _, err := f.ReadAt(b, x.pairsAt()+int64(from)); err != nil && len(b) > 0 {
		return nil, ruinedIfShort(err)
	}
	if crc32.Checksum(b, castagnoli) != sum {
		return nil, errRuined
	}
	var found []int
	for ; len(b) > 0; b = b[pairSize:] {
		if le.Uint32(b) == hash {
			found = append(found, int(le.Uint16(b[4:])))
		}
	}
	return found, nil
}

func ruinedIfShort(err error) error {
	if errors.Is(err, io.EOF) {
		return errRuined
	}
	return err
}
