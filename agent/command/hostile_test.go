package command

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/api"
	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// A stranger cannot push out of the trail what others have done: what is no login at all is not in it.
func TestStrangersDoNotFillTheTrail(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	for _, body := range []string{"{}", "{", `{"username":"admin","code":"x"}`, `{"nosuch":1}`} {
		if resp, text := b.https("POST", "/api/v1/sessions", "", body); resp.StatusCode != 400 && resp.StatusCode != 422 {
			t.Errorf("%s: %d %s", body, resp.StatusCode, text)
		}
	}
	if events, err := b.client.Audit(t.Context(), 10); err != nil || len(events) > 0 {
		t.Errorf("%+v, %v", events, err)
	}
	b.https("POST", "/api/v1/sessions", "", `{"username":"admin","password":"wrong"}`)
	if err := b.client.SetPassword(t.Context(), "console", "short"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	events, err := b.client.Audit(t.Context(), 10)
	if err != nil || len(events) != 2 || events[1].Action != "log in" || events[0].Result != "the password is shorter than 8 characters (password)" {
		t.Errorf("%+v, %v", events, err)
	}
}

// Who closes the browser in the middle of a change has made it all the same, as a whole.
func TestChangeOutlivesItsClient(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	b.begun()
	hold := make(chan struct{})
	b.system.mu.Lock()
	b.system.hold = hold
	b.system.mu.Unlock()
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := b.client.SetNames(ctx, []string{"images.example.com"})
		left <- err
	}()
	b.wait("first restart", func() bool { return b.system.asked("restart berth-token.service") })
	leave()
	if err := <-left; err == nil {
		t.Error("the client has not left")
	}
	select {
	case <-b.system.gaveUp:
		t.Error("the change was cut off")
	case <-time.After(300 * time.Millisecond): // the server sees a closed connection at once
	}
	close(hold)
	b.wait("last restart", func() bool { return b.system.asked("restart berth-registry.service") })
	b.wait("entry in the trail", func() bool {
		events, err := b.client.Audit(t.Context(), 1)
		return err == nil && len(events) == 1 && events[0].Action == "change the names" && events[0].Result == "ok"
	})
}

// A configuration whose network cannot be changed now changes nothing else either.
func TestPendingNetworkRefusesAll(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	if _, err := b.client.ChangeNetwork(t.Context(), setting.Network{Hostname: "x.example.com"}); err != nil {
		t.Fatal(err)
	}
	_, err := b.client.ApplyConfiguration(t.Context(), "network: {hostname: y.example.com}\ntime: {zone: Asia/Tokyo}\n")
	if !fault.Is(err, fault.Conflict) || b.settings().Time.Zone != "" || b.system.asked("time Asia/Tokyo []") {
		t.Errorf("%v, %+v", err, b.settings().Time)
	}
}

// Commands that change one thing of a list do not undo each other's change.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all.Go(func() {
			if code, out, errs := b.run("syslog", "add", name, "udp://192.0.2.1"); code != cli.OK {
				t.Errorf("%d %s%s", code, out, errs)
			}
		})
	}
	all.Wait()
	if got := b.settings().Logs.Forward; len(got) != 5 {
		t.Errorf("%d of 5 collectors: %+v", len(got), got)
	}
}

// An authority goes with its collector.
func TestAuthoritiesOfCollectors(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	ca := filepath.Join(b.root, setting.DataMount, "tls", "ca.crt")
	file := filepath.Join(b.root, "etc/berth/collectors/siem.crt")
	for _, c := range []struct {
		args []string
		kept bool
	}{
		{[]string{"add", "siem", "tls://siem.example.com", "--ca", ca}, true},
		{[]string{"add", "other", "udp://192.0.2.1"}, true},
		{[]string{"remove", "siem"}, false},
	} {
		if code, out, errs := b.run(append([]string{"syslog"}, c.args...)...); code != cli.OK {
			t.Fatalf("%v: %d %s%s", c.args, code, out, errs)
		}
		if _, err := os.Stat(file); (err == nil) != c.kept {
			t.Errorf("%v: the authority: %v", c.args, err)
		}
	}
}

// Status says how it is now, not how it was when the checks took long.
func TestStatusIsFresh(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	well := func() bool {
		_, out, _ := b.run("status")
		return !strings.Contains(out, "cannot be used")
	}
	if !well() {
		t.Fatal("it is not well to begin with")
	}
	b.write(setting.File, "https: [")
	if well() {
		t.Error("it does not see that the settings are broken")
	}
}

