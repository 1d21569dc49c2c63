package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/services/proxy"
)

// pipes is a listener without a network, so that its connections keep the
// time of a synctest bubble.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accept <- server
	return client
}

// inBubble runs a test in fake time. open starts a door whose registry is h.
func inBubble(t *testing.T, test func(t *testing.T, open opener)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended, stopped := make(chan error, 1), false
		stop := func() error { cancel(); stopped = true; return <-ended }
		test(t, func(h http.HandlerFunc) (func() net.Conn, func() error) {
			p := newPipes()
			d := proxy.New(proxy.Options{Registry: h, Log: quiet()})
			go func() { ended <- d.Run(ctx, proxy.Entrance{Listener: p}) }()
			return p.dial, stop
		})
		if !stopped {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

type opener = func(h http.HandlerFunc) (dial func() net.Conn, stop func() error)

func TestSlowHeaders(t *testing.T) {
	inBubble(t, func(t *testing.T, open opener) {
		dial, _ := open(func(http.ResponseWriter, *http.Request) {})
		c, start := dial(), time.Now()
		gaveUp := make(chan struct{})
		go func() {
			defer close(gaveUp)
			for _, b := range []byte("GET /v2/ HTTP/1.1\r\nHost: example.org\r\n") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		io.ReadAll(c)
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("cut off after %v", took)
		}
		c.Close()
		<-gaveUp
	})
}

func TestIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, open opener) {
		dial, _ := open(func(http.ResponseWriter, *http.Request) {})
		c := dial()
		in := bufio.NewReader(c)
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(110 * time.Second) // beyond the first answer's write deadline
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatalf("a second request: %v", err)
		}
		start := time.Now()
		if _, err := in.ReadByte(); err != io.EOF || time.Since(start) != 2*time.Minute {
			t.Errorf("closed after %v: %v", time.Since(start), err)
		}
		c.Close()
	})
}

// TestSlowUpload lets one trickle in for ten minutes, and another stand still.
func TestSlowUpload(t *testing.T) {
	inBubble(t, func(t *testing.T, open opener) {
		read := make(chan error, 1)
		dial, _ := open(func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			time.Sleep(time.Minute) // a slow store
			if r.Context().Err() != nil {
				err = errors.Join(err, errors.New("the request was cancelled"))
			}
			read <- err
			fmt.Fprint(w, n)
		})
		c := dial()
		in := bufio.NewReader(c)
		fmt.Fprint(c, "PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nExpect: 100-continue\r\n\r\n")
		if line, err := in.ReadString('\n'); !strings.Contains(line, "100 Continue") {
			t.Fatalf("%q, %v", line, err)
		}
		in.ReadString('\n')
		for range 30 {
			time.Sleep(20 * time.Second)
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		answer, err := http.ReadResponse(in, nil)
		if err != nil || <-read != nil || answer.ContentLength != 2 {
			t.Fatalf("%v, %v", answer, err)
		}
		io.ReadAll(answer.Body)

		fmt.Fprint(c, "PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nxx")
		start := time.Now()
		go io.Copy(io.Discard, in)
		if err := <-read; err == nil || time.Since(start) > 2*time.Minute {
			t.Errorf("stood still for %v: %v", time.Since(start), err)
		}
		c.Close()
	})
}

// TestSlowDownload reads slowly for ten minutes, then not at all.
func TestSlowDownload(t *testing.T) {
	inBubble(t, func(t *testing.T, open opener) {
		wrote := make(chan error, 1)
		dial, _ := open(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(w, io.LimitReader(zeros{}, 100<<20))
			wrote <- err
		})
		c := dial()
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
		for range 30 {
			time.Sleep(20 * time.Second)
			if _, err := io.CopyN(io.Discard, c, 512<<10); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := <-wrote; err == nil || time.Since(start) > 40*time.Second {
			t.Errorf("stood still for %v: %v", time.Since(start), err)
		}
		c.Close()
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestDraining stops the door with requests of 5 s and of 60 s under way.
func TestDraining(t *testing.T) {
	inBubble(t, func(t *testing.T, open opener) {
		dial, stop := open(func(w http.ResponseWriter, r *http.Request) {
			seconds, _ := strconv.Atoi(r.URL.Query().Get("seconds"))
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
				fmt.Fprint(w, "done")
			case <-r.Context().Done():
			}
		})
		idle, short, long := dial(), dial(), dial()
		fmt.Fprint(short, "GET /v2/?seconds=5 HTTP/1.1\r\nHost: x\r\n\r\n")
		fmt.Fprint(long, "GET /v2/?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		start, got := time.Now(), make(chan string, 2)
		for _, c := range []net.Conn{short, long} {
			go func() { b, _ := io.ReadAll(c); got <- string(b) }()
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("draining took %v", took)
		}
		if b := <-got; !strings.HasSuffix(b, "done") {
			t.Errorf("the short request got %q", b)
		}
		if b := <-got; b != "" {
			t.Errorf("the long request got %q", b)
		}
		for _, c := range []net.Conn{idle, short, long} {
			c.Close()
		}
	})
}

// TestBodyNobodyReads lets a client announce a small body and not send it, to a
// handler that refuses without reading: net/http waits for such a body before it
// answers.
func TestBodyNobodyReads(t *testing.T) {
	inBubble(t, func(t *testing.T, open opener) {
		dial, _ := open(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		c, start := dial(), time.Now()
		fmt.Fprint(c, "POST /v2/p/r/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome")
		io.ReadAll(c)
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("ended after %v", took)
		}
		c.Close()
	})
}
