package command

import (
	"errors"
	"hash/fnv"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"berth/appliance/syslog"
	"berth/services/segment"
)

// logText renders messages for people:
//
//	2026-11-21 15:04:05.123  error    core      cannot reach the database  err="connection refused" request_id=…
type logText struct {
	colour bool // the reader is a terminal
	zone   *time.Location
	width  int // of the widest component so far
}

// The colours of terminals (ECMA-48 section 8.3.117).
const (
	plain   = "\x1b[0m"
	bold    = "\x1b[1m"
	faint   = "\x1b[2m"
	red     = "\x1b[31m"
	yellow  = "\x1b[33m"
	redBold = "\x1b[1;31m"
)

func levelColour(s syslog.Severity) string {
	switch {
	case s <= syslog.Critical:
		return redBold
	case s == syslog.Error:
		return red
	case s == syslog.Warning:
		return yellow
	case s == syslog.Notice:
		return bold
	case s == syslog.Debug:
		return faint
	}
	return ""
}

// componentColour is the same for a component every time. Red and yellow are
// levels'.
func componentColour(name string) string {
	colours := []string{"\x1b[32m", "\x1b[34m", "\x1b[35m", "\x1b[36m", "\x1b[92m", "\x1b[94m", "\x1b[95m", "\x1b[96m"}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return colours[h.Sum32()%uint32(len(colours))]
}

func (t *logText) append(b []byte, m *segment.Record) []byte {
	level := m.Severity.String()
	b = t.paint(b, faint, m.Time.In(t.zone).Format("2006-01-02 15:04:05.000"))
	b = append(b, "  "...)
	b = t.paint(b, levelColour(m.Severity), level)
	b = append(b, strings.Repeat(" ", max(0, 7-len(level))+2)...)
	name := printable(m.Component)
	if name == "" {
		name = "-"
	}
	colour := componentColour(name)
	if m.PID != "" && m.Facility != syslog.Local0 { // several of one program may run
		name += "[" + printable(m.PID) + "]"
	}
	t.width = min(max(t.width, utf8.RuneCountInString(name), 8), 24)
	b = t.paint(b, colour, name)
	b = append(b, strings.Repeat(" ", max(0, t.width-utf8.RuneCountInString(name))+2)...)
	text := levelColour(m.Severity)
	if m.Severity == syslog.Notice {
		text = ""
	}
	b = t.paint(b, text, printable(m.Text))
	for i, a := range m.Attrs {
		b = append(b, ' ')
		if i == 0 {
			b = append(b, ' ')
		}
		b = t.paint(b, faint, printable(a.Key)+"=")
		if a.Value == "" || strings.ContainsAny(a.Value, " \"=\n\t") {
			b = append(b, quoted(a.Value)...)
		} else {
			b = append(b, printable(a.Value)...)
		}
	}
	return append(b, '\n')
}

func (t *logText) paint(b []byte, colour, s string) []byte {
	if !t.colour || colour == "" {
		return append(b, s...)
	}
	return append(append(append(b, colour...), s...), plain...)
}

// printable makes what strangers have sent harmless for terminals: whatever does
// not print is shown by its code. Further lines are indented, so that none of
// them looks like a message of its own.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	s = strings.TrimRight(s, "\n")
	for i, r := range s {
		switch {
		case r == '\n':
			b.WriteString("\n    | ")
		case r == '\t':
			b.WriteByte('\t')
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i]), 16))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// quoted is a value that has spaces, quotes or lines in it, on one line.
func quoted(s string) string { return strconv.Quote(s) }

// isWriteError reports whether our own output has failed.
func isWriteError(err error) bool {
	p, ok := errors.AsType[*fs.PathError](err)
	return ok && p.Op == "write"
}
