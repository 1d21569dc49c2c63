package segment

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/syslog"
)

// Page is a part of the answer to a query.
type Page struct {
	// Records are in the order of their time and, where that is the same, of their
	// Seq: the newest first, or the oldest if the query says so.
	Records []Record
	// Next is the cursor of what follows; "" if nothing does. A page may be empty
	// and have it: then the search has looked as far as one call may.
	Next string
	// ScannedTo is how far this page has looked, if there is a Next.
	ScannedTo time.Time
}

const (
	minTime = math.MinInt64
	maxTime = math.MaxInt64

	defaultLimit = 100
	maxLimit     = 10_000
	// pageBytes is how much text a page holds; what is more goes to the next.
	pageBytes = 2 << 20
	// pageRaw and pageTime are how much is looked through for one page.
	pageRaw  = 256 << 20
	pageTime = 2 * time.Second
)

// place is a record's position in the order of searches: the greatest comes
// first. For a search from the oldest on all bits of both numbers are flipped,
// which turns their order round; the search itself knows one order only.
type place struct {
	time int64
	seq  uint64
}

func placeOf(time int64, seq uint64, flip int64) place { return place{time ^ flip, seq ^ uint64(flip)} }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.time, q.time), cmp.Compare(p.seq, q.seq))
}

// cursor makes a place a string; the search goes on with what is before it. It
// names no file and no offset, so it holds whatever comes or goes meanwhile.
func (p place) cursor() string {
	b := binary.BigEndian.AppendUint64([]byte{1}, uint64(p.time))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, p.seq))
}

