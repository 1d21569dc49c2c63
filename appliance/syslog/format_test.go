package syslog_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/leodido/go-syslog/v4/rfc5424"

	"berth/appliance/syslog"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 21, 13, 0, 0, 1234567, time.FixedZone("", 3600))
	for _, tt := range []struct {
		m    syslog.Message
		want string
	}{
		{syslog.Message{}, "<0>1 - - - - - -"},
		{syslog.Message{Time: noon, Facility: syslog.Local0, Severity: syslog.Error, Host: "h", Component: "core", PID: "7", ID: "x", Text: "a\nb\x00\tc\\\xff"},
			"<131>1 2026-11-21T12:00:00.001234Z h core 7 x - a#012b#000\tc\\\ufffd"},
		{syslog.Message{Time: noon, Facility: 99, Severity: 99, Host: "two words", Component: "ä"}, "<15>1 2026-11-21T12:00:00.001234Z two_words __ - - -"},
		{syslog.Message{Attrs: []syslog.Attr{{"a", `"]\`}, {"origin.ip", "192.0.2.1"}, {"b c=", "x\ny"}, {"origin.ip", "192.0.2.2"}, {"x@1.2.3.k", ""}, {"mark.", ""}, {".d", ""}}},
			`<0>1 - - - - - [berth@32473 a="\"\]\\" b_c_="x#012y" .d=""][origin ip="192.0.2.1" ip="192.0.2.2"][x@1.2.3 k=""][mark]`},
	} {
		if got := string(syslog.Append([]byte("x"), &tt.m)); got != "x"+tt.want {
			t.Errorf("got  %s\nwant x%s", got, tt.want)
		}
	}
	if got := string(syslog.AppendFrame([]byte("x"), []byte("hello"))); got != "x5 hello" {
		t.Error(got)
	}
}

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	m := syslog.Message{Time: at("2026-11-21T12:00:00.5Z"), Facility: syslog.Local0, Severity: syslog.Error, Component: "core", Text: "a\n\"\u2028\x01\xff",
		Attrs: []syslog.Attr{{"request_id", "1"}, {"ip", "a"}, {"x", "<&>"}, {"ip", "b"}, {"ip", "c"}}}
	want := `{"time":"2026-11-21T12:00:00.5Z","severity":"error","facility":"local0","component":"core","message":"a\n\"\u2028\u0001\ufffd","attributes":{"request_id":"1","ip":["a","b","c"],"x":"<&>"}}`
	if got := string(syslog.AppendJSON(nil, &m)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzAppend: what is rendered, this parser and another one read back.
func FuzzAppend(f *testing.F) {
	seed(f)
	f.Add("<34>1 - h a p m [a.b x=\"1\"][a y.z=\"2\"] t")
	strict := rfc5424.NewParser()
	f.Fuzz(func(t *testing.T, line string) {
		var m, again syslog.Message
		if syslog.Parse(line, now, &m) != nil {
			return
		}
		out := string(syslog.Append(nil, &m))
		if strings.ContainsAny(out, "\n\r\x00") || !utf8.ValidString(out) {
			t.Fatalf("%q", out)
		}
		if err := syslog.Parse(out, now, &again); err != nil {
			t.Fatal(err)
		}
		if again.Facility != m.Facility || again.Severity != m.Severity || !again.Time.Equal(m.Time.Truncate(time.Microsecond)) || len(again.Attrs) != len(m.Attrs) {
			t.Errorf("%q: %+v, was %+v", out, again, m)
		}
		if twice := string(syslog.Append(nil, &again)); twice != strings.TrimRight(out, " ") && again.Text == m.Text {
			t.Errorf("%q became %q", out, twice)
		}
		if _, err := strict.Parse([]byte(out)); err != nil {
			t.Errorf("%q: %v", out, err)
		}
		var object map[string]any
		if err := json.Unmarshal(syslog.AppendJSON(nil, &m), &object); err != nil || object["message"] != m.Text {
			t.Errorf("%s: %v", syslog.AppendJSON(nil, &m), err)
		}
	})
}

// What another implementation reads of what is rendered here is what was meant.
func TestAppendIsReadByOthers(t *testing.T) {
	t.Parallel()
	var m syslog.Message
	if err := syslog.Parse(`<131>1 2026-01-02T03:04:05.123456Z berth core 7 id [berth@32473 k="a\"b\\c\]d ünï"][origin ip="192.0.2.1"] text ünï`, now, &m); err != nil {
		t.Fatal(err)
	}
	theirs, err := rfc5424.NewParser().Parse(syslog.Append(nil, &m))
	if err != nil {
		t.Fatal(err)
	}
	got := theirs.(*rfc5424.SyslogMessage)
	if !reflect.DeepEqual(*got.StructuredData, map[string]map[string]string{"berth@32473": {"k": `a"b\c]d ünï`}, "origin": {"ip": "192.0.2.1"}}) ||
		*got.Message != "text ünï" || *got.Hostname != "berth" || *got.Appname != "core" || *got.ProcID != "7" || *got.MsgID != "id" || *got.Priority != 131 || !got.Timestamp.Equal(m.Time) {
		t.Errorf("%+v", got)
	}
}

func BenchmarkAppend(b *testing.B) {
	var m syslog.Message
	if err := syslog.Parse(ownLine, now, &m); err != nil {
		b.Fatal(err)
	}
	for name, render := range map[string]func([]byte, *syslog.Message) []byte{"rfc5424": syslog.Append, "json": syslog.AppendJSON} {
		b.Run(name, func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(ownLine)))
			for b.Loop() {
				buf = render(buf[:0], &m)
			}
		})
	}
}
