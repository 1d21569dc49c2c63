package segment_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/services/segment"
)

// TestMain is the children of TestKilled and TestDiskFull too: this very binary.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BERTH_SEGMENT_CHILD"); dir != "" {
		appendForEver(dir)
	}
	if dir := os.Getenv("BERTH_SEGMENT_FULL"); dir != "" {
		if err := diskFull(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// appendForEver appends and says how far it has got.
func appendForEver(dir string) {
	s, err := segment.Open(dir, segment.Options{BlockBytes: 32 << 10, SegmentBytes: 128 << 10})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go s.Run(context.Background())
	i, _ := strconv.Atoi(os.Getenv("BERTH_SEGMENT_FROM"))
	for ; ; i++ {
		if err := s.Append(line(i)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i%100 == 0 {
			fmt.Println(i, time.Now().UnixMilli())
			time.Sleep(time.Millisecond)
		}
	}
}

// A process that is killed in the middle of appending loses what it got in the
// last moments, and nothing else: no record is missing before that, none is
// twice, and the next process goes on.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from := 0
	for range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BERTH_SEGMENT_CHILD="+dir, "BERTH_SEGMENT_FROM="+strconv.Itoa(from))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		safe, begun, killed := from, int64(0), int64(0) // what was appended a second ago must be there
		for lines.Scan() {
			var n int
			var at int64
			if _, err := fmt.Sscan(lines.Text(), &n, &at); err != nil {
				t.Fatal(lines.Text())
			}
			if begun == 0 {
				begun = at
			}
			if killed == 0 && at-begun > 900 {
				killed = at
				cmd.Process.Kill()
			}
			if at-begun < 400 {
				safe = n
			}
		}
		_ = cmd.Wait()
		s := open(t, dir, segment.Options{})
		got, _ := readAll(t, s, 0)
		if !slices.Equal(got, ids(len(got))) {
			t.Fatal("what is there has gaps, or something twice")
		}
		if len(got) <= safe {
			t.Fatalf("%d messages are left, but %d were appended half a second before the end", len(got), safe+1)
		}
		if st := s.Stats(); st.End <= uint64(len(got)+1) {
			t.Fatalf("the next Seq is %d: it may have been given before", st.End)
		}
		from = len(got)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Cut anywhere, a segment and a tail give all that was before the cut.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, ext := range []string{".log", ".tail"} {
		t.Run(ext, func(t *testing.T) {
			t.Parallel()
			whole := t.TempDir()
			o := segment.Options{BlockBytes: 1 << 10} // a segment of some blocks
			if ext == ".tail" {
				o.BlockBytes = 0 // a tail of some chunks
			}
			s := open(t, whole, o)
			for i := range 20 {
				appendLines(t, s, i, i+1)
				if i%4 == 3 {
					if err := s.Write(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			names, _ := filepath.Glob(filepath.Join(whole, "*"+ext))
			if len(names) != 1 {
				t.Fatal(names)
			}
			data, err := os.ReadFile(names[0])
			if err != nil {
				t.Fatal(err)
			}
			most := 0
			for n := range len(data) + 1 {
				dir := memoryDir(t)
				path := filepath.Join(dir, filepath.Base(names[0]))
				if err := os.WriteFile(path, data[:n], 0o600); err != nil {
					t.Fatal(err)
				}
				most = max(most, checkCut(t, dir, path, n))
			}
			if most < 12 {
				t.Errorf("at most %d messages were found", most)
			}
		})
	}
}

// memoryDir is a directory whose syncs cost nothing, where there is one.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "berth-segment-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// checkCut opens a directory with one file that was cut, twice, and goes on with
// it. It gives the number of messages that were left.
func checkCut(t *testing.T, dir, path string, n int) int {
	s, err := segment.Open(dir, segment.Options{BlockBytes: 1 << 10})
	if err != nil {
		t.Fatalf("cut at %d: %v", n, err)
	}
	defer s.Close()
	got, next := readAll(t, s, 0)
	if next != s.End() {
		t.Fatalf("cut at %d: a reader stands at %d, and the end is %d", n, next, s.End())
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("cut at %d: %v", n, got)
		}
	}
	if info, err := os.Stat(path); err == nil && info.Size()+s.Stats().Cut != int64(n) {
		t.Fatalf("cut at %d: %d are left and %d were cut off", n, info.Size(), s.Stats().Cut)
	}
	appendLines(t, s, 100, 103)
	if err := s.Close(); err != nil {
		t.Fatalf("cut at %d: %v", n, err)
	}
	s = open(t, dir, segment.Options{BlockBytes: 1 << 10})
	defer s.Close()
	again, _ := readAll(t, s, 0)
	if s.Stats().Cut != 0 || len(again) != len(got)+3 || !slices.Equal(again[:len(got)], got) {
		t.Fatalf("cut at %d: %d messages were left, then %d; %+v", n, len(got), len(again), s.Stats())
	}
	if list := all(t, s, segment.Query{}); len(list) != len(again) {
		t.Fatalf("cut at %d: search finds %d of %d", n, len(list), len(again))
	}
	return len(got)
}

// Only one process writes; others may read meanwhile.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, small)
	run(t, s)
	appendLines(t, s, 0, 500)
	_, err := segment.Open(dir, small)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("a second writer got %v", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		r, err := segment.OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := readAll(t, r, 0)
		r.Close()
		if slices.Equal(got, ids(500)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the reader sees %d messages", len(got))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := segment.OpenReadOnly(filepath.Join(dir, "nothing")); !fault.Is(err, fault.NotFound) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
