package logs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/tests/berthtest"
	"berth/tests/cmd/bench/load"
	"berth/tests/cmd/bench/server"
	"berth/tests/cmd/bench/usage"
)

// seconds is how long BenchmarkIntake sends: BERTH_LOG_SECONDS, or 5.
func seconds(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("BERTH_LOG_SECONDS"))
	if err != nil && os.Getenv("BERTH_LOG_SECONDS") != "" {
		b.Fatal(err)
	}
	return max(n, 5)
}

// serve runs a log service alone, as its unit does.
func serve(t testing.TB, settings string) (p *berthtest.Process, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err = berthtest.StartProcess("msg=ready", nil, "logs", "serve", "--config", config, "--data", filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p, filepath.Join(dir, "data")
}

// collector counts what is forwarded to it.
func collector(t testing.TB) (address string, lines *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lines = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReaderSize(c, 256<<10)
				for {
					head, err := r.ReadString(' ')
					if err != nil {
						return
					}
					n, err := strconv.Atoi(strings.TrimSpace(head))
					if err != nil {
						return
					}
					if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
						return
					}
					lines.Add(1)
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

// sender writes perSecond messages a second of 300 bytes, in the form of the
// front door's, each with a request id of its own, for a number of seconds.
func sender(b *testing.B, socket, component string, perSecond, seconds int) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	const slices = 50 // a second
	var batch []byte
	begin := time.Now()
	for i := range seconds * slices {
		batch = batch[:0]
		now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
		for k := range perSecond / slices {
			n := i*perSecond/slices + k
			line := fmt.Sprintf(`<134>1 %s registry %s 4711 access [berth@32473 method="GET" path="/v2/library/app-%d/blobs/sha256:%08x" status="200" ms="%d.%03d" client="192.0.2.%d" user="robot$ci" agent="containerd/1.7" request_id="%08x-3a5e-4d7f-9c1e-%012x" token_request="7d1f8a90-1b2c-4d3e-8f90-%012x"]`,
				now, component, n%97, n*2654435761, n%40, n%1000, n%250, n*2246822519&0xffffffff, n, n/20)
			line += " request" + strings.Repeat(".", max(0, 300-len(line)-8))
			batch = fmt.Appendf(batch, "%d %s", len(line), line)
		}
		if _, err := c.Write(batch); err != nil {
			b.Error(err)
			return
		}
		time.Sleep(time.Until(begin.Add(time.Duration(i+1) * time.Second / slices)))
	}
}

// BenchmarkIntake is the log service under 20,000 messages a second of 300 bytes
// from four components, with all of them forwarded by TCP: what a message costs,
// what of memory it takes, and whether all are kept and forwarded.
func BenchmarkIntake(b *testing.B) {
	const perSecond, components = 20_000, 4
	address, lines := collector(b)
	p, data := serve(b, "metrics: off\nlogs:\n  listen: off\n  forward: [{name: bench, to: tcp://"+address+"}]\n")
	for range b.N {
		before, err := usage.CPU(p.Pid())
		if err != nil {
			b.Fatal(err)
		}
		began := lines.Load()
		if err := usage.ResetPeak(p.Pid()); err != nil {
			b.Fatal(err)
		}
		var g sync.WaitGroup
		for _, component := range []string{"proxy", "registry", "core", "jobs"} {
			g.Go(func() {
				sender(b, filepath.Join(data, "run", "syslog.sock"), component, perSecond/components, seconds(b))
			})
		}
		g.Wait()
		sent := int64(perSecond * seconds(b))
		for limit := time.Now().Add(30 * time.Second); lines.Load()-began < sent && time.Now().Before(limit); {
			time.Sleep(20 * time.Millisecond)
		}
		after, err := usage.CPU(p.Pid())
		if err != nil {
			b.Fatal(err)
		}
		m, err := usage.Of(p.Pid())
		if err != nil {
			b.Fatal(err)
		}
		if got := lines.Load() - began; got < sent {
			b.Errorf("%d of %d messages were forwarded", got, sent)
		}
		b.ReportMetric(float64((after-before).Microseconds())/float64(sent), "µs-cpu/msg")
		b.ReportMetric(float64((after-before).Milliseconds())/float64(10*seconds(b)), "%cpu")
		b.ReportMetric(float64(m.Peak)/(1<<20), "MiB-rss")
		b.ReportMetric(float64(sent)/float64(seconds(b)), "msg/s")
	}
}

// BenchmarkPushOverhead is what logging and metrics cost an image push: the same
// number of images is pushed, in turns, to a Berth as it comes and to one with
// log service, access log and metrics off.
func BenchmarkPushOverhead(b *testing.B) {
	const images, layers, warm = 100, 5, 20
	ctx := b.Context()
	var servers [2]*server.Berth
	var clients [2][]*load.Client
	for i, text := range []string{"metrics: 127.0.0.1:0\nlogs: {listen: off}\n", "metrics: off\nlogs: {off: true}\naccess_log: off\n"} {
		servers[i], clients[i] = pushers(b, text)
	}
	source := load.NewSource(16 << 10)
	tag := 0
	// push gives the processor time of a push, with all that is done later for it.
	push := func(i, count int) float64 {
		list := make([]load.Image, count)
		for n := range list {
			var blobs []load.Blob
			for range 1 + layers {
				blobs = append(blobs, source.New())
			}
			list[n] = load.NewImage(blobs, "")
		}
		before := rest(b, servers[i])
		if _, err := load.Run(ctx, clients[i], count, func(ctx context.Context, c *load.Client, n int) error {
			return c.PushImage(ctx, "library/app", fmt.Sprintf("v%d-%d", tag, n), list[n], load.LikeDocker)
		}); err != nil {
			b.Fatal(err)
		}
		tag++
		return float64((rest(b, servers[i]) - before).Microseconds()) / float64(count) / 1000
	}
	for i := range servers {
		push(i, warm)
	}
	var figures [2][]float64
	for b.Loop() {
		for i := range servers {
			figures[i] = append(figures[i], push(i, images))
		}
	}
	with, without := median(figures[0]), median(figures[1])
	b.ReportMetric(with, "ms-cpu/push")
	b.ReportMetric(without, "ms-cpu/push-silent")
	b.ReportMetric(100*(with/without-1), "%added")
}

// pushers starts a Berth and two clients that may push.
func pushers(b *testing.B, settings string) (s *server.Berth, clients []*load.Client) {
	b.Helper()
	dir, err := os.MkdirTemp("", "berth-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's own user passes through
		b.Fatal(err)
	}
	if s, err = server.StartBerth(b.Context(), dir, settings); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Stop() })
	auth, err := s.Auth(b.Context(), "library/app")
	if err != nil {
		b.Fatal(err)
	}
	for range 2 {
		c, err := load.NewClient(s.Address(false), nil, auth)
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
	}
	return s, clients
}

// rest waits until a server has done what was left for later, and gives the
// processor time that it has used.
func rest(b *testing.B, s *server.Berth) time.Duration {
	b.Helper()
	if err := s.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // log messages go out each 100 ms, and are synced each second
	used, err := usage.CPU(s.Pids()...)
	if err != nil {
		b.Fatal(err)
	}
	return used
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
