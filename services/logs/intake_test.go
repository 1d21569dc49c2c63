package logs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/segment"
)

// running is a log service of a test.
type running struct {
	*Service
	told *bytes.Buffer // what it said of itself; read it after stop
	stop func()
}

func start(t *testing.T, o Options) *running {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Settings.Listen == "" {
		o.Settings.Listen = "127.0.0.1:0"
	}
	// A socket's path has room for 107 bytes: t.TempDir's may be longer.
	run, err := os.MkdirTemp("", "berth-logs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	o.Intake, o.API = filepath.Join(run, "syslog.sock"), filepath.Join(run, "logs.sock")
	r := &running{told: new(bytes.Buffer)}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(r.told, nil))
	}
	if r.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- r.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func (r *running) dial(t *testing.T, network string) net.Conn {
	t.Helper()
	address := r.Intake
	if network != "unix" {
		address = r.Port.String()
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// all gives what is stored, in its order.
func (r *running) all(t *testing.T) (list []segment.Record) {
	t.Helper()
	for from := r.Store.First(); from < r.Store.End(); {
		next, err := r.Store.Read(t.Context(), from, 10_000, func(m *segment.Record) error {
			kept := *m
			kept.Attrs = append([]syslog.Attr(nil), m.Attrs...)
			kept.Text, kept.Component, kept.Host = strings.Clone(m.Text), strings.Clone(m.Component), strings.Clone(m.Host)
			for i, a := range kept.Attrs {
				kept.Attrs[i] = syslog.Attr{Key: strings.Clone(a.Key), Value: strings.Clone(a.Value)}
			}
			list = append(list, kept)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		from = next
	}
	return list
}

func frame(text string) string { return fmt.Sprintf("%d %s", len(text), text) }

// Messages in both formats arrive by every way in, and those from outside say by which.
func TestWaysIn(t *testing.T) {
	t.Parallel()
	r := start(t, Options{})
	const modern = `<131>1 2026-11-21T12:00:00.5Z host registry 42 ID7 [berth@32473 request_id="r-1" path="/v2/\"x\]"] it is broken`
	now := time.Now()
	old := "<38>" + now.Format(time.Stamp) + " box sshd[99]: Accepted publickey"
	for _, network := range []string{"unix", "tcp"} {
		c := r.dial(t, network)
		write(t, c, modern+"\n"+frame(old)+frame(modern)+old+"\n")
		c.Close()
	}
	udp := r.dial(t, "udp")
	write(t, udp, modern)
	write(t, udp, old+"\n")
	until(t, "ten messages", func() bool { return r.Store.End()-r.Store.First() >= 10 })
	via := map[string]int{}
	for _, m := range r.all(t) {
		via[m.Get("via")+m.Component]++
		switch m.Component {
		case "registry":
			if m.Severity != syslog.Error || m.Host != "host" || m.PID != "42" || m.ID != "ID7" || m.Text != "it is broken" || m.Get("request_id") != "r-1" || m.Get("path") != `/v2/"x]` {
				t.Errorf("got %+v", m)
			}
		case "sshd":
			if m.Severity != syslog.Informational || m.Facility != syslog.Auth || m.Host != "box" || m.PID != "99" || m.Text != "Accepted publickey" || m.Time.Sub(now).Abs() > 2*time.Second {
				t.Errorf("got %+v", m)
			}
		default:
			t.Errorf("got %+v", m)
		}
	}
	if fmt.Sprint(via) != "map[registry:2 sshd:2 tcpregistry:2 tcpsshd:2 udpregistry:1 udpsshd:1]" {
		t.Errorf("they came by %v", via)
	}
}

// Nonsense is counted, and costs its neighbours nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	r := start(t, Options{})
	neighbour := r.dial(t, "unix")
	bad := r.dial(t, "tcp")
	write(t, neighbour, "<14>before: 1\n")
	write(t, bad, "1000 <14>half a frame") // and no more
	half := bad
	bad = r.dial(t, "tcp")
	write(t, bad, "99999999999999 <14>a lie\n")
	bad = r.dial(t, "tcp")
	write(t, bad, "<14>big: "+strings.Repeat("x", 1<<20)+"\n<14>next: whole\n"+frame("<14>framed: "+strings.Repeat("y", 1<<20))+frame("<14>next: whole"))
	write(t, bad, "\n\n\x00\n"+frame("<14>binary: \x00\x01\xff\xfe\x80 end")+"<999>x\n<14>1 nonsense\n<14>")
	bad.Close()
	times := r.dial(t, "tcp")
	write(t, times, "<14>1 2099-01-01T00:00:00Z h future - - - x\n<14>1 1970-01-01T00:00:00Z h past - - - x\n<14>1 "+
		time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)+" h late - - - x\n")
	udp := r.dial(t, "udp")
	write(t, udp, strings.Repeat("z", 60_000))
	half.Close()
	write(t, neighbour, "<14>last: 2\n")
	count := func() map[string]segment.Record {
		got := map[string]segment.Record{}
		for _, m := range r.all(t) {
			got[m.Component] = m
		}
		return got
	}
	var got map[string]segment.Record
	until(t, "what can be kept", func() bool {
		got = count()
		c := r.Counts()
		return got["last"].Text == "2" && got["next"].Text == "whole" && got["late"].Text != "" && c.Cut >= 3 && c.Broken >= 1 && got["binary"].Text != ""
	})
	now := time.Now()
	if len(got["big"].Text) > maxMessage || len(got["big"].Text) < maxMessage/2 || len(got["framed"].Text) > maxMessage {
		t.Errorf("a megabyte became %d and %d bytes", len(got["big"].Text), len(got["framed"].Text))
	}
	if big, next := got["big"], got["next"]; big.Get("cut") == "" || next.Get("cut") != "" {
		t.Error("nothing says which message was cut")
	}
	if text := got["binary"].Text; !strings.HasSuffix(text, " end") || strings.ToValidUTF8(text, "") != text {
		t.Errorf("binary became %q", text)
	}
	for _, name := range []string{"future", "past"} {
		if m := got[name]; m.Time.Sub(now).Abs() > time.Minute || m.Get("sent_at") == "" {
			t.Errorf("the %s became %v, sent at %q", name, m.Time, m.Get("sent_at"))
		}
	}
	if m := got["late"]; now.Sub(m.Time) < 50*time.Minute || m.Get("sent_at") != "" {
		t.Errorf("an hour ago became %v", m.Time)
	}
	if c := r.Counts(); c.Misdated != 2 || c.Failed != 0 {
		t.Errorf("counted %+v", c)
	}
}

// A component that floods keeps to its rate, and its errors get through; what is
// dropped is counted to the last, and told. Another's messages are all there.
func TestFlood(t *testing.T) {
	t.Parallel()
	const limit, sent, calm = 500, 60_000, 2000
	r := start(t, Options{Settings: setting.Logs{Rate: limit}})
	flood, other := r.dial(t, "unix"), r.dial(t, "unix")
	go func() {
		var b strings.Builder
		for i := range sent {
			fmt.Fprintf(&b, "<14>flood: %d\n", i)
			if b.Len() > 32<<10 {
				flood.Write([]byte(b.String()))
				b.Reset()
			}
		}
		flood.Write([]byte(b.String() + "<11>flood: this is what is wrong\n"))
	}()
	for i := range calm {
		write(t, other, fmt.Sprintf("<14>calm%d: %d\n", i%8, i))
	}
	until(t, "the flood", func() bool { return r.Counts().Received >= sent+calm+1 })
	got := map[string]int64{}
	wrong := false
	for _, m := range r.all(t) {
		got[strings.TrimRight(m.Component, "01234567")]++
		wrong = wrong || m.Text == "this is what is wrong"
	}
	if got["calm"] != calm {
		t.Errorf("%d of the other's %d messages are there", got["calm"], calm)
	}
	if lost := r.Counts().Limited; got["flood"]+lost != sent+1 || lost < sent/2 {
		t.Errorf("of %d messages %d are there and %d were counted", sent+1, got["flood"], lost)
	}
	if !wrong {
		t.Error("the error went down in the flood")
	}
	r.stop()
	if said := r.told.String(); !strings.Contains(said, "of=flood") || !strings.Contains(said, fmt.Sprintf("dropped=%d", r.Counts().Limited)) {
		t.Errorf("it said %q", said)
	}
}

// Those who hold connections and say nothing are too many at some point, and
// Berth's own socket does not feel it.
func TestTooManyPeers(t *testing.T) {
	t.Parallel()
	r := start(t, Options{})
	for range maxPeers + 20 {
		r.dial(t, "tcp")
	}
	until(t, "a refusal", func() bool { return r.Counts().Refused >= 20 })
	write(t, r.dial(t, "unix"), "<14>own: here\n")
	until(t, "the own message", func() bool { return r.Store.End() > r.Store.First() })
}

// Names of components are strangers' words: they get no room without end.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	l := newLimits(1)
	now := time.Now()
	for i := range 10 * maxComponents {
		l.allow(fmt.Sprint(i), syslog.Informational, now)
	}
	if len(l.each) > maxComponents || l.total.Load() == 0 || l.dropped()["others"] == 0 {
		t.Errorf("%d names have a limit", len(l.each))
	}
}

// What has arrived when the service is asked to stop is kept, and there again.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, Options{Dir: dir})
	c := r.dial(t, "unix")
	for i := range 1000 {
		write(t, c, fmt.Sprintf("<14>x: %d\n", i))
	}
	r.stop()
	r = start(t, Options{Dir: dir})
	if n := len(r.all(t)); n != 1000 {
		t.Errorf("%d of 1000 are there", n)
	}
}

// A second service on the same directory, or port, says what is wrong.
func TestSecondService(t *testing.T) {
	t.Parallel()
	r := start(t, Options{})
	if _, err := New(Options{Dir: r.Dir, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("two services have the same directory")
	}
	second, err := New(Options{Dir: t.TempDir(), Intake: r.Intake + "2", API: r.API + "2", Settings: setting.Logs{Listen: r.Port.String()}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context(), func() {}); err == nil || !strings.Contains(err.Error(), "logs.listen") && !strings.Contains(err.Error(), "cannot listen for syslog") {
		t.Errorf("the port is taken, and: %v", err)
	}
}
