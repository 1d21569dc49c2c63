package berthtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Process is one `berth` command that runs until it is stopped: `berth up`, or a service of its own.
type Process struct {
	bin     string
	args    []string
	env     []string
	ready   string // what it writes when it can be used
	log     logBuffer
	command *exec.Cmd
	exited  chan struct{} // closed when command has ended
	exit    error         // how; valid once exited is closed
}

// StartProcess runs `berth args...` and returns once it has written the text ready.
func StartProcess(ready string, env []string, args ...string) (*Process, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	p := &Process{bin: bin, args: args, env: append(os.Environ(), env...), ready: ready}
	return p, p.start()
}

// start runs the program and returns once it says that it is ready.
func (p *Process) start() error {
	c := exec.Command(p.bin, p.args...)
	c.Env = p.env
	c.Stdout, c.Stderr = &p.log, &p.log
	// A process group of its own: Ctrl-C at the terminal reaches the test, which then stops the server.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Its children may hold the pipe open after it was killed.
	c.WaitDelay = 2 * time.Second
	ready := p.log.wait(p.ready)
	if err := c.Start(); err != nil {
		return fmt.Errorf("cannot run Berth: %w", err)
	}
	p.command, p.exited = c, make(chan struct{})
	go func() {
		p.exit = c.Wait()
		close(p.exited)
	}()
	select {
	case <-ready:
		return nil
	case <-p.exited:
		return fmt.Errorf("%s ended before it was ready: %v; it said:\n%s", p, p.exit, p.log.tail())
	case <-time.After(readyTime):
		p.Kill()
		return fmt.Errorf("%s is not ready after %v; it said:\n%s", p, readyTime, p.log.tail())
	}
}

// String is the command line.
func (p *Process) String() string { return commandLine(p.bin, p.args) }

// Running tells whether the process is there.
func (p *Process) Running() bool {
	if p == nil || p.command == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Pid is the process id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// RSS is how many bytes of memory the process has resident.
func (p *Process) RSS(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	kb, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// Signal sends a signal and does not wait.
func (p *Process) Signal(s os.Signal) error { return p.command.Process.Signal(s) }

// Wait waits until the process has ended, for as long as a clean stop may take. An exit status other than 0 is an error.
func (p *Process) Wait() error {
	select {
	case <-p.exited:
	case <-time.After(stopTime):
		p.Kill()
		return fmt.Errorf("%s did not stop within %v", p, stopTime)
	}
	if p.exit != nil && !errors.Is(p.exit, exec.ErrWaitDelay) {
		return fmt.Errorf("%s did not end cleanly: %w", p, p.exit)
	}
	return nil
}

// Stop asks the process to end (SIGTERM) and waits for it.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	_ = p.Signal(syscall.SIGTERM) // it may have ended just now
	return p.Wait()
}

// Kill ends the process the hard way (SIGKILL), as a crash would, and waits for it. Its children are on their own then,
// as they would be after a real crash.
func (p *Process) Kill() {
	if p.Running() {
		p.command.Process.Kill()
		<-p.exited
	}
}

// Restart starts a process that was stopped or killed again, with the same arguments.
func (p *Process) Restart() error {
	if p.Running() {
		return fmt.Errorf("cannot restart %s: it is running", p)
	}
	return p.start()
}

// Panicked is an error if the process has panicked or raced (see make race), whatever the tests saw of it.
func (p *Process) Panicked() error {
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "panic serving", "fatal error: "} {
		if _, after, found := strings.Cut(p.Log(), sign); found {
			return fmt.Errorf("%s said %q:\n%s%.8000s", p, sign, sign, after)
		}
	}
	return nil
}

// ShowLog writes the end of the process's log to the test's when the test has failed.
func (p *Process) ShowLog(t testing.TB) {
	if t.Failed() {
		t.Logf("the end of the log of %s:\n%s", p, p.log.tail())
	}
}

// Log is everything that the process has written so far.
func (p *Process) Log() string {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.buf.String()
}

// Said is what a `berth` command that came to its end wrote, and its exit code.
type Said struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a `berth` command that comes to its end by itself, within a minute.
func Run(t testing.TB, args ...string) Said {
	t.Helper()
	bin, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, bin, args...)
	c.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v\n%s%s", commandLine(bin, args), err, &stdout, &stderr)
	}
	return Said{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
