// Package server starts, prepares, cleans and stops the servers that the benchmark compares: Berth with its private
// PostgreSQL, the CNCF registry, and a bare file server that shows what this machine can do at best.
package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"berth/tests/cmd/bench/load"
)

// A Server is one of those that are compared.
type Server interface {
	Name() string
	Pids() []int             // the processes that answer; their children count, too
	Address(tls bool) string // http://host:port, or https://…; "" if it does not serve that
	Roots() *x509.CertPool
	// Auth is the Authorization header for pulling from and pushing to these repositories.
	Auth(ctx context.Context, repos ...string) (string, error)
	// Tags gives a repository this many tags of one manifest, named by TagName.
	Tags(ctx context.Context, repo string, count int) error
	// Repositories makes this many repositories with a manifest, named by RepoName.
	Repositories(ctx context.Context, count int) error
	// Forget removes all that was pushed to these repositories, and these blobs' bytes, behind the server's back, so
	// that the next round finds the memory and the disk as this one did. Nothing removed is ever asked for again.
	Forget(ctx context.Context, repos []string, digests []string) error
	// Settle waits until deferred work is done.
	Settle(ctx context.Context) error
	Stop() error
}

// TagName is the name of the n-th tag that Tags makes.
func TagName(n int) string { return fmt.Sprintf("v%06d", n) }

// RepoName is the name of the n-th repository that Repositories makes.
func RepoName(n int) string { return fmt.Sprintf("library/catalog/r%05d", n) }

// A child is a process of ours.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
	exit   error
	out    string // file with what it says
}

// start runs a program with its output in a file. It ends when the thread that runs this does, at the latest: the
// benchmark's main function stays on its thread.
func start(name string, out string, env []string, bin string, args ...string) (*child, error) {
	f, err := os.Create(out)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &child{cmd: exec.Command(bin, args...), exited: make(chan struct{}), out: out}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = f, f
	// A process group of its own: Ctrl-C reaches the benchmark, which stops its servers.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	go func() {
		c.exit = c.cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// ready waits until up says so.
func (c *child) ready(ctx context.Context, up func() bool) error {
	limit := time.After(90 * time.Second)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.exited:
			return fmt.Errorf("%s ended before it was ready: %v; it said:\n%s", c.cmd.Path, c.exit, c.tail())
		case <-limit:
			return fmt.Errorf("%s is not ready after 90 s; it said:\n%s", c.cmd.Path, c.tail())
		case <-time.After(50 * time.Millisecond):
			if up() {
				return nil
			}
		}
	}
}

// stop asks the process to end and waits for it.
func (c *child) stop() error {
	if c == nil {
		return nil
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
		return nil
	case <-time.After(30 * time.Second):
		c.cmd.Process.Kill()
		<-c.exited
		return fmt.Errorf("%s did not stop within 30 s of SIGTERM and was killed", c.cmd.Path)
	}
}

func (c *child) tail() string {
	data, _ := os.ReadFile(c.out)
	return string(data[max(0, len(data)-4096):])
}

func listening(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// rootsOf reads a certificate that signs a server's, or is it.
func rootsOf(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// write makes a file and the directories above it.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// note is the manifest that all tags and repositories of the lists have.
var note = load.NewIndex("what a list is made of")

func removeAll(paths []string) error {
	var errs []error
	for _, p := range paths {
		errs = append(errs, os.RemoveAll(p))
	}
	return errors.Join(errs...)
}
