package logs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/appliance/durable"
	"berth/appliance/pause"
	"berth/appliance/redact"
	"berth/appliance/syslog"
)

// journal follows systemd's journal, by journalctl: the library would need cgo.
// Where it has got to is kept in a file, so that a restart goes on from there.
type journal struct {
	in   *intake
	file string   // keeps the cursor
	args []string // more arguments for journalctl
	log  *slog.Logger

	mu      sync.Mutex
	cursor  string // of the last message that was stored
	written string // what file has
}

const (
	// journalEvery is how often the cursor is written. What came since is read
	// again after a crash.
	journalEvery = time.Second
	// journalPause is how long a journalctl that has ended is left alone.
	journalPause = 5 * time.Second
	maxJournal   = 1 << 20 // bytes of one entry; longer ones are passed over
)

// available reports whether this machine's journal is there for us: Berth runs
// as a unit, so that its journal is the one of the machine that it looks after.
func available() bool {
	if os.Getenv("INVOCATION_ID") == "" {
		return false
	}
	if _, err := os.Stat("/run/systemd/journal/socket"); err != nil {
		return false
	}
	_, err := exec.LookPath("journalctl")
	return err == nil
}

// run follows until ctx ends.
func (j *journal) run(ctx context.Context) error {
	if b, err := os.ReadFile(j.file); err == nil {
		j.cursor = strings.TrimSpace(string(b))
		j.written = j.cursor
	}
	saving := make(chan struct{})
	go func() { defer close(saving); j.keepSaving(ctx) }()
	defer func() { <-saving; j.save() }()
	for {
		began := time.Now()
		err := j.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errCursor) {
			j.log.Warn("the journal does not know the place where it was left; it is read from this boot on", "cursor", j.at(""))
		} else if time.Since(began) > journalPause {
			j.log.Warn("journalctl has ended and is started again", "err", err)
		} else {
			j.log.Error("cannot follow the journal", "err", err)
		}
		pause.For(ctx, journalPause)
	}
}

var errCursor = errors.New("the cursor is not known")

// follow runs one journalctl to its end.
func (j *journal) follow(ctx context.Context) error {
	args := append([]string{"--follow", "--no-tail", "--quiet", "--output=json", "--output-fields=" + strings.Join([]string{
		"MESSAGE", "PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER", "_HOSTNAME", "_PID", "_COMM", "_SYSTEMD_UNIT", "_TRANSPORT"}, ",")}, j.args...)
	if cursor := j.place(); cursor != "" {
		args = append(args, "--after-cursor="+cursor)
	} else if len(j.args) == 0 {
		args = append(args, "--boot")
	}
	c := exec.CommandContext(ctx, "journalctl", args...)
	c.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	c.WaitDelay = 2 * time.Second
	var said bytes.Buffer
	c.Stderr = &limitedWriter{&said, 4096}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	readErr := j.read(out)
	err = c.Wait()
	if text := strings.TrimSpace(said.String()); text != "" {
		if strings.Contains(text, "Failed to seek to cursor") {
			return errCursor
		}
		err = errors.Join(err, errors.New(text))
	}
	return errors.Join(readErr, err)
}

// read stores the entries of a stream.
func (j *journal) read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if err == nil && long == nil {
			j.entry(line)
		} else {
			if len(long) < maxJournal {
				long = append(long, line...)
			}
			switch {
			case errors.Is(err, bufio.ErrBufferFull):
				continue
			case err != nil:
				return ignoreEOF(err)
			}
			j.entry(long)
			long = nil
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// place is the cursor.
func (j *journal) place() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cursor
}

// at sets the cursor and gives the one before.
func (j *journal) at(cursor string) (before string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before, j.cursor = j.cursor, cursor
	return before
}

func (j *journal) keepSaving(ctx context.Context) {
	tick := time.NewTicker(journalEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			j.save()
		}
	}
}

// save writes the cursor down. It is called by one goroutine at a time.
func (j *journal) save() {
	cursor := j.place()
	if cursor == j.written {
		return
	}
	if err := durable.WriteFile(j.file, []byte(cursor+"\n"), 0o640); err != nil {
		j.log.Warn("cannot write down how far the journal was read", "err", err)
		return
	}
	j.written = cursor
}

