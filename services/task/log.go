package task

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
)

const (
	// maxLog is how much of a task's log is kept, over all its runs.
	maxLog = 1 << 20
	// flushSize and flushEvery bound what a crash loses of a log, and how many
	// rows a log becomes.
	flushSize  = 16 << 10
	flushEvery = 500 * time.Millisecond
)

// logWriter gathers a run's lines and writes them in chunks.
type logWriter struct {
	pool *pgxpool.Pool
	task int64

	mu     sync.Mutex
	lines  bytes.Buffer
	room   int64 // bytes until maxLog
	flushd time.Time
}

// Write takes one line of the text handler.
func (w *logWriter) line(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.room <= 0 {
		return
	}
	if w.room -= int64(len(s)); w.room <= 0 {
		s = "the log is full; the rest is left out\n"
	}
	w.lines.WriteString(s)
}

// due gives what there is to write, if it is much or has waited for long.
func (w *logWriter) due(always bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lines.Len() == 0 || !always && w.lines.Len() < flushSize && time.Since(w.flushd) < flushEvery {
		return ""
	}
	s := w.lines.String()
	w.lines.Reset()
	w.flushd = time.Now()
	return s
}

// flush writes what is due. A log that cannot be written is lost, and said to be
// in the service's own log by the caller; the work goes on.
func (w *logWriter) flush(ctx context.Context, always bool) error {
	s := w.due(always)
	if s == "" {
		return nil
	}
	_, err := w.pool.Exec(ctx, `
		WITH t AS (UPDATE tasks SET log_bytes = log_bytes + $3 WHERE id = $1 RETURNING id)
		INSERT INTO task_logs (task_id, lines) SELECT id, $2 FROM t`, w.task, s, len(s))
	return database.Fault(err)
}

// lineHandler renders records as lines: time, level, message, attributes.
type lineHandler struct {
	w     *logWriter
	attrs string
	group string
}

func (h lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s] %s%s", r.Time.UTC().Format(time.RFC3339), r.Level, printable(r.Message), h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(h.attr(a))
		return true
	})
	b.WriteByte('\n')
	h.w.line(b.String())
	return nil
}

func (h lineHandler) attr(a slog.Attr) string {
	return fmt.Sprintf(" %s%s=%s", h.group, a.Key, printable(a.Value.Resolve().String()))
}

func (h lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.attrs += h.attr(a)
	}
	return h
}

func (h lineHandler) WithGroup(name string) slog.Handler {
	h.group += name + "."
	return h
}

// maxValue bounds one text in a line: strangers' servers answer at any length.
const maxValue = 4 << 10

// printable keeps a line one line, and text that PostgreSQL can hold.
func printable(s string) string {
	if len(s) > maxValue {
		s = s[:maxValue] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
