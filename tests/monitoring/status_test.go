package monitoring

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/services/postgres"
	"berth/tests/berthtest"
)

// status is what `berth status --output json` says.
type status struct {
	Status string
	Checks []struct {
		Name, Status, Error, Hint string
		Causes, Explains          []string
	}
	code int
}

// broken are the root causes, in their order.
func (s status) broken() (names []string) {
	for _, c := range s.Checks {
		if c.Status == "unhealthy" && len(c.Causes) == 0 {
			names = append(names, c.Name)
		}
	}
	return names
}

// well reports whether all is, but for how full this machine's disks are.
func (s status) well() bool {
	disks := 0
	for _, c := range s.Checks {
		if c.Status == "degraded" && strings.HasSuffix(c.Name, " disk") {
			disks++
		} else if c.Status != "healthy" {
			return false
		}
	}
	return len(s.Checks) > 8 && s.code == min(disks, 1)
}

// patient is a Berth on a PostgreSQL that can be killed apart from it.
type patient struct {
	*berthtest.Server
	cluster *postgres.Cluster
	stop    func()
}

func startPatient(t *testing.T) *patient {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // PostgreSQL's own user passes through
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &patient{cluster: &postgres.Cluster{Dir: filepath.Join(dir, "cluster"), Socket: filepath.Join(dir, "socket"), Log: slog.New(slog.DiscardHandler)}}
	p.startDatabase(t)
	t.Cleanup(func() { p.stop() })
	config := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(config, []byte("logs: {listen: \"off\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Server = berthtest.Start(t, berthtest.Options{Dir: filepath.Join(dir, "data"), Args: []string{"--config", config, "--database", p.cluster.URL()}})
	return p
}

func (p *patient) startDatabase(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- p.cluster.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Skipf("PostgreSQL does not start here: %v", err)
	}
	p.stop = func() { cancel(); <-done; done <- nil }
}

// killDatabase is a crash of PostgreSQL.
func (p *patient) killDatabase(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.cluster.Dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (p *patient) status(t *testing.T) status {
	t.Helper()
	said := berthtest.Run(t, "status", "--data", p.Dir, "--https", p.Addr, "--database", p.cluster.URL(), "--output", "json")
	s := decode[status](t, said.Stdout)
	s.code = said.Code
	return s
}

// names waits until status names exactly these causes, and gives what it says of the first.
func (p *patient) names(t *testing.T, causes []string, explains []string, hint string) {
	t.Helper()
	var s status
	defer func() {
		if t.Failed() {
			t.Logf("status: %+v", s)
		}
	}()
	until(t, "the cause "+strings.Join(causes, ", "), func() bool {
		s = p.status(t)
		return slices.Equal(s.broken(), causes)
	})
	if s.code != 1 || s.Status != "unhealthy" {
		t.Errorf("exit status %d, %s", s.code, s.Status)
	}
	first := s.Checks[0]
	if first.Name != causes[0] || first.Hint == "" || !strings.Contains(first.Hint, hint) {
		t.Errorf("first comes %+v", first)
	}
	for _, name := range explains {
		if !slices.Contains(first.Explains, name) {
			t.Errorf("%s does not explain %s: %v", first.Name, name, first.Explains)
		}
	}
}

// healthy waits until all is well.
func (p *patient) healthy(t *testing.T) {
	t.Helper()
	var s status
	defer func() {
		if t.Failed() {
			t.Logf("status: %+v", s)
		}
	}()
	until(t, "health", func() bool { s = p.status(t); return s.well() })
}

// What was broken on purpose is named first, with what to do and what it breaks.
func TestStatusNamesTheCause(t *testing.T) {
	t.Parallel()
	p := startPatient(t)
	p.healthy(t)
	text := berthtest.Run(t, "status", "--data", p.Dir, "--https", p.Addr, "--database", p.cluster.URL())
	if !strings.Contains(text.Stdout, "well: the front door answers") || strings.Contains(text.Stdout, "\x1b") {
		t.Errorf("%+v", text)
	}

	// The storage is gone.
	storage := filepath.Join(p.Dir, "storage")
	rename(t, storage, storage+".away")
	p.names(t, []string{"storage"}, []string{"registry"}, "mount it")
	rename(t, storage+".away", storage)

	// A certificate that has expired.
	file := filepath.Join(p.Dir, "tls", "server.crt")
	good, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, expired(t), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.names(t, []string{"certificate"}, nil, "new certificate")
	if err := os.WriteFile(file, good, 0o644); err != nil {
		t.Fatal(err)
	}

	// PostgreSQL was killed. The API from inside says the same, to strangers in few words.
	p.killDatabase(t)
	p.names(t, []string{"database"}, []string{"registry", "token", "core", "jobs", "queue", "schema", "clock"}, "PostgreSQL")
	_, body := get(t, p.Client(t), p.URL+"/api/v2.0/health")
	if !strings.Contains(body, `"status":"unhealthy"`) || !strings.Contains(body, `{"name":"token","status":"unhealthy","error":"it cannot work without: database"}`) ||
		!strings.Contains(body, `{"name":"storage","status":"healthy"}`) || strings.Contains(body, "hint") || strings.Contains(body, "postgres") {
		t.Errorf("health: %s", body)
	}
	p.stop()
	p.startDatabase(t)
	p.healthy(t)

	// The token service's socket is dead.
	if err := os.Remove(filepath.Join(p.Dir, "run", "token.sock")); err != nil {
		t.Fatal(err)
	}
	p.names(t, []string{"token"}, nil, "restart it")

	// Berth was killed.
	p.Kill()
	p.names(t, []string{"process"}, []string{"registry", "token", "core", "jobs", "logs"}, "start it")
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// expired is a certificate whose time is over.
func expired(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(0, 0, -1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// With nothing running at all there is an answer, and wrong questions are told apart.
func TestStatusOfNothing(t *testing.T) {
	t.Parallel()
	if said := berthtest.Run(t, "status", "--data", t.TempDir()); said.Code != 2 || !strings.Contains(said.Stderr, "there is no Berth") {
		t.Errorf("%+v", said)
	}
	if said := berthtest.Run(t, "status", "--output", "xml"); said.Code != 2 {
		t.Errorf("%+v", said)
	}
}

// Profiles and the level of the log are for the owner of the debug socket, and on no port.
func TestDebugSocket(t *testing.T) {
	t.Parallel()
	w := watch(t)
	socket := filepath.Join(w.Dir, "run", "debug.sock")
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	insecure := http.DefaultClient
	for url, client := range map[string]*http.Client{w.URL: w.Client(t), w.HTTP: insecure, "http://" + w.metrics: insecure} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/log-level"} {
			if code, body := get(t, client, url+path); code != http.StatusNotFound {
				t.Errorf("%s%s: %d %.100s", url, path, code, body)
			}
		}
	}
	dir := t.TempDir()
	for _, kind := range []string{"heap", "goroutine", "cpu"} {
		file := filepath.Join(dir, kind)
		said := berthtest.Run(t, "debug", "profile", kind, "--data", w.Dir, "--seconds", "1", "-o", file)
		b, err := os.ReadFile(file)
		if said.Code != 0 || err != nil || len(b) < 100 || b[0] != 0x1f || b[1] != 0x8b { // gzip
			t.Errorf("%s: %+v %v, %d bytes", kind, said, err, len(b))
		}
		if info, err := os.Stat(file); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("the profile's mode is %v", info.Mode())
		}
	}
	level := func(args ...string) string {
		said := berthtest.Run(t, append([]string{"debug", "log-level", "--data", w.Dir}, args...)...)
		return strings.TrimSpace(said.Stdout + said.Stderr)
	}
	if got := level(); got != "info" {
		t.Errorf("level %q", got)
	}
	if level("debug"); level() != "debug" {
		t.Error("the level was not changed")
	}
	if said := berthtest.Run(t, "debug", "metrics", "--data", w.Dir); !strings.Contains(said.Stdout, "berth_build_info") {
		t.Errorf("%.200s", said.Stdout)
	}
	for _, args := range [][]string{{"debug", "log-level", "loud"}, {"debug", "profile", "nonsense", "-o", "x"}, {"debug", "metrics", "--service", "nonsense"}} {
		if said := berthtest.Run(t, append(args, "--data", w.Dir)...); said.Code != 2 {
			t.Errorf("%v: %+v", args, said)
		}
	}
	if said := berthtest.Run(t, "debug", "metrics", "--data", w.Dir, "--service", "token"); said.Code != 1 || !strings.Contains(said.Stderr, "does not run") {
		t.Errorf("a process that is not there: %+v", said)
	}
}

// An address for metrics that the settings name must be had; without one a port that is taken is a warning.
func TestMetricsPort(t *testing.T) {
	t.Parallel()
	taken, dir := busyPort(t), t.TempDir()
	said := berthtest.Run(t, "up", "--data", filepath.Join(dir, "data"), "--https", "127.0.0.1:0", "--metrics", taken)
	if said.Code != 1 || !strings.Contains(said.Stderr, "metrics: cannot serve metrics on "+taken) || !strings.Contains(said.Stderr, "hint: another program may have the port") {
		t.Errorf("%+v", said)
	}
	if said := berthtest.Run(t, "up", "--data", filepath.Join(dir, "data"), "--metrics", "0.0.0.0:9180"); said.Code != 2 || !strings.Contains(said.Stderr, "not a loopback address") {
		t.Errorf("%+v", said)
	}
}
