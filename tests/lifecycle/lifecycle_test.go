// Package lifecycle is what an administrator does with a Berth from the first start on: start, stop, start again, lose a
// password, change a certificate, move in from another registry.
package lifecycle

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/cert"
	"berth/tests/berthtest"
)

// The first start makes a random password that only its owner can read, a CA and a certificate; Ctrl-C ends it with all
// its processes; the next start, in seconds, finds everything again, with the same password and CA.
func TestFirstStartStopAndStartAgain(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	info, err := os.Stat(filepath.Join(s.Dir, "admin-password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin-password: %v %v, want mode 0600", info, err)
	}
	password := s.AdminPassword(t)
	if len(password) < 16 {
		t.Errorf("the password has %d characters", len(password))
	}
	for name, mode := range map[string]os.FileMode{"keys": 0o700, "tls/server.key": 0o600, "tls/ca.key": 0o600} {
		if info, err := os.Stat(filepath.Join(s.Dir, name)); err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, want no more than %v (%v)", name, info, mode, err)
		}
	}
	r := s.Registry(t, s.Admin(t))
	i := berthtest.NewImage(2, 100_000)
	r.PushImage(t, "library/app", "1", i)

	// A second one on the same data says where the first one is, and leaves.
	said := berthtest.Run(t, "up", "--data", s.Dir, "--https", "127.0.0.1:0")
	if said.Code != 0 || !strings.Contains(said.Stdout, "already running") || !strings.Contains(said.Stdout, s.URL[strings.LastIndex(s.URL, ":"):]) {
		t.Errorf("a second berth up: %+v, want exit 0 and the address of the first", said)
	}

	children := family(s.Dir)
	if len(children) < 2 {
		t.Errorf("only %v run", children)
	}
	_ = s.Signal(syscall.SIGINT)
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if left := family(s.Dir); len(left) > 0 {
		t.Errorf("left behind by Ctrl-C: %v", left)
	}
	began := time.Now()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("ready %v after the start on existing data", took.Round(10*time.Millisecond))
	if took > 15*time.Second {
		t.Error("that is too long")
	}
	if s.AdminPassword(t) != password {
		t.Error("the password has changed")
	}
	if got := s.Registry(t, s.Admin(t)).Do(t, "GET", "/v2/library/app/manifests/1", nil); berthtest.Digest(got.Data) != i.Manifest.Digest {
		t.Errorf("the image after a restart: %s", got.Status)
	}
}

