package segment

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"berth/appliance/syslog"
)

// block is one in memory: being filled, waiting to be written, or just written
// and kept for readers. All but refs is guarded by the store's mu until the block
// is full; then it does not change any more.
type block struct {
	view
	last       int64 // time of the last record
	min, max   int64
	severities uint8 // bit 1<<severity
	wordBytes  int
	components []uint64 // words
	many       bool     // more components than are told apart
	hashes     []uint32 // of request ids; sorted, each once, when the block is full
	gathered   []uint32 // room for them until then
	made       time.Time
	numbers    map[string]uint64
	scratch    []byte

	// What of it is in the tail file.
	wroteRecs, wroteWords, wroteCount int

	refs atomic.Int32
}

// maxBlockComponents is how many components a block names; one with more is
// looked through whatever component is asked for.
const maxBlockComponents = 64

func (b *block) start(first uint64) {
	b.first, b.count, b.words, b.recs = first, 0, nil, b.recs[:0]
	b.made = time.Now()
	b.last, b.min, b.max, b.severities, b.wordBytes = 0, math.MaxInt64, math.MinInt64, 0, 0
	b.components, b.many, b.hashes, b.gathered = b.components[:0], false, nil, b.gathered[:0]
	b.wroteRecs, b.wroteWords, b.wroteCount = 0, 0, 0
	if b.numbers == nil {
		b.numbers = map[string]uint64{}
	}
	clear(b.numbers)
	b.refs.Store(1)
}

// raw is how large the block is before compression.
func (b *block) raw() int { return len(b.recs) + b.wordBytes }

// end is the Seq after the last.
func (b *block) end() uint64 { return b.first + uint64(b.count) }

func (b *block) word(s string) uint64 {
	n, ok := b.numbers[s]
	if !ok {
		s = strings.Clone(s)
		n = uint64(len(b.words))
		b.numbers[s] = n
		b.words = append(b.words, s)
		b.wordBytes += len(s) + 2
	}
	return n
}

// add copies m into the block.
func (b *block) add(m *syslog.Message, t int64) {
	b.scratch = appendRecord(b.scratch[:0], m, t-b.last, b.word)
	b.recs = binary.AppendUvarint(b.recs, uint64(len(b.scratch)))
	b.recs = append(b.recs, b.scratch...)
	if cap(b.scratch) > 64<<10 {
		b.scratch = nil
	}
	b.note(b.word(m.Component), m.Severity, t)
	for i := range m.Attrs {
		if a := &m.Attrs[i]; a.Value != "" && isID(a.Key) {
			b.gathered = append(b.gathered, hashID(a.Value))
		}
	}
}

// note keeps account of a record that was added.
func (b *block) note(component uint64, severity syslog.Severity, t int64) {
	b.count++
	b.last, b.min, b.max = t, min(b.min, t), max(b.max, t)
	b.severities |= 1 << (severity & 7)
	if !b.many && !slices.Contains(b.components, component) {
		if len(b.components) == maxBlockComponents {
			b.many = true
			return
		}
		b.components = append(b.components, component)
	}
}

// finish makes the block ready to be written.
func (b *block) finish() {
	slices.Sort(b.gathered)
	b.hashes = append(make([]uint32, 0), slices.Compact(b.gathered)...)
	b.gathered = b.gathered[:0]
}

// names are the block's components.
func (b *block) names() []string {
	names := make([]string, 0, len(b.components))
	for _, c := range b.components {
		names = append(names, b.words[c])
	}
	slices.Sort(names)
	return names
}

// isID reports whether messages are found by this attribute's values.
func isID(key string) bool {
	return key == syslog.RequestID || key == syslog.TokenRequest || key == syslog.TraceID
}

// hashID is what an index keeps of a request id: 32 bits do, for a wrong hit only
// costs looking into one more block.
func hashID(s string) uint32 { return crc32.Checksum([]byte(s), castagnoli) }

