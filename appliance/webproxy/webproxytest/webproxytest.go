// Package webproxytest runs a web proxy for tests.
package webproxytest

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Username and Password are what the proxy wants. The password has what URLs and headers have trouble with.
const Username, Password = "berth", `p@ss:w/ord%"`

// Proxy is a small web proxy. It has its own idea of where names are, for requests to loopback addresses never go
// through a proxy (x/net/http/httpproxy).
type Proxy struct {
	*httptest.Server

	targets map[string]string
	mu      sync.Mutex
	asked   []string
}

// Start runs a proxy on the loopback interface until the test ends. Targets are addresses by host as requests have it: without a port for http,
// with one for https. Names that begin with forbidden. or away. get the proxy's own refusals.
func Start(t testing.TB, targets map[string]string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return StartOn(t, l, targets)
}

// StartOn is Start on a listener.
func StartOn(t testing.TB, l net.Listener, targets map[string]string) *Proxy {
	t.Helper()
	p := &Proxy{targets: targets}
	p.Server = &httptest.Server{Listener: l, Config: &http.Server{Handler: p}}
	p.Server.Start()
	t.Cleanup(p.Close)
	return p
}

// Asked is what was asked for, as "GET example.com", by those who were let in.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// ServeHTTP is one request to the proxy: an absolute URL, or CONNECT (RFC 9110 §9.3.6).
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(Username+":"+Password))
	if r.Header.Get("Proxy-Authorization") != want {
		w.Header().Set("Proxy-Authenticate", "Basic")
		http.Error(w, "who?", http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	switch {
	case strings.HasPrefix(r.Host, "forbidden."):
		http.Error(w, "no", http.StatusForbidden)
	case strings.HasPrefix(r.Host, "away."):
		http.Error(w, "no", http.StatusBadGateway)
	case r.Method == http.MethodConnect:
		p.connect(w, r)
	default:
		p.pass(w, r)
	}
}

func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	c, err := net.Dial("tcp", p.targets[r.Host])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		c.Close()
		return
	}
	io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { io.Copy(c, buffered); c.Close() }() // what has come already is in the buffer
	go func() { io.Copy(client, c); client.Close() }()
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request) {
	r.RequestURI = ""
	r.Header.Del("Proxy-Authorization")
	r.URL.Host = p.targets[r.Host]
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	w.WriteHeader(answer.StatusCode)
	io.Copy(w, answer.Body)
}
