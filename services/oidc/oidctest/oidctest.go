// Package oidctest runs a real OpenID provider for tests, over TLS with an
// authority of its own, and plays the part of the person at its login page.
package oidctest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/cert"
)

// Client and Secret are what the provider knows Berth by; Password is everybody's.
const (
	Client   = "berth"
	Secret   = "secret"
	Password = "verysecure"
)

// User is somebody whom the provider knows.
type User struct {
	Username, Password, FirstName, LastName, Email string
	Groups                                         []string
}

// Provider is a running provider.
type Provider struct {
	URL string // the issuer
	CA  string // PEM

	dir   string
	users map[string]User
}

// Start runs a provider that sends people back to callback. It knows anna, who
// is in developers and admins, and ben. The test is skipped if the provider is
// not built.
func Start(t testing.TB, callback string) *Provider {
	t.Helper()
	program := tool(t)
	p := &Provider{dir: t.TempDir(), users: map[string]User{}}
	if _, err := cert.Ensure(p.dir, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(p.dir, cert.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	p.CA = string(ca)
	p.Set(t, "id1", User{Username: "anna", FirstName: "Anna", LastName: "Alt", Email: "anna@example.com", Groups: []string{"developers", "admins"}})
	p.Set(t, "id2", User{Username: "ben", FirstName: "Ben", LastName: "Bunt", Email: "ben@example.com"})
	address := free(t)
	p.URL = "https://" + address
	c := exec.Command(program, address, filepath.Join(p.dir, cert.ServerFile), filepath.Join(p.dir, cert.KeyFile), p.file(), callback)
	var log bytes.Buffer
	c.Stderr = &log
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("provider: %s", log.String())
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the provider does not start: %q, %v", line, err)
	}
	return p
}

// tool finds the provider among what tests/tools/build.sh has built.
func tool(t testing.TB) string {
	t.Helper()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err == nil {
		var dir []byte
		if dir, err = exec.Command(filepath.Join(strings.TrimSpace(string(root)), "tests/tools/build.sh"), "--dir").Output(); err == nil {
			path := filepath.Join(strings.TrimSpace(string(dir)), "oidcprovider")
			if _, err = os.Stat(path); err == nil {
				return path
			}
		}
	}
	t.Skipf("oidcprovider is not built (make tools): %v", err)
	return ""
}

func free(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000)))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func (p *Provider) file() string { return filepath.Join(p.dir, "users.json") }

// Set makes or changes a user.
func (p *Provider) Set(t testing.TB, id string, u User) {
	t.Helper()
	u.Password = Password
	p.users[id] = u
	text, err := json.Marshal(p.users)
	if err == nil {
		err = os.WriteFile(p.file(), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Login is a person who is sent to page, logs in there, and is sent back: it
// gives the address that the browser is sent to.
func (p *Provider) Login(t testing.TB, page, username string) (back *url.URL) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(p.CA))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			if !strings.HasPrefix(r.URL.String(), p.URL) {
				back = r.URL
				return http.ErrUseLastResponse
			}
			return nil
		}}
	defer c.CloseIdleConnections()
	res, err := c.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(res.Body)
	res.Body.Close()
	id := res.Request.URL.Query().Get("authRequestID")
	if back != nil || id == "" {
		t.Fatalf("%s leads to no login page but to %s: %s", page, res.Request.URL, text)
	}
	res, err = c.PostForm(p.URL+"/login/username", url.Values{"username": {username}, "password": {Password}, "id": {id}})
	if err != nil {
		t.Fatal(err)
	}
	text, _ = io.ReadAll(res.Body)
	res.Body.Close()
	if back == nil {
		t.Fatalf("%s was not sent back: %s", username, text)
	}
	return back
}
