package segment_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/syslog"
	"berth/services/segment"
)

// copyDir copies a store's files, the lock aside.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(from, "0*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(n)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever byte of whatever file turns round, the store opens and every search
// comes to its end; what is found is what was written, and all is found but one
// block, or the rest of a tail.
func TestFlippedBytes(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	o := segment.Options{BlockBytes: 2 << 10, SegmentBytes: 1 << 10}
	s := open(t, whole, o)
	const n = 65
	appendLines(t, s, 0, n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	perBlock := 15
	names, _ := filepath.Glob(filepath.Join(whole, "0*"))
	kinds := map[string]int{}
	for _, name := range names {
		kinds[filepath.Ext(name)]++
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(data); i += 5 {
			dir := memoryDir(t)
			copyDir(t, whole, dir)
			bad := slices.Clone(data)
			bad[i] ^= 0x55
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			lost := perBlock
			if filepath.Ext(name) == ".index" {
				lost = 0
			}
			checkDamaged(t, dir, o, fmt.Sprint(filepath.Base(name), " at ", i), n, n-lost)
			os.RemoveAll(dir)
		}
	}
	if kinds[".log"] < 2 || kinds[".index"] < 1 || kinds[".tail"] < 1 {
		t.Errorf("the files are %v", kinds)
	}
}

func checkDamaged(t *testing.T, dir string, o segment.Options, what string, n, least int) {
	t.Helper()
	s, err := segment.Open(dir, o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	list := all(t, s, segment.Query{})
	if len(list) < least {
		t.Errorf("%s: only %d of %d are found; %+v", what, len(list), n, s.Stats())
	}
	for _, r := range list {
		if want := line(int(r.Seq - 1)); !slices.Equal(r.Attrs, want.Attrs) || r.Text != want.Text || !r.Time.Equal(want.Time) {
			t.Fatalf("%s: %+v was never written", what, r)
		}
		if got := all(t, s, segment.Query{ID: r.Get(syslog.RequestID)}); len(got) != 1 {
			t.Fatalf("%s: request %d is found %d times", what, r.Seq, len(got))
		}
	}
	if got, _ := readAll(t, s, 0); len(got) != len(list) {
		t.Errorf("%s: %d are read, %d found", what, len(got), len(list))
	}
}

// An index that is lost or broken is made again.
func TestIndexIsMadeAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	small := segment.Options{BlockBytes: 4 << 10, SegmentBytes: 4 << 10}
	s := open(t, dir, small)
	appendLines(t, s, 0, 2000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.index"))
	if len(names) < 3 {
		t.Fatal(names)
	}
	before, err := os.ReadFile(names[1])
	if err == nil {
		err = os.Remove(names[1])
	}
	if err != nil {
		t.Fatal(err)
	}
	find := func() {
		t.Helper()
		for i := 0; i < 2000; i += 100 {
			if got := all(t, s, segment.Query{ID: fmt.Sprintf("%032x", i)}); len(got) != 1 {
				t.Fatalf("request %d is found %d times", i, len(got))
			}
		}
	}
	s = open(t, dir, small)
	find()
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(names[1]); err != nil || !slices.Equal(before, after) {
		t.Errorf("the index is another one: %d bytes, then %d: %v", len(before), len(after), err)
	}
	// Broken while it is in use.
	bad := slices.Clone(before)
	for i := len(bad) / 2; i < len(bad); i++ {
		bad[i] = 0xff
	}
	if err := os.WriteFile(names[1], bad, 0o600); err != nil {
		t.Fatal(err)
	}
	find()
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(names[1]); !slices.Equal(before, after) {
		t.Error("a broken index stays")
	}
	find()
}

// The oldest segments go when all of them are too large, or they are too old;
// the pages of a search and a reader that are under way go on.
func TestRetention(t *testing.T) {
	t.Parallel()
	o := segment.Options{BlockBytes: 4 << 10, SegmentBytes: 4 << 10, MaxBytes: 20 << 10, MaxAge: time.Hour}
	s := open(t, t.TempDir(), o)
	appendLines(t, s, 0, 2000)
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Stats().Bytes <= o.MaxBytes {
		t.Fatalf("there is too little: %+v", s.Stats())
	}
	page, err := s.Search(t.Context(), segment.Query{Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	s.Retain(time.Now())
	st := s.Stats()
	if st.Bytes > o.MaxBytes || st.Bytes < o.MaxBytes/2 || st.First == 1 || st.End != 2001 {
		t.Fatalf("%+v", st)
	}
	rest := all(t, s, segment.Query{Cursor: page.Next})
	if want := int(st.End-st.First) - 50; len(rest) != want || rest[0].Seq != 1950 {
		t.Errorf("%d are found after the first page, not %d", len(rest), want)
	}
	if got, _ := readAll(t, s, 1); len(got) != int(st.End-st.First) {
		t.Errorf("%d are read", len(got))
	}
	disk := int64(0)
	names, _ := filepath.Glob(filepath.Join(s.Dir(), "0*"))
	for _, n := range names {
		info, err := os.Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		disk += info.Size()
	}
	if st := s.Stats(); disk != st.Bytes {
		t.Errorf("the files have %d bytes, the store counts %d", disk, st.Bytes)
	}
	// What is not sealed stays, however old it is.
	s.Retain(time.Now().Add(2 * time.Hour))
	if st := s.Stats(); st.Segments > 1 || st.Messages == 0 || st.First <= 1000 {
		t.Errorf("%+v", st)
	}
}

// diskFull is the child of TestDiskFull: its files cannot grow beyond a limit.
func diskFull(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	s, err := segment.Open(dir, segment.Options{BlockBytes: 16 << 10})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var done sync.WaitGroup
	done.Go(func() { _ = s.Run(ctx) })
	small := limit
	small.Cur = 40 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	kept, refused := []string{}, 0
	for i := range 20_000 {
		if err := s.Append(line(i)); err == nil {
			kept = append(kept, fmt.Sprintf("%032x", i))
		} else if refused++; !fault.Is(err, fault.NoSpace) {
			return err
		}
	}
	st := s.Stats()
	if refused == 0 || st.Dropped != int64(refused) || st.Failing == "" || st.WriteErrors == 0 {
		return fmt.Errorf("%d were refused: %+v", refused, st)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if s.Append(line(30_000)) == nil {
			kept = append(kept, fmt.Sprintf("%032x", 30_000))
			break
		}
		if i > 1000 {
			return errors.New("it does not recover")
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	done.Wait()
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = segment.Open(dir, segment.Options{Log: slog.Default()}); err != nil {
		return err
	}
	defer s.Close()
	var got []string
	for from := uint64(0); ; {
		next, err := s.Read(context.Background(), from, 1000, func(r *segment.Record) error {
			got = append(got, strings.Clone(r.Get(syslog.RequestID)))
			return nil
		})
		if err != nil {
			return err
		}
		if next == from {
			break
		}
		from = next
	}
	if st := s.Stats(); !slices.Equal(got, kept) || st.Cut != 0 || st.Ruined != 0 {
		return fmt.Errorf("%d were taken, %d are there: %+v", len(kept), len(got), st)
	}
	return nil
}

// A disk that is full costs the messages that do not fit in bounded memory, and
// each is counted; when there is room again all goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BERTH_SEGMENT_FULL="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Appenders, readers, searches and retention at once: everybody sees each
// message once and in order.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	o := segment.Options{BlockBytes: 4 << 10, SegmentBytes: 4 << 10, MaxBytes: 300 << 10}
	s := open(t, memoryDir(t), o)
	run(t, s)
	const writers, each = 4, 2000
	var g sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			for i := range each {
				m := line(i)
				m.PID = fmt.Sprint(w)
				m.Attrs = append(m.Attrs, syslog.Attr{Key: "n", Value: fmt.Sprint(i)})
				if err := s.Append(m, m); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		g.Go(func() {
			from, last := uint64(0), uint64(0)
			for last < 2*writers*each {
				if err := s.Wait(t.Context(), from); err != nil {
					t.Error(err)
					return
				}
				next, err := s.Read(t.Context(), from, 500, func(r *segment.Record) error {
					if r.Seq <= last {
						return fmt.Errorf("%d comes after %d", r.Seq, last)
					}
					last = r.Seq
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				from = next
			}
		})
	}
	for w := range 2 {
		g.Go(func() {
			for s.End() <= 2*writers*each {
				q, seen := segment.Query{Limit: 300, OldestFirst: w == 1}, map[uint64]bool{}
				for range 8 {
					p, err := s.Search(t.Context(), q)
					if err != nil {
						t.Error(err)
						return
					}
					for _, r := range p.Records {
						if seen[r.Seq] {
							t.Errorf("%d is found twice", r.Seq)
						}
						seen[r.Seq] = true
					}
					if q.Cursor = p.Next; p.Next == "" {
						break
					}
				}
			}
		})
	}
	g.Wait()
	if st := s.Stats(); st.End != 2*writers*each+1 || st.Dropped != 0 || st.Ruined != 0 {
		t.Errorf("%+v", st)
	}
}

// What does not fit a record is cut, what no clock shows is brought to what one
// does, and nobody's neighbour is lost.
func TestOddMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, small)
	many := make([]syslog.Attr, 5000)
	for i := range many {
		many[i] = syslog.Attr{Key: fmt.Sprint("k", i), Value: "v"}
	}
	odd := []*syslog.Message{
		{}, {Time: start, Text: strings.Repeat("é", 3<<20)}, {Time: start, Attrs: many}, {Time: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)},
		{Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, {Time: start, Attrs: []syslog.Attr{{Key: strings.Repeat("k", 2<<20), Value: "v"}}},
		{Time: start, Severity: 200, Facility: 200, Component: strings.Repeat("c", 1<<20), Text: "\xff\x00"},
	}
	for i, m := range odd {
		if err := s.Append(m, line(i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, _ := readAll(t, s, 0)
		if len(got) != 2*len(odd) {
			t.Fatalf("%d messages", len(got))
		}
		for i := range odd {
			if got[2*i+1] != fmt.Sprintf("%032x", i) {
				t.Errorf("the neighbour of message %d is %q", i, got[2*i+1])
			}
		}
		if list := all(t, s, segment.Query{}); len(list) != 2*len(odd) {
			t.Errorf("%d are found", len(list))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, small)
	}
}

// A search ends when nobody waits for it any more.
func TestSearchIsCancelled(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), small)
	appendLines(t, s, 0, 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Search(ctx, segment.Query{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Wait(ctx, 1000); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := s.Search(t.Context(), segment.Query{Cursor: "none"}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// What a reader has before it is counted.
func TestWaiting(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), small)
	appendLines(t, s, 0, 1000)
	total := s.Stats().Raw
	for _, from := range []uint64{0, 1, 2, 500, 999, 1000, 1001, 5000} {
		n, bytes := s.Waiting(from)
		want := int64(1001 - min(max(from, 1), 1001))
		if n != want || bytes < want*total/1100 || bytes > want*total/900 {
			t.Errorf("from %d: %d messages, %d bytes of %d", from, n, bytes, total)
		}
	}
}
