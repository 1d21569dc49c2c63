package logger_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/logger"
	"berth/appliance/secret"
	"berth/appliance/syslog"
)

// receiver is a log service that keeps what it gets.
type receiver struct {
	net.Listener
	got chan syslog.Message
}

func listen(t *testing.T, path string) *receiver {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{l, make(chan syslog.Message, 10_000)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				lines := syslog.NewReader(c, 64<<10)
				for {
					line, _, err := lines.Next()
					if err != nil {
						return
					}
					var m syslog.Message
					if syslog.Parse(string(line), time.Now(), &m) == nil {
						r.got <- m
					}
				}
			}()
		}
	}()
	return r
}

func (r *receiver) next(t *testing.T) syslog.Message {
	t.Helper()
	select {
	case m := <-r.got:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no message came")
		panic("unreachable")
	}
}

func run(t *testing.T, s *logger.Sink) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// One line arrives as text and as a message, with all of its facts and those of
// its request, and without its secrets.
func TestBothWays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "syslog.sock")
	service := listen(t, path)
	sink := logger.NewSink(path)
	run(t, sink)
	var text bytes.Buffer
	log := logger.New(logger.Options{Component: "up", Stderr: &text, Sink: sink})
	log = logger.For(log, "registry").With("node", 1).WithGroup("blob").With("size", 42)
	ctx := logger.WithRequest(context.Background(), &logger.Request{ID: "r-1", TokenRequest: "t-1", TraceID: "abc", User: "jane"})
	log.WarnContext(ctx, "a blob is damaged", "key", `a"b]c\d`, "secret", secret.Text("hunter2"), "err", errors.New("it is\nbroken"),
		slog.Group("at", "line", 7), "took", 3*time.Second, "when", time.Unix(0, 0))
	m := service.next(t)
	if m.Component != "registry" || m.Severity != syslog.Warning || m.Facility != syslog.Local0 || m.Text != "a blob is damaged" || m.PID == "" || time.Since(m.Time) > time.Minute {
		t.Errorf("got %+v", m)
	}
	for key, want := range map[string]string{"node": "1", "blob.size": "42", "blob.key": `a"b]c\d`, "blob.secret": "redacted", "blob.at.line": "7",
		"blob.took": "3s", "blob.when": "1970-01-01T00:00:00.000000Z", "request_id": "r-1", "token_request": "t-1", "trace_id": "abc"} {
		if got := m.Get(key); got != want {
			t.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	if err := m.Get("blob.err"); !strings.HasPrefix(err, "it is") || !strings.HasSuffix(err, "broken") {
		t.Errorf("err is %q", err)
	}
	line := text.String()
	for _, want := range []string{"level=WARN", "component=registry", "node=1", "blob.size=42", "request_id=r-1", "token_request=t-1"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is without %s", line, want)
		}
	}
	if strings.Contains(line, "hunter2") || strings.Count(line, "\n") != 1 {
		t.Errorf("wrote %q", line)
	}
}

// The course of a request is in the log service, and not on standard error, but
// what goes wrong is in both; levels hold for both.
func TestWhatGoesWhere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "syslog.sock")
	service := listen(t, path)
	sink := logger.NewSink(path)
	run(t, sink)
	var text bytes.Buffer
	level := new(slog.LevelVar)
	log := logger.New(logger.Options{Component: "core", Stderr: &text, Sink: sink, Level: level})
	ctx := logger.WithRequest(context.Background(), &logger.Request{ID: "r"})
	log.DebugContext(ctx, "no")
	log.InfoContext(ctx, "course")
	log.Info("life")
	log.ErrorContext(ctx, "wrong")
	level.Set(slog.LevelError)
	log.Warn("no")
	log.Error("last")
	var got []string
	for len(got) == 0 || got[len(got)-1] != "error last" {
		m := service.next(t)
		got = append(got, m.Severity.String()+" "+m.Text)
	}
	if s := strings.Join(got, ", "); s != "info course, info life, error wrong, error last" {
		t.Errorf("the service got %s", s)
	}
	if s := text.String(); strings.Contains(s, "course") || strings.Contains(s, "msg=no") || !strings.Contains(s, "life") || !strings.Contains(s, "wrong") || !strings.Contains(s, "last") {
		t.Errorf("standard error got %q", s)
	}
}

// A log service that comes late gets what had room; what had none is counted, and told. The last words of a process are
// sent before it ends.
func TestServiceAway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "syslog.sock")
	sink := logger.NewSink(path)
	stop := run(t, sink)
	log := logger.New(logger.Options{Component: "jobs", Sink: sink})
	log.Info("early")
	big := strings.Repeat("x", 60<<10)
	for range 200 { // 12 MB; twice 4 have room, in the batch that is under way and in the next
		log.Info(big)
	}
	if sink.Dropped() == 0 {
		t.Error("12 MB had room in 4")
	}
	service := listen(t, path)
	if m := service.next(t); m.Text != "early" {
		t.Errorf("got %.100q", m.Text)
	}
	for told := int64(0); told < sink.Dropped(); { // in one message or more
		m := service.next(t)
		if n := m.Get("dropped"); n != "" {
			count, err := strconv.ParseInt(n, 10, 64)
			if told += count; err != nil || m.Severity != syslog.Warning || told > sink.Dropped() {
				t.Fatalf("of %d dropped it told %+v", sink.Dropped(), m)
			}
		}
	}
	log.Info("last words")
	stop()
	for {
		if m := service.next(t); m.Text == "last words" {
			return
		}
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	var got *logger.Request
	h := logger.Requests(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = logger.RequestOf(r.Context()) }))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Request-Id", "abc")
	h.ServeHTTP(httptest.NewRecorder(), r)
	if got == nil || got.ID != "abc" || logger.RequestOf(context.Background()) != nil {
		t.Errorf("got %+v", got)
	}
	if l, ok := logger.Level("warn"); !ok || l != slog.LevelWarn {
		t.Error("warn is no level")
	}
	if _, ok := logger.Level("loud"); ok {
		t.Error("loud is a level")
	}
}

// BenchmarkInfo is what a line costs the one who writes it.
func BenchmarkInfo(b *testing.B) {
	path := filepath.Join(b.TempDir(), "syslog.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				var buf [256 << 10]byte
				for {
					if _, err := c.Read(buf[:]); err != nil {
						return
					}
				}
			}()
		}
	}()
	sink := logger.NewSink(path)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go sink.Run(ctx)
	log := logger.New(logger.Options{Component: "registry", Sink: sink})
	about := logger.WithRequest(ctx, &logger.Request{ID: "0b6c6df0-3a5e-4d7f-9c1e-2f4b8a6d1c3e", TokenRequest: "7d1f8a90-1b2c-4d3e-8f90-a1b2c3d4e5f6"})
	b.ReportAllocs()
	for b.Loop() {
		log.InfoContext(about, "manifest pushed", "repository", "library/app", "digest", "sha256:0123456789abcdef", "tags", "1.0", "user", "jane")
	}
}
