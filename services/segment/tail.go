package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"strings"
)

// A tail file is a row of chunks. Each holds records that were added to a block,
// and the words that are new to its dictionary. Numbers are little-endian.
//
//	 0  magic "BTLC"
//	 4  CRC-32C of the rest of the chunk
//	 8  length of what follows the header
//	12  number of records; 0 in the last chunk of a store that was closed in order
//	16  Seq of the block's first record
//	24  how many records of the block came before
//	28  0
const (
	chunkMagic  = "BTLC"
	chunkHeader = 32
	// tailBytes is the size from which the next block begins a new tail file.
	tailBytes = 1 << 20
)

// tail is the tail file that is written to.
type tail struct {
	file  *os.File
	start uint64 // every record from this Seq on is here or in a segment
	size  int64
	dirty bool
	buf   []byte
}

// newTail begins a tail file for records from start on. The one before goes when
// a sync has covered what it holds.
func (s *Store) newTail(start uint64) error {
	f, err := os.OpenFile(s.path(segmentName(start), tailExt), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	t := &s.files.tail
	if t.file != nil {
		if t.start != start {
			s.files.oldTails = append(s.files.oldTails, t.file.Name())
		}
		t.file.Close()
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	// One of that name may be left from before a crash, and what is in it may be
	// in memory alone by now: it is written behind it.
	t.file, t.start, t.size, t.dirty = f, start, info.Size(), true
	s.files.names = true
	return nil
}

// writeTail appends what the open block has got since the last time. All full
// blocks are in a segment by now.
func (s *Store) writeTail() error {
	t := &s.files.tail
	s.mu.Lock()
	b := s.open
	if b == nil || b.count == b.wroteCount {
		s.mu.Unlock()
		return nil
	}
	fresh := b.wroteCount == 0
	t.buf = appendChunk(t.buf[:0], b)
	recs, words, count, first := len(b.recs), len(b.words), b.count, b.first
	s.mu.Unlock()

	if fresh && first != t.start && t.size >= tailBytes {
		if err := s.newTail(first); err != nil {
			return err
		}
	}
	if err := t.append(s, t.buf); err != nil {
		return err
	}
	s.mu.Lock()
	b.wroteRecs, b.wroteWords, b.wroteCount = recs, words, count
	s.mu.Unlock()
	if cap(t.buf) > 1<<20 {
		t.buf = nil
	}
	return nil
}

func (t *tail) append(s *Store, chunk []byte) error {
	if _, err := t.file.WriteAt(chunk, t.size); err != nil {
		return errors.Join(err, t.file.Truncate(t.size)) // a part may have been written
	}
	t.size += int64(len(chunk))
	t.dirty = true
	s.bytes.Add(int64(len(chunk)))
	return nil
}

// endTail marks that nothing was lost.
func (s *Store) endTail() error {
	s.io.Lock()
	defer s.io.Unlock()
	s.mu.Lock()
	end := block{view: view{first: s.next}}
	s.mu.Unlock()
	return s.files.tail.append(s, appendChunk(nil, &end))
}

// appendChunk encodes what of a block is not in the tail yet.
func appendChunk(dst []byte, b *block) []byte {
	dst = append(dst, make([]byte, chunkHeader)...)
	dst = appendWords(dst, b.words[b.wroteWords:])
	dst = append(dst, b.recs[b.wroteRecs:]...)
	le := binary.LittleEndian
	copy(dst, chunkMagic)
	le.PutUint32(dst[8:], uint32(len(dst)-chunkHeader))
	le.PutUint32(dst[12:], uint32(b.count-b.wroteCount))
	le.PutUint64(dst[16:], b.first)
	le.PutUint32(dst[24:], uint32(b.wroteCount))
	le.PutUint32(dst[4:], crc32.Checksum(dst[8:], castagnoli))
	return dst
}

// readTail gives the blocks of a tail file's bytes, how many of the bytes are
// good, and the next Seq if the store was closed in order after them, else 0.
func readTail(data []byte) (blocks []*block, good int, closed uint64) {
	le := binary.LittleEndian
	for len(data)-good >= chunkHeader {
		c := data[good:]
		size := uint64(le.Uint32(c[8:]))
		if string(c[:4]) != chunkMagic || size > uint64(len(c)-chunkHeader) {
			break
		}
		c = c[:chunkHeader+int(size)]
		if crc32.Checksum(c[8:], castagnoli) != le.Uint32(c[4:]) {
			break
		}
		n, first, before := le.Uint32(c[12:]), le.Uint64(c[16:]), le.Uint32(c[24:])
		if closed = 0; n == 0 {
			closed = first
		} else {
			b := lastBlock(blocks, first, int(before))
			if b == nil || b.extend(c[chunkHeader:], int(n)) != nil {
				break
			}
			if before == 0 {
				blocks = append(blocks, b)
			}
		}
		good += len(c)
	}
	return blocks, good, closed
}

// lastBlock finds the block that a chunk goes on with, or begins one.
func lastBlock(blocks []*block, first uint64, before int) *block {
	if before == 0 {
		b := &block{}
		b.start(first)
		return b
	}
	if len(blocks) == 0 {
		return nil
	}
	if b := blocks[len(blocks)-1]; b.first == first && b.count == before {
		return b
	}
	return nil
}

// extend adds a chunk's words and records, and takes everything else about them
// from their bytes. After an error the block is as it was.
func (b *block) extend(payload []byte, n int) error {
	words, recs, err := cutWords(payload, nil)
	if err != nil || n > len(recs) || len(b.recs)+len(recs) > maxRaw {
		return errRuined
	}
	all := b.words[:len(b.words):len(b.words)]
	for _, w := range words {
		all = append(all, strings.Clone(w))
	}
	if err := check(&view{count: n, words: all, recs: recs}, b.last); err != nil {
		return err
	}
	v := view{first: b.end(), count: n, words: all, recs: recs}
	b.words = all
	for i, w := range words {
		b.numbers[all[len(all)-len(words)+i]] = uint64(len(all) - len(words) + i)
		b.wordBytes += len(w) + 2
	}
	w := walk{v: &v, time: b.last}
	var h head
	var r Record
	for range n {
		_, _ = w.next(&h) // checked above
		_ = v.decode(&h, &r)
		b.note(h.component, h.severity, h.time)
		b.gathered = appendIDs(b.gathered, &r)
	}
	b.recs = append(b.recs, recs...)
	return nil
}

// check decodes everything once; the records must fill their bytes.
func check(v *view, last int64) error {
	w := walk{v: v, time: last}
	var h head
	var r Record
	for range v.count {
		if ok, err := w.next(&h); err != nil || !ok {
			return errRuined
		}
		if err := v.decode(&h, &r); err != nil {
			return err
		}
	}
	if w.off != len(v.recs) {
		return errRuined
	}
	return nil
}

// appendIDs adds the hashes of a message's request ids.
func appendIDs(hashes []uint32, r *Record) []uint32 {
	for _, a := range r.Attrs {
		if a.Value != "" && isID(a.Key) {
			hashes = append(hashes, hashID(a.Value))
		}
	}
	return hashes
}
