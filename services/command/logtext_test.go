package command

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"berth/appliance/syslog"
	"berth/services/segment"
)

func TestLogText(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 15, 4, 5, 123456789, time.UTC)
	for _, x := range []struct {
		name, want string
		m          syslog.Message
	}{
		{"usual", "2026-11-21 15:04:05.123  error    core      cannot reach the database  err=\"no route\" request_id=r1 empty=\"\"\n",
			syslog.Message{Severity: syslog.Error, Facility: syslog.Local0, Component: "core", PID: "7", Text: "cannot reach the database",
				Attrs: []syslog.Attr{{Key: "err", Value: "no route"}, {Key: "request_id", Value: "r1"}, {Key: "empty"}}}},
		{"another program", "2026-11-21 15:04:05.123  info     sshd[812]  Accepted publickey\n",
			syslog.Message{Severity: syslog.Informational, Facility: syslog.AuthPriv, Component: "sshd", PID: "812", Text: "Accepted publickey"}},
		{"without anything", "2026-11-21 15:04:05.123  emergency  -         \n", syslog.Message{}},
		{"lines", "2026-11-21 15:04:05.123  info     a         first\n    | 2026-11-21 15:04:05.123  info     core  forged\n",
			syslog.Message{Severity: syslog.Informational, Component: "a", Text: "first\n2026-11-21 15:04:05.123  info     core  forged\n"}},
		{"codes for terminals", `2026-11-21 15:04:05.123  info     a\x1b[2J  \x1b]0;title\a \u202eabc \xff ok  k\x1b="v\x1b\n"` + "\n",
			syslog.Message{Severity: syslog.Informational, Component: "a\x1b[2J", Text: "\x1b]0;title\a \u202eabc \xff ok", Attrs: []syslog.Attr{{Key: "k\x1b", Value: "v\x1b\n"}}}},
	} {
		x.m.Time = at
		text := &logText{zone: time.UTC}
		if got := string(text.append(nil, &segment.Record{Message: x.m})); got != x.want {
			t.Errorf("%s:\n got %q\nwant %q", x.name, got, x.want)
		}
	}
	m := &segment.Record{Message: syslog.Message{Time: at, Severity: syslog.Error, Component: "core", Text: "no"}}
	if got := string((&logText{zone: time.UTC, colour: true}).append(nil, m)); !strings.Contains(got, red+"error"+plain) || !strings.Contains(got, red+"no"+plain) {
		t.Errorf("colours: %q", got)
	}
}

// Nothing that a stranger sends reaches a terminal as it is.
func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31m\x00\x9b\u202e\xff\n\t\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range printable(s) {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) && r != utf8.RuneError {
				t.Fatalf("%q becomes %q", s, printable(s))
			}
		}
		for line := range strings.SplitSeq(strings.TrimPrefix(printable(s), strings.SplitN(printable(s), "\n", 2)[0]), "\n") {
			if line != "" && !strings.HasPrefix(line, "    | ") {
				t.Fatalf("%q has the line %q", s, line)
			}
		}
	})
}
