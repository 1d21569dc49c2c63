package forward

import (
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/segment"
)

const (
	// maxMessage is a little less than what receivers should take (8 KiB: RFC 5425
	// section 4.3.1, RFC 5426 section 3.2), since rsyslog takes 8096 bytes if nobody
	// tells it otherwise. What is beyond that it takes for another message: a
	// stranger could forge some.
	maxMessage = 8000
	// maxSequence is where sequenceId begins again with 1 (RFC 5424 section 7.3.1).
	maxSequence = 2147483647
	sequenceID  = "meta.sequenceId"
)

// filter is what a collector wants to have.
type filter struct {
	level         syslog.Severity
	only, without map[string]bool
}

func newFilter(set setting.Forward) filter {
	f := filter{level: syslog.Debug, only: map[string]bool{}, without: map[string]bool{}}
	if l, ok := syslog.ParseSeverity(set.Level); ok {
		f.level = l
	}
	for _, c := range set.Components {
		f.only[c] = true
	}
	for _, c := range set.Without {
		f.without[c] = true
	}
	return f
}

func (f *filter) wants(m *syslog.Message) bool {
	return m.Severity <= f.level && (len(f.only) == 0 || f.only[m.Component]) && !f.without[m.Component]
}

// all reports whether nothing is left out.
func (f *filter) all() bool {
	return f.level == syslog.Debug && len(f.only) == 0 && len(f.without) == 0
}

// renderer makes of a message what goes to the collector. It keeps its room, so
// that a message costs no allocation.
type renderer struct {
	host   string
	json   bool
	names  map[string]string // of Berth's own components, so that they can be told from others at the collector
	attrs  []syslog.Attr
	digits [20]byte
}

func newRenderer(host string, json bool) *renderer {
	r := &renderer{host: host, json: json, names: map[string]string{}}
	for _, c := range []string{"registry", "token", "core", "jobs", "logs", "proxy", "postgres", "agent", "firstboot"} {
		r.names[c] = "berth-" + c
	}
	return r
}

// record renders a record with its number.
func (r *renderer) record(b []byte, rec *segment.Record) []byte {
	m := rec.Message
	r.attrs = append(r.attrs[:0], m.Attrs...)
	if len(r.attrs) < syslog.MaxAttrs && m.Get(sequenceID) == "" { // a relay keeps the originator's
		digits := strconv.AppendUint(r.digits[:0], rec.Seq%maxSequence+1, 10)
		r.attrs = append(r.attrs, syslog.Attr{Key: sequenceID, Value: unsafe.String(unsafe.SliceData(digits), len(digits))})
	}
	m.Attrs = r.attrs
	return r.message(b, &m)
}

// message renders m, which it changes, in at most maxMessage bytes: the text is cut
// first, if that is enough, then values, and at last only ids are left of them.
func (r *renderer) message(b []byte, m *syslog.Message) []byte {
	if m.Host == "" {
		m.Host = r.host
	}
	if name := r.names[m.Component]; name != "" {
		m.Component = name
	}
	start := len(b)
	b = r.render(b, m)
	for _, value := range [...]int{1024, 256, 64, 0, 0} {
		over := len(b) - start - maxMessage
		switch {
		case over <= 0:
			return b
		case len(m.Text) > over+len("…"):
			m.Text = clip(m.Text, len(m.Text)-over-len("…")) + "…" // each byte of a text is one here at least
		case value > 0:
			for i := range m.Attrs {
				m.Attrs[i].Value = clip(m.Attrs[i].Value, value)
			}
		default:
			m.Attrs = slices.DeleteFunc(m.Attrs, func(a syslog.Attr) bool {
				return a.Key != syslog.RequestID && a.Key != syslog.TokenRequest && a.Key != syslog.TraceID && a.Key != sequenceID
			})
			m.Text = clip(m.Text, maxMessage/8) + "…" // an escaped byte is six at most
		}
		b = r.render(b[:start], m)
	}
	return b
}

func (r *renderer) render(b []byte, m *syslog.Message) []byte {
	if r.json {
		return syslog.AppendJSON(b, m)
	}
	return syslog.Append(b, m)
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// notice tells a collector what it lacks.
func notice(collector string, l loss) *syslog.Message {
	m := &syslog.Message{Time: time.Now(), Facility: syslog.Local0, Severity: syslog.Warning, Component: "logs",
		Attrs: []syslog.Attr{{Key: "collector", Value: collector}, {Key: "dropped", Value: strconv.FormatUint(l.Count, 10)}}}
	many := fmt.Sprintf("%d messages", l.Count)
	if l.AtMost {
		many = fmt.Sprintf("up to %d messages", l.Count)
	}
	between := ""
	for _, t := range []struct {
		key, word, at string
	}{{"from", " from ", format(l.From)}, {"to", " to ", format(l.To)}} {
		if t.at != "" {
			m.Attrs = append(m.Attrs, syslog.Attr{Key: t.key, Value: t.at})
			between += t.word + t.at
		}
	}
	m.Text = fmt.Sprintf("%s%s were dropped: the collector %s was away or too slow for longer than its queue or the log store reach back", many, between, collector)
	return m
}
