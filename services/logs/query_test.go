package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/syslog"
	"berth/services/forward"
	"berth/services/segment"
)

var day = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// serveAPI serves an API on a unix socket until the test ends.
func serveAPI(t *testing.T, o APIOptions) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "logs.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: NewAPI(o)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return socket
}

func newStore(t *testing.T) *segment.Store {
	t.Helper()
	s, err := segment.Open(t.TempDir(), segment.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func message(i int) *syslog.Message {
	return &syslog.Message{Time: day.Add(time.Duration(i) * time.Second), Facility: syslog.Local0, Severity: syslog.Severity(i % 8), Host: "berth",
		Component: []string{"registry", "core"}[i%2], Text: "message \"one\"\nand more", Attrs: []syslog.Attr{
			{Key: "z", Value: "first"}, {Key: "a", Value: "\x1b[31m"}, {Key: syslog.RequestID, Value: fmt.Sprint("r", i)}, {Key: "z", Value: "again"}}}
}

func put(t *testing.T, s *segment.Store, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Append(message(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// What is stored comes out of the API as it was, and filtered by what is asked.
func TestMessages(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, 0, 100)
	c := NewClient(serveAPI(t, APIOptions{Store: s, Now: func() time.Time { return day.Add(100 * time.Second) }}))
	var got []segment.Record
	q := segment.Query{Limit: 30}
	for {
		p, end, err := c.Search(t.Context(), q)
		if err != nil || end != 101 {
			t.Fatal(end, err)
		}
		got = append(got, p.Records...)
		if q.Cursor = p.Next; p.Next == "" {
			break
		}
	}
	if len(got) != 100 {
		t.Fatalf("%d messages", len(got))
	}
	for i, r := range got {
		want := message(99 - i)
		// An object has each name once: values of one name come together.
		want.Attrs = []syslog.Attr{want.Attrs[0], want.Attrs[3], want.Attrs[1], want.Attrs[2]}
		if r.Seq != uint64(100-i) || !r.Time.Equal(want.Time) || r.Severity != want.Severity || r.Facility != want.Facility ||
			r.Component != want.Component || r.Host != want.Host || r.Text != want.Text || !slices.Equal(r.Attrs, want.Attrs) {
			t.Fatalf("message %d is %+v, not %+v", i, r, want)
		}
	}
	for query, want := range map[string]int{
		"":                               100,
		"component=core":                 50,
		"component=core,registry":        100,
		"component=core&component=nginx": 50,
		"level=warning":                  64, // of 100, those of 0 to 4
		"level=err":                      52,
		"since=10s":                      10,
		"since=" + url.QueryEscape(day.Add(90*time.Second).Format(time.RFC3339)): 10,
		"since=50s&until=20s":    30,
		"request=r42":            1,
		"text=MESSAGE":           100,
		"text=nothing":           0,
		"attr=z=again&attr=a=b":  0,
		"attr=z=again":           100,
		"attr=request_id=r7":     1,
		"order=asc&component=jo": 0,
	} {
		if query != "" {
			query += "&"
		}
		_, body := get(t, c, "/v1/messages?"+query+"limit=1000")
		var p pageWire
		if err := json.Unmarshal(body, &p); err != nil || len(p.Messages) != want {
			t.Errorf("%s: %d messages, want %d: %v", query, len(p.Messages), want, err)
		}
	}
}

func get(t *testing.T, c *Client, target string) (int, []byte) {
	t.Helper()
	resp, err := c.http.Get("http://logs" + target)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// A wrong parameter is refused by its name: nothing is searched for instead.
func TestWrongParameters(t *testing.T) {
	t.Parallel()
	c := NewClient(serveAPI(t, APIOptions{Store: newStore(t)}))
	for _, path := range []string{"/v1/messages", "/v1/tail"} {
		for field, query := range map[string]string{
			"since": "since=recently", "until": "until=-5h", "level": "level=loud", "attr": "attr=status", "componet": "componet=core",
			"text": "text=a&text=b",
		} {
			checkRefused(t, c, path+"?"+query, field)
		}
	}
	checkRefused(t, c, "/v1/messages?limit=0", "limit")
	checkRefused(t, c, "/v1/messages?limit=1001", "limit")
	checkRefused(t, c, "/v1/messages?order=up", "order")
	checkRefused(t, c, "/v1/messages?cursor=!", "cursor")
	checkRefused(t, c, "/v1/messages?cursor=AQID", "cursor")
	checkRefused(t, c, "/v1/tail?from=-1", "from")
	if code, _ := get(t, c, "/v2/"); code != http.StatusNotFound {
		t.Errorf("a path that is not there: %d", code)
	}
}

func checkRefused(t *testing.T, c *Client, target, field string) {
	t.Helper()
	code, body := get(t, c, target)
	var w struct{ Errors []refusal }
	if err := json.Unmarshal(body, &w); err != nil || code != http.StatusBadRequest || len(w.Errors) != 1 ||
		w.Errors[0].Field != field || !strings.HasPrefix(w.Errors[0].Message, field+": ") {
		t.Errorf("%s: %d %s", target, code, body)
	}
}

// collectors stand in for a forwarder, which has tests of its own.
type collectors struct{}

func (collectors) Status() []forward.Status {
	return []forward.Status{{Name: "central", To: "tls://logs.example.org", State: "connected", Connected: true, Sent: 7}}
}

func (collectors) Test(_ context.Context, name string) (string, error) {
	if name != "central" {
		return "", fault.New(fault.NotFound, "there is no collector %q", name).WithHint("there is central")
	}
	return "it was sent", nil
}

func TestCollectorsAndStats(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, 0, 3)
	none := NewClient(serveAPI(t, APIOptions{Store: s}))
	if list, _, err := none.Collectors(t.Context()); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if _, err := none.Test(t.Context(), "central"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	c := NewClient(serveAPI(t, APIOptions{Store: s, Forward: collectors{}, Intake: func() Counts { return Counts{Received: 3} }}))
	if list, _, err := c.Collectors(t.Context()); err != nil || len(list) != 1 || list[0].Name != "central" || list[0].Sent != 7 {
		t.Error(list, err)
	}
	if answer, err := c.Test(t.Context(), "central"); err != nil || answer != "it was sent" {
		t.Error(answer, err)
	}
	_, err := c.Test(t.Context(), "other/one")
	if f := fault.Of(err); f.Kind != fault.NotFound || f.Text != `there is no collector "other/one"` || f.Hint != "there is central" {
		t.Errorf("%+v", f)
	}
	_, body := get(t, c, "/v1/stats")
	var st struct {
		Store  segment.Stats
		Intake Counts
	}
	if err := json.Unmarshal(body, &st); err != nil || st.Store.Messages != 3 || st.Intake.Received != 3 {
		t.Error(string(body), err)
	}
	if _, _, err := NewClient(filepath.Join(t.TempDir(), "no.sock")).Collectors(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 2*3600)
	now := time.Date(2026, 11, 20, 15, 30, 0, 0, zone)
	for s, want := range map[string]string{
		"2h": "2026-11-20T13:30:00+02:00", "90s": "2026-11-20T15:28:30+02:00", "7d": "2026-11-13T15:30:00+02:00", "2w": "2026-11-06T15:30:00+02:00",
		"1.5d": "2026-11-19T03:30:00+02:00", "now": "2026-11-20T15:30:00+02:00", "today": "2026-11-20T00:00:00+02:00", "yesterday": "2026-11-19T00:00:00+02:00",
		"2026-11-20T13:30:00Z": "2026-11-20T13:30:00Z", "2026-11-20T13:30:00.5-05:00": "2026-11-20T13:30:00-05:00", "2026-11-01": "2026-11-01T00:00:00+02:00",
		"2026-11-01 12:34": "2026-11-01T12:34:00+02:00", "2026-11-01 12:34:56": "2026-11-01T12:34:56+02:00", "2026-11-01T12:34": "2026-11-01T12:34:00+02:00", "12:34": "2026-11-20T12:34:00+02:00",
	} {
		if got, err := ParseTime("since", s, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"-2h", "2", "h", "-1d", "1e9d", "tomorrow", "2026-13-01", "25:00", "NaNd", " "} {
		if got, err := ParseTime("since", s, now); err == nil || fault.Of(err).Field != "since" {
			t.Errorf("%q is taken for %v: %v", s, got, err)
		}
	}
}

// Whatever the parameters are, they are read or refused.
func FuzzParseQuery(f *testing.F) {
	f.Add("component=a,b&level=error&since=2h&until=now&text=x&request=y&attr=k=v&limit=10&order=asc")
	f.Add("since=1e309d&limit=99999999999999999999&attr==")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		q, err := parseQuery(v, day, "limit", "cursor", "order")
		if err != nil {
			if fault.Of(err).Kind != fault.Invalid {
				t.Fatal(err)
			}
			return
		}
		again, err := parseQuery(values(q), day, "limit", "cursor", "order")
		if err != nil || again.Text != q.Text || again.ID != q.ID || !again.Since.Equal(q.Since) || !slices.Equal(again.Attrs, q.Attrs) {
			t.Fatalf("%+v became %+v: %v", q, again, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(AppendRecord(nil, &segment.Record{Seq: 1, Message: *message(1)}))
	f.Add([]byte(`{"attributes":{"a":[1,2],"b":{}}}`))
	f.Add([]byte(`{"attributes":null}`))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseRecord(b) })
}
