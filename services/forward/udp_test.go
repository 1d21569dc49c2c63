package forward_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/segment"
)

func TestUDP(t *testing.T) {
	t.Parallel()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := newStore(t, segment.Options{})
	f, _ := newForwarder(t, s, t.TempDir(), setting.Forward{Name: "u", To: "udp://" + c.LocalAddr().String()})
	say(t, s, 0, 50)
	giant := message(50)
	giant.Text += strings.Repeat("ü", 20<<10)
	if err := s.Append(giant); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for i := range 51 {
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		line := string(buf[:n])
		if number(line) != i || n > 8000 || !utf8.ValidString(line) || !strings.HasPrefix(line, "<") || i == 50 && (n < 7900 || !strings.HasSuffix(line, "ü…")) {
			t.Fatalf("%d: %d bytes: %.300s", i, n, line)
		}
	}
	if answer, err := f.Test(t.Context(), "u"); err != nil || !strings.Contains(answer, "does not tell whether it arrived") {
		t.Errorf("%s, %v", answer, err)
	}
	c.Close()
	say(t, s, 51, 1)
	until(t, "the refusal is noticed", func() bool { return strings.Contains(f.Status()[0].Error, "refuses datagrams") })
	c, err = net.ListenPacket("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for found := false; !found; { // what was refused comes again, with what was sent shortly before
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		found = number(string(buf[:n])) == 51
	}
}

// Whatever a message holds, a datagram of at most 8000 bytes is made of it that can be
// read and has its ids.
func TestDatagramsFit(t *testing.T) {
	t.Parallel()
	var many []syslog.Attr
	for i := range 60 {
		many = append(many, syslog.Attr{Key: fmt.Sprint("key", i), Value: strings.Repeat("]\x01", 1000)})
	}
	ids := []syslog.Attr{{Key: "request_id", Value: "r"}, {Key: "trace_id", Value: "t"}}
	messages := []*syslog.Message{
		{Text: strings.Repeat("ü", 10_000), Attrs: ids},
		{Text: strings.Repeat("\x01", 10_000), Attrs: ids},
		{Text: strings.Repeat("\x01", 3000), Attrs: append(many, ids...)},
		{Text: "short", Attrs: append(many, ids...)},
		{Host: strings.Repeat("h", 255), Component: strings.Repeat("\x01", 128), PID: strings.Repeat("p", 128), Text: strings.Repeat("\x7f", 9000), Attrs: ids},
	}
	for _, format := range []string{"rfc5424", "json"} {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := newStore(t, segment.Options{})
		newForwarder(t, s, t.TempDir(), setting.Forward{Name: "u", To: "udp://" + c.LocalAddr().String(), Format: format})
		if err := s.Append(messages...); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		for i := range messages {
			if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, _, err := c.ReadFrom(buf)
			if err != nil || n > 8000 {
				t.Fatalf("%s %d: %d bytes, %v", format, i, n, err)
			}
			line := string(buf[:n])
			var object struct{ Attributes map[string]string }
			var m syslog.Message
			if format == "json" {
				if err := json.Unmarshal(buf[:n], &object); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			} else if err := syslog.Parse(line, time.Now(), &m); err != nil || m.Text == "" {
				t.Errorf("%s: %v", line, err)
			}
			for _, key := range []string{"request_id", "trace_id", "meta.sequenceId"} {
				if m.Get(key)+object.Attributes[key] == "" {
					t.Errorf("%s %d has no %s: %.500s", format, i, key, line)
				}
			}
		}
	}
}
