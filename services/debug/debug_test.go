package debug_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/services/debug"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	level := &slog.LevelVar{}
	h := debug.Handler(debug.Options{Level: level, Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("metrics")) })})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/log-level", "", 200, "info\n"},
		{"PUT", "/log-level", "debug\n", 200, "debug\n"},
		{"GET", "/log-level", "", 200, "debug\n"},
		{"PUT", "/log-level", "loud", 400, `not "loud"`},
		{"PUT", "/log-level", strings.Repeat("x", 1<<20), 400, "the level must be"},
		{"POST", "/log-level", "debug", 405, ""},
		{"GET", "/metrics", "", 200, "metrics"},
		{"GET", "/debug/pprof/goroutine?debug=1", "", 200, "goroutine profile"},
		{"GET", "/debug/pprof/heap", "", 200, ""},
		{"GET", "/debug/pprof/nonsense", "", 404, ""},
		{"GET", "/debug/pprof/profile?seconds=301", "", 400, "at most 300"},
		{"GET", "/debug/pprof/profile?seconds=NaN", "", 400, "at most 300"},
		{"GET", "/debug/pprof/profile?seconds=-1", "", 400, "at most 300"},
		{"GET", "/", "", 404, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %.200s", c.method, c.path, w.Code, w.Body)
		}
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("the level is %v", level)
	}
	w := httptest.NewRecorder()
	debug.Handler(debug.Options{}).ServeHTTP(w, httptest.NewRequest("GET", "/log-level", nil))
	if w.Code != 404 {
		t.Errorf("a log whose level cannot be changed: %d", w.Code)
	}
}

func TestLevelNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"debug", "info", "warn", "error"} {
		l, err := debug.ParseLevel(strings.ToUpper(name))
		if err != nil || debug.LevelName(l) != name {
			t.Errorf("%s: %v %v", name, l, err)
		}
	}
}