// family lists the processes whose command line speaks of dir.
func family(dir string) (found []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if line, _ := os.ReadFile(p); strings.Contains(string(line), dir) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// Berth runs below directories that PostgreSQL's own user cannot pass (a clone in /root), below paths that are too long
// for sockets, and with blanks in them.
func TestAnyDirectory(t *testing.T) {
	for name, path := range map[string]string{
		"parent 0700": "private/data", "long path": strings.Repeat(strings.Repeat("d", 60)+"/", 3) + "data", "blanks": "my data/a b",
	} {
		t.Run(name, func(t *testing.T) {
			top, err := os.MkdirTemp("", "berth-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(top) }) // MkdirTemp's mode is 0700
			s := berthtest.Start(t, berthtest.Options{Dir: filepath.Join(top, path)})
			s.Registry(t, s.Admin(t)).PushImage(t, "library/app", "1", berthtest.NewImage(1, 1000))
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			if left := family(s.Dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Whoever brings a password gets it; whoever loses it gets a new one from the machine, whether Berth runs or not, and the
// old one is of no use from that moment on.
func TestPasswords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("My-own-Pa55word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := berthtest.Start(t, berthtest.Options{Args: []string{"--admin-password-file", file}})
	login := func(password string, want int) {
		t.Helper()
		s.API(t, berthtest.Login{User: "admin", Password: password}, "GET", "/users/current", nil, want)
	}
	login("My-own-Pa55word", 200)
	reset := func() string {
		t.Helper()
		said := berthtest.Run(t, "admin", "reset-password", "--random", "--data", s.Dir)
		if said.Code != 0 || len(strings.TrimSpace(said.Stdout)) < 16 {
			t.Fatalf("reset-password: %+v", said)
		}
		return strings.TrimSpace(said.Stdout)
	}
	first := reset()
	login("My-own-Pa55word", 401)
	login(first, 200)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	second := reset()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	login(first, 401)
	login(second, 200)

	weak := filepath.Join(t.TempDir(), "weak")
	if err := os.WriteFile(weak, []byte("weak"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := berthtest.Run(t, "up", "--data", t.TempDir(), "--https", "127.0.0.1:0", "--admin-password-file", weak); said.Code != 2 {
		t.Errorf("a weak password: %+v, want exit code 2", said)
	}
}

// A settings file is checked as a whole, and shells complete Berth's commands.
func TestCommandLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(file, []byte("data: \"\"\nhttps: nonsense\ngrace_hours: -5\nlog_level: loud\nstorage: ftp://x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := berthtest.Run(t, "check-config", file)
	if said.Code != 2 {
		t.Errorf("check-config: exit code %d, want 2", said.Code)
	}
	for _, field := range []string{"data", "https", "grace_hours", "log_level", "storage"} {
		if !strings.Contains(said.Stderr, field) {
			t.Errorf("check-config does not name %s:\n%s", field, said.Stderr)
		}
	}
	if err := os.WriteFile(file, []byte("data: /var/lib/berth\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := berthtest.Run(t, "check-config", file); said.Code != 0 || !strings.Contains(said.Stdout, "no faults") {
		t.Errorf("check-config of a sound file: %+v", said)
	}
	completion := berthtest.Run(t, "completion", "bash")
	if completion.Code != 0 || !strings.Contains(completion.Stdout, "__start_berth") {
		t.Errorf("completion bash: %d %.200s", completion.Code, completion.Stderr)
	}
	bash := exec.Command(berthtest.Program(t, "bash"), "-n")
	bash.Stdin = strings.NewReader(completion.Stdout)
	if out, err := bash.CombinedOutput(); err != nil {
		t.Errorf("bash does not like the completion: %v %s", err, out)
	}
	for _, args := range [][]string{{"nonsense"}, {"up", "--nonsense"}} {
		if said := berthtest.Run(t, args...); said.Code == 0 || said.Stderr == "" {
			t.Errorf("berth %v: %+v", args, said)
		}
	}
}

// Settings can be changed from a shell, whether Berth runs or not: when nobody
// can log in any more, this is the way back.
func TestConfiguration(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	if said := berthtest.Run(t, "configuration", "set", "token_expiration=7", "self_registration=true", "--data", s.Dir); said.Code != 0 {
		t.Fatalf("%+v", said)
	}
	var settings map[string]struct{ Value any }
	if err := json.Unmarshal(s.API(t, s.Admin(t), "GET", "/configurations", nil, 200), &settings); err != nil || settings["token_expiration"].Value != 7.0 {
		t.Errorf("the running Berth has %v, %v", settings["token_expiration"], err)
	}
	for _, args := range [][]string{{"token_expiration=0"}, {"nosuch=1"}, {"read_only"}, {"read_only=maybe"}, {"oidc_client_secret=shown"}, {"banner_message=@/nosuch"}} {
		key, _, _ := strings.Cut(args[0], "=")
		said := berthtest.Run(t, append([]string{"configuration", "set", "--data", s.Dir}, args...)...)
		if said.Code == 0 || !strings.Contains(said.Stderr, key) || strings.Contains(said.Stderr, "shown") {
			t.Errorf("%v: %+v", args, said)
		}
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	said := berthtest.Run(t, "configuration", "list", "token_expiration", "self_registration", "--json", "--data", s.Dir)
	if said.Code != 0 || strings.Join(strings.Fields(said.Stdout), "") != `{"self_registration":true,"token_expiration":7}` {
		t.Errorf("%+v", said)
	}
}

// A new certificate is served as soon as its files are there; connections that are open go on.
func TestNewCertificate(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{})
	old := s.Client(t)
	ask := func(c *http.Client) (reused bool, fingerprint string, err error) {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/v2/", nil)
		if err != nil {
			return false, "", err
		}
		resp, err := c.Do(req)
		if err != nil {
			return false, "", err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return reused, cert.Fingerprint(resp.TLS.PeerCertificates[0]), err
	}
	_, before, err := ask(old)
	if err != nil {
		t.Fatal(err)
	}
	// From an authority of its own, as an enterprise has one.
	company := t.TempDir()
	if _, err := cert.Ensure(company, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cert.KeyFile, cert.ServerFile} {
		data, err := os.ReadFile(filepath.Join(company, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, "tls", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := os.ReadFile(filepath.Join(company, cert.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	var after string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		if _, after, err = ask(fresh); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new certificate is not served: %v", err)
		}
	}
	if after == before {
		t.Error("the certificate is the same")
	}
	if reused, now, err := ask(old); err != nil || !reused || now != before {
		t.Errorf("the connection that was open: reused %v, certificate %s, %v", reused, now, err)
	}
}

// The storage of a CNCF registry is taken over in place: what was pushed to it with its own clients is pulled from Berth.
func TestImport(t *testing.T) {
	registry, crane := berthtest.Tool(t, "registry"), berthtest.Tool(t, "crane")
	sh := berthtest.NewShell(t)
	addr, err := berthtest.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	storage := filepath.Join(sh.Dir, "old")
	config := filepath.Join(sh.Dir, "registry.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", storage, addr), 0o600); err != nil {
		t.Fatal(err)
	}
	other := exec.Command(registry, "serve", config)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	image := berthtest.NewImage(2, 50_000)
	layout := filepath.Join(sh.Dir, "layout")
	berthtest.WriteLayout(t, layout, "1", image.Manifest, image)
	names := []string{"team/app:1", "team/deep/app:1", "alone:1"}
	for _, name := range names {
		sh.Run(t, crane, "push", "--insecure", layout, addr+"/"+name)
	}
	other.Process.Kill()
	_, _ = other.Process.Wait()

	s := berthtest.Start(t, berthtest.Options{})
	said := berthtest.Run(t, "import", "--data", s.Dir, "--from", storage, "--verify")
	if said.Code != 0 {
		t.Fatalf("berth import: %+v", said)
	}
	t.Log(strings.TrimSpace(said.Stdout))
	pull := berthtest.NewShell(t, "SSL_CERT_FILE="+s.CAFile())
	pull.Input(t, s.AdminPassword(t), crane, "auth", "login", s.Addr, "-u", "admin", "--password-stdin")
	for _, name := range []string{"team/app:1", "team/deep/app:1", "library/alone:1"} {
		if got := strings.TrimSpace(pull.Run(t, crane, "digest", s.Addr+"/"+name)); got != image.Manifest.Digest {
			t.Errorf("%s: %s, want %s", name, got, image.Manifest.Digest)
		}
		pull.Run(t, crane, "pull", s.Addr+"/"+name, filepath.Join(pull.Dir, "image.tar"))
		pull.Run(t, crane, "validate", "--remote", s.Addr+"/"+name)
	}
	if again := berthtest.Run(t, "import", "--data", s.Dir, "--from", storage); again.Code != 0 {
		t.Errorf("berth import once more: %+v", again)
	}
}
