package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/cert"
	"berth/appliance/health"
	"berth/services/proxy"
)

// echo tells what has arrived behind the door.
func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Behind", name)
		json.NewEncoder(w).Encode(arrived{name, r.Method, r.Host, r.RequestURI, r.RemoteAddr, r.Header, string(body)})
	}
}

type arrived struct {
	Name, Method, Host, URI, Remote string
	Header                          http.Header
	Body                            string
}

// backend serves a handler on a unix socket.
func backend(t testing.TB, h http.Handler) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return socket
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newDoor(t testing.TB, change func(*proxy.Options)) *proxy.Door {
	t.Helper()
	o := proxy.Options{Registry: echo("registry"), TokenSocket: backend(t, echo("token")), CoreSocket: backend(t, echo("core")), Log: quiet()}
	if change != nil {
		change(&o)
	}
	return proxy.New(o)
}

// open runs a door on a socket of its own.
func open(t testing.TB, d *proxy.Door, isTLS bool) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, proxy.Entrance{Listener: l, TLS: isTLS}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// call sends a request through the door's handler.
func call(t *testing.T, d *proxy.Door, method, target string, header http.Header) (*http.Response, arrived) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader("hello"))
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	var a arrived
	json.Unmarshal(w.Body.Bytes(), &a)
	return w.Result(), a
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	d := newDoor(t, nil)
	for target, want := range map[string]string{
		"/v2": "registry", "/v2/": "registry", "/v2/library/app/manifests/1.0?x=y": "registry", "/v2x": "core",
		"/service/token?service=s": "token", "/service/token/": "core", "/api/v2.0/projects": "core", "/c/login": "core",
		"/": "core", "/api/v2.0/projects/a/repositories/b%252Fc/artifacts": "core",
	} {
		answer, a := call(t, d, http.MethodPost, target, nil)
		if a.Name != want || a.URI != target || a.Method != http.MethodPost || a.Body != "hello" || a.Host != "example.com" {
			t.Errorf("%s: %s got %+v", target, want, a)
		}
		if answer.Header.Get("X-Request-Id") == "" || answer.Header.Get("X-Request-Id") != a.Header.Get("X-Request-Id") {
			t.Errorf("%s: the ids are %q and %q", target, answer.Header.Get("X-Request-Id"), a.Header.Get("X-Request-Id"))
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	d := newDoor(t, nil)
	for id, kept := range map[string]bool{"abc-1.2_X": true, "": false, "a b": false, "ä": false, "a\"b": false,
		strings.Repeat("x", 64): true, strings.Repeat("x", 65): false} {
		for _, target := range []string{"/v2/", "/api/"} {
			answer, a := call(t, d, http.MethodGet, target, http.Header{"X-Request-Id": {id}})
			got := answer.Header.Get("X-Request-Id")
			if kept != (got == id) || got == "" || a.Header.Get("X-Request-Id") != got {
				t.Errorf("%s with id %q: answered %q, passed on %q", target, id, got, a.Header.Get("X-Request-Id"))
			}
		}
	}
}

func TestHeadersOfClients(t *testing.T) {
	t.Parallel()
	d := newDoor(t, nil)
	lies := http.Header{"X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil"}, "X-Real-Ip": {"6.6.6.6"},
		"X-Berth-User": {"admin"}, "Forwarded": {"for=6.6.6.6"}, "Connection": {"X-Forwarded-For, X-Request-Id, X-Secret"}, "X-Secret": {"s"},
		"Authorization": {"Basic Zm9v"}}
	for _, target := range []string{"/v2/", "/service/token", "/api/"} {
		_, a := call(t, d, http.MethodGet, target, lies)
		h := a.Header
		if h.Get("X-Forwarded-For") != "192.0.2.1" || h.Get("X-Forwarded-Proto") != "http" || h.Get("X-Forwarded-Host") != "example.com" {
			t.Errorf("%s: X-Forwarded-*: %v", target, h)
		}
		for _, gone := range []string{"X-Berth-User", "X-Real-Ip", "Forwarded"} {
			if h.Get(gone) != "" {
				t.Errorf("%s: %s passed", target, gone)
			}
		}
		if h.Get("X-Request-Id") == "" || h.Get("Authorization") == "" {
			t.Errorf("%s: a header is missing: %v", target, h)
		}
		if target != "/v2/" && h.Get("X-Secret") != "" {
			t.Errorf("%s: a hop-by-hop header passed", target)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd00::/8")}
	d := newDoor(t, func(o *proxy.Options) { o.TrustedProxies = trusted })
	for chain, want := range map[string]string{
		"":                               "192.0.2.1",
		"203.0.113.9":                    "203.0.113.9",
		"6.6.6.6, 203.0.113.9":           "203.0.113.9",
		"6.6.6.6, 203.0.113.9, fd00::1":  "203.0.113.9",
		"192.0.2.7":                      "192.0.2.7",
		"203.0.113.9, nonsense":          "192.0.2.1",
		"::ffff:203.0.113.9":             "203.0.113.9",
		"2001:db8::5,fd00::2, 192.0.2.3": "2001:db8::5",
	} {
		_, a := call(t, d, http.MethodGet, "/v2/", http.Header{"X-Forwarded-For": {chain}, "X-Forwarded-Proto": {"https"}})
		host, _, _ := net.SplitHostPort(a.Remote)
		if a.Header.Get("X-Forwarded-For") != want || host != want || a.Header.Get("X-Forwarded-Proto") != "https" {
			t.Errorf("%q: client is %s (%s), want %s", chain, a.Header.Get("X-Forwarded-For"), a.Remote, want)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	address := open(t, newDoor(t, nil), false)
	for path, want := range map[string]int{
		"/v2/../api": 400, "/v2/%2e%2e/api": 400, "/v2/%2E./x": 400, "/v2/..": 400, "/..": 400, "/v2/a%2f..%2fb": 400,
		"/v2/%252e%252e/x": 400, "/api/a%00b": 400, "/api/a%2500b": 400,
		"/v2/_catalog?last=%00": 400, "/api/x?q=%ff": 400, "/api/%ff": 400, "/api/x?q=a%20%C3%BC&z=%": 200,
		"/v2/a..b/c": 200, "/v2/...": 200, "/v2/..a": 200, "/api/100%25": 200, "/api/b%252Fc": 200,
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		c.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, want)
		}
		if want == 400 && !strings.HasPrefix(string(b), `{"errors":[{"code":"BAD_REQUEST"`) {
			t.Errorf("%s: %s", path, b)
		}
	}
}

func TestBackendDown(t *testing.T) {
	t.Parallel()
	rude := backend(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	d := newDoor(t, func(o *proxy.Options) { o.TokenSocket, o.CoreSocket = "/nowhere", rude })
	for target, want := range map[string]int{"/service/token": 503, "/api/": 502} {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader("x"))
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != want || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"UNAVAILABLE"`) {
			t.Errorf("%s: %d %v %s, want %d", target, w.Code, w.Header(), w.Body, want)
		}
	}
}

// TestFilesKeepTheirForm checks that net gets what it can use sendfile on.
func TestFilesKeepTheirForm(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "f")
	want := bytes.Repeat([]byte("0123456789"), 100_000)
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(interface{ Unwrap() http.ResponseWriter }); !ok {
			t.Error("there is no Unwrap")
		}
		f, err := os.Open(name)
		if err != nil {
			t.Error(err)
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	})
	d := newDoor(t, func(o *proxy.Options) { o.Registry = serve })
	w := &fileWatcher{ResponseRecorder: httptest.NewRecorder()}
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/", nil))
	if !bytes.Equal(w.Body.Bytes(), want) {
		t.Errorf("%d bytes came", w.Body.Len())
	}
	if w.files == 0 || w.others > 0 {
		t.Errorf("%d pieces were files, %d were not", w.files, w.others)
	}
	answer, err := http.Get("http://" + open(t, d, false) + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if b, _ := io.ReadAll(answer.Body); !bytes.Equal(b, want) || answer.ContentLength != int64(len(want)) {
		t.Errorf("%d bytes came over the network", len(b))
	}
}

type fileWatcher struct {
	*httptest.ResponseRecorder
	files, others int
}

func (w *fileWatcher) ReadFrom(src io.Reader) (int64, error) {
	if l, ok := src.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			w.files++
			return io.Copy(w.ResponseRecorder, src)
		}
	}
	w.others++
	return io.Copy(w.ResponseRecorder, src)
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	d := newDoor(t, func(o *proxy.Options) { o.AccessLog = &log })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx, proxy.Entrance{Listener: l}) }()
	own, _ := http.NewRequest(http.MethodHead, "http://"+l.Addr().String()+"/v2/", nil)
	own.Header.Set("User-Agent", health.UserAgent)
	if answer, err := http.DefaultTransport.RoundTrip(own); err != nil {
		t.Fatal(err)
	} else {
		answer.Body.Close() // and no line of it
	}
	r, _ := http.NewRequest(http.MethodPut, "http://"+l.Addr().String()+"/v2/a%22b?digest=hush-hush", strings.NewReader("12345"))
	r.Header.Set("Authorization", "Bearer hush-hush")
	r.Header.Set("User-Agent", "docker/\"1\"\t")
	r.Header.Set("X-Request-Id", "my-id")
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "hush-hush") {
		t.Errorf("a secret is in the log: %s", &log.b)
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	for name, want := range map[string]any{"request_id": "my-id", "client": "127.0.0.1", "method": "PUT", "path": `/v2/a"b`, "status": 200.0,
		"received": 5.0, "sent": float64(len(b)), "agent": `docker/"1"`, "protocol": "HTTP/1.1"} {
		if got := line[name]; got != want && !(name == "agent" && strings.HasPrefix(got.(string), want.(string))) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// TestStalledLog lets the log's disk hang: requests go on, lines are counted.
func TestStalledLog(t *testing.T) {
	t.Parallel()
	disk, out := io.Pipe()
	var told syncBuffer
	d := newDoor(t, func(o *proxy.Options) {
		o.AccessLog, o.Log = out, slog.New(slog.NewTextHandler(&told, nil))
		o.Registry = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	})
	open(t, d, false)
	for range 6000 {
		d.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/", nil))
	}
	go io.Copy(io.Discard, disk)
	for range 100 {
		if strings.Contains(told.String(), "lines_dropped") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("nothing was told of dropped lines")
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	for port, want := range map[int]string{443: "https://127.0.0.1/v2/x?y=z", 8443: "https://127.0.0.1:8443/v2/x?y=z"} {
		address := open(t, newDoor(t, func(o *proxy.Options) { o.RedirectTo = port }), false)
		r, _ := http.NewRequest(http.MethodPut, "http://"+address+"/v2/x?y=z", nil)
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusPermanentRedirect || answer.Header.Get("Location") != want {
			t.Errorf("%s to %q, want %q", answer.Status, answer.Header.Get("Location"), want)
		}
		r.Host = "evil<script>"
		if answer, err := http.DefaultTransport.RoundTrip(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode != http.StatusBadRequest {
				t.Errorf("a strange host: %s", answer.Status)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made, err := cert.Ensure(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, cert.ServerFile), filepath.Join(dir, cert.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(made.CA)
	for _, http2 := range []bool{false, true} {
		address := open(t, newDoor(t, func(o *proxy.Options) {
			o.HTTP2 = http2
			o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
		}), true)
		if _, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11}); err == nil {
			t.Error("TLS 1.1 was accepted")
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
		for _, path := range []string{"/v2/", "/api/"} {
			answer, err := client.Post("https://"+address+path, "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			var a arrived
			json.NewDecoder(answer.Body).Decode(&a)
			answer.Body.Close()
			if (answer.ProtoMajor == 2) != http2 || a.Header.Get("X-Forwarded-Proto") != "https" || a.Body != "hello" {
				t.Errorf("%s over %s: %+v", path, answer.Proto, a)
			}
		}
		client.CloseIdleConnections()
	}
}

// TestSmuggling sends what two parsers could read differently. The door must
// refuse it, or pass on exactly one request.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	var seen syncBuffer
	core := backend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(&seen, "%s %s %q\n", r.Method, r.URL.Path, b)
	}))
	address := open(t, newDoor(t, func(o *proxy.Options) { o.CoreSocket = core }), false)
	const hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, headers := range []string{
		"Content-Length: 5\r\nContent-Length: 6\r\n",
		"Content-Length: +5\r\n",
		"Content-Length : 5\r\n",
		"Transfer-Encoding: xchunked\r\n",
		"Transfer-Encoding: chunked, identity\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
		"X: y\r\n Content-Length: 5\r\nContent-Length: -1\r\n",
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST /api/ HTTP/1.1\r\nHost: x\r\n%s\r\n0\r\n\r\n%s", headers, hidden)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		b, err := io.ReadAll(c) // the connection must be closed
		c.Close()
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400") && !strings.HasPrefix(string(b), "HTTP/1.1 501") {
			t.Errorf("%q: %.60q, %v", headers, b, err)
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /api/both HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 5+len(hidden))
	if answer, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || answer.StatusCode != 200 && answer.StatusCode != 400 {
		t.Errorf("both lengths: %v, %v", answer, err)
	}
	if s := seen.String(); strings.Contains(s, "smuggled") {
		t.Errorf("core has seen %s", s)
	}
}

func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	address := open(t, newDoor(t, nil), false)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 80<<10))
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", answer, err)
	}
}

// TestMaxConns holds a third connection back until one of two ends.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	address := open(t, newDoor(t, func(o *proxy.Options) { o.MaxConns = 2 }), false)
	ask := func(c net.Conn, wait time.Duration) error {
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(wait))
		_, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err
	}
	var conns [3]net.Conn
	for i := range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
		if err := ask(c, 300*time.Millisecond); (err == nil) != (i < 2) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	conns[0].Close()
	conns[2].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := http.ReadResponse(bufio.NewReader(conns[2]), nil); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

