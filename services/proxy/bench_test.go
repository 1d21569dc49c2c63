package proxy_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/services/proxy"
)

// nobody is an answer that goes nowhere.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header           { return n.header }
func (nobody) Write(p []byte) (int, error)     { return len(p), nil }
func (nobody) WriteHeader(int)                 {}
func (nobody) SetReadDeadline(time.Time) error { return nil }
func (nobody) SetWriteDeadline(time.Time) error {
	return nil
}

// BenchmarkDoor is what the door itself adds to a request: routes, id, headers
// and access log.
func BenchmarkDoor(b *testing.B) {
	for name, registry := range map[string]prometheus.Registerer{"plain": nil, "metrics": prometheus.NewRegistry()} {
		b.Run(name, func(b *testing.B) { benchmarkDoor(b, func(o *proxy.Options) { o.Metrics = registry }) })
	}
}

func benchmarkDoor(b *testing.B, with func(*proxy.Options)) {
	answer := []byte("{}")
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) })
	door := newDoor(b, func(o *proxy.Options) { o.Registry, o.AccessLog = bare, io.Discard; with(o) })
	open(b, door, false) // for the access log's goroutine
	r := httptest.NewRequest(http.MethodGet, "/v2/library/app/manifests/1.0", nil)
	w := nobody{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		clear(r.Header)
		door.ServeHTTP(w, r)
	}
}

// BenchmarkServed compares whole requests over TCP, through the door and
// without it: a small answer, and a file of 64 MiB.
func BenchmarkServed(b *testing.B) {
	name := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, 64<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	answer := []byte("{}")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/file" {
			w.Write(answer)
			return
		}
		f, err := os.Open(name)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		w.Header()["Content-Type"] = []string{"application/octet-stream"}
		http.ServeContent(w, r, "", time.Time{}, f)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	b.Cleanup(func() { srv.Close() })
	door := open(b, newDoor(b, func(o *proxy.Options) { o.Registry, o.AccessLog = h, io.Discard }), false)
	for _, path := range []string{"/v2/small", "/v2/file"} {
		for kind, address := range map[string]string{"bare": l.Addr().String(), "door": door} {
			b.Run(path[4:]+"/"+kind, func(b *testing.B) {
				for b.Loop() {
					answer, err := http.Get("http://" + address + path)
					if err != nil {
						b.Fatal(err)
					}
					n, _ := io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
					b.SetBytes(n)
				}
			})
		}
	}
}