// One place cannot hold all connections of the console.
func TestConnectionsOfOne(t *testing.T) {
	t.Parallel()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitListener(plain, 4, 2)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	from := func(address string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
		c, err := d.DialContext(t.Context(), "tcp", plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	from("127.0.0.2")
	first := <-accepted
	from("127.0.0.2")
	<-accepted
	third := from("127.0.0.2")
	third.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the third connection of one place: %v", err)
	}
	from("127.0.0.3")
	<-accepted
	first.Close()
	from("127.0.0.2")
	<-accepted
}

// Ctrl-C at the question for a password ends the command, and leaves a terminal on which one sees what one types.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	terminal, other := pseudoTerminal(t)
	defer other.Close()
	a := &app{stdin: terminal, stdout: io.Discard, stderr: io.Discard}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := a.password(ctx, "", "password")
		ended <- err
	}()
	echoes := func() bool {
		s, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		return err == nil && s.Lflag&unix.ECHO != 0
	}
	for end := time.Now().Add(20 * time.Second); echoes(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the password would be seen")
		}
	}
	interrupt()
	select {
	case err := <-ended:
		if err == nil || !echoes() {
			t.Errorf("%v, echo %v", err, echoes())
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits on")
	}
}

// Half a download is none.
func TestHalfADownload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.tar.gz")
	o, err := (&app{}).target(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(o, bytes.NewReader([]byte("half"))); err != nil {
		t.Fatal(err)
	}
	o.abandon()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// /dev/null is no terminal: there is no password in it, and it is said in words.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if p, err := (&app{stdin: null}).password(t.Context(), "", "password"); err != nil || p != "" {
		t.Errorf("%v", err)
	}
}

// pseudoTerminal gives a terminal and its other end (pts(4)).
func pseudoTerminal(t *testing.T) (terminal, other *os.File) {
	t.Helper()
	other, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no pseudo-terminals: ", err)
	}
	number, err := unix.IoctlGetInt(int(other.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(other.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return terminal, other
}

// A password in the settings would be read by everybody, and exported.
func TestNoPasswordInSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	for _, database := range []string{"postgres://u:geheim1@db/x", "host=db user=u password=geheim1", "postgres://db/x?user=u&password=geheim1"} {
		_, err := b.client.ApplyConfiguration(t.Context(), "database: "+database+"\n")
		if f := fault.Of(err); f.Field != "database" || f.Kind != fault.Invalid || strings.Contains(err.Error(), "geheim1") {
			t.Errorf("%s: %v", database, err)
		}
	}
	if _, err := b.client.ValidateConfiguration(t.Context(), "database: host=db user=u passfile=/etc/pg\n"); err != nil {
		t.Error(err)
	}
}

// A certificate that others have to renew is warned of a month before, and not told to be renewed here.
func TestSuppliedCertificateEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, installed)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"berth.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(25 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	if _, err := b.client.UploadCertificate(t.Context(), api.UploadCertificate{Certificate: text("CERTIFICATE", der), Key: text("PRIVATE KEY", private)}); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := b.run("health"); !strings.Contains(out, "the certificate ends on") || !strings.Contains(out, "have it issued anew") {
		t.Errorf("%s", out)
	}
}

// An appliance whose state is damaged may have been set up: it is not open for whoever sees the VM's console, and says
// what to do.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	b := setup(t, installed, func(b *rig) { b.state("{") })
	b.wait("status", func() bool { _, err := b.client.Status(t.Context()); return err == nil })
	s, err := b.client.Status(t.Context())
	if err != nil || s.Phase != api.Failed || s.Code != "" || len(s.Problems) == 0 || !strings.Contains(s.Problems[0].Text, "the file is damaged") || s.Problems[0].Hint == "" {
		t.Errorf("%+v, %v", s, err)
	}
	time.Sleep(1100 * time.Millisecond) // the code is looked after each second
	if s, err := b.client.Status(t.Context()); err != nil || s.Code != "" {
		t.Errorf("there is a code: %v", err)
	}
	if err := b.client.ApplySetup(t.Context(), api.Answers{Values: map[string]string{"appliance.root_password": "Root-1-Password", "appliance.console_password": "Root-1-Password", "registry.admin_password": "Root-1-Password"}}); err == nil {
		t.Error("it can be set up anew")
	}
}
