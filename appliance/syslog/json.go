package syslog

import (
	"time"
	"unicode/utf8"
)

// AppendJSON renders m as one JSON object, without a newline in it or after it:
//
//	{"time":"2026-11-21T12:00:00.123456789Z","severity":"error","facility":"local0","host":"berth",
//	 "component":"registry","pid":"7","id":"…","message":"…","attributes":{"request_id":"…"}}
//
// What is empty is left out, but for severity, facility and message. An
// attribute that is there several times has a list of its values. Invalid UTF-8
// becomes U+FFFD.
func AppendJSON(b []byte, m *Message) []byte {
	b = append(b, '{')
	if t := m.Time.UTC(); !t.IsZero() && t.Year() >= 0 && t.Year() <= 9999 {
		b = append(t.AppendFormat(append(b, `"time":"`...), time.RFC3339Nano), `",`...)
	}
	b = append(append(b, `"severity":"`...), m.Severity.String()...)
	b = append(append(b, `","facility":"`...), m.Facility.String()...)
	b = append(b, '"')
	for _, f := range [...]struct{ key, value string }{{`,"host":`, m.Host}, {`,"component":`, m.Component}, {`,"pid":`, m.PID}, {`,"id":`, m.ID}} {
		if f.value != "" {
			b = appendQuoted(append(b, f.key...), f.value)
		}
	}
	b = appendQuoted(append(b, `,"message":`...), m.Text)
	if len(m.Attrs) > 0 {
		b = appendAttributes(append(b, `,"attributes":`...), m.Attrs[:min(len(m.Attrs), MaxAttrs)])
	}
	return append(b, '}')
}

func appendAttributes(b []byte, attrs []Attr) []byte {
	var done uint64
	open := byte('{')
	for i := range attrs {
		if done&(1<<i) != 0 {
			continue
		}
		b = appendQuoted(append(b, open), attrs[i].Key)
		open = ','
		b = append(b, ':')
		start, several := len(b), false
		b = appendQuoted(b, attrs[i].Value)
		for j := i + 1; j < len(attrs); j++ {
			if attrs[j].Key != attrs[i].Key {
				continue
			}
			if !several {
				several = true
				b = append(b, 0)
				copy(b[start+1:], b[start:])
				b[start] = '['
			}
			done |= 1 << j
			b = appendQuoted(append(b, ','), attrs[j].Value)
		}
		if several {
			b = append(b, ']')
		}
	}
	return append(b, '}')
}

// appendQuoted writes a JSON string. U+2028 and U+2029 are escaped: they end a
// line for some who read lines.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || r == '\u2028' || r == '\u2029' {
				b = append(b, s[start:i]...)
				b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
				start = i + n
			}
			i += n
			continue
		}
		if c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			start = i + 1
		}
		i++
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
