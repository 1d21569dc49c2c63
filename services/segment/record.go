package segment

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
	"unicode/utf8"
	"unsafe"

	"berth/appliance/syslog"
)

const (
	// maxRecord is how long one message may be here; the rest of it is cut off.
	maxRecord = 1 << 20
	// maxAttrs is how many attributes of a message are kept.
	maxAttrs = 1 << 10
	// maxRaw is more than any block can be before compression: the last record
	// may begin just below the size at which a block is full.
	maxRaw = 4 << 20
)

// errRuined says that bytes are not what was written.
var errRuined = errors.New("the bytes are not what was written")

// A record is
//
//	uvarint  length of what follows
//	varint   time: nanoseconds since the record before, in a block's first since 1970
//	byte     facility<<3 | severity, as in RFC 5424's PRI
//	uvarint  component, host, process id, message id: words of the block's dictionary
//	uvarint  number of attributes, then for each:
//	  uvarint  key, a word of the dictionary
//	  uvarint  length of the value, and the value
//	         the text: the rest
//
// The dictionary stands apart, so that a record can be skipped by its length,
// and a block that lacks a word need not be looked through for it.

// appendRecord encodes m at time t into b. word gives a string's number in the
// dictionary.
func appendRecord(b []byte, m *syslog.Message, since int64, word func(string) uint64) []byte {
	b = binary.AppendVarint(b, since)
	b = append(b, byte(m.Facility)<<3|byte(m.Severity)&7)
	b = binary.AppendUvarint(b, word(m.Component))
	b = binary.AppendUvarint(b, word(m.Host))
	b = binary.AppendUvarint(b, word(m.PID))
	b = binary.AppendUvarint(b, word(m.ID))
	room, n := maxRecord, 0
	for _, a := range m.Attrs {
		if room -= len(a.Key) + len(a.Value) + 8; room < 0 || n == maxAttrs {
			break
		}
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, a := range m.Attrs[:n] {
		room -= len(a.Key) + len(a.Value) + 8
		b = binary.AppendUvarint(b, word(a.Key))
		b = binary.AppendUvarint(b, uint64(len(a.Value)))
		b = append(b, a.Value...)
	}
	return append(b, cutText(m.Text, maxRecord-len(b))...)
}

// cutText shortens s to n bytes at most, between characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n = max(n, 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// view is a block that can be read: its words, and its records one after another.
type view struct {
	first uint64
	count int
	words []string
	recs  []byte
}

// head is what is known of a record before the rest of it is decoded.
type head struct {
	seq       uint64
	time      int64
	facility  syslog.Facility
	severity  syslog.Severity
	component uint64 // a word
	rest      []byte
}

// walk goes through the records of a view.
type walk struct {
	v    *view
	n    int
	off  int
	time int64
}

// next gives the next record's head; false at the end. What does not decode is
// an error, and the end.
func (w *walk) next(h *head) (bool, error) {
	if w.n == w.v.count {
		return false, nil
	}
	b := w.v.recs[w.off:]
	size, k := binary.Uvarint(b)
	if k <= 0 || size > uint64(len(b)-k) || size > maxRecord+64 {
		return false, errRuined
	}
	body := b[k : k+int(size)]
	since, d := binary.Varint(body)
	if d <= 0 || d >= len(body) {
		return false, errRuined
	}
	w.time += since
	pri := body[d]
	component, c := binary.Uvarint(body[d+1:])
	if c <= 0 || component >= uint64(len(w.v.words)) {
		return false, errRuined
	}
	*h = head{seq: w.v.first + uint64(w.n), time: w.time, facility: syslog.Facility(pri >> 3), severity: syslog.Severity(pri & 7),
		component: component, rest: body[d+1+c:]}
	w.n++
	w.off += k + int(size)
	return true, nil
}

// decode fills r with a record, using the room of its attributes. Its strings
// lie in the block's own memory.
func (v *view) decode(h *head, r *Record) error {
	d := fields{b: h.rest, words: v.words}
	r.Seq, r.Time, r.Facility, r.Severity = h.seq, time.Unix(0, h.time).UTC(), h.facility, h.severity
	r.Component = v.words[h.component]
	r.Host, r.PID, r.ID = d.word(), d.word(), d.word()
	n := d.number()
	if n > maxAttrs {
		return errRuined
	}
	r.Attrs = r.Attrs[:0]
	for range n {
		key := d.word()
		r.Attrs = append(r.Attrs, syslog.Attr{Key: key, Value: d.bytes()})
		if d.bad {
			return errRuined
		}
	}
	r.Text = str(d.b)
	if d.bad {
		return errRuined
	}
	return nil
}

// fields takes a record's parts off its bytes.
type fields struct {
	b     []byte
	words []string
	bad   bool
}

func (d *fields) number() uint64 {
	n, k := binary.Uvarint(d.b)
	if k <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[k:]
	return n
}

func (d *fields) word() string {
	n := d.number()
	if n >= uint64(len(d.words)) {
		d.bad = true
		return ""
	}
	return d.words[n]
}

func (d *fields) bytes() string {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.bad = true
		return ""
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return str(s)
}

// str is b as a string without a copy. It is good as long as b's owner leaves
// its bytes alone: during a call of Read's f, and before a search copies what it
// keeps.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// appendWords writes words of a dictionary: how many, then each with its length.
func appendWords(b []byte, words []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(words)))
	for _, s := range words {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// cutWords takes words off the front of b and adds them to words.
func cutWords(b []byte, words []string) ([]string, []byte, error) {
	d := fields{b: b}
	n := d.number()
	if n > uint64(len(b)) {
		return words, nil, errRuined
	}
	for range n {
		s := d.bytes()
		if d.bad {
			return words, nil, errRuined
		}
		words = append(words, s)
	}
	if d.bad {
		return words, nil, errRuined
	}
	return words, d.b, nil
}

// nanos is t as this package keeps it. What nanoseconds cannot say (before 1678,
// after 2262) becomes the nearest that they can.
func nanos(t time.Time) int64 {
	switch y := t.Year(); {
	case y < 1678:
		return math.MinInt64 / 2
	case y > 2261:
		return math.MaxInt64 - 1
	}
	return t.UnixNano()
}
