package segment

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"berth/appliance/syslog"
)

// Query asks for messages. What is empty is not asked for.
type Query struct {
	// Since and Until are times of messages: at Since or later, and before Until.
	Since, Until time.Time
	// Severity is the least severe that is wanted.
	Severity *syslog.Severity
	// Components are wanted, and no others.
	Components []string
	// Text is a part of the text or of an attribute's value, in small or capital
	// letters. The facts of a message are in its attributes, so a search that left
	// them out would find little. If there is a "=" in it, it may also be a part of
	// key=value.
	Text string
	// Attrs must be there, each with this very value.
	Attrs []syslog.Attr
	// ID is the value of request_id, token_request or trace_id.
	ID string
	// OldestFirst turns the order round.
	OldestFirst bool
	// Limit is how many messages a page has at most; 0 means 100, and 10,000 is the
	// most.
	Limit int
	// Cursor is the Next of the page before.
	Cursor string
	// MaxRaw is how many bytes, before compression, a page looks through before it
	// gives what it has found so far; 0 means 256 MiB. It looks into one block
	// at least.
	MaxRaw int64
}

// Filter is a query made ready to be asked of many messages. It can be used by
// several goroutines.
type Filter struct {
	since, until int64
	severities   uint8
	components   map[string]bool
	text         needle
	attrs        []syslog.Attr
	id           string
	hash         uint32
}

// NewFilter makes a query's filter. Limit and Cursor have nothing to do with it.
func NewFilter(q Query) *Filter {
	f := &Filter{since: minTime, until: maxTime, severities: 0xff, attrs: q.Attrs, id: q.ID, hash: hashID(q.ID), text: newNeedle(q.Text)}
	if !q.Since.IsZero() {
		f.since = nanos(q.Since)
	}
	if !q.Until.IsZero() {
		f.until = nanos(q.Until)
	}
	if q.Severity != nil {
		f.severities = 1<<(*q.Severity&7+1) - 1
	}
	if len(q.Components) > 0 {
		f.components = map[string]bool{}
		for _, c := range q.Components {
			f.components[c] = true
		}
	}
	return f
}

// Match reports whether a message is asked for.
func (f *Filter) Match(m *syslog.Message) bool {
	t := nanos(m.Time)
	return t >= f.since && t < f.until && f.severities&(1<<(m.Severity&7)) != 0 &&
		(f.components == nil || f.components[m.Component]) && f.matchRest(m)
}

// matchRest looks at what a record's head does not have.
func (f *Filter) matchRest(m *syslog.Message) bool {
	if f.id != "" && !hasID(m, f.id) {
		return false
	}
	for _, want := range f.attrs {
		if !hasAttr(m, want) {
			return false
		}
	}
	return f.text.empty() || f.text.in(m)
}

func hasID(m *syslog.Message, id string) bool {
	for i := range m.Attrs {
		if a := &m.Attrs[i]; a.Value == id && isID(a.Key) {
			return true
		}
	}
	return false
}

func hasAttr(m *syslog.Message, want syslog.Attr) bool {
	for i := range m.Attrs {
		if m.Attrs[i] == want {
			return true
		}
	}
	return false
}

// needle is a text to be found, whatever its letters' case.
type needle struct {
	lower string
	ascii bool
	pair  bool   // it may be a part of key=value
	part  string // the part that every block with a match has in its bytes; "" if it cannot be told
}

func newNeedle(s string) needle {
	n := needle{lower: strings.ToLower(s), ascii: true, pair: strings.Contains(s, "=")}
	for i := range len(s) {
		n.ascii = n.ascii && s[i] < utf8.RuneSelf
	}
	if n.ascii {
		n.part = n.lower[strings.LastIndexByte(n.lower, '=')+1:]
	}
	return n
}

func (n *needle) empty() bool { return n.lower == "" }

// in reports whether a message has it.
func (n *needle) in(m *syslog.Message) bool {
	if n.found(m.Text) {
		return true
	}
	for i := range m.Attrs {
		a := &m.Attrs[i]
		if n.found(a.Value) || n.pair && n.found(a.Key+"="+a.Value) {
			return true
		}
	}
	return false
}

func (n *needle) found(s string) bool {
	if len(s) < len(n.lower) && n.ascii {
		return false
	}
	if n.ascii {
		return indexFold(s, n.lower) >= 0
	}
	return strings.Contains(strings.ToLower(s), n.lower)
}

// maybeIn reports whether a block's bytes may have a match.
func (n *needle) maybeIn(recs []byte) bool {
	return n.part == "" || indexFold(str(recs), n.part) >= 0
}

// indexFold finds lower, which is small ASCII, in s, whose ASCII letters may be
// capital. It looks for the byte of lower that is the rarest in logs, and there
// for the rest.
func indexFold(s, lower string) int {
	rare := rarest(lower)
	c := lower[rare]
	C := c
	if 'a' <= c && c <= 'z' {
		C = c - 'a' + 'A'
	}
	end := len(s) - len(lower) + rare
	for at := rare; at <= end; {
		i := strings.IndexByte(s[at:end+1], c)
		if C != c {
			limit := end + 1
			if i >= 0 {
				limit = at + i
			}
			if j := strings.IndexByte(s[at:limit], C); j >= 0 {
				i = j
			}
		}
		if i < 0 {
			return -1
		}
		if at += i; equalFold(s[at-rare:at-rare+len(lower)], lower) {
			return at - rare
		}
		at++
	}
	return -1
}

// rarest gives the position of the byte that logs have the least of.
func rarest(lower string) int {
	const common = "etaionsr0123456789/-.: dlhcmupgb"
	best, at := -1, 0
	for i := range len(lower) {
		rank := strings.IndexByte(common, lower[i])
		if rank < 0 {
			rank = len(common)
		}
		if rank > best {
			best, at = rank, i
		}
	}
	return at
}

func equalFold(s, lower string) bool {
	for i := range len(lower) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// skip reports whether no record of a block can match, by its dictionary and its
// bytes alone. Otherwise it says which words are wanted components.
func (f *Filter) skip(v *view, wanted []bool) (bool, []bool) {
	wanted = wanted[:0]
	some := f.components == nil
	for _, w := range v.words {
		is := f.components == nil || f.components[w]
		some = some || is
		wanted = append(wanted, is)
	}
	if !some || f.id != "" && !bytes.Contains(v.recs, []byte(f.id)) {
		return true, wanted
	}
	for _, a := range f.attrs {
		if !bytes.Contains(v.recs, []byte(a.Value)) {
			return true, wanted
		}
	}
	return !f.text.empty() && !f.text.maybeIn(v.recs), wanted
}
