// Package berthtest runs the whole product for tests: the real binary as a child process, with its own PostgreSQL,
// data directory, certificate authority and ports, and helpers for what a test then wants from it.
//
// A test that needs a Berth of its own says Start(t, Options{}); a package that shares one says Launch in TestMain
// and calls Close when its tests are done. Everything stays on this machine's loopback interface.
package berthtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How long things may take on a slow, loaded machine before a test gives up on them. The first start makes a
// database cluster, which is seconds of disk work even when nothing else runs.
const (
	readyTime = 90 * time.Second
	stopTime  = 30 * time.Second
)

// Options of a server. The zero value is a server on 127.0.0.1 with an empty data directory.
type Options struct {
	Host string   // address to listen on and to be called by
	Dir  string   // data directory; a new temporary one when empty
	HTTP bool     // listen for plain HTTP, too
	Args []string // more arguments for `berth up`
	Env  []string // more environment, as KEY=value
}

// A Server is one running Berth.
type Server struct {
	*Process

	URL  string // https://host:port
	Addr string // host:port: what image names begin with
	HTTP string // http://host:port, if asked for
	Dir  string // data directory

	tempDir string // removed by Close

	clientOnce sync.Once
	client     *http.Client
}

// Start launches a server that ends with the test. When the test fails, the server's log is shown.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Launch(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s.ShowLog(t)
	})
	return s
}

// Launch starts a server and waits until it is ready.
func Launch(o Options) (*Server, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	s := &Server{Process: &Process{bin: bin, ready: "ready https://"}, Dir: o.Dir}
	if s.Dir == "" {
		// Not t.TempDir: PostgreSQL runs as its own user and must be able to walk to its files.
		if s.tempDir, err = os.MkdirTemp("", "berth-"); err != nil {
			return nil, err
		}
		if err := os.Chmod(s.tempDir, 0o755); err != nil {
			return nil, err
		}
		s.Dir = filepath.Join(s.tempDir, "data")
	}
	if s.Addr, err = FreeAddr(o.Host); err != nil {
		return nil, err
	}
	s.URL = "https://" + s.Addr
	s.args = []string{"up", "--data", s.Dir, "--https", s.Addr, "--hostname", o.Host, "--metrics", "127.0.0.1:0"} // parallel servers do not fight for a port
	if o.HTTP {
		addr, err := FreeAddr(o.Host)
		if err != nil {
			return nil, err
		}
		s.HTTP = "http://" + addr
		s.args = append(s.args, "--http", addr)
	}
	s.args = append(s.args, o.Args...)
	s.env = append(os.Environ(), o.Env...)
	if err := s.start(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Restart starts a server that was stopped or killed again, on the same data and ports.
func (s *Server) Restart() error {
	if s.client != nil {
		s.client.CloseIdleConnections() // to the one that is gone
	}
	return s.Process.Restart()
}

// Close stops the server, and whatever is left of a killed one, and removes its temporary files. It is an error if the
// server has panicked or raced (see make race), whatever the tests saw of it.
func (s *Server) Close() error {
	err := errors.Join(s.Stop(), s.Panicked())
	stopPostgres(s.Dir)
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	if s.tempDir != "" {
		err = errors.Join(err, os.RemoveAll(s.tempDir))
	}
	return err
}

// stopPostgres ends the database server of a Berth that was killed. It looks only for pid files below dir.
func stopPostgres(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "postmaster.pid" {
			return nil
		}
		data, _ := os.ReadFile(path)
		first, _, _ := strings.Cut(string(data), "\n")
		pid, err := strconv.Atoi(first)
		if err != nil {
			return nil
		}
		// The number may have been reused: look who it is.
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(comm)) != "postgres" {
			return nil
		}
		syscall.Kill(pid, syscall.SIGQUIT) // immediate shutdown
		for range 100 {
			if syscall.Kill(pid, 0) != nil {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
}

// CAFile is the certificate of the authority that signed the server's own.
func (s *Server) CAFile() string { return filepath.Join(s.Dir, "ca.crt") }

// AdminPassword is the password which `berth up` made for the user admin.
func (s *Server) AdminPassword(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.Dir, "admin-password"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// Client is an HTTP client that trusts the server's authority and nobody else.
func (s *Server) Client(t testing.TB) *http.Client {
	t.Helper()
	s.clientOnce.Do(func() {
		pem, err := os.ReadFile(s.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			t.Fatalf("%s holds no certificate", s.CAFile())
		}
		s.client = &http.Client{
			Transport: &http.Transport{
				TLSClientConfig:     &tls.Config{RootCAs: pool},
				MaxIdleConnsPerHost: 16,
				DisableCompression:  true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	})
	if s.client == nil {
		t.Fatal("no HTTP client: an earlier test could not read the CA certificate")
	}
	return s.client
}

// logBuffer gathers a server's output and lets one waiter know when a text appears in it.
type logBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	text  string
	from  int
	found chan struct{}
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p)
	if b.found != nil && bytes.Contains(b.buf.Bytes()[b.from:], []byte(b.text)) {
		close(b.found)
		b.found = nil
	}
	return len(p), nil
}

// wait returns a channel that is closed when text is written from now on.
func (b *logBuffer) wait(text string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text, b.from, b.found = text, b.buf.Len(), make(chan struct{})
	return b.found
}

// tail is the last part of it: enough to see what went wrong, short enough to read.
func (b *logBuffer) tail() string {
	const most = 16 << 10
	b.mu.Lock()
	defer b.mu.Unlock()
	data := b.buf.Bytes()
	if len(data) > most {
		data = data[len(data)-most:]
	}
	return string(data)
}

// Root is the top directory of the source.
var Root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tests", "berthtest")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("cannot find the source tree above the working directory")
		}
		dir = parent
	}
})

// Binary is the path of the program under test: $BERTH_BIN, or else one that is built now from the source.
var Binary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("BERTH_BIN"); bin != "" {
		return bin, nil
	}
	return build("berth-under-test", "./services/cmd/berth")
})

// AgentBinary is the path of the agent under test, built now from the source.
var AgentBinary = sync.OnceValues(func() (string, error) { return build("berth-agent-under-test", "./agent/cmd/berth-agent") })

// build compiles a command of this repository into bin.
func build(name, pkg string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	// Renamed into place: packages are tested in parallel, and each finds out for itself that the build is cached.
	bin := filepath.Join(root, "bin", name)
	temp := fmt.Sprintf("%s.%d", bin, os.Getpid())
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", temp, pkg)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %v\n%s", pkg, err, out)
	}
	return bin, os.Rename(temp, bin)
}

// FreeAddr finds a port of host that nobody listens on. Ports below the range of outgoing connections are used: a
// client's connection could take any other between the look and the listening.
func FreeAddr(host string) (string, error) {
	for range 100 {
		addr := net.JoinHostPort(host, strconv.Itoa(20000+rand.IntN(12000)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				continue
			}
			return "", fmt.Errorf("cannot listen on %s: %w", host, err)
		}
		l.Close()
		return addr, nil
	}
	return "", fmt.Errorf("cannot find a free port on %s", host)
}
