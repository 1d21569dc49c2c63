package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// files are what the store writes to; Store.io guards them.
type files struct {
	segment  *os.File // of current
	current  *segment
	unsynced bool // the segment has bytes that are not synced
	sealing  []sealing
	tail     tail
	oldTails []string
	names    bool // the directory has names that are not synced

	out, raw []byte // room for a block on its way
}

// sealing is a segment that is complete and wants its last sync and its index.
type sealing struct {
	segment *segment
	file    *os.File
}

func (f *files) close() {
	for _, s := range f.sealing {
		s.file.Close()
	}
	if f.segment != nil {
		f.segment.Close()
	}
	if f.tail.file != nil {
		f.tail.file.Close()
	}
	*f = files{}
}

// segment is one segment file. Its name and its sealed contents do not change;
// the rest is guarded by the store's mu.
type segment struct {
	name     string // without extension: its first Seq, 16 hexadecimal digits
	entries  []entry
	hashes   [][]uint32 // for each block; nil once there is an index, and a block's is nil if it is not known
	hashed   int        // how many hashes there are
	size     int64      // of the file
	raw      int64
	messages int64
	min, max int64
	index    index
	last     time.Time // when the last message came
	made     time.Time // when the file was made, or opened
}

func (g *segment) end() uint64 {
	if len(g.entries) == 0 {
		return 0
	}
	return g.entries[len(g.entries)-1].end()
}

// add takes a block's entry; hashes may be nil if they are not known.
func (g *segment) add(e entry, raw uint32, hashes []uint32) {
	if len(g.entries) == 0 {
		g.min, g.max = e.min, e.max
	}
	g.min, g.max = min(g.min, e.min), max(g.max, e.max)
	e.rawBefore = uint32(g.raw)
	g.entries = append(g.entries, e)
	g.hashes = append(g.hashes, hashes)
	g.hashed += len(hashes)
	g.size = int64(e.offset) + int64(e.size)
	g.raw += int64(raw)
	g.messages += int64(e.count)
}

// isFull reports whether the segment should be sealed.
func (g *segment) isFull(limit int64) bool {
	return g.size >= limit || len(g.entries) >= maxBlocks || g.hashed >= maxHashes || g.raw >= 3<<30
}

func segmentName(seq uint64) string { return fmt.Sprintf("%016x", seq) }

const (
	segmentExt = ".log"
	indexExt   = ".index"
	tailExt    = ".tail"
	// segmentMagic is what a segment begins with.
	segmentMagic = "BERTHLG1"
)

func (s *Store) path(name, ext string) string { return filepath.Join(s.dir, name+ext) }

// write puts what is in memory on disk: full blocks into the segment, what the
// open one has got into the tail. It does not sync.
func (s *Store) write() error {
	err := s.writeAll()
	if err != nil {
		s.writeErrors.Add(1)
	}
	s.mu.Lock()
	before := s.failing
	s.failing = err
	dropped := s.dropped.Load()
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.o.Log.Error("cannot write log messages", "dir", s.dir, "err", err)
	case err == nil && before != nil:
		s.o.Log.Warn("log messages can be written again", "dir", s.dir, "dropped", dropped)
	}
	return err
}

func (s *Store) writeAll() error {
	s.io.Lock()
	defer s.io.Unlock()
	if err := s.writeFull(); err != nil {
		return err
	}
	return s.writeTail()
}

// writeFull appends all full blocks to the current segment.
func (s *Store) writeFull() error {
	for {
		s.mu.Lock()
		var b *block
		if len(s.full) > 0 {
			b = s.full[0]
		}
		held := 0
		for _, w := range s.files.sealing {
			held += w.segment.hashed
		}
		s.mu.Unlock()
		if b == nil || held > 3*maxHashes {
			return nil // sealing has to catch up first
		}
		if err := s.writeBlock(b); err != nil {
			return err
		}
	}
}

func (s *Store) writeBlock(b *block) error {
	f := &s.files
	if f.current == nil {
		if err := s.newSegment(b.first); err != nil {
			return err
		}
	}
	f.out = appendBlock(f.out[:0], b, s.encoder.EncodeAll, &f.raw)
	at := f.current.size
	if _, err := f.segment.WriteAt(f.out, at); err != nil {
		return errors.Join(err, f.segment.Truncate(at)) // a part may have been written
	}
	f.unsynced = true
	e := entry{first: b.first, min: b.min, max: b.max, offset: uint32(at), size: uint32(len(f.out)), count: uint32(b.count), severities: b.severities}
	names := b.names()
	s.bytes.Add(int64(len(f.out)))
	s.mu.Lock()
	e.set = s.components.set(names, b.many)
	f.current.add(e, uint32(len(f.raw)), b.hashes)
	f.current.last = time.Now()
	s.full = slices.Delete(s.full, 0, 1)
	s.recent = append(s.recent, b)
	var old *block
	if len(s.recent) > keepRecent {
		old = s.recent[0]
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.stalled = false
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	full := f.current.isFull(s.o.SegmentBytes)
	s.mu.Unlock()
	s.release(old)
	if full {
		s.finishSegment()
	}
	if cap(f.out) > 2<<20 || cap(f.raw) > 2<<20 {
		f.out, f.raw = nil, nil // after a giant, back to the usual size
	}
	return nil
}

func (s *Store) newSegment(first uint64) error {
	name := segmentName(first)
	file, err := os.OpenFile(s.path(name, segmentExt), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err := file.WriteAt([]byte(segmentMagic), 0); err != nil {
		file.Close()
		return errors.Join(err, os.Remove(file.Name()))
	}
	now := time.Now()
	g := &segment{name: name, size: int64(len(segmentMagic)), last: now, made: now}
	s.files.segment, s.files.current, s.files.names = file, g, true
	s.bytes.Add(g.size)
	s.mu.Lock()
	s.segments = append(s.segments, g)
	s.mu.Unlock()
	return nil
}

// finishSegment gives the current segment to Run, to be sealed.
func (s *Store) finishSegment() {
	s.files.sealing = append(s.files.sealing, sealing{s.files.current, s.files.segment})
	s.files.current, s.files.segment, s.files.unsynced = nil, nil, false
}

// release lets go of a block that was got from the store.
func (s *Store) release(b *block) {
	if b != nil && b.refs.Add(-1) == 0 {
		if cap(b.recs) <= 1<<20 {
			s.blocks.Put(b)
		}
	}
}
