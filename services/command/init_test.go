package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/services/dbtest"
)

// run is one command, with its exit code and what it wrote.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(args, &out, &errs)
	return code, out.String(), errs.String()
}

// settingsOf are the settings of a command with such flags.
func settingsOf(t *testing.T, args ...string) setting.Settings {
	t.Helper()
	a := &app{appliance: filepath.Join(t.TempDir(), "none")}
	c := a.statusCommand()
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	s, err := a.settings(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// First boot runs it, is cut off, runs it again; and years later somebody attaches the database's disk to an appliance
// whose keys are others.
func TestInit(t *testing.T) {
	dir, url := t.TempDir(), dbtest.URL(t)
	args := []string{"admin", "init", "--data", dir, "--database", url}
	if code, _, said := run(t, args...); code != cli.Usage || !strings.Contains(said, "needs a password") {
		t.Errorf("without a password: %d %q", code, said)
	}
	password := write(t, filepath.Join(t.TempDir(), "password"), "Correct-Horse-7\n")
	with := append(args, "--password-file", password)
	if code, said, errs := run(t, with...); code != 0 || !strings.Contains(said, "made the administrator") {
		t.Fatalf("%d %q %q", code, said, errs)
	}
	keys := map[string]string{}
	for _, name := range []string{berthKey, tokenKey} {
		b, err := os.ReadFile(filepath.Join(dir, "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = string(b)
	}
	for _, again := range [][]string{with, args} {
		if code, said, errs := run(t, again...); code != 0 || !strings.Contains(said, "already") {
			t.Errorf("again: %d %q %q", code, said, errs)
		}
	}
	for name, before := range keys {
		if b, _ := os.ReadFile(filepath.Join(dir, "keys", name)); string(b) != before {
			t.Errorf("%s is another one now", name)
		}
	}
	other := t.TempDir()
	code, _, said := run(t, "admin", "init", "--data", other, "--database", url, "--password-file", password)
	if code != cli.Failed || !strings.Contains(said, "keys are not here") {
		t.Errorf("with other keys: %d %q", code, said)
	}
	if left, _ := os.ReadDir(filepath.Join(other, "keys")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// A unit gets its keys from systemd; a command at the console reads the files.
func TestKeyFile(t *testing.T) {
	s := settingsOf(t, "--data", t.TempDir())
	if got := keyFile(s, berthKey); got != filepath.Join(s.Keys(), berthKey) {
		t.Errorf("without systemd: %s", got)
	}
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	write(t, filepath.Join(credentials, tokenKey), "")
	if got := keyFile(s, tokenKey); got != filepath.Join(credentials, tokenKey) {
		t.Errorf("with a credential: %s", got)
	}
	if got := keyFile(s, berthKey); got != filepath.Join(s.Keys(), berthKey) {
		t.Errorf("with another credential: %s", got)
	}
}

// What the agent writes into the read-only file is why pushes are refused; it is looked for once in a second.
func TestClosure(t *testing.T) {
	c := &closure{file: filepath.Join(t.TempDir(), "read-only")}
	now := time.Now()
	if f := c.byFile(now); f != nil {
		t.Fatalf("without the file: %v", f)
	}
	write(t, c.file, "the data disk is 96 % full\x1b[31m\n")
	if f := c.byFile(now.Add(closureLasts / 2)); f != nil {
		t.Errorf("it was looked for too soon: %v", f)
	}
	f := c.byFile(now.Add(closureLasts))
	if f == nil || f.Kind != fault.Forbidden || !strings.Contains(f.Text, "the data disk is 96 % full") || strings.Contains(f.Text, "\x1b") {
		t.Errorf("with the file: %+v", f)
	}
	if err := c.closed(context.Background()); err == nil {
		t.Error("a push is allowed")
	}
	os.Remove(c.file)
	if f := c.byFile(now.Add(2 * closureLasts)); f != nil {
		t.Errorf("without the file again: %v", f)
	}
	write(t, c.file, "")
	if f := c.byFile(now.Add(3 * closureLasts)); f == nil || f.Text == "" {
		t.Errorf("an empty file: %+v", f)
	}
	write(t, c.file, strings.Repeat("x", 1<<20))
	if f := c.byFile(now.Add(4 * closureLasts)); f == nil || len(f.Text) > 2*closureText {
		t.Errorf("an endless file gives %d bytes", len(f.Text))
	}
}

// At the appliance's console nobody says where the settings are.
func TestSettingsFile(t *testing.T) {
	there := write(t, filepath.Join(t.TempDir(), "appliance.yaml"), "data: /storage/data\n")
	for _, test := range []struct {
		appliance string
		args      []string
		want      string
	}{
		{there, []string{"status"}, there},
		{there, []string{"logs"}, there},
		{there, []string{"status", "--data", "/elsewhere"}, ""},
		{there, []string{"status", "--config", "/elsewhere.yaml"}, "/elsewhere.yaml"},
		{there, []string{"up"}, ""},
		{there + ".missing", []string{"status"}, ""},
	} {
		a := &app{appliance: test.appliance}
		c := a.statusCommand()
		switch test.args[0] {
		case "up":
			c = a.upCommand()
		case "logs":
			c = a.logsCommand()
		}
		if err := c.ParseFlags(test.args[1:]); err != nil {
			t.Fatal(err)
		}
		if got := a.settingsFile(c); got != test.want {
			t.Errorf("%v with %s: %q, want %q", test.args, test.appliance, got, test.want)
		}
	}
}
