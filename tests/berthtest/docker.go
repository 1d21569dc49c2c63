package berthtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Docker is a Docker daemon of a test's own: nothing of it touches one that the machine may have.
type Docker struct {
	dir     string
	command *exec.Cmd
	exited  chan struct{}
}

// StartDocker starts a daemon without networking for its containers, which tests do not run. With a prefix, which is a
// program with arguments that runs what follows them, it is started in other namespaces, say.
func StartDocker(prefix ...string) (*Docker, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("not root")
	}
	dir, err := os.MkdirTemp("", "berth-docker-")
	if err != nil {
		return nil, err
	}
	d := &Docker{dir: dir}
	if err := d.start(prefix); err != nil {
		d.Stop()
		return nil, err
	}
	return d, nil
}

func (d *Docker) start(prefix []string) error {
	if err := os.WriteFile(filepath.Join(d.dir, "daemon.json"), []byte("{}"), 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(prefix, "dockerd",
		"--config-file", filepath.Join(d.dir, "daemon.json"),
		"--data-root", filepath.Join(d.dir, "data"),
		"--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"),
		"--host", d.socket(),
		"--iptables=false", "--ip6tables=false", "--bridge=none")
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return err
	}
	d.command, d.exited = c, make(chan struct{})
	go func() {
		c.Wait()
		close(d.exited)
	}()
	for deadline := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := exec.CommandContext(ctx, "docker", "--host", d.socket(), "info").Run()
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("it ended at once: %s", LastLines(log.Name()))
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after a minute: %s", LastLines(log.Name()))
		}
	}
}

func (d *Docker) socket() string { return "unix://" + filepath.Join(d.dir, "docker.sock") }

// Host is the variable by which the docker command finds the daemon.
func (d *Docker) Host() string { return "DOCKER_HOST=" + d.socket() }

// Stop ends the daemon and removes what it had. That of a daemon that never was does nothing.
func (d *Docker) Stop() {
	if d == nil {
		return
	}
	if c := d.command; c != nil {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(30 * time.Second):
			c.Process.Kill()
			<-d.exited
		}
	}
	os.RemoveAll(d.dir)
}

// LastLines are the last three lines of a file, on one line, for a message about what has failed.
func LastLines(path string) string {
	data, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}