const idleConns = 10_000

// TestMain lets the test's own binary be the client of 10,000 connections,
// since one process may have no more than that many files twice.
func TestMain(m *testing.M) {
	if address := os.Getenv("BERTH_IDLE"); address != "" {
		os.Exit(idle(address))
	}
	os.Exit(m.Run())
}

// idle opens the connections, says so, and keeps them until it is told to end.
func idle(address string) int {
	for i := range idleConns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			fmt.Printf("after %d connections: %v\n", i, err)
			return 1
		}
		defer c.Close()
	}
	fmt.Println("open")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestManyIdleConnections(t *testing.T) {
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if limit.Max < idleConns+1000 {
		t.Skipf("skipped: %d connections need as many files; this process may have %d", idleConns, limit.Max)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Skipf("skipped: the limit on files cannot be raised: %v", err)
	}
	address := open(t, newDoor(t, nil), false)
	client := exec.Command(os.Args[0])
	client.Env = append(os.Environ(), "BERTH_IDLE="+address)
	stop, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	defer client.Wait()
	defer stop.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the client says %q, %v", line, err)
	}
	start := time.Now()
	answer, err := http.Get("http://" + address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if took := time.Since(start); answer.StatusCode != http.StatusOK || took > 5*time.Second {
		t.Errorf("beside %d idle connections: %s after %v", idleConns, answer.Status, took)
	}
}
