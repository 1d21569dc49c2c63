package forward_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/forward"
	"berth/services/segment"
)

// TestMain lets this binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FORWARD_TEST_DIR"); dir != "" {
		victim(dir, os.Getenv("FORWARD_TEST_TO"))
		return
	}
	os.Exit(m.Run())
}

// victim logs messages until it is killed. It says the Seq of the first one, and
// then the number of each hundredth.
func victim(dir, to string) {
	s, err := segment.Open(dir, segment.Options{})
	if err != nil {
		panic(err)
	}
	f, err := forward.New(forward.Options{Store: s, Dir: dir + "/positions", Collectors: []setting.Forward{{Name: "c", To: to}}})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.End())
	go s.Run(context.Background())
	go f.Run(context.Background())
	first, _ := strconv.Atoi(os.Getenv("FORWARD_TEST_FIRST"))
	for i := first; ; i++ {
		if err := s.Append(message(i)); err != nil {
			panic(err)
		}
		if i%100 == 0 {
			fmt.Println(i)
			time.Sleep(20 * time.Millisecond) // 5,000 a second
		}
	}
}

// runVictim kills a victim that has come to message target, and whose first
// message is delivered by what is in its position file. It gives the last number
// that it said.
func runVictim(t *testing.T, dir, to string, first, target int) (last int) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "FORWARD_TEST_DIR="+dir, "FORWARD_TEST_TO=tcp://"+to, fmt.Sprint("FORWARD_TEST_FIRST=", first))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	lines := bufio.NewScanner(out)
	lines.Scan()
	seq, _ := strconv.Atoi(lines.Text())
	position := struct{ Next int }{}
	for end := time.Now().Add(time.Minute); last < target || position.Next <= seq; {
		if !lines.Scan() || time.Now().After(end) {
			t.Fatalf("message %d, position %d, want more than %d and %d", last, position.Next, target, seq)
		}
		last, _ = strconv.Atoi(lines.Text())
		b, err := os.ReadFile(dir + "/positions/c.position")
		if err == nil {
			err = json.Unmarshal(b, &position)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// Nothing that the store has is missing at the collector after Berth was killed,
// and little comes twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newSink(t, "127.0.0.1:0", readAll)
	const kills, each = 2, 8000
	var firsts []int
	last := 0
	for range kills {
		firsts = append(firsts, last)
		last = runVictim(t, dir, c.Addr().String(), last, last+each) + 1000 // beyond all that it has written
	}
	s, err := segment.Open(dir, segment.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kept := map[int]bool{}
	if _, err := s.Read(t.Context(), 0, 1<<30, func(r *segment.Record) error {
		kept[number(r.Text)] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	f, _ := newForwarder(t, s, dir+"/positions", setting.Forward{Name: "c", To: "tcp://" + c.Addr().String()})
	var lines []string
	missing := 0
	until(t, "all that is kept arrives", func() bool {
		lines = c.got()
		came := map[int]bool{}
		for _, line := range lines {
			came[number(line)] = true
		}
		missing = 0
		for n := range kept {
			if !came[n] {
				missing++
			}
		}
		return missing == 0
	})
	_, repeated := numbers(lines)
	times := map[int]int{}
	for _, line := range lines {
		times[number(line)]++
	}
	for _, first := range firsts {
		if times[first] != 1 {
			t.Errorf("message %d, which was delivered before the kill, came %d times", first, times[first])
		}
	}
	t.Logf("%d messages in the store, %d came, %d of them again after %d kills", len(kept), len(lines), repeated, kills)
	if len(kept) < kills*each/2 || f.Status()[0].Dropped != 0 || told(t, lines) != 0 {
		t.Errorf("%d kept, %d told as dropped: %+v", len(kept), told(t, lines), f.Status()[0])
	}
	for _, line := range lines {
		var m syslog.Message
		if err := syslog.Parse(line, message(0).Time, &m); err != nil || m.Get("meta.sequenceId") == "" {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

// The numbers that the store leaves out after a crash are no messages that were
// dropped, however often they are passed.
func TestGapAfterCrash(t *testing.T) {
	t.Parallel()
	dir, crashed := t.TempDir(), t.TempDir()
	before, err := segment.Open(dir, segment.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	running(t, before.Run)
	say(t, before, 0, 1000)
	until(t, "all is in files", func() bool {
		r, err := segment.OpenReadOnly(dir)
		if err != nil {
			return false
		}
		defer r.Close()
		messages, _ := r.Waiting(0)
		return messages == 1000
	})
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil { // what a crash leaves behind
		t.Fatal(err)
	}
	after, err := segment.Open(crashed, segment.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	say(t, after, 1000, 1000)
	if after.End() < 1<<20 {
		t.Fatalf("the store leaves out no numbers any more: %d", after.End())
	}
	var connections atomic.Int32
	c := newSink(t, "127.0.0.1:0", func(s *sink, conn net.Conn) {
		if connections.Add(1) > 1 {
			readAll(s, conn)
			return
		}
		for r := syslog.NewReader(conn, 1<<20); ; {
			if line, _, err := r.Next(); err != nil || number(string(line)) == 1500 {
				conn.Close()
				return
			}
		}
	})
	positions := t.TempDir()
	writePosition(t, positions, "c", after.First())
	f, _ := newForwarder(t, after, positions, setting.Forward{Name: "c", To: "tcp://" + c.Addr().String()})
	wantAll(t, c.got, 0, 2000)
	if st := f.Status()[0]; st.Dropped != 0 || st.Connections < 2 || told(t, c.got()) != 0 {
		t.Errorf("%+v, %d told as dropped", st, told(t, c.got()))
	}
}
