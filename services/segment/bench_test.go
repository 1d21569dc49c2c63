package segment_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/syslog"
	"berth/services/segment"
)

// traffic makes what the front door writes, some 300 bytes a message as syslog:
// pushes of some 20 requests, with random ids and digests.
type traffic struct {
	r     *rand.Rand
	now   time.Time
	step  time.Duration
	token string
	left  int
	m     syslog.Message
}

func newTraffic(from time.Time, step time.Duration) *traffic {
	return &traffic{r: rand.New(rand.NewPCG(1, 2)), now: from, step: step}
}

func (g *traffic) hex(n int) string {
	b := make([]byte, 0, 64)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, g.r.Uint64())
	}
	return hex.EncodeToString(b[:n])
}

// next gives a message that is good until the next.
func (g *traffic) next() *syslog.Message {
	if g.left--; g.left < 0 {
		g.token, g.left = g.hex(16), 20
	}
	g.now = g.now.Add(g.step)
	path := "/v2/library/app" + strconv.Itoa(g.r.IntN(500)) + "/blobs/sha256:" + g.hex(32)
	g.m = syslog.Message{Time: g.now, Facility: syslog.Local0, Severity: syslog.Informational, Host: "berth", Component: "registry", PID: "812", Text: "request",
		Attrs: append(g.m.Attrs[:0], syslog.Attr{Key: syslog.RequestID, Value: g.hex(16)}, syslog.Attr{Key: syslog.TokenRequest, Value: g.token},
			syslog.Attr{Key: "client", Value: "10.1.2." + strconv.Itoa(g.r.IntN(250))}, syslog.Attr{Key: "method", Value: "HEAD"}, syslog.Attr{Key: "path", Value: path},
			syslog.Attr{Key: "status", Value: "200"}, syslog.Attr{Key: "sent", Value: strconv.Itoa(g.r.IntN(1 << 20))}, syslog.Attr{Key: "duration_ms", Value: strconv.Itoa(g.r.IntN(300))},
			syslog.Attr{Key: "agent", Value: "docker/27.3.1 go/go1.22.7"})}
	if g.r.IntN(500) == 0 {
		g.m.Severity, g.m.Component, g.m.Text = syslog.Error, "core", "cannot reach the database"
	}
	return &g.m
}

// BenchmarkAppend answers how much processor time a message takes on its way to
// the disk, compression included, beside what the disk takes.
func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir(), segment.Options{})
	run(b, s)
	g := newTraffic(time.Now(), 50*time.Microsecond)
	made := make([]*syslog.Message, 10_000)
	for i := range made {
		m := *g.next()
		m.Attrs = append([]syslog.Attr(nil), m.Attrs...)
		made[i] = &m
	}
	b.ReportAllocs()
	before := processorTime()
	b.ResetTimer()
	for i := range b.N {
		if err := s.Append(made[i%len(made)]); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((processorTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	st := s.Stats()
	b.ReportMetric(float64(st.Raw)/float64(st.Messages), "raw-B/msg")
	b.ReportMetric(float64(st.Bytes)/float64(st.Messages), "disk-B/msg")
}

// BenchmarkSearch answers how long searches take in BERTH_LOG_MESSAGES messages
// (200,000 unless it says otherwise) that came within one hour; and what the
// store takes on the disk and in memory meanwhile. BERTH_LOG_DIR keeps them for
// the next time.
func BenchmarkSearch(b *testing.B) {
	n := 200_000
	if v := os.Getenv("BERTH_LOG_MESSAGES"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			b.Fatal(err)
		}
	}
	dir := os.Getenv("BERTH_LOG_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	s := open(b, dir, segment.Options{})
	run(b, s)
	ids := fill(b, s, n)
	st := s.Stats()
	b.Logf("%d messages: %d MiB raw, %d MiB on disk, %d segments, %d blocks, resident %d MiB", st.Messages, st.Raw>>20, st.Bytes>>20, st.Segments, st.Blocks, resident())
	since := st.Newest.Add(-time.Hour)
	search := func(q segment.Query, want int) func(*testing.B) {
		return func(b *testing.B) {
			for range b.N {
				if p, err := s.Search(b.Context(), q); err != nil || len(p.Records) < want {
					b.Fatal(len(p.Records), err)
				}
			}
		}
	}
	i := 0
	b.Run("request id", func(b *testing.B) {
		for range b.N {
			i++
			if p, err := s.Search(b.Context(), segment.Query{ID: ids[i%len(ids)], Since: since}); err != nil || len(p.Records) != 1 {
				b.Fatal(len(p.Records), err)
			}
		}
	})
	b.Run("no such id", search(segment.Query{ID: "nobody", Since: since}, 0))
	b.Run("newest", search(segment.Query{}, 100))
	b.Run("errors", search(segment.Query{Severity: new(syslog.Error)}, 100))
	b.Run("component", search(segment.Query{Components: []string{"core"}}, 100))
	b.Run("text", func(b *testing.B) {
		raw := int64(0)
		for range b.N {
			if _, err := s.Search(b.Context(), segment.Query{Text: "no such words", MaxRaw: 1 << 40}); err != nil {
				b.Fatal(err)
			}
			raw += min(st.Raw, 1<<40)
		}
	})
	b.Logf("resident %d MiB", resident())
}

// fill appends what is missing to n messages, and gives request ids of some that
// are spread over all.
func fill(b *testing.B, s *segment.Store, n int) (ids []string) {
	g := newTraffic(time.Now().Add(-time.Hour), time.Hour/time.Duration(n))
	have := int(s.Stats().Messages)
	began, cpu := time.Now(), processorTime()
	most := 0
	rate, _ := strconv.Atoi(os.Getenv("BERTH_LOG_RATE")) // messages a second; 0 = as fast as it goes
	for i := range n {
		m := g.next()
		if i%(n/64+1) == 0 {
			ids = append(ids, strings.Clone(m.Get(syslog.RequestID)))
		}
		if i < have {
			continue
		}
		if err := s.Append(m); err != nil {
			b.Fatal(err)
		}
		if rate > 0 && i%100 == 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i-have) * time.Second / time.Duration(rate))))
		}
		if i%100_000 == 0 {
			most = max(most, resident())
		}
	}
	if have < n {
		took := time.Since(began)
		b.Logf("appended %d messages in %v, %.0f a second; %v of processor time; at most %d MiB resident", n-have, took.Round(time.Millisecond), float64(n-have)/took.Seconds(), processorTime()-cpu, most)
	}
	return ids
}

// resident is this process's memory in MiB.
func resident() int {
	b, _ := os.ReadFile("/proc/self/statm")
	var size, pages int
	fmt.Sscan(string(b), &size, &pages)
	return pages * os.Getpagesize() >> 20
}
