// Package postgres runs a private PostgreSQL cluster as a child process: no
// TCP, no passwords, one unix socket, peer authentication. It is what
// `berth up` and the tests use; the appliance has the distribution's service.
package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// Cluster is one private PostgreSQL server.
type Cluster struct {
	Dir    string       // of the cluster; made on first start
	Socket string       // directory of the socket; short (unix(7): 108 bytes with the file's name)
	Log    *slog.Logger // gets the server's own lines
	NoSync bool         // fsync off: for tests that never look at durability

	bin  string
	user *user.User // who the server runs as; nil = as we do
}

// Name of the role and of the database that Berth uses in the cluster.
const Name = "berth"

// URL is how to connect.
func (c *Cluster) URL() string {
	// Quoted as libpq has it, for a path may have blanks.
	host := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c.Socket)
	return fmt.Sprintf("host='%s' user=%s dbname=%s", host, Name, Name)
}

// Run initialises the cluster if it is new, starts the server, calls ready once
// it accepts connections, and keeps it running until ctx ends: a server that
// dies is started again, with a pause that grows to 5 s. It stops the server
// cleanly (fast shutdown) before it returns.
func (c *Cluster) Run(ctx context.Context, ready func()) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	pause := 100 * time.Millisecond
	for {
		started := time.Now()
		err := c.serve(ctx, ready)
		ready = func() {}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(started) > time.Minute {
			pause = 100 * time.Millisecond
		}
		c.Log.Error("PostgreSQL stopped unasked and is started again", "err", err, "pause", pause.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// Find gives the directory of the newest PostgreSQL server's programs.
func Find() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	dirs = append(dirs, "/usr/pgsql/bin", "/usr/bin", "/usr/local/bin")
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			if _, err := os.Stat(filepath.Join(d, "postgres")); err == nil {
				return d, nil
			}
		}
	}
	return "", fault.New(fault.Precondition, "PostgreSQL's server programs are not installed").
		WithHint("install them (Debian: apt-get install postgresql; Photon: tdnf install postgresql15-server), or give --database URL of a running server")
}

func major(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

func (c *Cluster) prepare(ctx context.Context) (err error) {
	if c.bin, err = Find(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		if c.user, err = user.Lookup("postgres"); err != nil {
			return fault.Wrap(fault.Precondition, err, "PostgreSQL does not run as root, and there is no user postgres to run it as").
				WithHint("install the distribution's PostgreSQL package, which makes that user, or start Berth as an unprivileged user")
		}
	}
	for _, dir := range []string{c.Dir, c.Socket} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cannot make PostgreSQL's directory: %w", err)
		}
		if err := c.own(dir); err != nil {
			return err
		}
	}
	if err := c.stopOrphan(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "berth-ready")); err == nil {
		return nil
	}
	// Without the mark an earlier first start was cut off: begin again. Nothing
	// was ever stored in such a cluster.
	if err := emptyDir(c.Dir); err != nil {
		return err
	}
	return c.initialise(ctx)
}

func (c *Cluster) own(path string) error {
	if c.user == nil {
		return nil
	}
	uid, gid := ids(c.user)
	return os.Lchown(path, uid, gid)
}

