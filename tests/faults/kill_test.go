// Package faults breaks a whole Berth on purpose, while clients use it: processes are killed, the disk fills up, files
// rot, clocks differ, clients misbehave. What was acknowledged must be there afterwards, and whole.
package faults

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/setting"
	"berth/services/postgres"
	"berth/tests/berthtest"
)

func basic(who berthtest.Login) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(who.User+":"+who.Password))
}

// A power cut, or an administrator's kill -9, in the middle of pushes and pulls loses nothing that was acknowledged:
// the next start goes on, and clients that try again succeed.
func TestKillWholeBerth(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	l := newLoad(t, s)
	l.start(4, 2)
	for n := range 4 {
		time.Sleep(1500*time.Millisecond + time.Duration(n)*170*time.Millisecond)
		start := time.Now()
		s.Kill()
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		t.Logf("ready %v after the kill", time.Since(start).Round(10*time.Millisecond))
	}
	time.Sleep(time.Second)
	l.end()
	l.check(database(s), "--data", s.Dir)
}

// When PostgreSQL dies under `berth up`, be it the whole server or one of its processes, Berth starts it again by itself,
// and clients see no more than a pause.
func TestKillPrivateDatabase(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	l := newLoad(t, s)
	l.start(4, 2)
	for n := range 4 {
		time.Sleep(1500 * time.Millisecond)
		pid := postmaster(t, filepath.Join(s.Dir, "postgres"))
		victim := pid
		if n%2 == 1 {
			victim = child(t, pid)
		}
		syscall.Kill(victim, syscall.SIGKILL)
		if victim == pid {
			waitFor(t, 20*time.Second, "PostgreSQL is there again", func() bool {
				now := postmaster(t, filepath.Join(s.Dir, "postgres"))
				return now != 0 && now != pid
			})
		}
	}
	time.Sleep(time.Second)
	l.end()
	if !s.Running() {
		t.Error("Berth ended with its database")
	}
	l.check(database(s), "--data", s.Dir)
}

