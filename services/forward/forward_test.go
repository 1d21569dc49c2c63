package forward_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/forward"
	"berth/services/segment"
)

// until polls for what must come true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("this did not happen: %s", what)
		}
	}
}

// newStore makes a log store that runs until the test ends.
func newStore(t testing.TB, o segment.Options) *segment.Store {
	t.Helper()
	s, err := segment.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	running(t, s.Run)
	t.Cleanup(func() { s.Close() })
	return s
}

// running runs f until stop is called, or the test ends.
func running(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// newForwarder makes a Forwarder that runs until stop is called, or the test ends.
func newForwarder(t testing.TB, s *segment.Store, dir string, collectors ...setting.Forward) (f *forward.Forwarder, stop func()) {
	t.Helper()
	f, err := forward.New(forward.Options{Store: s, Dir: dir, Collectors: collectors, Host: "berth.test"})
	if err != nil {
		t.Fatal(err)
	}
	return f, running(t, f.Run)
}

// say appends the messages first to first+n-1. Every fourth is a warning, every
// fifth of core, the others of sshd.
func say(t testing.TB, s *segment.Store, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		if err := s.Append(message(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func message(i int) *syslog.Message {
	m := &syslog.Message{Time: time.Now(), Facility: syslog.Local0, Severity: syslog.Informational, Component: "sshd", Host: "node", PID: "7",
		Attrs: []syslog.Attr{{Key: "request_id", Value: fmt.Sprint("r", i)}, {Key: "odd", Value: `a"b]c\d`}}, Text: fmt.Sprintf("message %06d %s", i, strings.Repeat("x", 200))}
	if i%4 == 0 {
		m.Severity = syslog.Warning
	}
	if i%5 == 0 {
		m.Component = "core"
	}
	return m
}

var numbered = regexp.MustCompile(`message (\d{6}) `)

// number is that of a message; -1 for any other.
func number(line string) int {
	m := numbered.FindStringSubmatch(line)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// sink is a collector by TCP in this process.
type sink struct {
	net.Listener
	mu    sync.Mutex
	lines []string
}

// newSink listens; read says what to do with a connection.
func newSink(t testing.TB, address string, read func(*sink, net.Conn)) *sink {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { conn.Close() })
			go read(s, conn)
		}
	}()
	return s
}

// readAll keeps every message.
func readAll(s *sink, conn net.Conn) {
	defer conn.Close()
	for r := syslog.NewReader(conn, 1<<20); ; {
		line, _, err := r.Next()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.lines = append(s.lines, string(line))
		s.mu.Unlock()
	}
}

// readNothing keeps the connection and takes nothing from it.
func readNothing(*sink, net.Conn) {}

func (s *sink) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

// numbers are those of the messages that came, in their order, each once.
func numbers(lines []string) (list []int, repeated int) {
	seen := map[int]bool{}
	for _, line := range lines {
		n := number(line)
		if n < 0 {
			continue
		}
		if seen[n] {
			repeated++
			continue
		}
		seen[n] = true
		list = append(list, n)
	}
	return list, repeated
}

// wantAll waits for the messages first to first+n-1, which must come in order.
func wantAll(t *testing.T, lines func() []string, first, n int) {
	t.Helper()
	var list []int
	until(t, fmt.Sprintf("%d messages from %d on arrive", n, first), func() bool { list, _ = numbers(lines()); return len(list) >= n })
	for i, got := range list {
		if got != first+i {
			t.Fatalf("message %d came in place %d, after %v", got, i, list[max(0, i-3):i])
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t, segment.Options{}), t.TempDir()
	say(t, s, 0, 10) // before there is a collector: not for it
	c := newSink(t, "127.0.0.1:0", readAll)
	set := setting.Forward{Name: "main", To: "tcp://" + c.Addr().String()}
	f, stop := newForwarder(t, s, dir, set)
	say(t, s, 10, 2000)
	wantAll(t, c.got, 10, 2000)
	var m syslog.Message
	if err := syslog.Parse(c.got()[0], time.Now(), &m); err != nil {
		t.Fatal(err)
	}
	if m.Component != "berth-core" || m.Host != "node" || m.Get("request_id") != "r10" || m.Get("odd") != `a"b]c\d` || m.Get("meta.sequenceId") == "" || m.Severity != syslog.Informational {
		t.Errorf("%+v", m)
	}
	st := f.Status()[0]
	if !st.Connected || !strings.HasPrefix(st.State, "connected to 127.0.0.1:") || st.Sent < 2000 || st.Dropped != 0 || st.Bytes == 0 {
		t.Errorf("%+v", st)
	}
	stop()
	say(t, s, 2010, 100) // while nobody forwards
	_, stop = newForwarder(t, s, dir, set)
	wantAll(t, c.got, 10, 2100)
	stop()
	if _, repeated := numbers(c.got()); repeated != 0 {
		t.Errorf("%d messages came twice, although all ended in order", repeated)
	}
}

func TestJSONAndFilters(t *testing.T) {
	t.Parallel()
	s := newStore(t, segment.Options{})
	c := newSink(t, "127.0.0.1:0", readAll)
	newForwarder(t, s, t.TempDir(), setting.Forward{Name: "a", To: "tcp://" + c.Addr().String(), Format: "json", Level: "warning", Components: []string{"sshd", "core"}, Without: []string{"core"}})
	say(t, s, 1, 101) // 4, 8, … but not 20, 40 …
	until(t, "20 messages arrive", func() bool { return len(c.got()) >= 20 })
	for _, line := range c.got() {
		var got struct {
			Severity, Component, Message string
			Attributes                   map[string]string
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if n := number(line); n%4 != 0 || n%5 == 0 || got.Severity != "warning" || got.Component != "sshd" || got.Attributes["request_id"] != fmt.Sprint("r", n) {
			t.Errorf("%s", line)
		}
	}
}

// A collector that takes nothing and one that is not there hold up nobody, and
// neither does one that reads byte by byte.
func TestSlowAndDead(t *testing.T) {
	t.Parallel()
	s := newStore(t, segment.Options{})
	stuck, good := newSink(t, "127.0.0.1:0", readNothing), newSink(t, "127.0.0.1:0", readAll)
	slow := newSink(t, "127.0.0.1:0", func(s *sink, conn net.Conn) {
		for b := make([]byte, 1); ; time.Sleep(time.Millisecond) {
			if _, err := conn.Read(b); err != nil {
				return
			}
		}
	})
	f, stop := newForwarder(t, s, t.TempDir(),
		setting.Forward{Name: "stuck", To: "tcp://" + stuck.Addr().String()}, setting.Forward{Name: "slow", To: "tcp://" + slow.Addr().String()},
		setting.Forward{Name: "dead", To: "tcp://127.0.0.1:1"}, setting.Forward{Name: "good", To: "tcp://" + good.Addr().String()})
	say(t, s, 0, 60_000) // far more than sockets hold
	wantAll(t, good.got, 0, 60_000)
	for i, st := range f.Status() {
		if good := i == 3; good != (st.Waiting == 0) || st.Dropped != 0 {
			t.Errorf("%+v", st)
		}
	}
	until(t, "the dead one is called so", func() bool {
		return strings.Contains(f.Status()[2].State, "127.0.0.1:1 refuses the connection; tries again")
	})
	stop() // does not hang either
}

// What is too much for the queue is dropped, the oldest first, counted exactly,
// and the collector is told.
func TestQueueLimit(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t, segment.Options{BlockBytes: 32 << 10}), t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	set := setting.Forward{Name: "q", To: "tcp://" + address, Level: "warning", Without: []string{"core"}, QueueMB: 1}
	f, stop := newForwarder(t, s, dir, set)
	const n = 20_000
	wanted := 0
	for i := range n {
		if i%4 == 0 && i%5 != 0 {
			wanted++
		}
	}
	say(t, s, 0, n)
	until(t, "the queue is within its limit", func() bool { return f.Status()[0].WaitingBytes <= 1<<20 })
	dropped := f.Status()[0].Dropped
	stop() // the loss is known after a restart
	c := newSink(t, address, readAll)
	newForwarder(t, s, dir, set)
	until(t, "what is left arrives", func() bool { return len(c.got()) > wanted-int(dropped) })
	list, repeated := numbers(c.got())
	if dropped == 0 || len(list)+int(dropped) != wanted || repeated != 0 || list[len(list)-1] != n-4 {
		t.Errorf("%d of %d were dropped, %d came, the last was %d", dropped, wanted, len(list), list[len(list)-1])
	}
	for i := 1; i < len(list); i++ {
		if list[i] <= list[i-1] {
			t.Fatalf("%d came after %d", list[i], list[i-1])
		}
	}
	var m syslog.Message
	if err := syslog.Parse(c.got()[0], time.Now(), &m); err != nil || m.Component != "berth-logs" || m.Get("dropped") != fmt.Sprint(dropped) || m.Get("from") == "" ||
		m.Get("to") == "" || !strings.HasPrefix(m.Text, fmt.Sprintf("%d messages from ", dropped)) {
		t.Errorf("%+v, %v", m, err)
	}
}

// What a slow collector has lost is not counted again, and does not come after
// all, when its connection is lost.
func TestQueueLimitOfSlowCollector(t *testing.T) {
	t.Parallel()
	s := newStore(t, segment.Options{BlockBytes: 32 << 10})
	var connections atomic.Int32
	enough := make(chan bool)
	first := make(chan []string, 1)
	c := newSink(t, "127.0.0.1:0", func(s *sink, conn net.Conn) {
		if connections.Add(1) > 1 {
			readAll(s, conn)
			return
		}
		var lines []string
		defer func() { first <- lines }()
		defer conn.Close()
		for r := syslog.NewReader(conn, 1<<20); ; {
			line, _, err := r.Next()
			if err != nil {
				return
			}
			lines = append(lines, string(line))
			select {
			case <-enough:
				return
			case <-time.After(50 * time.Microsecond):
			}
		}
	})
	f, _ := newForwarder(t, s, t.TempDir(), setting.Forward{Name: "q", To: "tcp://" + c.Addr().String(), QueueMB: 4})
	const n = 100_000
	say(t, s, 0, n)
	until(t, "it is too slow", func() bool { return f.Status()[0].Dropped > 0 })
	close(enough)
	before := <-first
	until(t, "the last arrives", func() bool { list, _ := numbers(c.got()); return len(list) > 0 && list[len(list)-1] == n-1 })
	dropped := func() int { return int(f.Status()[0].Dropped) }
	until(t, "it is told of all", func() bool { return told(t, c.got()) >= dropped() })
	again, repeated := numbers(c.got())
	either, _ := numbers(append(before, c.got()...))
	t.Logf("%d came first, %d then; %d were dropped", len(before), len(again), dropped())
	if dropped()+len(either) < n || dropped()+len(again) > n || repeated != 0 {
		t.Errorf("of %d messages %d came, %d of them after the connection was lost, and %d were dropped", n, len(either), len(again), dropped())
	}
}

// What the store itself has removed is counted too.
func TestRetention(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t, segment.Options{MaxBytes: 1 << 20, SegmentBytes: 64 << 10, BlockBytes: 32 << 10}), t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	set := setting.Forward{Name: "q", To: "tcp://" + address}
	warnings := setting.Forward{Name: "w", To: "tcp://127.0.0.1:1", Level: "warning"}
	_, stop := newForwarder(t, s, dir, set, warnings)
	n := 0
	until(t, "the store removes something", func() bool {
		say(t, s, n, 5000)
		n += 5000
		return s.First() > 3000
	})
	stop()
	c, w := newSink(t, address, readAll), newSink(t, "127.0.0.1:0", readAll)
	warnings.To = "tcp://" + w.Addr().String()
	newForwarder(t, s, dir, set, warnings)
	until(t, "all are accounted for, those that came and those that are told as dropped", func() bool {
		list, repeated := numbers(c.got())
		return len(list)+told(t, c.got()) == n && list[len(list)-1] == n-1 && repeated == 0
	})
	until(t, "whoever has filters gets a limit only", func() bool {
		got := w.got()
		return len(got) > 0 && strings.Contains(got[0], "] up to ") && told(t, got[:1]) > 3000
	})
}

// told is how many messages were dropped by what the collector was told.
func told(t *testing.T, lines []string) (n int) {
	for _, line := range lines {
		var m syslog.Message
		if number(line) >= 0 {
			continue
		}
		if err := syslog.Parse(line, time.Now(), &m); err != nil {
			t.Fatal(err)
		}
		d, _ := strconv.Atoi(m.Get("dropped"))
		n += d
	}
	return n
}

func TestNew(t *testing.T) {
	t.Parallel()
	s := newStore(t, segment.Options{})
	if _, err := forward.New(forward.Options{Store: s, Dir: t.TempDir(), Collectors: []setting.Forward{{Name: "x", To: "http://x"}}}); err == nil {
		t.Error("http is no way to a collector")
	}
	f, _ := newForwarder(t, s, t.TempDir())
	if _, err := f.Test(t.Context(), "nobody"); err == nil {
		t.Error("there is no collector of that name")
	}
}

func writePosition(t testing.TB, dir, name string, seq uint64) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name+".position"), fmt.Appendf(nil, `{"next":%d}`, seq), 0o600); err != nil {
		t.Fatal(err)
	}
}
