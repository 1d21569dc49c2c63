package logs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/syslog"
	"berth/services/segment"
)

var errEnough = errors.New("enough")

// follow tails until n messages have come, and gives their Seqs.
func follow(t *testing.T, c *Client, q segment.Query, from uint64, n int) (seqs []uint64, next uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next, err := c.Tail(ctx, q, from, func(r *segment.Record) error {
		if seqs = append(seqs, r.Seq); len(seqs) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("the tail ended after %d messages: %v", len(seqs), err)
	}
	return seqs, next
}

// A tail has all messages from where it begins, then those that come; what it
// was not shown it gets when it connects again.
func TestTail(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, 0, 10)
	c := NewClient(serveAPI(t, APIOptions{Store: s}))
	got, next := follow(t, c, segment.Query{}, 4, 5)
	if !slices.Equal(got, []uint64{4, 5, 6, 7, 8}) || next != 9 {
		t.Fatal(got, next)
	}
	done := make(chan []uint64)
	go func() {
		seqs, _ := follow(t, c, segment.Query{Components: []string{"core"}}, next, 4)
		done <- seqs
	}()
	put(t, s, 10, 20)
	if got := <-done; !slices.Equal(got, []uint64{10, 12, 14, 16}) {
		t.Fatal(got)
	}
}

// A browser names the last event that it has seen.
func TestTailResumes(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, 0, 10)
	c := NewClient(serveAPI(t, APIOptions{Store: s}))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://logs/v1/tail", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Last-Event-ID", "8")
	resp, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Error(ct)
	}
	buf := make([]byte, 64)
	want := "id: 8\n: alive\n\nid: 9\ndata: {\"seq\":9,"
	for n := 0; n < len(want); {
		k, err := resp.Body.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		if n += k; string(buf[:min(n, len(want))]) != want[:min(n, len(want))] {
			t.Fatalf("%q", buf[:n])
		}
	}
}

// The service ends without waiting for those who follow, and more than a few
// may not.
func TestTailsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, 0, 1)
	stop := make(chan struct{})
	c := NewClient(serveAPI(t, APIOptions{Store: s, Stopping: stop}))
	ended := make(chan error)
	begun := make(chan struct{})
	for range maxTails {
		go func() {
			_, err := c.Tail(t.Context(), segment.Query{}, 1, func(*segment.Record) error { begun <- struct{}{}; return nil })
			ended <- err
		}()
	}
	for range maxTails {
		<-begun
	}
	if _, err := c.Tail(t.Context(), segment.Query{}, 1, nil); !fault.Is(err, fault.TooMany) {
		t.Errorf("one more: %v", err)
	}
	close(stop)
	for range maxTails {
		<-ended
	}
}

// A client that asks and never reads is cut off; the store takes messages, and
// others get theirs.
func TestTailOfSomebodyWhoNeverReads(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	socket := serveAPI(t, APIOptions{Store: s, Patience: 2 * time.Second})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/tail?from=1 HTTP/1.1\r\nHost: logs\r\n\r\n")
	big := &syslog.Message{Time: day, Component: "core", Text: string(make([]byte, 32<<10))}
	for range 200 {
		if err := s.Append(big); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := follow(t, NewClient(socket), segment.Query{}, 1, 200)
	if len(got) != 200 {
		t.Fatal(len(got))
	}
	// It was cut off when it could not be written to: what is on the way ends.
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	time.Sleep(2500 * time.Millisecond) // the client's own sleep: longer than the patience
	n := 0
	buf := make([]byte, 64<<10)
	for {
		k, err := conn.Read(buf)
		if n += k; err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				t.Fatal("the connection is still open")
			}
			break
		}
	}
	if n >= 200*32<<10 {
		t.Errorf("all %d bytes were there to be read", n)
	}
}
