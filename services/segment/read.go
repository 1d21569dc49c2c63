package segment

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
)

// scan is the room for looking into a block.
type scan struct {
	in, out []byte
	words   []string
	view    view
	record  Record
	wanted  []bool
}

// read gives a block of a segment. The view is good until the next read with
// the same room.
func (s *Store) read(c *scan, f io.ReaderAt, e entry) (*view, error) {
	h, in, err := readBlock(f, int64(e.offset), int64(e.offset)+int64(e.size), c.in)
	c.in = in
	if err != nil {
		return nil, err
	}
	if h.first != e.first || h.count != e.count {
		return nil, errRuined
	}
	if uint32(cap(c.out)) < h.raw {
		c.out = make([]byte, 0, h.raw)
	}
	if c.out, err = s.decoder.DecodeAll(c.in[h.header:], c.out[:0]); err != nil || uint32(len(c.out)) != h.raw {
		return nil, errors.Join(errRuined, err)
	}
	words, recs, err := cutWords(c.out, c.words[:0])
	c.words = words
	if err != nil {
		return nil, err
	}
	c.view = view{first: e.first, count: int(e.count), words: words, recs: recs}
	if cap(c.in) > 1<<20 {
		c.in = nil
	}
	return &c.view, nil
}

// Read calls f with each record from a Seq on, in order, until there are no more
// or f has had max of them. Those that are not kept any more are passed over. It
// gives the Seq to go on with. If f gives an error Read ends with it, and the Seq
// is that record's. A record is good during the call of f alone.
func (s *Store) Read(ctx context.Context, from uint64, max int, f func(*Record) error) (next uint64, err error) {
	var r Record
	for max > 0 {
		if err := ctx.Err(); err != nil {
			return from, err
		}
		b, v, err := s.at(from)
		if b == nil {
			if from < v.first {
				from = v.first // over the gap that a crash leaves
			}
			return from, err
		}
		n, end, err := readView(v, from, max, &r, f)
		max -= n
		s.release(b)
		from = end
		if err != nil && !errors.Is(err, errRuined) {
			return from, err
		}
		if err != nil {
			s.countRuin(err, "", 0)
			from = b.end()
		}
	}
	return from, nil
}

// readView gives a view's records from a Seq on to f, max of them at most.
func readView(v view, from uint64, max int, r *Record, f func(*Record) error) (n int, next uint64, err error) {
	w := walk{v: &v}
	var h head
	for n < max {
		ok, err := w.next(&h)
		if err != nil {
			return n, from, err
		}
		if !ok {
			break
		}
		if h.seq < from {
			continue
		}
		if err := v.decode(&h, r); err != nil {
			return n, from, err
		}
		if err := f(r); err != nil {
			return n, h.seq, err
		}
		n++
		from = h.seq + 1
	}
	return n, from, nil
}

// at gives the first block that has a record at or after a Seq; nil if there is
// none, and a view that begins where the next record will. The caller releases it.
func (s *Store) at(from uint64) (*block, view, error) {
	for range 100 { // segments may go, or turn out ruined, while we look
		s.mu.Lock()
		if b := s.inMemory(from); b != nil {
			b.refs.Add(1)
			v := b.view
			s.mu.Unlock()
			return b, v, nil
		}
		g, e, ok := s.onDisk(from)
		end := s.next
		s.mu.Unlock()
		if !ok {
			return nil, view{first: end}, nil
		}
		b, err := s.loadBlock(g, e)
		switch {
		case err == nil:
			return b, b.view, nil
		case errors.Is(err, errRuined):
			s.countRuin(err, g.name, e.offset)
			from = e.end()
		case errors.Is(err, fs.ErrNotExist):
			from = e.end() // it was removed meanwhile
		default:
			return nil, view{}, err
		}
	}
	return nil, view{}, nil
}

