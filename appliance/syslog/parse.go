package syslog

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// What a message may hold after Parse. Text and values are bounded by the line
// that they came in.
const (
	MaxHost      = 255 // as RFC 5424 section 6 has it
	MaxComponent = 128 // 48 there; some programs call themselves by their path
	MaxPID       = 128
	MaxID        = 128 // 32 there
	MaxAttrs     = 64
	MaxKey       = 65 // an element's name, a dot, a parameter's name, 32 each
)

// ErrEmpty is what Parse says of a line without anything in it.
var ErrEmpty = errors.New("the message is empty")

const (
	bom = "\ufeff"
	// ownElement holds the attributes that have plain keys. 32473 is the enterprise
	// number for documentation (RFC 5612); we have none.
	ownElement = "berth@32473"
)

// Parse reads one message, without its frame, into m: RFC 5424, else RFC 3164 in
// the forms that are in use, else the whole line is the text. Only an empty line
// is refused (ErrEmpty).
//
//   - What a message lacks: time is now, facility user, severity notice (RFC
//     3164 section 4.3.3), the rest empty. A time without a year is the one that
//     is nearest to now; one without a zone is in now's. Times come back in UTC.
//     A time that time.Time.UnixNano cannot express is replaced by now.
//   - Invalid UTF-8 becomes U+FFFD. Control characters stay: whoever prints them
//     escapes them. Ends of line, NUL and spaces at the end are cut.
//   - What is longer than the constants above is cut there, attributes after the
//     64th are dropped. Structured data that has no end is text.
//   - An element without parameters is an attribute "element." with no value.
//
// m's strings are parts of line where they can be, and the room of m.Attrs is
// used again: whoever keeps m clones it.
func Parse(line string, now time.Time, m *Message) error {
	line = strings.TrimRight(line, "\r\n\x00 ")
	if line == "" {
		return ErrEmpty
	}
	if !utf8.ValidString(line) {
		line = strings.ToValidUTF8(line, "\uFFFD")
	}
	*m = Message{Time: now.UTC(), Facility: User, Severity: Notice, Attrs: m.Attrs[:0]}
	pri, rest, ok := cutPriority(line)
	if ok {
		m.Facility, m.Severity = Facility(pri>>3), Severity(pri&7)
		if len(rest) > 2 && rest[0] == '1' && rest[1] == ' ' && m.parse5424(rest[2:]) {
			return nil
		}
	}
	m.parse3164(rest, ok, now)
	return nil
}

// cutPriority takes <PRI> off: one to three digits, 191 at most.
func cutPriority(line string) (pri int, rest string, ok bool) {
	if line[0] != '<' {
		return 0, line, false
	}
	for i := 1; i < min(len(line), 5); i++ {
		c := line[i]
		if c == '>' && i > 1 && pri <= int(maxFacility)<<3+7 {
			return pri, line[i+1:], true
		}
		if c < '0' || c > '9' {
			break
		}
		pri = pri*10 + int(c-'0')
	}
	return 0, line, false
}

// parse5424 reads what follows the version (RFC 5424 section 6). It reports
// false, and m is as it was, if this is no header of that kind.
func (m *Message) parse5424(s string) bool {
	stamp, s, ok := strings.Cut(s, " ")
	if !ok {
		return false
	}
	t := m.Time
	if stamp != "-" {
		var n int
		if t, n, ok = parseISO(stamp, time.UTC); !ok || n != len(stamp) {
			return false
		}
	}
	var field [4]string
	for i := range field {
		if field[i], s, ok = strings.Cut(s, " "); !ok && i < len(field)-1 {
			return false
		}
		if field[i] == "-" {
			field[i] = ""
		}
	}
	m.Host, m.Component = cut(field[0], MaxHost), cut(field[1], MaxComponent)
	m.PID, m.ID = cut(field[2], MaxPID), cut(field[3], MaxID)
	if inRange(t) {
		m.Time = t
	}
	m.Text = strings.TrimPrefix(m.parseData(s), bom)
	return true
}

// parseData reads structured data (RFC 5424 section 6.3) and gives the text
// after it. What is no structured data is text: some programs leave it out.
func (m *Message) parseData(s string) (text string) {
	if s == "-" {
		return ""
	}
	if strings.HasPrefix(s, "- ") {
		return s[2:]
	}
	if s == "" || s[0] != '[' {
		return s
	}
	d := data{s: s, attrs: m.Attrs}
	for d.i < len(s) && s[d.i] == '[' {
		if !d.element() {
			return s
		}
	}
	m.Attrs = d.attrs
	if d.i < len(s) && s[d.i] == ' ' {
		d.i++
	}
	return s[d.i:]
}

// data is where a reading of structured data stands.
type data struct {
	s     string
	i     int
	attrs []Attr
	made  strings.Builder // keys and values that are no part of s, in one piece
}

// element reads [name key="value" …], and reports whether there was one.
func (d *data) element() bool {
	d.i++ // [
	name := d.name()
	if name == "" {
		return false
	}
	own, empty := name == ownElement, true
	for d.i < len(d.s) {
		switch d.s[d.i] {
		case ']':
			d.i++
			if empty {
				d.add(d.join(name, ""), "")
			}
			return true
		case ' ':
			for d.i < len(d.s) && d.s[d.i] == ' ' {
				d.i++
			}
			if d.i < len(d.s) && d.s[d.i] == ']' {
				continue // a space too many
			}
			key := d.name()
			if key == "" || !strings.HasPrefix(d.s[d.i:], `="`) {
				return false
			}
			d.i += 2
			value, ok := d.value()
			if !ok {
				return false
			}
			if !own {
				key = d.join(name, key)
			}
			d.add(key, value)
			empty = false
		default:
			return false
		}
	}
	return false
}

// name reads an SD-NAME, of any length and any alphabet.
func (d *data) name() string {
	start := d.i
	for d.i < len(d.s) {
		if c := d.s[d.i]; c <= ' ' || c == '=' || c == ']' || c == '"' || c == 0x7f {
			break
		}
		d.i++
	}
	return d.s[start:d.i]
}

// value reads up to the quotation mark that ends it. A backslash before anything
// but a quotation mark, a backslash or a bracket is one (section 6.3.3).
func (d *data) value() (string, bool) {
	start := d.i
	for ; d.i < len(d.s); d.i++ {
		switch d.s[d.i] {
		case '"':
			d.i++
			return d.s[start : d.i-1], true
		case '\\':
			return d.escaped(start)
		}
	}
	return "", false
}

func (d *data) escaped(start int) (string, bool) {
	from := d.made.Len()
	d.made.WriteString(d.s[start:d.i])
	for ; d.i < len(d.s); d.i++ {
		c := d.s[d.i]
		if c == '"' {
			d.i++
			return d.made.String()[from:], true
		}
		if c == '\\' && d.i+1 < len(d.s) {
			if n := d.s[d.i+1]; n == '"' || n == '\\' || n == ']' {
				d.i++
				c = n
			}
		}
		d.made.WriteByte(c)
	}
	return "", false
}

// join makes the key of a parameter of somebody else's element.
func (d *data) join(element, key string) string {
	if d.made.Cap() == 0 {
		d.made.Grow(min(len(d.s), 256))
	}
	from := d.made.Len()
	d.made.WriteString(element)
	d.made.WriteByte('.')
	d.made.WriteString(key)
	return d.made.String()[from:]
}

func (d *data) add(key, value string) {
	if len(d.attrs) < MaxAttrs {
		d.attrs = append(d.attrs, Attr{Key: cut(key, MaxKey), Value: value})
	}
}

// cut shortens s to n bytes, or a little less where a character would be split.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