// Services that run as processes of their own, as in the appliance, can each be killed in the middle of everything, and
// so can the database: whoever starts them again (systemd) is all that it takes.
func TestKillServices(t *testing.T) {
	n := startServices(t)
	l := newLoad(t, n.server)
	l.start(4, 2)
	for range 2 {
		for _, name := range []string{"registry", "token", "core", "jobs", "logs"} {
			time.Sleep(700 * time.Millisecond)
			n.processes[name].Kill()
			time.Sleep(200 * time.Millisecond)
			if err := n.processes[name].Restart(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(700 * time.Millisecond)
		syscall.Kill(postmaster(t, n.cluster.Dir), syscall.SIGKILL)
	}
	time.Sleep(2 * time.Second)
	l.end()
	for name, p := range n.processes {
		if !p.Running() {
			t.Errorf("%s has ended", name)
		}
	}
	l.check(n.cluster.URL(), "--config", n.config)
	n.areSeen(t)
}

// areSeen checks that one push is in the log of all services, though each is a process of its own and was killed, and that each
// has metrics on a port of its own.
func (n *services) areSeen(t *testing.T) {
	t.Helper()
	registry := n.server.Registry(t, n.admin)
	image := berthtest.NewImage(1, 1000)
	for _, blob := range append(image.Layers, image.Config) {
		registry.PushBlob(t, "library/seen", blob)
	}
	id := registry.PushManifest(t, "library/seen", "1", image.Manifest).Header.Get("X-Request-Id")
	var said berthtest.Said
	waitFor(t, 30*time.Second, "the lines of a push", func() bool {
		said = berthtest.Run(t, "logs", "--config", n.config, "--request", id, "--push", "-o", "json")
		return strings.Contains(said.Stdout, `"message":"event handled"`) && strings.Contains(said.Stdout, `"message":"manifest pushed"`)
	})
	for component, process := range map[string]string{"proxy": "registry", "registry": "registry", "token": "token", "jobs": "jobs"} {
		if want := fmt.Sprintf(`"component":"%s","pid":"%d"`, component, n.processes[process].Pid()); !strings.Contains(said.Stdout, want) {
			t.Errorf("no line has %s:\n%s", want, said.Stdout)
		}
	}
	for i, name := range setting.MetricsPorts() {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", n.metrics+i))
		if err != nil {
			t.Errorf("%s has no metrics: %v", name, err)
			continue
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !strings.Contains(string(b), `berth_build_info{`) {
			t.Errorf("%s: %s %v\n%.500s", name, res.Status, err, b)
		}
	}
	said = berthtest.Run(t, "status", "--config", n.config) // the machine's disk may be nearly full, which is none of our business
	for _, part := range []string{"database", "registry", "token", "core", "jobs", "logs"} {
		if !regexp.MustCompile(`(?m)^ +` + part + ` +well: `).MatchString(said.Stdout) {
			t.Errorf("berth status says of %s:\n%s%s", part, said.Stdout, said.Stderr)
		}
	}
}

// freePorts gives the first of some ports that are free, one after another.
func freePorts(t *testing.T, count int) int {
	t.Helper()
	for range 50 {
		addr, err := berthtest.FreeAddr("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(addr)
		first, _ := strconv.Atoi(port)
		free := 0
		for ; free < count && first+free < 65536; free++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+free))
			if err != nil {
				break
			}
			l.Close()
		}
		if free == count {
			return first
		}
	}
	t.Fatal("no ports are free")
	return 0
}

// services are the five, each in its process, and a database that a test runs itself.
type services struct {
	server    *berthtest.Server // to make clients of
	cluster   *postgres.Cluster
	config    string // settings file
	metrics   int    // first port
	admin     berthtest.Login
	processes map[string]*berthtest.Process
}

// startCluster runs a PostgreSQL server that ends with the test.
func startCluster(t testing.TB) *postgres.Cluster {
	t.Helper()
	dir := publicDir(t)
	c := &postgres.Cluster{Dir: filepath.Join(dir, "cluster"), Socket: filepath.Join(dir, "socket"), Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- c.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		stop()
		t.Skipf("PostgreSQL does not start here: %v", err)
	}
	t.Cleanup(func() { stop(); <-done })
	return c
}

// publicDir is a temporary directory through which PostgreSQL's own user can pass.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startServices(t *testing.T) *services {
	t.Helper()
	c := startCluster(t)
	dir := publicDir(t)
	addr, err := berthtest.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	n := &services{cluster: c, processes: map[string]*berthtest.Process{},
		server: &berthtest.Server{URL: "https://" + addr, Addr: addr, Dir: filepath.Join(dir, "data")}}
	config, password := filepath.Join(dir, "berth.yaml"), filepath.Join(dir, "password")
	n.config = config
	n.admin, n.metrics = berthtest.Login{User: "admin", Password: "Admin-1-" + berthtest.Name()}, freePorts(t, len(setting.MetricsPorts()))
	write(t, password, n.admin.Password+"\n")
	write(t, config, fmt.Sprintf("data: %s\nhttps: %s\ndatabase: %q\nmetrics: 127.0.0.1:%d\nlogs: {listen: off}\n", n.server.Dir, addr, c.URL(), n.metrics))
	if err := os.MkdirAll(n.server.Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if said := berthtest.Run(t, "migrate", "--config", config, "--admin-password-file", password); said.Code != 0 {
		t.Fatalf("berth migrate: %+v", said)
	}
	for _, name := range []string{"logs", "token", "core", "jobs", "registry"} {
		args := []string{name, "--config", config}
		if name == "logs" {
			args = []string{"logs", "serve", "--config", config}
		}
		p, err := berthtest.StartProcess("msg=ready", nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		n.processes[name] = p
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			if err := p.Panicked(); err != nil {
				t.Error(err)
			}
			p.ShowLog(t)
		})
	}
	return n
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// postmaster is the process id of the server in a cluster's directory, or 0.
func postmaster(t testing.TB, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// child is one of a postmaster's processes that serves a connection. There is none while the database recovers.
func child(t testing.TB, parent int) (pid int) {
	t.Helper()
	waitFor(t, 20*time.Second, fmt.Sprintf("a child of PostgreSQL (%d) serves a connection", parent), func() bool {
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			status, _ := os.ReadFile(p + "/status")
			line, _ := os.ReadFile(p + "/cmdline")
			if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) && strings.Contains(string(line), "berth berth [local]") {
				pid, _ = strconv.Atoi(filepath.Base(p))
			}
		}
		return pid != 0
	})
	return pid
}

// waitFor asks every 50 ms.
func waitFor(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