// entry stores one entry, unless a service of ours has sent it itself.
func (j *journal) entry(line []byte) {
	m, cursor, err := parseEntry(line)
	if cursor != "" {
		defer j.at(cursor) // when it is stored
	}
	if err != nil {
		j.in.broken.Add(1)
		return
	}
	if m.Text == "" {
		return
	}
	in := j.in
	in.received.Add(1)
	if len(m.Text) > maxMessage {
		m.Text = m.Text[:maxMessage]
		in.cut.Add(1)
	}
	if redact.Message(m) {
		in.redacted.Add(1)
	}
	in.keep(m, in.now())
}

// parseEntry reads an entry in journalctl's JSON format. A message without text
// is one that is not for us.
func parseEntry(line []byte) (m *syslog.Message, cursor string, err error) {
	var e struct {
		Cursor     string     `json:"__CURSOR"`
		Time       string     `json:"__REALTIME_TIMESTAMP"` // microseconds
		Message    fieldValue `json:"MESSAGE"`
		Priority   fieldValue `json:"PRIORITY"`
		Facility   fieldValue `json:"SYSLOG_FACILITY"`
		Identifier fieldValue `json:"SYSLOG_IDENTIFIER"`
		Host       fieldValue `json:"_HOSTNAME"`
		PID        fieldValue `json:"_PID"`
		Command    fieldValue `json:"_COMM"`
		Unit       fieldValue `json:"_SYSTEMD_UNIT"`
		Transport  fieldValue `json:"_TRANSPORT"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, "", fmt.Errorf("an entry of the journal cannot be read: %w", err)
	}
	us, err := strconv.ParseInt(e.Time, 10, 64)
	if err != nil {
		return nil, e.Cursor, fmt.Errorf("an entry of the journal has the time %.40q", e.Time)
	}
	m = &syslog.Message{Time: time.UnixMicro(us), Facility: syslog.Daemon, Severity: syslog.Informational,
		Host: string(e.Host), PID: string(e.PID), Text: strings.TrimRight(string(e.Message), "\n")}
	if p, err := strconv.ParseUint(string(e.Priority), 10, 8); err == nil && p <= uint64(syslog.Debug) {
		m.Severity = syslog.Severity(p)
	}
	if f, err := strconv.ParseUint(string(e.Facility), 10, 8); err == nil && f < 24 {
		m.Facility = syslog.Facility(f)
	}
	m.Component = string(e.Identifier)
	if m.Component == "" {
		m.Component = string(e.Command)
	}
	unit := string(e.Unit)
	if unit != "" {
		m.Attrs = append(m.Attrs, syslog.Attr{Key: "unit", Value: unit})
	}
	if ownUnit(unit) && sentItself(m.Text) {
		m.Text = ""
	}
	return m, e.Cursor, nil
}

// ownUnit reports whether a unit is one of Berth's services.
func ownUnit(unit string) bool {
	name, ok := strings.CutPrefix(strings.TrimSuffix(unit, ".service"), "berth-")
	return ok && name != ""
}

// sentItself tells lines of package logger, which has sent them to us, from what
// else a process writes to standard error: a panic's trace, say.
func sentItself(text string) bool {
	return strings.HasPrefix(text, "time=") && strings.Contains(text, " level=") && strings.Contains(text, " component=")
}

// fieldValue is a field of an entry: text, or numbers for bytes that are none,
// or a list of values, of which the first counts.
type fieldValue string

// UnmarshalJSON reads all three.
func (f *fieldValue) UnmarshalJSON(b []byte) error {
	switch {
	case len(b) > 0 && b[0] == '"':
		var s string
		err := json.Unmarshal(b, &s)
		*f = fieldValue(s)
		return err
	case len(b) > 1 && b[0] == '[' && b[1] != '"' && b[1] != '[':
		var numbers []uint8
		var wide []uint16 // encoding/json reads []uint8 from base64 alone
		if err := json.Unmarshal(b, &wide); err != nil {
			return err
		}
		for _, n := range wide {
			numbers = append(numbers, uint8(n))
		}
		*f = fieldValue(strings.ToValidUTF8(string(numbers), "\uFFFD"))
	case len(b) > 0 && b[0] == '[':
		var list []fieldValue
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		if len(list) > 0 {
			*f = list[0]
		}
	}
	return nil // null: it was too long for journalctl
}

// limitedWriter keeps the beginning of what is written.
type limitedWriter struct {
	to   *bytes.Buffer
	room int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if n := min(len(p), w.room-w.to.Len()); n > 0 {
		w.to.Write(p[:n])
	}
	return len(p), nil
}

// cursorFile is where the place in the journal is kept.
func cursorFile(dir string) string { return filepath.Join(dir, "journal.cursor") }
