package forward_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/segment"
)

// BenchmarkForward sends b.N messages of 300 bytes, that are in the store
// already, to collectors in this process. cpu-ns/msg is the whole process's
// time, the collector's reading included.
func BenchmarkForward(b *testing.B) {
	for _, format := range []string{"rfc5424", "json"} {
		for _, collectors := range []int{1, 3} {
			b.Run(fmt.Sprintf("%s/%d", format, collectors), func(b *testing.B) { benchmarkForward(b, format, collectors) })
		}
	}
}

func benchmarkForward(b *testing.B, format string, collectors int) {
	s := newStore(b, segment.Options{})
	var sets []setting.Forward
	for i := range collectors {
		c := newSink(b, "127.0.0.1:0", func(_ *sink, conn net.Conn) { io.Copy(io.Discard, conn) })
		sets = append(sets, setting.Forward{Name: fmt.Sprint("c", i), To: "tcp://" + c.Addr().String(), Format: format, QueueMB: 1 << 20})
	}
	var m syslog.Message
	line := `<134>1 2026-11-21T12:00:00.123456Z berth-1 registry 4711 - [berth@32473 request_id="0193-7e2a-bb0c-6d1f" method="PUT" path="/v2/library/app/manifests/1.0" status="201" remote="192.0.2.17" user="robot$ci"] request served ` + strings.Repeat("x", 60)
	if err := syslog.Parse(line, time.Now(), &m); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if err := s.Append(&m); err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	for _, set := range sets {
		writePosition(b, dir, set.Name, s.End()-uint64(b.N))
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	f, stop := newForwarder(b, s, dir, sets...)
	for done := false; !done; time.Sleep(time.Millisecond) {
		done = true
		for _, st := range f.Status() {
			done = done && st.Waiting == 0
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/float64(collectors), "cpu-ns/msg")
	stop()
}

// cpu is this process's processor time in nanoseconds.
func cpu() int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
