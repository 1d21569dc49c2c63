package syslog_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	leodido "github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/rfc5424"

	"berth/appliance/syslog"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 2*3600))

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

func TestParse(t *testing.T) {
	t.Parallel()
	type attrs = []syslog.Attr
	message := func(pri int, t time.Time, host, component, pid, id string, a attrs, text string) syslog.Message {
		return syslog.Message{Time: t, Facility: syslog.Facility(pri >> 3), Severity: syslog.Severity(pri & 7), Host: host, Component: component, PID: pid, ID: id, Attrs: a, Text: text}
	}
	for _, tt := range []struct {
		line string
		want syslog.Message
	}{
		// RFC 5424's own examples (section 6.5).
		{"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed for lonvick on /dev/pts/8",
			message(34, at("2003-10-11T22:14:15.003Z"), "mymachine.example.com", "su", "", "ID47", nil, "'su root' failed for lonvick on /dev/pts/8")},
		{"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
			message(165, at("2003-08-24T12:14:15.000003Z"), "192.0.2.1", "myproc", "8710", "", nil, "%% It's time to make the do-nuts.")},
		{`<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application"][examplePriority@32473 class="high"]`,
			message(165, at("2003-10-11T22:14:15.003Z"), "h", "evntslog", "", "ID47", attrs{{"exampleSDID@32473.iut", "3"}, {"exampleSDID@32473.eventSource", "Application"}, {"examplePriority@32473.class", "high"}}, "")},
		// Ours.
		{`<131>1 2026-01-02T03:04:05.123456Z berth core 7 - [berth@32473 request_id="a\"b\\c\]d\e" empty=""] cannot x`,
			message(131, at("2026-01-02T03:04:05.123456Z"), "berth", "core", "7", "", attrs{{"request_id", `a"b\c]d\e`}, {"empty", ""}}, "cannot x")},
		// Tolerated.
		{"<34>1 - - - - - -", message(34, now, "", "", "", "", nil, "")},
		{"<34>1 - - - - -", message(34, now, "", "", "", "", nil, "")},
		{"<34>1 - h a p m no data at all", message(34, now, "h", "a", "p", "m", nil, "no data at all")},
		{"<34>1 - h a p m [warn] no data", message(34, now, "h", "a", "p", "m", attrs{{"warn.", ""}}, "no data")},
		{`<34>1 - h a p m [x a="b" ]text`, message(34, now, "h", "a", "p", "m", attrs{{"x.a", "b"}}, "text")},
		{`<34>1 - h a p m [x a="b`, message(34, now, "h", "a", "p", "m", nil, `[x a="b`)},
		{`<34>1 - h a p m [x a=b] t`, message(34, now, "h", "a", "p", "m", nil, `[x a=b] t`)},
		{"<34>1 2026-01-02T03:04:60Z h a p m - leap", message(34, at("2026-01-02T03:05:00Z"), "h", "a", "p", "m", nil, "leap")},
		{"<34>1 9999-12-31T23:59:59Z h a p m - far", message(34, now, "h", "a", "p", "m", nil, "far")},
		{"<34>1 - " + strings.Repeat("h", 300) + " a p m - t", message(34, now, strings.Repeat("h", 255), "a", "p", "m", nil, "t")},
		// RFC 3164 and its relations.
		{"<34>Oct 11 22:14:15 mymachine su: 'su root' failed", message(34, at("2025-10-11T20:14:15Z"), "mymachine", "su", "", "", nil, "'su root' failed")},
		{"<13>Jan  1 00:00:00 h a[1]: x", message(13, at("2025-12-31T22:00:00Z"), "h", "a", "1", "", nil, "x")},
		{"<13>Dec 31 23:59:59 h a[1]: x", message(13, at("2025-12-31T21:59:59Z"), "h", "a", "1", "", nil, "x")},
		{"<13>Feb 5 17:32:18 10.0.0.99 Use the BFG!", message(13, at("2026-02-05T15:32:18Z"), "10.0.0.99", "", "", "", nil, "Use the BFG!")},
		{"<13>Jan  2 03:04:05 postfix/smtpd[12]: connect", message(13, at("2026-01-02T01:04:05Z"), "", "postfix/smtpd", "12", "", nil, "connect")},
		{"<38>2026-01-02T03:04:05.5+01:00 fe80::1 sshd[9] no colon", message(38, at("2026-01-02T02:04:05.5Z"), "fe80::1", "sshd", "9", "", nil, "no colon")},
		{"<38>2026-01-02 03:04:05,25 app: local", message(38, at("2026-01-02T01:04:05.25Z"), "", "app", "", "", nil, "local")},
		{"<189>*Mar  1 18:46:11.123: %SYS-5-CONFIG_I: Configured", message(189, at("2026-03-01T16:46:11.123Z"), "", "%SYS-5-CONFIG_I", "", "", nil, "Configured")},
		{"<189>Mar  1 2021 18:46:11 asa : x", message(189, at("2021-03-01T16:46:11Z"), "asa", "", "", "", nil, ": x")},
		{"<189>Mar  1 18:46:11 2021 asa x: y", message(189, at("2021-03-01T16:46:11Z"), "asa", "x", "", "", nil, "y")},
		{"<166>2026-01-02T03:04:05.678Z esx01.example.com Hostd: info hostd[2099] [Originator@6876 sub=Vimsvc] Task", // ESXi
			message(166, at("2026-01-02T03:04:05.678Z"), "esx01.example.com", "Hostd", "", "", nil, "info hostd[2099] [Originator@6876 sub=Vimsvc] Task")},
		{"<134>Jan  2 03:04:05 haproxy[14389]: 10.0.1.2:33317 [x]", message(134, at("2026-01-02T01:04:05Z"), "", "haproxy", "14389", "", nil, "10.0.1.2:33317 [x]")},
		{"<14>Jan  2 03:04:05 PA-220 1,2026/01/02,x", message(14, at("2026-01-02T01:04:05Z"), "PA-220", "", "", "", nil, "1,2026/01/02,x")},
		{"<189>date=2026-01-02 time=03:04:05 devname=\"fw\"", message(189, now, "", "", "", "", nil, "date=2026-01-02 time=03:04:05 devname=\"fw\"")},
		{"<6>[ 12.345678] eth0: link up", message(6, now, "", "", "", "", nil, "[ 12.345678] eth0: link up")},
		{"Oct 11 22:14:15 h su: no priority", message(13, at("2025-10-11T20:14:15Z"), "h", "su", "", "", nil, "no priority")},
		{"<13>app[12]: no time\n", message(13, now, "", "app", "12", "", nil, "no time")},
		{"<13>", message(13, now, "", "", "", "", nil, "")},
		// Anything.
		{"Error: what is this", message(13, now, "", "", "", "", nil, "Error: what is this")},
		{"<192>x: y", message(13, now, "", "", "", "", nil, "<192>x: y")},
		{"<1x>y", message(13, now, "", "", "", "", nil, "<1x>y")},
		{"<34>2 - - - - - -", message(34, now, "", "", "", "", nil, "2 - - - - - -")},
		{"<34>1 2003-10-11T22:14:15Z text", message(34, now, "", "", "", "", nil, "1 2003-10-11T22:14:15Z text")},
		{"a\x00b\x1b[31m\xff\xfec", message(13, now, "", "", "", "", nil, "a\x00b\x1b[31m\ufffdc")},
		{"<13>Feb 30 00:00:00 h a: x", message(13, now, "", "", "", "", nil, "Feb 30 00:00:00 h a: x")},
	} {
		var got syslog.Message
		if err := syslog.Parse(tt.line, now, &got); err != nil {
			t.Errorf("%q: %v", tt.line, err)
			continue
		}
		if !got.Time.Equal(tt.want.Time) || got.Time.Location() != time.UTC {
			t.Errorf("%q: %v, want %v", tt.line, got.Time, tt.want.Time)
		}
		got.Time = tt.want.Time
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q:\n got %+v\nwant %+v", tt.line, got, tt.want)
		}
	}
	var m syslog.Message
	for _, empty := range []string{"", "\r\n", "\x00", "  "} {
		if err := syslog.Parse(empty, now, &m); !errors.Is(err, syslog.ErrEmpty) {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestParseIsBounded(t *testing.T) {
	t.Parallel()
	var m syslog.Message
	line := "<13>1 - h a p m [x@1" + strings.Repeat(` `+strings.Repeat("k", 100)+`="v"`, 100) + "] text"
	if err := syslog.Parse(line, now, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Attrs) != syslog.MaxAttrs || len(m.Attrs[0].Key) != syslog.MaxKey || m.Text != "text" {
		t.Errorf("%d attributes, %q, text %q", len(m.Attrs), m.Attrs[0].Key, m.Text)
	}
}

// A line of our own services costs no allocation once there is room for its
// attributes, one of others' a single one.
func TestParseAllocates(t *testing.T) {
	var m syslog.Message
	for line, want := range map[string]float64{ownLine: 0, "<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed": 0,
		`<165>1 2003-10-11T22:14:15.003Z h a - ID47 [timeQuality tzKnown="1" isSynced="1"] x`: 1} {
		if got := testing.AllocsPerRun(100, func() {
			if err := syslog.Parse(line, now, &m); err != nil {
				t.Fatal(err)
			}
		}); got > want {
			t.Errorf("%v allocations for %s", got, line)
		}
	}
}

func TestSeverity(t *testing.T) {
	t.Parallel()
	for s := syslog.Emergency; s <= syslog.Debug; s++ {
		if got, ok := syslog.ParseSeverity(strings.ToUpper(s.String())); !ok || got != s {
			t.Errorf("%v: %v, %t", s, got, ok)
		}
	}
	for name, want := range map[string]syslog.Severity{"warn": syslog.Warning, "err": syslog.Error, "crit": syslog.Critical, "emerg": syslog.Emergency,
		"panic": syslog.Emergency, "informational": syslog.Informational, "information": syslog.Informational} {
		if got, ok := syslog.ParseSeverity(name); !ok || got != want {
			t.Errorf("%s: %v, %t", name, got, ok)
		}
	}
	if _, ok := syslog.ParseSeverity("loud"); ok {
		t.Error("loud is no severity")
	}
}

const ownLine = `<134>1 2026-11-21T12:00:00.123456Z berth-1.example.com registry 4711 - [berth@32473 request_id="0193-7e2a-bb0c-6d1f" token_request="0193-7e2a-bb0c-6d1e" method="PUT" path="/v2/library/app/manifests/1.0" status="201" bytes="1582" duration="12.3ms" remote="192.0.2.17" user="robot$ci"] request served`

func seed(f *testing.F) {
	for _, s := range []string{ownLine, "<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed", "<34>1 - - - - - -", "<0>1 2026-02-29T00:00:00Z a b c d [x][y z=\"\\]\"]", "x",
		"<38>2026-01-02 03:04:05,25 app: local", "<189>.Mar  1 18:46:11.123: %SYS-5-CONFIG_I: Configured", "\xff<", "<13>Dec 31 23:59:60 2026 a b[", "<1>1 - - - - - [a.b@1.2 c=\"d\"]"} {
		f.Add(s)
	}
}

// FuzzParse has the bounds, and compares with another implementation what that
// one accepts.
func FuzzParse(f *testing.F) {
	seed(f)
	other := rfc5424.NewParser()
	f.Fuzz(func(t *testing.T, line string) {
		var m syslog.Message
		if err := syslog.Parse(line, now, &m); err != nil {
			if strings.TrimRight(line, "\r\n\x00 ") != "" {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
		for _, s := range []string{m.Host, m.Component, m.PID, m.ID, m.Text} {
			if !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
		if len(m.Host) > syslog.MaxHost || len(m.Component) > syslog.MaxComponent || len(m.PID) > syslog.MaxPID || len(m.ID) > syslog.MaxID ||
			len(m.Attrs) > syslog.MaxAttrs || len(m.Text) > 3*len(line) || m.Severity > syslog.Debug || m.Facility > 23 {
			t.Errorf("%q: %+v", line, m)
		}
		if got := time.Unix(0, m.Time.UnixNano()); !got.Equal(m.Time) {
			t.Errorf("%q: the time %v does not fit", line, m.Time)
		}
		for _, a := range m.Attrs {
			if len(a.Key) > syslog.MaxKey || !utf8.ValidString(a.Key) || !utf8.ValidString(a.Value) {
				t.Errorf("%q: %q", line, a)
			}
		}
		compare(t, other, line, &m)
	})
}

// compare has nothing to say of what the other parser refuses.
func compare(t *testing.T, other leodido.Machine, line string, m *syslog.Message) {
	line = strings.TrimRight(line, "\r\n\x00 ")
	theirs, err := other.Parse([]byte(line))
	want, ok := theirs.(*rfc5424.SyslogMessage)
	if err != nil || !ok || !utf8.ValidString(line) || want.Version != 1 {
		return
	}
	text := func(s *string) string {
		if s == nil || *s == "-" {
			return ""
		}
		return *s
	}
	if int(m.Facility) != int(*want.Facility) || int(m.Severity) != int(*want.Severity) || m.Host != text(want.Hostname) || m.Component != text(want.Appname) ||
		m.PID != text(want.ProcID) || m.ID != text(want.MsgID) {
		t.Errorf("%q: %+v, theirs %+v", line, m, want)
	}
	if got := strings.TrimPrefix(deref(want.Message), "\ufeff"); m.Text != got {
		t.Errorf("%q: text %q, theirs %q", line, m.Text, got)
	}
	if want.Timestamp != nil && want.Timestamp.Year() > 1677 && want.Timestamp.Year() < 2262 && !m.Time.Equal(*want.Timestamp) {
		t.Errorf("%q: %v, theirs %v", line, m.Time, want.Timestamp)
	}
	if want.StructuredData == nil {
		return
	}
	for element, params := range *want.StructuredData {
		for key, value := range params {
			name := element + "." + key
			if element == "berth@32473" {
				name = key
			}
			if !hasAttr(m, name, value) && len(m.Attrs) < syslog.MaxAttrs && !strings.Contains(value, `\`) {
				t.Errorf("%q: %v, theirs %s=%q", line, m.Attrs, name, value)
			}
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func hasAttr(m *syslog.Message, key, value string) bool {
	for _, a := range m.Attrs {
		if a.Key == key && a.Value == value {
			return true
		}
	}
	return false
}

func BenchmarkParse(b *testing.B) {
	for name, line := range map[string]string{"rfc5424": ownLine, "rfc3164": "<34>Oct 11 22:14:15 mymachine su[12]: " + strings.Repeat("'su root' failed ", 15),
		"others": `<165>1 2003-10-11T22:14:15.003Z h a - ID47 [timeQuality tzKnown="1" isSynced="1"] x`, "anything": strings.Repeat("x", 300)} {
		b.Run(name, func(b *testing.B) {
			var m syslog.Message
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				if err := syslog.Parse(line, now, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
