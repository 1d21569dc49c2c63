package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/audit"
	"berth/services/dbtest"
	"berth/services/event"
)

// collector is a syslog collector that takes messages with their length in
// front, as RFC 6587 has it.
type collector struct {
	net.Listener
	got chan string
}

func newCollector(t *testing.T, address string) *collector {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{l, make(chan string, 100)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { conn.Close() })
			go c.read(conn)
		}
	}()
	return c
}

func (c *collector) read(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		length, err := r.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(length))
		if err != nil {
			c.got <- "no length: " + length
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(r, message); err != nil {
			return
		}
		c.got <- string(message)
		if strings.Contains(string(message), "hang up") {
			return
		}
	}
}

func wait(t *testing.T, c <-chan string) string {
	t.Helper()
	select {
	case s := <-c:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		return ""
	}
}

func created(resource string) event.Event {
	return event.Event{ID: uuid.New(), Time: noon, Operation: "create", ResourceType: "artifact", Resource: resource, User: "jane", Success: true, Source: "192.0.2.1"}
}

var rfc5424 = regexp.MustCompile(`^<110>1 2026-11-21T12:00:00\.000000Z \S+ berth-audit \d+ create_artifact \[audit@32473 id="[0-9a-f-]{36}" operation="create" resource_type="artifact" resource="([^"\\\]]|\\["\\\]])*" user="jane" result="success" source="192\.0\.2\.1"\] create artifact: .*$`)

func TestForward(t *testing.T) {
	t.Parallel()
	c := newCollector(t, "127.0.0.1:0")
	address := c.Addr().String()
	var f audit.Forwarder
	defer f.Close()
	send := func(resource string) error { return f.Send(t.Context(), address, created(resource)) }
	for _, resource := range []string{"library/app:1", `a"]\b`, "two\nlines"} {
		if err := send(resource); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, c.got); !rfc5424.MatchString(got) || strings.Contains(got, "\n") {
			t.Errorf("%s", got)
		}
	}
	// A collector that has closed the connection gets the next one by a new one.
	if err := send("hang up"); err != nil {
		t.Fatal(err)
	}
	wait(t, c.got)
	for i := 0; ; i++ { // what is written before the end is noticed is lost, in TCP
		if err := send(fmt.Sprint("again", i)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.got:
		case <-time.After(50 * time.Millisecond):
			if i < 100 {
				continue
			}
			t.Fatal("nothing comes any more")
		}
		break
	}
	c.Close()
	var other audit.Forwarder
	if err := other.Send(t.Context(), address, created("x")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestForwardByUDP(t *testing.T) {
	t.Parallel()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var f audit.Forwarder
	defer f.Close()
	if err := f.Send(t.Context(), "udp://"+c.LocalAddr().String(), created("library/app:1")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 9000)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, _, err := c.ReadFrom(buf)
	if err != nil || !rfc5424.Match(buf[:n]) {
		t.Errorf("%s, %v", buf[:n], err)
	}
}

// What is disabled is neither kept nor sent; what is only forwarded is not kept,
// and comes again until it has been sent.
func TestRules(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	c := newCollector(t, "127.0.0.1:0")
	rules := audit.Rules{Disabled: []string{"pull_artifact"}, Endpoint: c.Addr().String()}
	r := audit.NewRecorder(pool, nil, func(context.Context) (audit.Rules, error) { return rules, nil })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() { stop(); <-ended }()
	kept := func() (s string) {
		if err := pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(resource, ' ' ORDER BY resource), '') FROM audit_events`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	pull := created("pulled")
	pull.Operation = "pull"
	for _, e := range []event.Event{pull, created("a")} {
		if err := r.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if got := wait(t, c.got); !strings.Contains(got, `resource="a"`) || kept() != "a" {
		t.Errorf("%s; kept %s", got, kept())
	}
	rules.SkipDatabase = true
	if err := r.Record(t.Context(), created("b")); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, c.got); !strings.Contains(got, `resource="b"`) || kept() != "a" {
		t.Errorf("%s; kept %s", got, kept())
	}
	rules.Endpoint = "127.0.0.1:1"
	if err := r.Record(t.Context(), created("c")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
	rules.Endpoint = "" // nothing to forward to: better kept than lost
	if err := r.Record(t.Context(), created("d")); err != nil || kept() != "a d" {
		t.Errorf("%v; kept %s", err, kept())
	}
}

func FuzzSyslog(f *testing.F) {
	f.Add("create", "library/app", "jane", "d")
	f.Add("a b", `"]\`, "\n<1>1", "\xff\x00")
	shape := regexp.MustCompile(`^<1(10|09)>1 \S+ \S+ berth-audit \d+ [!-~]{1,32} \[audit@32473( [a-z_]+="([^"\\\]]|\\["\\\]])*")+\] [^\n\r\x00]*$`)
	f.Fuzz(func(t *testing.T, operation, resource, user, description string) {
		if got := audit.Syslog(event.Event{Operation: operation, ResourceType: "artifact", Resource: resource, User: user, Description: description}); !shape.MatchString(got) {
			t.Errorf("%q", got)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add("1700000000000000-5")
	f.Add("-1--1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := audit.ParseCursor(s)
		if err != nil {
			return
		}
		again, err := audit.ParseCursor(c.String())
		if err != nil || *again != *c {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}
