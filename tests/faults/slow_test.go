package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// Clients that hold connections, and send or read nothing or hardly anything, do not keep others from their work, are
// ended in time, and cost little memory: ten thousand idle ones, and hundreds that are slow on purpose.
func TestSlowClients(t *testing.T) {
	idle := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < uint64(idle)+2000 {
		t.Skipf("%d connections take more open files than the limit, %d", idle, limit.Max)
	}
	s := berthtest.Start(t, berthtest.Options{HTTP: true})
	s.CreateProject(t, "slow", false)
	who := s.Admin(t)
	addr := strings.TrimPrefix(s.HTTP, "http://")
	r := s.Registry(t, who)
	big := berthtest.NewBlob(berthtest.OCILayer, berthtest.Random(64<<20))
	r.PushBlob(t, "slow/app", big)
	i := berthtest.NewImage(2, 500_000)
	r.PushImage(t, "slow/app", "1", i)
	upload := start(t, r, "slow/app")
	before := s.RSS(t)

	var conns idleConns
	defer conns.close()
	conns.open(t, addr, idle)
	t.Logf("RSS %d MB before, %d MB with %d idle connections", before>>20, s.RSS(t)>>20, idle)

	// Each kind of slow client: what it sends first, then again and again, and within what time it must be ended.
	var work sync.WaitGroup
	login := "Authorization: " + basic(who) + "\r\n"
	for _, k := range []struct {
		name, first, again string
		every, within      time.Duration
	}{
		{"headers trickle", "GET /v2/ HTTP/1.1\r\nHost: x\r\n", "X: y\r\n", 500 * time.Millisecond, 15 * time.Second},
		{"nothing is sent", "", "", 0, 15 * time.Second},
		{"the body stops", "PATCH " + upload + " HTTP/1.1\r\nHost: x\r\n" + login + "Content-Length: 1000000\r\n\r\nsome", "", 0, 45 * time.Second},
		{"a stranger's body stops", "POST /v2/slow/app/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome", "", 0, 45 * time.Second},
		{"a token request's body stops", "POST /service/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nsome", "", 0, 45 * time.Second},
		{"an API request's body stops", "POST /api/v2.0/projects HTTP/1.1\r\nHost: x\r\n" + login + "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", "", 0, 45 * time.Second},
	} {
		var slowest atomic.Int64
		var some sync.WaitGroup
		for range 50 {
			some.Go(func() {
				took, err := trickle(addr, k.first, k.again, k.every, k.within)
				if err != nil {
					t.Errorf("%s: %v", k.name, err)
				}
				slowest.Store(max(slowest.Load(), int64(took)))
			})
		}
		work.Go(func() {
			some.Wait()
			t.Logf("%s: ended after %v at most", k.name, time.Duration(slowest.Load()).Round(100*time.Millisecond))
		})
	}
	for range 50 {
		work.Go(func() {
			if err := neverRead(addr, "GET /v2/slow/app/blobs/"+big.Digest+" HTTP/1.1\r\nHost: x\r\n"+login+"\r\n", 45*time.Second, int64(len(big.Data))); err != nil {
				t.Errorf("an answer that nobody reads: %v", err)
			}
		})
	}

	// Meanwhile, everybody else.
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	var worst time.Duration
	var most int64
	for over := false; !over; {
		began := time.Now()
		c := newClient(t, s, who, new(atomic.Int64))
		if err := c.image(t.Context(), t, "slow/app", "1", i.Manifest.Digest); err != nil {
			t.Errorf("pull beside slow clients: %v", err)
		}
		c.PushImage(t, "slow/app", "2", berthtest.NewImage(1, 100_000))
		worst, most = max(worst, time.Since(began)), max(most, s.RSS(t))
		select {
		case <-done:
			over = true
		case <-time.After(500 * time.Millisecond):
		}
	}
	t.Logf("a pull and a push took %v at worst; RSS %d MB at most", worst.Round(time.Millisecond), most>>20)
	if worst > 5*time.Second {
		t.Error("the server was hardly usable")
	}
	if most > 600<<20 && !strings.Contains(os.Getenv("BERTH_BIN"), "race") {
		t.Error("the slow clients cost too much memory")
	}
	conns.check(t)
}

// trickle sends something slowly and gives how long the server let it. What the server answers is read, so that only its
// closing ends the connection.
func trickle(addr, first, again string, every, within time.Duration) (time.Duration, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	c.SetDeadline(began.Add(within))
	if _, err := io.WriteString(c, first); err != nil {
		return 0, err
	}
	if again != "" {
		go func() {
			for {
				if _, err := io.WriteString(c, again); err != nil {
					return
				}
				time.Sleep(every)
			}
		}()
	}
	_, err = io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return within, fmt.Errorf("not ended within %v", within)
	}
	return time.Since(began), nil
}

// neverRead asks for something large and reads nothing of it for so long. If then all of it comes, the server has waited.
func neverRead(addr, request string, wait time.Duration, size int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	time.Sleep(wait)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	n, err := io.Copy(io.Discard, c)
	if n >= size || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("after %v the server still sends: %d bytes came", wait, n)
	}
	return nil
}

// idleConns are connections that have been used once, as browsers and nodes of a cluster keep them.
type idleConns struct {
	mu   sync.Mutex
	list []net.Conn
}

func (i *idleConns) open(t *testing.T, addr string, n int) {
	t.Helper()
	var work sync.WaitGroup
	for range 50 {
		work.Go(func() {
			for range n / 50 {
				c, err := net.Dial("tcp", addr)
				if err == nil {
					i.mu.Lock()
					i.list = append(i.list, c)
					i.mu.Unlock()
					err = ask(c)
				}
				if err != nil {
					t.Errorf("connection %d: %v", len(i.list), err)
					return
				}
			}
		})
	}
	work.Wait()
}

func ask(c net.Conn) error {
	if _, err := io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// check uses some again: idle for less than two minutes they are still good.
func (i *idleConns) check(t *testing.T) {
	t.Helper()
	for n := 0; n < len(i.list); n += 100 {
		if err := ask(i.list[n]); err != nil {
			t.Errorf("idle connection %d: %v", n, err)
			return
		}
	}
}

func (i *idleConns) close() {
	for _, c := range i.list {
		c.Close()
	}
}
