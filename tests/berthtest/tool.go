package berthtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// toolDir is where `make tools` puts the programs that it builds.
var toolDir = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(filepath.Join(root, "tests", "tools", "build.sh"), "--dir").Output()
	return strings.TrimSpace(string(out)), err
})

// Tool is the path of a program that `make tools` builds from pinned source. The test is skipped if it is not built.
func Tool(t testing.TB, name string) string {
	t.Helper()
	dir, err := toolDir()
	if err != nil {
		t.Fatalf("cannot tell where the test tools are: %v", err)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s is not built (make tools)", name)
	}
	return path
}

// Program is the path of a program that the distribution packages. The test is skipped if it is not installed.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (make test-deps)", name)
	}
	return path
}

// A Shell runs commands for one test: with a home directory of its own, so that nothing of the user's is read or
// changed, and each within a time limit.
type Shell struct {
	Dir   string   // working directory, home and place for files
	Env   []string // in addition to PATH and HOME
	Limit time.Duration
}

// NewShell makes a Shell in a temporary directory of the test's.
func NewShell(t testing.TB, env ...string) *Shell {
	t.Helper()
	// Not t.TempDir: its name holds the test's, and podman takes no capital letters in a path.
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cannot remove the test's files: %v", err)
		}
	})
	return &Shell{Dir: dir, Env: env, Limit: 2 * time.Minute}
}

// Run runs a command that must succeed, and returns what it wrote to standard output.
func (sh *Shell) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	stdout, all, err := sh.run(t, nil, name, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", commandLine(name, args), err, all)
	}
	return stdout
}

// Input is Run with something on standard input: how passwords are handed over.
func (sh *Shell) Input(t testing.TB, input, name string, args ...string) string {
	t.Helper()
	stdout, all, err := sh.run(t, []byte(input), name, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", commandLine(name, args), err, all)
	}
	return stdout
}

// Refused runs a command that must fail, and whose output must contain one of the texts (whatever their case).
func (sh *Shell) Refused(t testing.TB, texts []string, name string, args ...string) {
	t.Helper()
	_, all, err := sh.run(t, nil, name, args...)
	if err == nil {
		t.Fatalf("%s succeeded and should have been refused\n%s", commandLine(name, args), all)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%s: %v\n%s", commandLine(name, args), err, all)
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(all), strings.ToLower(text)) {
			return
		}
	}
	t.Fatalf("%s failed, but not with any of %q:\n%s", commandLine(name, args), texts, all)
}

// Any runs a command whose exit status does not matter, and returns all that it wrote.
func (sh *Shell) Any(t testing.TB, name string, args ...string) string {
	t.Helper()
	_, all, err := sh.run(t, nil, name, args...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v\n%s", commandLine(name, args), err, all)
	}
	return all
}

func (sh *Shell) run(t testing.TB, input []byte, name string, args ...string) (stdout, all string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), sh.Limit)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = sh.Dir
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + sh.Dir, "TMPDIR=" + sh.Dir}, sh.Env...)
	c.WaitDelay = 5 * time.Second
	if input != nil {
		c.Stdin = bytes.NewReader(input)
	}
	var out bytes.Buffer
	var both logBuffer
	c.Stdout, c.Stderr = io.MultiWriter(&out, &both), &both
	start := time.Now()
	err = c.Run()
	if ctx.Err() != nil && t.Context().Err() == nil {
		err = errors.Join(err, errors.New("ended after "+sh.Limit.String()))
	}
	t.Logf("%6.2fs  %s", time.Since(start).Seconds(), commandLine(name, args))
	return out.String(), both.buf.String(), err
}

func commandLine(name string, args []string) string {
	return filepath.Base(name) + " " + strings.Join(args, " ")
}
