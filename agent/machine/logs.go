package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/redact"
	"berth/appliance/setting"
	"berth/appliance/syslog"
)

// The sources of log lines.
const (
	Journal    = "journal" // systemd's, of the whole machine
	LogService = "berth"
)

const (
	mostLines   = 1000
	journalTime = 10 * time.Second
	maxJournal  = 32 << 20
)

// Logs gives the newest lines of a source, the oldest first. component is a
// component's name (of the journal: a unit or a program); "" is all.
func (m *Machine) Logs(ctx context.Context, source, component string, lines int) ([]api.Line, error) {
	if lines == 0 {
		lines = 200
	}
	if lines < 1 || lines > mostLines {
		return nil, fault.New(fault.Invalid, "it must be between 1 and %d", mostLines).On("lines")
	}
	if len(component) > 100 || component != "" && !plain(component) {
		return nil, fault.New(fault.Invalid, "%.100q is no component", component).On("component")
	}
	switch source {
	case "", LogService:
		return m.serviceLog(ctx, component, lines)
	case Journal:
		return m.journal(ctx, component, lines)
	}
	return nil, fault.New(fault.Invalid, "it must be %s or %s", LogService, Journal).On("source")
}

// plain keeps options and patterns out of what is given to programs.
func plain(name string) bool {
	for i, c := range []byte(name) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || i > 0 && (c == '-' || c == '.' || c == '@' || c == ':')
		if !ok {
			return false
		}
	}
	return true
}

// maxLine is how many bytes a line's attributes may have.
const maxLine = 2000

// lineOf writes a message with its attributes behind it: the error first, which is
// most of the news, then the others by their names.
func lineOf(message string, attributes map[string]any) string {
	var b strings.Builder
	b.WriteString(message)
	if e, ok := attributes["err"].(string); ok {
		b.WriteString(": " + e)
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		value := fmt.Sprint(attributes[name])
		if _, said := attributes[name].(string); said && name == "err" || value == "" {
			continue
		}
		if strings.ContainsAny(value, " \"\n") {
			value = strconv.Quote(value)
		}
		if b.Len()+len(value) > len(message)+maxLine {
			b.WriteString(" …")
			break
		}
		b.WriteString(" " + name + "=" + value)
	}
	return b.String()
}

func (m *Machine) serviceLog(ctx context.Context, component string, lines int) ([]api.Line, error) {
	s, err := m.Settings()
	if err != nil {
		s = setting.Appliance()
	}
	v := url.Values{"limit": {strconv.Itoa(lines)}, "order": {"desc"}}
	if component != "" {
		v.Set("component", component)
	}
	var page struct {
		Messages []struct {
			Time       time.Time
			Severity   string
			Component  string
			Message    string
			Attributes map[string]any
		}
	}
	if err := m.askLogs(ctx, s, http.MethodGet, "/v1/messages?"+v.Encode(), &page); err != nil {
		return nil, err
	}
	list := make([]api.Line, 0, len(page.Messages))
	for _, msg := range page.Messages {
		list = append(list, api.Line{Time: msg.Time, Component: msg.Component, Level: msg.Severity, Text: lineOf(msg.Message, msg.Attributes)})
	}
	slices.Reverse(list)
	return list, nil
}

// journal reads systemd's journal. What looks like a secret in a line is hidden:
// these are lines of programs that are not ours.
func (m *Machine) journal(ctx context.Context, component string, lines int) ([]api.Line, error) {
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	args := []string{"--output=json", "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM", "--no-pager", "--quiet", "--lines=" + strconv.Itoa(lines)}
	if m.o.Root != "" {
		args = append(args, "--directory="+m.path("/var/log/journal"))
	}
	if component != "" {
		args = append(args, "--unit="+component)
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the journal cannot be read")
	}
	return parseJournal(out[:min(len(out), maxJournal)]), nil
}

// parseJournal reads journalctl's JSON, a line for each entry. A field that is no
// text comes as an array of bytes (systemd.journal-fields(7)).
func parseJournal(b []byte) []api.Line {
	list := []api.Line{}
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			At       string          `json:"__REALTIME_TIMESTAMP"`
			Message  json.RawMessage `json:"MESSAGE"`
			Priority string          `json:"PRIORITY"`
			Name     string          `json:"SYSLOG_IDENTIFIER"`
			Program  string          `json:"_COMM"`
		}
		if json.Unmarshal(in.Bytes(), &e) != nil {
			continue
		}
		micros, _ := strconv.ParseInt(e.At, 10, 64)
		level, _ := strconv.ParseUint(e.Priority, 10, 8)
		if e.Priority == "" || level > uint64(syslog.Debug) {
			level = uint64(syslog.Informational)
		}
		if e.Name == "" {
			e.Name = e.Program
		}
		list = append(list, api.Line{Time: time.UnixMicro(micros).UTC(), Component: e.Name, Level: syslog.Severity(level).String(), Text: redact.Text(journalText(e.Message))})
	}
	return list
}

func journalText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var numbers []byte
	var list []int
	if json.Unmarshal(raw, &list) == nil {
		for _, n := range list {
			numbers = append(numbers, byte(n))
		}
	}
	return string(bytes.ToValidUTF8(numbers, []byte("\ufffd")))
}