// inMemory finds a block that need not be read, if from is not before all of
// them.
func (s *Store) inMemory(from uint64) *block {
	for _, b := range s.cached {
		if from >= b.first && from < b.end() {
			return b
		}
	}
	list := append(s.recent[:len(s.recent):len(s.recent)], s.unwritten()...)
	if len(list) == 0 || from < list[0].first && len(s.segments) > 0 && from < s.coveredLocked(list[0].first) {
		return nil
	}
	for _, b := range list {
		if b.count > 0 && from < b.end() {
			return b
		}
	}
	return nil
}

// coveredLocked is the end of the segments' last block before a Seq.
func (s *Store) coveredLocked(before uint64) uint64 {
	end := uint64(0)
	for _, g := range slices.Backward(s.segments) {
		i := sort.Search(len(g.entries), func(i int) bool { return g.entries[i].first >= before })
		if i > 0 {
			end = g.entries[i-1].end()
			break
		}
	}
	return end
}

// onDisk finds the first block of a segment that has a record at or after a Seq.
func (s *Store) onDisk(from uint64) (*segment, entry, bool) {
	n := sort.Search(len(s.segments), func(i int) bool { return s.segments[i].end() > from })
	if n == len(s.segments) {
		return nil, entry{}, false
	}
	g := s.segments[n]
	i := sort.Search(len(g.entries), func(i int) bool { return g.entries[i].end() > from })
	return g, g.entries[i], true
}

// loadBlock reads a block for a reader, and keeps it for the next.
func (s *Store) loadBlock(g *segment, e entry) (*block, error) {
	f, err := os.Open(s.path(g.name, segmentExt))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := s.scans.Get().(*scan)
	defer s.scans.Put(c)
	v, err := s.read(c, f, e)
	if err != nil {
		return nil, err
	}
	b := s.blocks.Get().(*block)
	b.start(e.first)
	for _, w := range v.words {
		b.words = append(b.words, strings.Clone(w))
	}
	b.recs = append(b.recs, v.recs...)
	b.count = v.count
	b.refs.Add(1)
	s.mu.Lock()
	s.cached = append(s.cached, b)
	var old *block
	if len(s.cached) > keepRecent {
		old = s.cached[0]
		s.cached = slices.Delete(s.cached, 0, 1)
	}
	s.mu.Unlock()
	s.release(old)
	return b, nil
}

// Wait waits until there is a record at or after a Seq.
func (s *Store) Wait(ctx context.Context, from uint64) error {
	for {
		s.mu.Lock()
		if s.next > from {
			s.mu.Unlock()
			return nil
		}
		if s.woken == nil {
			s.woken = make(chan struct{})
		}
		woken := s.woken
		s.mu.Unlock()
		select {
		case <-woken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Waiting is how many messages there are from a Seq on, and how many bytes they
// have before compression: what a reader at that Seq has before it. Within a block
// the bytes are taken to be spread evenly.
func (s *Store) Waiting(from uint64) (messages, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := func(first, end uint64, raw int64) {
		n := end - first
		if from > first {
			n = end - min(from, end)
		}
		messages += int64(n)
		if end > first {
			bytes += raw * int64(n) / int64(end-first)
		}
	}
	for _, g := range slices.Backward(s.segments) {
		if len(g.entries) == 0 {
			continue
		}
		if g.entries[0].first >= from {
			messages += g.messages
			bytes += g.raw
			continue
		}
		i := sort.Search(len(g.entries), func(i int) bool { return g.entries[i].end() > from })
		for ; i < len(g.entries); i++ {
			e := &g.entries[i]
			end := g.raw
			if i+1 < len(g.entries) {
				end = int64(g.entries[i+1].rawBefore)
			}
			part(e.first, e.end(), end-int64(e.rawBefore))
		}
		break
	}
	for _, b := range s.unwritten() {
		if b.count > 0 {
			part(b.first, b.end(), int64(b.raw()))
		}
	}
	return messages, bytes
}

// Bytes is how many bytes, before compression, the records from a Seq on have.
func (s *Store) Bytes(from uint64) int64 {
	_, bytes := s.Waiting(from)
	return bytes
}
