// Package trail is the agent's audit trail: who changed what, when, from where,
// and how it came out.
//
// An entry is a line of JSON in a file that survives a power cut, and a message to
// the log service, which keeps and forwards it. The file is bounded: two parts of
// some thousand entries each. Secrets never get here; whoever adds an entry says
// what was changed, not to what where that is one.
package trail

import (
	"bufio"
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"berth/agent/api"
	"berth/appliance/durable"
	"berth/appliance/redact"
)

const (
	partBytes = 1 << 20 // of the file, before it is put aside
	fieldMax  = 1024    // bytes of one field
)

// Trail appends to the file and tells the log. It is for concurrent use.
type Trail struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	size int64
}

// New makes a trail at a path, whose directory exists.
func New(path string, log *slog.Logger) *Trail {
	t := &Trail{path: path, log: log}
	if info, err := os.Stat(path); err == nil {
		t.size = info.Size()
	}
	return t
}

// Add puts an entry into the trail. Its time is now. That it cannot be written
// stops nobody from repairing the machine: the log has it, and says so.
func (t *Trail) Add(e api.Event) {
	e.Time = time.Now().UTC()
	for _, field := range []*string{&e.User, &e.From, &e.Action, &e.Target, &e.Detail, &e.Result} {
		*field = redact.Text(cut(*field))
	}
	t.log.Info("audit", "user", e.User, "from", e.From, "action", e.Action, "target", e.Target, "detail", e.Detail, "result", e.Result)
	if err := t.write(e); err != nil {
		t.log.Error("cannot write the audit trail", "err", err)
	}
}

func cut(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	for len(s) > fieldMax {
		s = s[:fieldMax-3]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return s
}

func (t *Trail) write(e api.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size > 0 && t.size+int64(len(line)) > partBytes {
		if err := os.Rename(t.path, t.path+".1"); err != nil {
			return err
		}
		t.size = 0
	}
	f, err := os.OpenFile(t.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.Write(line)
	t.size += int64(n)
	if err == nil {
		err = f.Sync()
	}
	if err == nil && t.size == int64(n) {
		err = durable.SyncDir(filepath.Dir(t.path))
	}
	return err
}

// Last gives the newest entries, the newest first. A line that a power cut has
// left unfinished is left out.
func (t *Trail) Last(n int) ([]api.Event, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []api.Event
	for _, path := range []string{t.path + ".1", t.path} {
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, 64<<10)
		for lines.Scan() {
			var e api.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				all = append(all, e)
			}
		}
	}
	slices.Reverse(all)
	return all[:min(n, len(all))], nil
}
