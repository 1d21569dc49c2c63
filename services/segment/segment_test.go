package segment_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/appliance/syslog"
	"berth/services/segment"
)

var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// line is a message as the front door writes them.
func line(i int) *syslog.Message {
	return &syslog.Message{
		Time: start.Add(time.Duration(i) * 10 * time.Millisecond), Facility: syslog.Local0, Severity: syslog.Informational,
		Host: "berth", Component: []string{"registry", "token", "core"}[i%3], PID: "4711", Text: "request served",
		Attrs: []syslog.Attr{{Key: syslog.RequestID, Value: fmt.Sprintf("%032x", i)}, {Key: syslog.TokenRequest, Value: fmt.Sprintf("%032x", i/100+1<<40)},
			{Key: "method", Value: "GET"}, {Key: "path", Value: fmt.Sprintf("/v2/library/app%d/manifests/1.0", i%50)}, {Key: "status", Value: "200"}},
	}
}

func open(t testing.TB, dir string, o segment.Options) *segment.Store {
	t.Helper()
	s, err := segment.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// run runs the store until the test ends or stop is called.
func run(t testing.TB, s *segment.Store) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func appendLines(t testing.TB, s *segment.Store, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Append(line(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// small makes many blocks and segments of few messages.
var small = segment.Options{BlockBytes: 4 << 10, SegmentBytes: 16 << 10}

// all pages through a query to its end.
func all(t testing.TB, s *segment.Store, q segment.Query) []segment.Record {
	t.Helper()
	var list []segment.Record
	for range 10_000 {
		p, err := s.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p.Records...)
		if q.Cursor = p.Next; p.Next == "" {
			return list
		}
	}
	t.Fatal("the pages do not end")
	return nil
}

// readAll gives the texts of what is read from a Seq on, as "id".
func readAll(t testing.TB, s *segment.Store, from uint64) (ids []string, next uint64) {
	t.Helper()
	for {
		n, err := s.Read(t.Context(), from, 100, func(r *segment.Record) error {
			ids = append(ids, strings.Clone(r.Get(syslog.RequestID)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n == from {
			return ids, n
		}
		from = n
	}
}

func ids(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%032x", i))
	}
	return list
}

// What was appended is read in order, found by everything that it has, and all
// of that again after the store was closed and opened.
func TestAppendReadSearch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, small)
	const n = 3000
	appendLines(t, s, 0, n)
	for round := range 3 {
		if st := s.Stats(); st.Messages != n || st.First != 1 || st.End != n+1 || st.Oldest != start || round == 2 && st.Segments < 2 {
			t.Fatalf("round %d: %+v", round, st)
		}
		got, next := readAll(t, s, 0)
		if !slices.Equal(got, ids(n)) || next != n+1 {
			t.Fatalf("round %d: read %d messages, next %d", round, len(got), next)
		}
		if got, _ := readAll(t, s, 2001); !slices.Equal(got, ids(n)[2000:]) {
			t.Fatalf("round %d: read %d messages from 2001 on", round, len(got))
		}
		list := all(t, s, segment.Query{Limit: 70})
		if len(list) != n {
			t.Fatalf("round %d: found %d", round, len(list))
		}
		for i, r := range list {
			want := line(n - 1 - i)
			if r.Seq != uint64(n-i) || !r.Time.Equal(want.Time) || r.Component != want.Component || r.Host != "berth" || r.PID != "4711" || r.Text != want.Text ||
				r.Facility != want.Facility || r.Severity != want.Severity || !slices.Equal(r.Attrs, want.Attrs) {
				t.Fatalf("round %d: record %d is %+v", round, i, r)
			}
		}
		for _, q := range []struct {
			name string
			q    segment.Query
			want int
		}{
			{"request id", segment.Query{ID: fmt.Sprintf("%032x", 1234)}, 1},
			{"token's request", segment.Query{ID: fmt.Sprintf("%032x", 12+1<<40), Limit: 33}, 100},
			{"no such id", segment.Query{ID: "nobody"}, 0},
			{"component", segment.Query{Components: []string{"token"}, Limit: 1000}, n / 3},
			{"two components", segment.Query{Components: []string{"token", "core", "sshd"}, Limit: 1000}, n / 3 * 2},
			{"no such component", segment.Query{Components: []string{"sshd"}}, 0},
			{"attribute", segment.Query{Attrs: []syslog.Attr{{Key: "path", Value: "/v2/library/app7/manifests/1.0"}}}, n / 50},
			{"text of an attribute", segment.Query{Text: "LIBRARY/app7/"}, n / 50},
			{"text", segment.Query{Text: "Request Served", Limit: 10_000}, n},
			{"key=value", segment.Query{Text: "status=20", Limit: 10_000}, n},
			{"no such text", segment.Query{Text: "panic"}, 0},
			{"time", segment.Query{Since: start.Add(time.Second), Until: start.Add(2 * time.Second)}, 100},
			{"level", segment.Query{Severity: new(syslog.Warning)}, 0},
			{"all levels", segment.Query{Severity: new(syslog.Informational), Limit: 10_000}, n},
		} {
			if got := all(t, s, q.q); len(got) != q.want {
				t.Errorf("round %d: %s: found %d, want %d", round, q.name, len(got), q.want)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, small)
	}
}

// A search finds what a list that is filtered and sorted has, whatever the order
// in which messages come, the query, and the size of pages and of what they look
// through.
func TestSearchAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			s := open(t, t.TempDir(), segment.Options{BlockBytes: 1 << 10, SegmentBytes: 6 << 10})
			if seed%2 == 0 {
				run(t, s)
			}
			var model []segment.Record
			for i := range 1500 {
				m := randomMessage(r, i)
				if err := s.Append(m); err != nil {
					t.Fatal(err)
				}
				model = append(model, segment.Record{Seq: uint64(i + 1), Message: *m})
				if i%300 == 299 {
					for range 12 {
						compare(t, s, model, randomQuery(r))
					}
				}
			}
		})
	}
}

func randomMessage(r *rand.Rand, i int) *syslog.Message {
	m := &syslog.Message{Time: start.Add(time.Duration(i) * time.Second), Severity: syslog.Severity(r.IntN(8)), Component: fmt.Sprint("c", r.IntN(6)),
		Text: []string{"cannot reach", "done", "Ärger mit Öl", "x=y"}[r.IntN(4)]}
	switch r.IntN(10) {
	case 0: // came late
		m.Time = m.Time.Add(-time.Duration(r.IntN(2000)) * time.Second)
	case 1: // many at one time
		m.Time = start.Add(time.Duration(i/100*100) * time.Second)
	case 2: // a clock that is ahead
		m.Time = m.Time.Add(time.Duration(r.IntN(500)) * time.Second)
	}
	if r.IntN(2) == 0 {
		m.Attrs = append(m.Attrs, syslog.Attr{Key: syslog.RequestID, Value: fmt.Sprint("r", r.IntN(200))})
	}
	if r.IntN(2) == 0 {
		m.Attrs = append(m.Attrs, syslog.Attr{Key: "n", Value: fmt.Sprint(r.IntN(5))})
	}
	return m
}

func randomQuery(r *rand.Rand) segment.Query {
	q := segment.Query{Limit: 1 + r.IntN(60), OldestFirst: r.IntN(3) == 0}
	if r.IntN(3) == 0 {
		q.Since = start.Add(time.Duration(r.IntN(1500)) * time.Second)
	}
	if r.IntN(3) == 0 {
		q.Until = start.Add(time.Duration(r.IntN(1500)) * time.Second)
	}
	if r.IntN(3) == 0 {
		q.Severity = new(syslog.Severity(r.IntN(8)))
	}
	if r.IntN(3) == 0 {
		q.Components = []string{fmt.Sprint("c", r.IntN(7)), "c1"}
	}
	switch r.IntN(6) {
	case 0:
		q.ID = fmt.Sprint("r", r.IntN(210))
	case 1:
		q.Text = []string{"REACH", "ärger", "n=3", "X=Y", "nowhere"}[r.IntN(5)]
	case 2:
		q.Attrs = []syslog.Attr{{Key: "n", Value: fmt.Sprint(r.IntN(6))}}
	}
	if r.IntN(2) == 0 {
		q.MaxRaw = 1 + r.Int64N(20_000)
	}
	return q
}

func compare(t *testing.T, s *segment.Store, model []segment.Record, q segment.Query) {
	t.Helper()
	f := segment.NewFilter(q)
	var want []string
	sorted := slices.Clone(model)
	slices.SortFunc(sorted, func(a, b segment.Record) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return int(b.Seq) - int(a.Seq)
	})
	for _, r := range sorted {
		if f.Match(&r.Message) {
			want = append(want, fmt.Sprint(r.Seq))
		}
	}
	if q.OldestFirst {
		slices.Reverse(want)
	}
	var got []string
	for _, r := range all(t, s, q) {
		got = append(got, fmt.Sprint(r.Seq))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("query %+v\n got %d: %v\nwant %d: %v", q, len(got), got, len(want), want)
	}
}