func ids(u *user.User) (uid, gid int) {
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) initialise(ctx context.Context) error {
	c.Log.Info("making the private PostgreSQL cluster", "dir", c.Dir)
	args := []string{"-D", c.Dir, "-A", "peer", "-U", Name, "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"}
	if c.NoSync {
		args = append(args, "--no-sync")
	}
	if out, err := c.command(ctx, "initdb", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make the PostgreSQL cluster in %s: %w\n%s", c.Dir, err, lastLines(out))
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	// Peer authentication: the kernel says who connects. We may be the role, and
	// nobody else on the machine may.
	files := map[string]string{
		"pg_hba.conf":   "local all " + Name + " peer map=" + Name + "\n",
		"pg_ident.conf": Name + " " + me.Username + " " + Name + "\n",
	}
	if c.user != nil && c.user.Username != me.Username {
		files["pg_ident.conf"] += Name + " " + c.user.Username + " " + Name + "\n"
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	single := c.command(ctx, "postgres", "--single", "-D", c.Dir, "template1")
	single.Stdin = strings.NewReader("CREATE DATABASE " + Name + " OWNER " + Name + "\n")
	if out, err := single.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make the database: %w\n%s", err, lastLines(out))
	}
	return os.WriteFile(filepath.Join(c.Dir, "berth-ready"), []byte("this cluster is complete\n"), 0o600)
}

// options are the server's settings: those of a small server that shares its
// machine, on a unix socket alone.
func (c *Cluster) options() []string {
	settings := []string{
		"listen_addresses=", "unix_socket_directories=" + c.Socket, "unix_socket_permissions=0777",
		"max_connections=80", "shared_buffers=64MB", "jit=off", "max_wal_size=1GB", "min_wal_size=80MB",
		"checkpoint_timeout=15min", "wal_level=replica", "max_wal_senders=0",
		"max_parallel_workers_per_gather=0", "random_page_cost=1.1", "logging_collector=off", "log_destination=stderr",
		"log_line_prefix=", "log_checkpoints=off", "log_timezone=UTC", "timezone=UTC", "autovacuum_naptime=20s",
		"tcp_keepalives_idle=0",
	}
	if c.NoSync {
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	args := []string{"-D", c.Dir}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args
}

// serve runs the server until it ends or ctx does.
func (c *Cluster) serve(ctx context.Context, ready func()) error {
	// PDEATHSIG is sent when the thread that forked ends, so the thread must
	// live as long as we do. SIGINT is PostgreSQL's fast shutdown: if we are
	// killed, the server stops by itself and the next start finds a clean one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := c.command(context.Background(), "postgres", c.options()...)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGINT
	logs := &lineLogger{log: c.Log}
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start PostgreSQL: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	up := make(chan struct{})
	probing, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	go func() {
		if c.waitReady(probing) == nil {
			close(up)
		}
	}()
	limit := time.NewTimer(2 * time.Minute) // crash recovery may take its time
	defer limit.Stop()
	for {
		select {
		case <-up:
			up = nil
			limit.Stop()
			ready()
		case <-limit.C:
			stop(cmd.Process, ended)
			return errors.New("PostgreSQL did not accept connections within two minutes")
		case err := <-ended:
			return fmt.Errorf("PostgreSQL ended: %v: %s", err, logs.last())
		case <-ctx.Done():
			stop(cmd.Process, ended)
			return nil
		}
	}
}

// waitReady asks every 20 ms by the status file, which costs no connection.
func (c *Cluster) waitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		b, _ := os.ReadFile(filepath.Join(c.Dir, "postmaster.pid"))
		if lines := strings.Split(string(b), "\n"); len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// stop asks for a fast shutdown, then an immediate one, then kills.
func stop(p *os.Process, ended <-chan error) {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, 20 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		p.Signal(step.sig)
		select {
		case <-ended:
			return
		case <-time.After(step.wait):
		}
	}
}

// stopOrphan ends a server that an earlier, killed Berth left behind.
func (c *Cluster) stopOrphan(ctx context.Context) error {
	pidFile := filepath.Join(c.Dir, "postmaster.pid")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return nil
	}
	// The number may have been given to another program since: only a server
	// that works in this very directory is ours.
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if real, e := filepath.EvalSymlinks(c.Dir); err != nil || e != nil || cwd != real {
		return nil
	}
	c.Log.Info("stopping the PostgreSQL server that an earlier start left", "pid", pid)
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if syscall.Kill(pid, sig) != nil {
			return nil
		}
		for range []int{200, 50}[i] {
			if syscall.Kill(pid, 0) != nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return fmt.Errorf("cannot stop the PostgreSQL server %d that an earlier start left in %s", pid, c.Dir)
}

// command prepares one of PostgreSQL's programs as the server's user. Where
// that user cannot pass a parent of the directory (a clone in /root), the
// program gets the one capability that lets it, and nothing else of root.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is ours to pass on
	if c.user == nil {
		return cmd
	}
	uid, gid := ids(c.user)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if !passable(c.Dir) || !passable(c.Socket) {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_DAC_READ_SEARCH}
	}
	return cmd
}

// passable reports whether everybody may pass all parents of dir.
func passable(dir string) bool {
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if p == "/" {
			return true
		}
	}
}

func lastLines(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// lineLogger passes the server's lines on and keeps the last for an error.
type lineLogger struct {
	log  *slog.Logger
	rest []byte
	line string
}

// Write never fails. exec calls it from one goroutine.
func (l *lineLogger) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			break
		}
		l.line = strings.TrimSpace(string(l.rest[:i]))
		l.rest = l.rest[i+1:]
		switch {
		case strings.Contains(l.line, "due to administrator command"), // we stop it ourselves
			strings.HasPrefix(l.line, "LOG:"), strings.HasPrefix(l.line, "HINT:"), strings.HasPrefix(l.line, "DETAIL:"), strings.HasPrefix(l.line, "STATEMENT:"):
			l.log.Debug("PostgreSQL", "line", l.line)
		case l.line != "":
			l.log.Warn("PostgreSQL", "line", l.line)
		}
	}
	if len(l.rest) > 64<<10 {
		l.rest = nil
	}
	return len(p), nil
}

func (l *lineLogger) last() string { return l.line }
