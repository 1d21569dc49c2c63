package forward_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/services/forward"
	"berth/services/segment"
)

// authority issues certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.file, _ = a.issue(name, time.Now().Add(time.Hour))
	return a
}

// issue makes a certificate for a DNS name, and gives its file and its key's.
// The first one is the authority's own.
func (a *authority) issue(name string, end time.Time) (cert, private string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: end,
		DNSNames: []string{name}, BasicConstraintsValid: true, IsCA: a.cert == nil, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	parent, by := a.cert, a.key
	if parent == nil {
		template.KeyUsage, template.ExtKeyUsage, template.DNSNames = x509.KeyUsageCertSign, nil, nil
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
		a.key = key
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	base := filepath.Join(a.dir, strings.ReplaceAll(name, " ", "-")+serial.String())
	for file, block := range map[string]*pem.Block{base + ".crt": {Type: "CERTIFICATE", Bytes: der}, base + ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return base + ".crt", base + ".key"
}

// rsyslog is a real collector, by TLS: what it understands of each message goes
// into a file. It wants certificates of its authority with the name berth.test.
type rsyslog struct {
	t                                    *testing.T
	program, config, lines, address, log string
	command                              *exec.Cmd
}

func newRsyslog(t *testing.T, a *authority, end time.Time) *rsyslog {
	t.Helper()
	program, err := exec.LookPath("rsyslogd")
	if err != nil {
		t.Skip("rsyslogd is not installed (make test-deps)")
	}
	if found, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_ossl.so"); len(found) == 0 {
		t.Skip("rsyslog-openssl is not installed (make test-deps)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dir := t.TempDir()
	r := &rsyslog{t: t, program: program, address: l.Addr().String(), config: filepath.Join(dir, "rsyslog.conf"), lines: filepath.Join(dir, "lines"), log: filepath.Join(dir, "log")}
	cert, key := a.issue("localhost", end)
	_, port, _ := net.SplitHostPort(r.address)
	config := fmt.Sprintf(`
global(workDirectory=%q defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["berth.test"])
input(type="imtcp" address="127.0.0.1" port=%q)
template(name="parsed" type="string" string="%%app-name%%|%%syslogseverity-text%%|%%structured-data%%|%%msg%%\n")
if $syslogfacility-text == "local0" then action(type="omfile" file=%q template="parsed")
else action(type="omfile" file=%q)
`, dir, a.file, cert, key, port, r.lines, r.log)
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.command != nil {
			r.end(syscall.SIGKILL)
		}
		if said, err := os.ReadFile(r.log); err == nil && t.Failed() {
			t.Logf("rsyslogd: %s", said)
		}
	})
	return r
}

func (r *rsyslog) start() {
	r.t.Helper()
	os.Remove(r.config + ".pid") // of one that was killed
	r.command = exec.Command(r.program, "-n", "-f", r.config, "-i", r.config+".pid")
	if err := r.command.Start(); err != nil {
		r.t.Fatal(err)
	}
	until(r.t, "rsyslogd listens", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (r *rsyslog) end(s syscall.Signal) {
	r.t.Helper()
	if err := r.command.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
	r.command.Wait()
	r.command = nil
}

func (r *rsyslog) got() []string {
	data, _ := os.ReadFile(r.lines)
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// collector is how Berth is told of it.
func (r *rsyslog) collector(a *authority) setting.Forward {
	_, port, _ := net.SplitHostPort(r.address)
	cert, key := a.issue("berth.test", time.Now().Add(time.Hour))
	return setting.Forward{Name: "rsyslog", To: "tls://localhost:" + port, CA: a.file, Certificate: cert, PrivateKey: key}
}

// Everything arrives at a real collector as it was, also what came while it was
// away.
func TestRsyslog(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "test CA")
	r := newRsyslog(t, a, time.Now().Add(time.Hour))
	s := newStore(t, segment.Options{})
	f, stop := newForwarder(t, s, t.TempDir(), r.collector(a))
	say(t, s, 0, 500) // nobody is there
	until(t, "it is noticed", func() bool { return strings.Contains(f.Status()[0].Error, "refuses the connection") })
	r.start()
	wantAll(t, r.got, 0, 500)
	if got := r.got()[1]; !strings.HasPrefix(got, `sshd|info|[berth@32473 request_id="r1" odd="a\"b\]c\\d"][meta sequenceId="`) || !strings.HasSuffix(got, strings.Repeat("x", 200)) {
		t.Errorf("%s", got)
	}
	if got := r.got()[20]; !strings.HasPrefix(got, `berth-core|warning|`) {
		t.Errorf("%s", got)
	}
	until(t, "all is delivered", func() bool { return f.Status()[0].Waiting == 0 && f.Status()[0].Connected })
	if st := f.Status()[0]; !strings.Contains(st.State, "by TLS 1.3; its certificate CN=localhost is valid until ") {
		t.Errorf("%+v", st)
	}
	r.end(syscall.SIGTERM)
	say(t, s, 500, 500)
	r.start()
	wantAll(t, r.got, 0, 1000)
	giant := message(1000)
	giant.Text += strings.Repeat("y", 100<<10) + "\nz"
	if err := s.Append(giant, message(1001)); err != nil {
		t.Fatal(err)
	}
	wantAll(t, r.got, 0, 1002)
	if said, err := os.ReadFile(r.log); err == nil && bytes.Contains(said, []byte("yyy")) { // what rsyslog makes of the rest of a message
		t.Errorf("the long message was not taken as one: %.300s", said)
	}
	answer, err := f.Test(t.Context(), "rsyslog")
	if err != nil || !strings.Contains(answer, "by TLS 1.3; its certificate CN=localhost is valid until ") || !strings.Contains(answer, "; the message was handed over and read: look for \"test message ") {
		t.Fatalf("%s, %v", answer, err)
	}
	_, text, _ := strings.Cut(answer, `look for "`)
	text, _, _ = strings.Cut(text, `"`)
	until(t, text, func() bool { return strings.Contains(strings.Join(r.got(), "\n"), text) })
	stop()
}

// A collector that is killed loses what it has not read; Berth sends it again.
func TestRsyslogIsKilled(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "test CA")
	r := newRsyslog(t, a, time.Now().Add(time.Hour))
	s := newStore(t, segment.Options{})
	f, _ := newForwarder(t, s, t.TempDir(), r.collector(a))
	r.start()
	const each = 6000
	n := 0
	for range 2 {
		said := make(chan bool)
		go func() {
			defer close(said)
			for i := 0; i < each; i += 20 {
				say(t, s, n+i, 20)
				time.Sleep(5 * time.Millisecond) // a stream: 4,000 a second
			}
		}()
		until(t, "rsyslogd is in the middle of it", func() bool { return len(r.got()) > n+each/3 })
		r.end(syscall.SIGKILL)
		until(t, "the loss is noticed", func() bool { return !f.Status()[0].Connected })
		r.start()
		<-said
		n += each
	}
	say(t, s, n, 1)
	until(t, "the last message arrives", func() bool { got := r.got(); return number(got[len(got)-1]) == n })
	list, repeated := numbers(r.got())
	st := f.Status()[0]
	t.Logf("%d messages, %d of them came twice at rsyslogd, %d were sent twice", n+1, repeated, st.Repeated)
	if len(list) != n+1 || st.Dropped != 0 {
		t.Errorf("%d of %d messages came", len(list), n+1)
	}
}

// Test says in words what is wrong, and what to do.
func TestTest(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t, "test CA"), newAuthority(t, "other CA")
	good, expired := newRsyslog(t, a, time.Now().Add(time.Hour)), newRsyslog(t, a, time.Now().Add(-time.Hour))
	good.start()
	expired.start()
	plain := newSink(t, "127.0.0.1:0", func(s *sink, conn net.Conn) { // answers like a mail server
		fmt.Fprintln(conn, "220 not TLS")
		readAll(s, conn)
	})
	_, plainPort, _ := net.SplitHostPort(plain.Addr().String())
	hangsUp := newSink(t, "127.0.0.1:0", func(_ *sink, conn net.Conn) { conn.Close() })
	cert, key := a.issue("localhost", time.Now().Add(time.Hour))
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	// rsyslogd 8.2302 does not always look at the names that it permits, so another one stands in for it.
	fussy := newSink(t, "127.0.0.1:0", func(_ *sink, conn net.Conn) {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}})
		conn.Read(make([]byte, 100))
		conn.Close()
	})
	_, fussyPort, _ := net.SplitHostPort(fussy.Addr().String())
	set := func(r *rsyslog, change func(*setting.Forward)) setting.Forward {
		f := r.collector(a)
		change(&f)
		return f
	}
	_, goodPort, _ := net.SplitHostPort(good.address)
	cases := []struct {
		name               string
		set                setting.Forward
		field, text, hints string
	}{
		{"good", set(good, func(*setting.Forward) {}), "", "", ""},
		{"other authority", set(good, func(f *setting.Forward) { f.CA = other.file }), "ca", "CN=localhost of localhost:" + goodPort + " is signed by CN=test CA, which is not trusted", "set ca"},
		{"other name", set(good, func(f *setting.Forward) { f.To = "tls://127.0.0.1:" + goodPort }), "server_name", "is for localhost, not for 127.0.0.1", "server_name"},
		{"that name", set(good, func(f *setting.Forward) { f.To, f.ServerName = "tls://127.0.0.1:"+goodPort, "localhost" }), "", "", ""},
		{"expired", set(expired, func(*setting.Forward) {}), "to", "has expired on ", "renew it"},
		{"no client certificate", set(good, func(f *setting.Forward) { f.Certificate, f.PrivateKey = "", "" }), "certificate", "asks for a client certificate", "set certificate"},
		{"client certificate of another authority", set(good, func(f *setting.Forward) {
			f.Certificate, f.PrivateKey = other.issue("berth.test", time.Now().Add(time.Hour))
		}), "certificate", "refuses the client certificate: ", "must trust the authority"},
		{"hangs up after the handshake", set(good, func(f *setting.Forward) { f.To = "tls://localhost:" + fussyPort }), "to", "closed the connection", "does not accept Berth's certificate"},
		{"no authority", set(good, func(f *setting.Forward) { f.CA = "/nonexistent" }), "ca", "cannot read the file", ""},
		{"not PEM", set(good, func(f *setting.Forward) { f.CA = good.config }), "ca", "there is no certificate in", ""},
		{"not its key", set(good, func(f *setting.Forward) { f.PrivateKey = f.CA }), "certificate", "cannot use the certificate", ""},
		{"no TLS", set(good, func(f *setting.Forward) { f.To = "tls://localhost:" + plainPort }), "to", "does not speak TLS", "tcp://"},
		{"TLS wanted", setting.Forward{To: "tcp://" + good.address}, "to", "closed the connection", "perhaps it wants TLS"},
		{"closes", setting.Forward{To: "tcp://" + hangsUp.Addr().String()}, "to", "closed the connection", ""},
		{"nobody", setting.Forward{To: "tcp://127.0.0.1:1"}, "to", "127.0.0.1:1 refuses the connection", "check the port"},
		{"nobody by UDP", setting.Forward{To: "udp://127.0.0.1:1"}, "to", "127.0.0.1:1 refuses datagrams", "check the port"},
		{"no such name", setting.Forward{To: "tcp://nobody.invalid"}, "to", "the name nobody.invalid does not resolve", "check the name"},
	}
	s := newStore(t, segment.Options{})
	for i := range cases {
		cases[i].set.Name = fmt.Sprint("c", i)
	}
	for i, tt := range cases {
		f, err := forward.New(forward.Options{Store: s, Dir: t.TempDir(), Collectors: []setting.Forward{tt.set}})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.Test(t.Context(), fmt.Sprint("c", i))
		if tt.text == "" {
			if err != nil || !strings.Contains(answer, "the message was handed over") {
				t.Errorf("%s: %s, %v", tt.name, answer, err)
			}
			continue
		}
		if got := fault.Of(err); err == nil || got.Kind == fault.Internal || got.Field != tt.field || !strings.Contains(got.Text, tt.text) || !strings.Contains(got.Hint, tt.hints) || got.Hint == "" {
			t.Errorf("%s: %q, %#v", tt.name, answer, got)
		}
	}
}
