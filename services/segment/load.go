package segment

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// seqGap is what the next Seq jumps by after a crash. Messages that were lost
// may have been read, and passed on, under Seqs that nothing on disk knows of.
const seqGap = 1 << 24

// load finds out what is in the directory. A store that may write also cuts off
// what a crash has left half written.
//
// The tails are read before the segments: a record that leaves a tail meanwhile
// is in a segment by then.
func (s *Store) load() error {
	var tails []loadedTail
	var err error
	for range 5 {
		if tails, err = s.loadTails(); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("cannot read log messages: %w", err)
	}
	names, err := s.list(segmentExt)
	if err != nil {
		return fmt.Errorf("cannot read log messages: %w", err)
	}
	for i, name := range names {
		if err := s.loadSegment(name, i == len(names)-1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot read the log messages in %s: %w", name+segmentExt, err)
		}
	}
	fresh := len(names) == 0 && len(tails) == 0
	closed := false
	for _, t := range tails {
		s.takeBlocks(t.blocks)
		s.next = max(s.next, t.start)
		s.next = max(s.next, t.closed)
		closed = t.closed > 0
		s.files.oldTails = append(s.files.oldTails, s.path(segmentName(t.start), tailExt))
		s.bytes.Add(t.size)
	}
	if !closed && !fresh && !s.readOnly {
		s.next += seqGap
	}
	return nil
}

// takeBlocks adds blocks of a tail that are in no segment.
func (s *Store) takeBlocks(blocks []*block) {
	for _, b := range blocks {
		if b.count == 0 || b.first < s.next {
			continue
		}
		b.finish()
		b.numbers = nil
		s.full = append(s.full, b)
		s.next = b.end()
	}
}

// list gives the names of the files with an extension, in the order of their
// Seqs. Files that have other names are not ours, and left alone.
func (s *Store) list(ext string) ([]string, error) {
	found, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range found {
		name, ours := strings.CutSuffix(e.Name(), ext)
		if seq, err := strconv.ParseUint(name, 16, 64); ours && err == nil && segmentName(seq) == name && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

type loadedTail struct {
	start  uint64
	size   int64
	blocks []*block
	closed uint64 // the next Seq, if the store was closed in order
}

// maxTail is how much of a tail file is read: far more than is ever written.
const maxTail = 256 << 20

func (s *Store) loadTails() ([]loadedTail, error) {
	names, err := s.list(tailExt)
	if err != nil {
		return nil, err
	}
	var tails []loadedTail
	for _, name := range names {
		f, err := os.Open(s.path(name, tailExt))
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(f, maxTail))
		f.Close()
		if err != nil {
			return nil, err
		}
		t := loadedTail{}
		t.start, _ = strconv.ParseUint(name, 16, 64)
		var good int
		t.blocks, good, t.closed = readTail(data)
		t.size = int64(good)
		if good < len(data) {
			if err := s.cutOff(f.Name(), int64(good), int64(len(data)-good)); err != nil {
				return nil, err
			}
		}
		tails = append(tails, t)
	}
	return tails, nil
}

// cutOff shortens a file to what is good of it.
func (s *Store) cutOff(path string, good, bad int64) error {
	if s.readOnly {
		return nil // the writer may be in the middle of it
	}
	s.cut.Add(bad)
	s.o.Log.Warn("cut off the end of a file of log messages that was not written to its end", "file", filepath.Base(path), "bytes_cut", bad, "bytes_kept", good)
	return os.Truncate(path, good)
}

// loadSegment takes a segment by its index, or by going through it.
func (s *Store) loadSegment(name string, last bool) error {
	f, err := os.Open(s.path(name, segmentExt))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	g := &segment{name: name, size: int64(len(segmentMagic)), last: info.ModTime(), made: info.ModTime()}
	if s.loadIndex(g, info.Size()) {
		s.addSegment(g)
		return nil
	}
	if err := s.scanSegment(g, f, info.Size()); err != nil {
		return err
	}
	if bad := info.Size() - g.size; bad > 0 {
		if err := s.cutOff(f.Name(), g.size, bad); err != nil {
			return err
		}
	}
	if len(g.entries) == 0 {
		if s.readOnly {
			return nil
		}
		return os.Remove(f.Name())
	}
	s.addSegment(g)
	if s.readOnly {
		return nil
	}
	w, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if last && !g.isFull(s.o.SegmentBytes) {
		s.files.segment, s.files.current, s.files.unsynced = w, g, true
		return nil
	}
	s.files.sealing = append(s.files.sealing, sealing{g, w})
	return nil
}

func (s *Store) addSegment(g *segment) {
	s.segments = append(s.segments, g)
	s.next = max(s.next, g.end())
	s.bytes.Add(g.size + g.index.size)
}

// scanSegment goes through a segment's blocks. What is ruined in its middle is
// passed over; g.size becomes where the last good block ends.
func (s *Store) scanSegment(g *segment, f io.ReaderAt, size int64) error {
	var buf []byte
	at := int64(len(segmentMagic))
	for at < size && at < math.MaxUint32 {
		var h header
		var err error
		if h, buf, err = readBlock(f, at, size, buf); err != nil && !errors.Is(err, errRuined) {
			return err
		}
		if err != nil || h.first < s.next || h.first < g.end() {
			if at, err = nextBlock(f, at+1, size, buf); err != nil {
				return err
			}
			continue
		}
		h.offset = uint32(at)
		h.set = s.components.set(h.names, h.many)
		g.add(h.entry, h.raw, nil)
		at += int64(h.size)
	}
	return nil
}

// readBlock reads and checks the block at an offset: its header and its frame,
// which is what the buffer holds after the header.
func readBlock(f io.ReaderAt, at, size int64, buf []byte) (header, []byte, error) {
	var err error
	if buf, err = readAt(f, at, min(size-at, 512), buf); err != nil {
		return header{}, buf, err
	}
	if len(buf) >= blockHeader && string(buf[:4]) == blockMagic {
		if n := int64(buf[8]) | int64(buf[9])<<8; n > int64(len(buf)) {
			if buf, err = readAt(f, at, min(size-at, n), buf); err != nil {
				return header{}, buf, err
			}
		}
	}
	h, err := parseHeader(buf)
	if err != nil {
		return h, buf, err
	}
	if int64(h.size) > size-at {
		return h, buf, errRuined
	}
	if buf, err = readAt(f, at, int64(h.size), buf); err != nil {
		return h, buf, err
	}
	if crc32.Checksum(buf[h.header:], castagnoli) != h.crc {
		return h, buf, errRuined
	}
	return h, buf, nil
}

// readAt reads n bytes into buf's room. A file that has become shorter is ruined.
func readAt(f io.ReaderAt, at, n int64, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(n))[:n]
	_, err := f.ReadAt(buf, at)
	if errors.Is(err, io.EOF) {
		err = errRuined
	}
	return buf, err
}

// nextBlock looks for the next thing that begins like a block; size if there is
// none.
func nextBlock(f io.ReaderAt, at, size int64, buf []byte) (int64, error) {
	const step = 256 << 10
	for at < size {
		var err error
		if buf, err = readAt(f, at, min(size-at, step), buf); err != nil {
			return at, err
		}
		if i := strings.Index(str(buf), blockMagic); i >= 0 {
			return at + int64(i), nil
		}
		if size-at <= step {
			break
		}
		at += step - int64(len(blockMagic)) + 1
	}
	return size, nil
}
