package syslog

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Append renders m by RFC 5424, without a frame, and never with a newline in it.
// Its own attributes stand in the element berth@32473; those with a dotted key,
// element.name, in that element. The time is in UTC, to the microsecond.
//
// What RFC 5424 cannot carry: characters that a name may not have become "_";
// names are cut to the RFC's lengths; a control character other than a tab
// becomes "#" and its octal code, #012 for a newline (section 6.4 proposes it,
// and rsyslog does it); invalid UTF-8 becomes U+FFFD; attributes after the 64th
// are left out. No BOM is written: collectors tend to show it.
func Append(b []byte, m *Message) []byte {
	facility, severity := m.Facility, m.Severity
	if facility > maxFacility {
		facility = User
	}
	if severity > Debug {
		severity = Debug
	}
	b = append(b, '<')
	b = strconv.AppendUint(b, uint64(facility)<<3|uint64(severity), 10)
	b = append(b, '>', '1', ' ')
	b = appendTime(b, m.Time)
	b = appendField(b, m.Host, 255)
	b = appendField(b, m.Component, 48)
	b = appendField(b, m.PID, 128)
	b = appendField(b, m.ID, 32)
	b = appendData(append(b, ' '), m.Attrs)
	if m.Text != "" {
		b = appendText(append(b, ' '), m.Text, false)
	}
	return b
}

// AppendFrame puts the length in front of a message: octet counting (RFC 6587
// section 3.4.1, RFC 5425 section 4.3).
func AppendFrame(b, msg []byte) []byte {
	b = strconv.AppendInt(b, int64(len(msg)), 10)
	b = append(b, ' ')
	return append(b, msg...)
}

// appendTime writes 2006-01-02T15:04:05.000000Z, or the nil value for what
// RFC 3339 cannot express. time's own formatting takes four times as long.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if t.IsZero() || year < 0 || year > 9999 {
		return append(b, '-')
	}
	hour, minute, second := t.Clock()
	b = appendDigits(b, year, 1000)
	b = appendDigits(append(b, '-'), int(month), 10)
	b = appendDigits(append(b, '-'), day, 10)
	b = appendDigits(append(b, 'T'), hour, 10)
	b = appendDigits(append(b, ':'), minute, 10)
	b = appendDigits(append(b, ':'), second, 10)
	b = appendDigits(append(b, '.'), t.Nanosecond()/1000, 100_000)
	return append(b, 'Z')
}

// appendDigits writes v with zeros in front; unit is that of its first digit.
func appendDigits(b []byte, v, unit int) []byte {
	for ; unit > 0; unit /= 10 {
		b = append(b, '0'+byte(v/unit%10))
	}
	return b
}

// appendField writes a space and a field of the header: printable ASCII.
func appendField(b []byte, s string, limit int) []byte {
	b = append(b, ' ')
	if s == "" {
		return append(b, '-')
	}
	for i := range min(len(s), limit) {
		c := s[i]
		if c <= ' ' || c > '~' {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// appendData writes structured data. No element may come twice (RFC 5424 section
// 6.3.2), so the attributes of each are looked for at its first one.
func appendData(b []byte, attrs []Attr) []byte {
	if len(attrs) == 0 {
		return append(b, '-')
	}
	attrs = attrs[:min(len(attrs), MaxAttrs)]
	var done uint64
	for i := range attrs {
		if done&(1<<i) != 0 {
			continue
		}
		element, _ := splitKey(attrs[i].Key)
		b = appendName(append(b, '['), element)
		for j := i; j < len(attrs); j++ {
			other, key := splitKey(attrs[j].Key)
			if done&(1<<j) != 0 || !sameName(other, element) {
				continue
			}
			done |= 1 << j
			if key == "" && len(attrs[j].Key) > 0 {
				continue // the element has no parameters
			}
			b = appendName(append(b, ' '), key)
			b = appendText(append(b, '=', '"'), attrs[j].Value, true)
			b = append(b, '"')
		}
		b = append(b, ']')
	}
	return b
}

// splitKey is the reverse of how Parse makes keys. The dot is the first one that
// does not belong to an enterprise number, which may have some (section 7.2.2).
func splitKey(key string) (element, name string) {
	dot := strings.IndexByte(key, '.')
	if dot <= 0 {
		return ownElement, key
	}
	if at := strings.IndexByte(key, '@'); at > 0 {
		for i := at + 1; i < len(key); i++ {
			if key[i] == '.' && (i+1 == len(key) || key[i+1] < '0' || key[i+1] > '9') {
				dot = i
				break
			}
		}
	}
	return key[:dot], key[dot+1:]
}

// maxName is the length of an SD-NAME.
const maxName = 32

func appendName(b []byte, s string) []byte {
	if s == "" {
		return append(b, '_')
	}
	for i := range min(len(s), maxName) {
		b = append(b, nameByte(s[i]))
	}
	return b
}

// sameName compares names as appendName writes them.
func sameName(a, b string) bool {
	a, b = a[:min(len(a), maxName)], b[:min(len(b), maxName)]
	if a == b {
		return true
	}
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if nameByte(a[i]) != nameByte(b[i]) {
			return false
		}
	}
	return true
}

func nameByte(c byte) byte {
	if c <= ' ' || c > '~' || c == '=' || c == ']' || c == '"' {
		return '_'
	}
	return c
}

// appendText writes a text, or with quoted the value of a parameter, where three
// characters need a backslash (section 6.3.3).
func appendText(b []byte, s string, quoted bool) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		case c < ' ' && c != '\t' || c == 0x7f:
			b = append(b, s[start:i]...)
			b = append(b, '#', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			start = i + 1
		case quoted && (c == '"' || c == '\\' || c == ']'):
			b = append(b, s[start:i]...)
			b = append(b, '\\')
			start = i
		}
		i++
	}
	return append(b, s[start:]...)
}
