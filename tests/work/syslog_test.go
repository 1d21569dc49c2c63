package work

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/tests/berthtest"
)

// rsyslog is a real collector: what it understands of each message goes into a file.
type rsyslog struct {
	t             *testing.T
	program       string
	config, lines string
	command       *exec.Cmd
}

func newRsyslog(t *testing.T, port string) *rsyslog {
	t.Helper()
	dir := t.TempDir()
	r := &rsyslog{t: t, program: berthtest.Program(t, "rsyslogd"), config: filepath.Join(dir, "rsyslog.conf"), lines: filepath.Join(dir, "lines")}
	config := fmt.Sprintf(`
global(workDirectory=%q)
module(load="imtcp")
module(load="imudp")
input(type="imtcp" address="127.0.0.1" port=%q)
input(type="imudp" address="127.0.0.1" port=%q)
template(name="parsed" type="string" string="%%app-name%%|%%msgid%%|%%syslogfacility-text%%|%%structured-data%%|%%msg%%\n")
*.* action(type="omfile" file=%q template="parsed")
`, dir, port, port, r.lines)
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rsyslog) start() {
	r.t.Helper()
	r.command = exec.Command(r.program, "-n", "-f", r.config, "-i", r.config+".pid")
	r.command.Stdout, r.command.Stderr = os.Stderr, os.Stderr
	if err := r.command.Start(); err != nil {
		r.t.Fatal(err)
	}
	c := r.command
	r.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
}

func (r *rsyslog) stop() {
	r.t.Helper()
	if err := r.command.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	r.command.Wait()
}

// has waits until a line has all of texts.
func (r *rsyslog) has(texts ...string) {
	r.t.Helper()
	until(r.t, strings.Join(texts, " "), func() bool {
		data, _ := os.ReadFile(r.lines)
	lines:
		for line := range strings.Lines(string(data)) {
			for _, text := range texts {
				if !strings.Contains(line, text) {
					continue lines
				}
			}
			return true
		}
		return false
	})
}

// The audit trail reaches a syslog collector by TCP and by UDP; what happens while it is away reaches it later; what is
// disabled does not; and webhooks do not wait for it.
func TestAuditToSyslog(t *testing.T) {
	addr, err := berthtest.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	collector := newRsyslog(t, port)
	s, r := start(t), newReceiver(t)
	set := func(values map[string]any) {
		t.Helper()
		s.API(t, s.Admin(t), "PUT", "/configurations", values, 200)
	}
	forward := map[string]any{"audit_log_forward_endpoint": addr, "disabled_audit_log_event_types": "create_user"}
	if got := string(s.API(t, s.Admin(t), "PUT", "/configurations", forward, 400)); !strings.Contains(got, "does not answer") {
		t.Errorf("without a collector: %s", got)
	}
	collector.start()
	until(t, "the collector's start", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	set(forward)
	s.CreateUser(t, "unseen")
	s.CreateProject(t, "by-tcp", false)
	collector.has("berth-audit|create_project|", `resource="by-tcp"`, `user="admin"`, `result="success"`)

	collector.stop()
	s.CreateProject(t, "meanwhile", false)
	policy(t, s, r.URL, "PUSH_ARTIFACT")
	s.Registry(t, s.Admin(t)).PushImage(t, "library/app", "1", berthtest.NewImage(1, 100))
	await(t, r.got, "a webhook without the collector")
	collector.start()
	collector.has("create_artifact|", "library/app:1")
	collector.has("create_project|", `resource="meanwhile"`)

	set(map[string]any{"audit_log_forward_endpoint": "udp://" + addr})
	s.CreateProject(t, "by-udp", false)
	collector.has("create_project|", `resource="by-udp"`)
	if data, err := os.ReadFile(collector.lines); err != nil || strings.Contains(string(data), "unseen") {
		t.Errorf("what is disabled was sent: %v", err)
	}
}
