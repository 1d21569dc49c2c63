package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Read gives what is at a URL on the VM, whose certificate is not checked.
func (m *Machine) Read(ctx context.Context, url string) (string, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", m.Namespace, "curl", "--silent", "--show-error", "--fail", "--max-time", "30", "--insecure", url).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// Get asks for a URL on the VM, and gives the status. Certificates are checked if ca names a file.
func (m *Machine) Get(ctx context.Context, url, ca string) (status string, err error) {
	args := []string{"netns", "exec", m.Namespace, "curl", "--silent", "--show-error", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}"}
	if ca == "" {
		args = append(args, "--insecure")
	} else {
		args = append(args, "--cacert", ca)
	}
	out, err := exec.CommandContext(ctx, "ip", append(args, url)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Answers is a question for Wait: does the URL answer with one of the statuses?
func (m *Machine) Answers(url string, statuses ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		got, err := m.Get(ctx, url, "")
		if err == nil && !slices.Contains(statuses, got) {
			err = errors.New("it answers " + got)
		}
		return err
	}
}

// Says is a question for Wait: has the serial line said it since this start?
func (m *Machine) Says(text string) func(context.Context) error {
	return func(context.Context) error {
		b, err := os.ReadFile(m.Serial())
		if err == nil && !strings.Contains(string(b), text) {
			err = fmt.Errorf("the serial line has not said %q", text)
		}
		return err
	}
}

// An SSH logs in as root with a key of the test's, which the OVF properties have brought into the machine.
type SSH struct {
	machine *Machine
	key     string
	Public  string
}

// NewSSH makes a key.
func (m *Machine) NewSSH(t *testing.T) *SSH {
	t.Helper()
	s := &SSH{machine: m, key: filepath.Join(m.dir, "key")}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", s.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	b, err := os.ReadFile(s.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s.Public = strings.TrimSpace(string(b))
	return s
}

// Try runs a command line in the machine, and gives what it wrote.
func (s *SSH) Try(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", s.machine.Namespace, "ssh", "-F", "none", "-i", s.key, "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20",
		"root@"+Address, command).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

// Run is Try for a command that must succeed.
func (s *SSH) Run(t *testing.T, command string) string {
	t.Helper()
	out, err := s.Try(t.Context(), command)
	if err != nil {
		t.Error(err)
	}
	return out
}
