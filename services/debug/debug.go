// Package debug is how an administrator looks into a running process: profiles,
// metrics and the level of its log, on a unix socket that only the process's own
// user and root can open.
//
// None of it is on a TCP port. A profile shows what a process works on, and
// taking one makes it slow, so the right to ask is the right to be its user.
// Handlers stand in a mux of their own: net/http's default one, where importing
// net/http/pprof puts them too, is served nowhere in Berth.
package debug

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"berth/appliance/fault"
)

// MaxSeconds is how long a profile over time may take.
const MaxSeconds = 300

// Options are what there is to look at.
type Options struct {
	Level   *slog.LevelVar // of the process's log; nil = it cannot be changed
	Metrics http.Handler   // nil = none
}

// Handler serves
//
//	/debug/pprof/…   profiles, as net/http/pprof has them
//	/metrics         what Prometheus would be told
//	/log-level       GET tells it, PUT sets it: debug, info, warn or error
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // lists them, and serves the named ones
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	if o.Level != nil {
		mux.HandleFunc("GET /log-level", func(w http.ResponseWriter, _ *http.Request) { tell(w, o.Level) })
		mux.HandleFunc("PUT /log-level", func(w http.ResponseWriter, r *http.Request) { change(w, r, o.Level) })
	}
	return bounded(mux)
}

// bounded refuses profiles that would take too long.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := r.URL.Query().Get("seconds"); s != "" {
			n, err := strconv.ParseFloat(s, 64)
			if err != nil || !(n > 0 && n <= MaxSeconds) {
				http.Error(w, "seconds must be more than 0 and at most "+strconv.Itoa(MaxSeconds), http.StatusBadRequest)
				return
			}
		}
		// A profile takes longer to come than any other answer.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add((MaxSeconds + 60) * time.Second))
		h.ServeHTTP(w, r)
	})
}

func tell(w http.ResponseWriter, level *slog.LevelVar) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, LevelName(level.Level())+"\n") // whoever asked may be gone
}

func change(w http.ResponseWriter, r *http.Request, level *slog.LevelVar) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 64))
	if err != nil {
		http.Error(w, "the level did not arrive", http.StatusBadRequest)
		return
	}
	l, err := ParseLevel(strings.TrimSpace(string(b)))
	if err != nil {
		http.Error(w, fault.Of(err).Text, http.StatusBadRequest)
		return
	}
	level.Set(l)
	tell(w, level)
}

// levels are the settings' names of slog's levels.
var levels = []struct {
	name  string
	level slog.Level
}{{"debug", slog.LevelDebug}, {"info", slog.LevelInfo}, {"warn", slog.LevelWarn}, {"error", slog.LevelError}}

// ParseLevel reads a level's name. Errors: Invalid.
func ParseLevel(name string) (slog.Level, error) {
	for _, l := range levels {
		if strings.EqualFold(l.name, name) {
			return l.level, nil
		}
	}
	return 0, fault.New(fault.Invalid, "the level must be debug, info, warn or error, not %q", name)
}

// LevelName is ParseLevel's other way round.
func LevelName(level slog.Level) string {
	for _, l := range levels {
		if l.level == level {
			return l.name
		}
	}
	return strings.ToLower(level.String())
}
