package logs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/appliance/syslog"
)

// remote writes journal files as journald does, from text: Debian's
// systemd-journal-remote.
const remote = "/lib/systemd/systemd-journal-remote"

type entryFields map[string]string

// journalWrite appends entries to a journal file in dir.
func journalWrite(t *testing.T, dir string, at time.Time, entries ...entryFields) {
	t.Helper()
	var in strings.Builder
	for i, e := range entries {
		fmt.Fprintf(&in, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\n_MACHINE_ID=0123456789abcdef0123456789abcdef\n",
			at.UnixMicro()+int64(i), at.UnixMicro()%1_000_000_000_000+int64(i))
		for key, value := range e {
			if strings.ContainsAny(value, "\n") {
				n := len(value)
				in.WriteString(key + "\n")
				for range 8 {
					in.WriteByte(byte(n))
					n >>= 8
				}
				in.WriteString(value + "\n")
				continue
			}
			in.WriteString(key + "=" + value + "\n")
		}
		in.WriteString("\n")
	}
	c := exec.Command(remote, "-o", filepath.Join(dir, "test.journal"), "-")
	c.Stdin = strings.NewReader(in.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// The journal is followed as it grows, once each, also over a restart; lines that
// Berth's services have sent themselves are left out, and a panic's is not.
func TestJournal(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(remote); err != nil {
		t.Skip("systemd-journal-remote is not installed: make test-deps")
	}
	files, dir := t.TempDir(), t.TempDir()
	at := time.Now().Add(-48 * time.Hour) // older than a sender's word would be believed
	journalWrite(t, files, at,
		entryFields{"MESSAGE": "Accepted publickey", "PRIORITY": "5", "SYSLOG_FACILITY": "4", "SYSLOG_IDENTIFIER": "sshd", "_PID": "77", "_HOSTNAME": "box", "_SYSTEMD_UNIT": "ssh.service"},
		entryFields{"MESSAGE": "time=2026-11-21T12:00:00Z level=INFO msg=ready component=core", "_SYSTEMD_UNIT": "berth-core.service"},
		entryFields{"MESSAGE": "panic: it is\n\ngoroutine 1", "_SYSTEMD_UNIT": "berth-core.service", "_COMM": "berth"},
		entryFields{"MESSAGE": "out of memory", "PRIORITY": "2", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "_TRANSPORT": "kernel"},
		entryFields{"MESSAGE": "FATAL: password=Hunter2x", "SYSLOG_IDENTIFIER": "postgres"})
	o := Options{Dir: dir, Journal: []string{"--directory=" + files}}
	r := start(t, o)
	until(t, "the entries", func() bool { return r.Store.End()-r.Store.First() >= 4 })
	list := r.all(t)
	if m := list[0]; m.Component != "sshd" || m.Severity != syslog.Notice || m.Facility != syslog.Auth || m.PID != "77" || m.Host != "box" ||
		m.Get("unit") != "ssh.service" || m.Text != "Accepted publickey" || m.Time.Sub(at).Abs() > time.Second {
		t.Errorf("got %+v", m)
	}
	if m := list[1]; m.Component != "berth" || !strings.HasPrefix(m.Text, "panic: it is\n") {
		t.Errorf("got %+v", m)
	}
	if m := list[2]; m.Component != "kernel" || m.Facility != syslog.Kernel || m.Severity != syslog.Critical {
		t.Errorf("got %+v", m)
	}
	if m := list[3]; strings.Contains(m.Text, "Hunter2x") || r.Counts().Redacted != 1 {
		t.Errorf("got %+v", m)
	}
	journalWrite(t, files, at.Add(time.Hour), entryFields{"MESSAGE": "live", "SYSLOG_IDENTIFIER": "x"})
	until(t, "what comes later", func() bool { return r.Store.End()-r.Store.First() == 5 })
	r.stop()
	journalWrite(t, files, at.Add(2*time.Hour), entryFields{"MESSAGE": "meanwhile", "SYSLOG_IDENTIFIER": "x"})
	r = start(t, o)
	until(t, "what came meanwhile", func() bool { return r.Store.End()-r.Store.First() >= 6 })
	if list := r.all(t); len(list) != 6 || list[5].Text != "meanwhile" {
		t.Errorf("%d entries, the last %+v", len(list), list[len(list)-1])
	}
	r.stop()
	// A cursor that nobody knows: everything again rather than nothing.
	if err := os.WriteFile(filepath.Join(dir, "journal.cursor"), []byte("s=1;i=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, o)
	until(t, "everything again", func() bool { return r.Store.End()-r.Store.First() >= 12 })
}

func FuzzJournalEntry(f *testing.F) {
	f.Add([]byte(`{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1763736000000000","MESSAGE":[104,255],"PRIORITY":["3","4"],"_PID":null,"SYSLOG_IDENTIFIER":[[104],[105]]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if m, _, err := parseEntry(line); err == nil && m == nil {
			t.Error("neither an entry nor an error")
		}
	})
}