func parseCursor(s string) (place, error) {
	if s == "" {
		return place{maxTime, math.MaxUint64}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 17 || b[0] != 1 {
		return place{}, fault.New(fault.Invalid, "it is not a cursor that a page has ended with").On("cursor")
	}
	return place{int64(binary.BigEndian.Uint64(b[1:])), binary.BigEndian.Uint64(b[9:])}, nil
}

// Search gives a page of the messages that q asks for. Blocks are looked through
// in the order of their newest message, until no further block can have a message
// that belongs on the page; so the order is right although messages come late.
func (s *Store) Search(ctx context.Context, q Query) (Page, error) {
	before, err := parseCursor(q.Cursor)
	if err != nil {
		return Page{}, err
	}
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	if q.MaxRaw <= 0 {
		q.MaxRaw = pageRaw
	}
	x := &search{s: s, f: NewFilter(q), before: before, budget: q.MaxRaw, deadline: time.Now().Add(pageTime)}
	x.kept.limit = min(q.Limit, maxLimit)
	if q.OldestFirst {
		x.flip, x.kept.flip = -1, -1
	}
	x.takeSnapshot()
	defer x.close()
	return x.run(ctx)
}

// search is one call of Search.
type search struct {
	s        *Store
	f        *Filter
	before   place
	flip     int64 // -1 = the oldest first
	budget   int64
	deadline time.Time

	segments []searched // by their first message in the search's order
	can      []bool     // by set of components; nil = all
	memory   []held
	sources  sources
	kept     kept
	scan     *scan
	file     *os.File // of segment opened
	opened   *segment
}

// searched is a segment as it was when the search began.
type searched struct {
	*segment
	entries []entry
	hashes  [][]uint32
	index   index
	front   int64
}

// held is a block in memory, kept there by the search.
type held struct {
	*block
	view
}

// takeSnapshot notes what there is to be looked through.
func (x *search) takeSnapshot() {
	x.scan = x.s.scans.Get().(*scan)
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	var names []string
	for c := range x.f.components {
		names = append(names, c)
	}
	x.can = wanted(x.s.components.sets, names)
	for _, g := range x.s.segments {
		if len(g.entries) > 0 && x.overlaps(g.min, g.max) {
			// The writer replaces a block's hashes, but never changes them.
			x.segments = append(x.segments, searched{g, g.entries, slices.Clone(g.hashes), g.index, x.front(g.min, g.max)})
		}
	}
	for _, b := range x.s.unwritten() {
		if b.count > 0 && x.overlaps(b.min, b.max) && b.severities&x.f.severities != 0 {
			b.refs.Add(1)
			x.sources = append(x.sources, source{front: x.front(b.min, b.max), n: len(x.memory), raw: int64(b.raw())})
			x.memory = append(x.memory, held{b, b.view})
		}
	}
	heap.Init(&x.sources)
	slices.SortFunc(x.segments, func(a, b searched) int { return cmp.Compare(b.front, a.front) })
}

func (x *search) close() {
	for _, h := range x.memory {
		x.s.release(h.block)
	}
	if x.file != nil {
		x.file.Close()
	}
	x.s.scans.Put(x.scan)
}

// overlaps reports whether a span of time has something for this page.
func (x *search) overlaps(lo, hi int64) bool {
	return hi >= x.f.since && lo < x.f.until && min(lo^x.flip, hi^x.flip) <= x.before.time
}

// front is where a span of time begins in the search's order.
func (x *search) front(lo, hi int64) int64 { return max(lo^x.flip, hi^x.flip) }

// source is a block to be looked into: of a segment, or held in memory.
type source struct {
	front   int64
	segment *segment
	n       int // which entry, or which of the held
	raw     int64
	entry   entry
}

// sources is a heap; what begins first is on top.
type sources []source

func (h sources) Len() int           { return len(h) }
func (h sources) Less(i, j int) bool { return h[i].front > h[j].front }
func (h sources) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(v any)        { *h = append(*h, v.(source)) }
func (h *sources) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// next gives the source that begins first of those that are left.
func (x *search) next() (source, bool) {
	for len(x.segments) > 0 && (len(x.sources) == 0 || x.segments[0].front >= x.sources[0].front) {
		x.expand(&x.segments[0])
		x.segments = x.segments[1:]
	}
	if len(x.sources) == 0 {
		return source{}, false
	}
	return heap.Pop(&x.sources).(source), true
}

// expand adds the blocks of a segment that may have a match.
func (x *search) expand(g *searched) {
	add := func(i int) {
		e := &g.entries[i]
		if !x.overlaps(e.min, e.max) || e.severities&x.f.severities == 0 || x.can != nil && int(e.set) < len(x.can) && !x.can[e.set] {
			return
		}
		heap.Push(&x.sources, source{front: x.front(e.min, e.max), segment: g.segment, raw: int64(e.size) * 8, entry: *e})
	}
	if x.f.id != "" && g.index.size > 0 {
		found, err := lookUp(x.s.path(g.name, indexExt), g.index, x.f.hash)
		if err == nil {
			for _, i := range found {
				if i < len(g.entries) {
					add(i)
				}
			}
			return
		}
		x.s.indexIsBroken(g.segment)
	}
	for i := range g.entries {
		if x.f.id != "" && i < len(g.hashes) && g.hashes[i] != nil {
			if _, found := slices.BinarySearch(g.hashes[i], x.f.hash); !found {
				continue
			}
		}
		add(i)
	}
}

func (x *search) run(ctx context.Context) (Page, error) {
	began := int64(maxTime)
	for {
		src, ok := x.next()
		if !ok {
			return x.page(false, minTime), nil
		}
		if began == maxTime {
			began = min(src.front, x.before.time)
		}
		if floor, full := x.kept.floor(); full && src.front < floor.time {
			return x.page(true, minTime), nil
		}
		// A page that ended where it began would never get anywhere.
		if src.front < began && (x.budget <= 0 || time.Now().After(x.deadline)) {
			return x.page(true, src.front), nil
		}
		if err := ctx.Err(); err != nil {
			return Page{}, err
		}
		x.budget -= src.raw
		if err := x.lookInto(&src); err != nil {
			return Page{}, err
		}
	}
}

// lookInto keeps a block's matches. A block that cannot be read is counted and
// passed over; one that has been removed is gone.
func (x *search) lookInto(src *source) error {
	if src.segment == nil {
		x.s.countRuin(x.matches(&x.memory[src.n].view), "memory", 0)
		return nil
	}
	if x.opened != src.segment {
		f, err := os.Open(x.s.path(src.segment.name, segmentExt))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if x.file != nil {
			x.file.Close()
		}
		x.file, x.opened = f, src.segment
	}
	v, err := x.s.read(x.scan, x.file, src.entry)
	if err == nil {
		err = x.matches(v)
	}
	x.s.countRuin(err, src.segment.name, src.entry.offset)
	return nil
}

// countRuin counts a block that could not be read, and tells of the first.
func (s *Store) countRuin(err error, name string, offset uint32) {
	if err == nil {
		return
	}
	s.ruined.Add(1)
	if s.toldOfRuin.CompareAndSwap(false, true) {
		s.o.Log.Error("a block of log messages cannot be read; searches pass it over", "segment", name, "offset", offset, "err", err)
	}
}

// matches keeps what a view has for the page.
func (x *search) matches(v *view) error {
	skip, words := x.f.skip(v, x.scan.wanted)
	x.scan.wanted = words
	if skip {
		return nil
	}
	w := walk{v: v}
	var h head
	for {
		ok, err := w.next(&h)
		if !ok || err != nil {
			return err
		}
		p := placeOf(h.time, h.seq, x.flip)
		if h.time < x.f.since || h.time >= x.f.until || x.f.severities&(1<<h.severity) == 0 || !words[h.component] ||
			p.compare(x.before) >= 0 || !x.kept.wants(p) {
			continue
		}
		if err := v.decode(&h, &x.scan.record); err != nil {
			return err
		}
		if x.f.matchRest(&x.scan.record.Message) {
			x.kept.add(p, &x.scan.record)
		}
	}
}

// page gives what was found. If the search has stopped before blocks that begin
// at cut, what comes after that has to wait for them.
func (x *search) page(more bool, cut int64) Page {
	p := x.kept.records(cut)
	if !more && !x.kept.dropped {
		return Page{Records: p}
	}
	page := Page{Records: p}
	last := place{cut, math.MaxUint64}
	if len(p) > 0 && (cut == minTime || x.kept.dropped) {
		last = x.kept.place(&p[len(p)-1])
	}
	page.Next, page.ScannedTo = last.cursor(), time.Unix(0, last.time^x.flip).UTC()
	return page
}

// kept are the first matches so far: a heap, the last of them on top.
type kept struct {
	limit   int
	flip    int64
	bytes   int
	dropped bool  // more were found and did not fit
	top     place // the first of those
	list    []Record
}

func (k *kept) place(r *Record) place { return placeOf(nanos(r.Time), r.Seq, k.flip) }

func (k *kept) Len() int           { return len(k.list) }
func (k *kept) Less(i, j int) bool { return k.place(&k.list[i]).compare(k.place(&k.list[j])) < 0 }
func (k *kept) Swap(i, j int)      { k.list[i], k.list[j] = k.list[j], k.list[i] }
func (k *kept) Push(v any)         { k.list = append(k.list, v.(Record)) }
func (k *kept) Pop() any {
	last := k.list[len(k.list)-1]
	k.list = k.list[:len(k.list)-1]
	return last
}

// floor is the last that is kept, and whether anything after it is of no use.
func (k *kept) floor() (place, bool) {
	if len(k.list) == 0 || !k.dropped && len(k.list) < k.limit {
		return place{}, false
	}
	return k.place(&k.list[0]), true
}

func (k *kept) wants(p place) bool {
	if k.dropped && p.compare(k.top) < 0 {
		return false
	}
	if floor, full := k.floor(); full && len(k.list) >= k.limit && p.compare(floor) < 0 {
		k.dropped, k.top = true, maxPlace(k.top, p, k.dropped)
		return false
	}
	return true
}

func maxPlace(a, b place, both bool) place {
	if both && a.compare(b) > 0 {
		return a
	}
	return b
}

// add copies a record; the last goes if there are too many or they are too long.
func (k *kept) add(p place, r *Record) {
	c := *r
	c.Host, c.Component, c.PID, c.ID, c.Text = strings.Clone(r.Host), strings.Clone(r.Component), strings.Clone(r.PID), strings.Clone(r.ID), strings.Clone(r.Text)
	c.Attrs = make([]syslog.Attr, len(r.Attrs))
	for i, a := range r.Attrs {
		c.Attrs[i] = syslog.Attr{Key: strings.Clone(a.Key), Value: strings.Clone(a.Value)}
	}
	heap.Push(k, c)
	k.bytes += size(&c)
	for len(k.list) > k.limit || k.bytes > pageBytes && len(k.list) > 1 {
		old := heap.Pop(k).(Record)
		k.bytes -= size(&old)
		k.top = maxPlace(k.top, k.place(&old), k.dropped)
		k.dropped = true
	}
}

func size(r *Record) int {
	n := 200 + len(r.Text)
	for _, a := range r.Attrs {
		n += 32 + len(a.Key) + len(a.Value)
	}
	return n
}

// records gives what comes before cut, in order.
func (k *kept) records(cut int64) []Record {
	list := k.list
	if cut != minTime {
		list = slices.DeleteFunc(list, func(r Record) bool { return nanos(r.Time)^k.flip <= cut })
	}
	slices.SortFunc(list, func(a, b Record) int { return k.place(&b).compare(k.place(&a)) })
	return list
}