// castagnoli is the polynomial that processors know.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A block in a segment file is a header, the names of its components, and the
// dictionary and the records in one zstd frame. Numbers are little-endian.
//
//	 0  magic "BBLK"
//	 4  CRC-32C of the header from byte 8 on
//	 8  length of the header with the names
//	10  severities, a bit each
//	11  1: the components are too many to be named
//	12  length of the frame
//	16  length of what is in the frame
//	20  CRC-32C of the frame
//	24  Seq of the first record
//	32  number of records
//	36  0
//	40  smallest time, 48 largest time, in nanoseconds
//	56  names: how many, then each with its length
const (
	blockMagic  = "BBLK"
	blockHeader = 56
	maxHeader   = 1<<16 - 1
)

// entry is what is kept in memory of each block of each segment: 48 bytes.
type entry struct {
	first      uint64
	min, max   int64
	rawBefore  uint32 // of the segment's blocks before this one
	offset     uint32
	size       uint32 // header and frame
	count      uint32
	set        uint16 // of components
	severities uint8
}

func (e *entry) end() uint64 { return e.first + uint64(e.count) }

// header is a block's header, decoded.
type header struct {
	entry
	header, frame, raw uint32
	crc                uint32
	many               bool
	names              []string
}

// appendBlock encodes a block, its frame made by compress.
func appendBlock(dst []byte, b *block, compress func(src, dst []byte) []byte, room *[]byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, blockHeader)...)
	var flags byte
	names := b.names()
	if b.many || totalLen(names) > maxHeader/2 {
		flags, names = 1, nil
	}
	dst = appendWords(dst, names)
	size := len(dst) - at
	*room = appendWords((*room)[:0], b.words)
	*room = append(*room, b.recs...)
	dst = compress(*room, dst)
	h, frame := dst[at:at+size], dst[at+size:]
	copy(h, blockMagic)
	le := binary.LittleEndian
	le.PutUint16(h[8:], uint16(size))
	h[10], h[11] = b.severities, flags
	le.PutUint32(h[12:], uint32(len(frame)))
	le.PutUint32(h[16:], uint32(len(*room)))
	le.PutUint32(h[20:], crc32.Checksum(frame, castagnoli))
	le.PutUint64(h[24:], b.first)
	le.PutUint32(h[32:], uint32(b.count))
	le.PutUint64(h[40:], uint64(b.min))
	le.PutUint64(h[48:], uint64(b.max))
	le.PutUint32(h[4:], crc32.Checksum(h[8:], castagnoli))
	return dst
}

func totalLen(list []string) (n int) {
	for _, s := range list {
		n += len(s) + 3
	}
	return n
}

// parseHeader reads the header at the beginning of b, which may be shorter than
// the block.
func parseHeader(b []byte) (h header, err error) {
	le := binary.LittleEndian
	if len(b) < blockHeader || string(b[:4]) != blockMagic {
		return h, errRuined
	}
	size := int(le.Uint16(b[8:]))
	if size < blockHeader || size > len(b) || crc32.Checksum(b[8:size], castagnoli) != le.Uint32(b[4:]) {
		return h, errRuined
	}
	h = header{header: uint32(size), frame: le.Uint32(b[12:]), raw: le.Uint32(b[16:]), crc: le.Uint32(b[20:]), many: b[11]&1 != 0}
	h.first, h.count = le.Uint64(b[24:]), le.Uint32(b[32:])
	h.min, h.max, h.severities = int64(le.Uint64(b[40:])), int64(le.Uint64(b[48:])), b[10]
	h.size = h.header + h.frame
	if h.raw > maxRaw || h.frame > maxRaw+1024 || h.count == 0 || uint64(h.count) > uint64(h.raw) || h.end() < h.first {
		return h, errRuined
	}
	names, _, err := cutWords(b[blockHeader:size], nil)
	for _, n := range names {
		h.names = append(h.names, strings.Clone(n))
	}
	return h, err
}
