package forward

import (
	"math"
	"path/filepath"
	"testing"
	"time"
)

// What counts as delivered, step by step.
func TestJourney(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	j := journey{position: 10, next: 10, high: 10}
	want := func(what string, position, next uint64) {
		t.Helper()
		if j.position != position || j.next != next {
			t.Errorf("%s: position %d, next %d, want %d, %d", what, j.position, j.next, position, next)
		}
	}
	j.mark(20, 100, false, at(0))
	j.mark(21, 110, false, at(markEvery/2)) // goes with the one before
	j.mark(30, 200, false, at(time.Second))
	j.settle(sight{acked: 200, ready: true}, at(time.Second))
	want("acknowledged just now", 10, 30)
	j.settle(sight{acked: 200, ready: true}, at(time.Second+resend-1))
	want("not long enough ago", 10, 30)
	j.settle(sight{acked: 200, ready: false}, at(time.Second+resend))
	want("but its window is closed", 10, 30)
	j.settle(sight{acked: 200, ready: true}, at(time.Second+resend))
	want("long enough ago", 30, 30)

	j.mark(40, 300, false, at(10*time.Second))
	j.mark(50, 300+socketRoom, false, at(11*time.Second))
	j.settle(sight{acked: 299 + socketRoom}, at(11*time.Second))
	j.settle(sight{acked: 300 + socketRoom}, at(14*time.Second))
	want("more came after it than a socket holds", 40, 50)
	j.rewind()
	want("the connection is lost", 40, 40)
	if j.high != 50 {
		t.Errorf("what was sent is forgotten: %d", j.high)
	}

	j.untold = loss{Count: 3, From: at(1), To: at(2)}
	if got := j.tell(); got.Count != 3 || j.tell().Count != 0 {
		t.Errorf("%+v is told", got)
	}
	j.untold = loss{Count: 2, AtMost: true, From: at(0), To: at(3)}
	j.mark(60, 10, true, at(20*time.Second))
	if got := j.kept(); got.Next != 40 || got.Untold != (loss{Count: 5, AtMost: true, From: at(0), To: at(3)}) {
		t.Errorf("%+v is kept", got)
	}
	j.settle(sight{acked: 10, ready: true}, at(20*time.Second))
	j.settle(sight{acked: 10, ready: true}, at(30*time.Second))
	if j.telling.Count != 0 || j.untold.Count != 2 {
		t.Errorf("after the notice has arrived: %+v", j)
	}
	want("with the notice", 60, 60)

	j.skip(70)
	want("passed over, with nothing on its way", 70, 70)
	j.mark(80, 20, false, at(40*time.Second))
	j.skip(90)
	want("passed over, with something on its way", 70, 90)
	j.settle(sight{acked: 20, ready: true}, at(41*time.Second))
	j.settle(sight{acked: 20, ready: true}, at(50*time.Second))
	want("and that has arrived", 90, 90)
}

// What is gone is passed over again after a connection is lost, and is not
// counted again.
func TestGone(t *testing.T) {
	t.Parallel()
	now := time.Now()
	j := journey{position: 10, next: 10}
	j.mark(20, 100, false, now)
	j.skip(25)
	j.skip(30)
	j.mark(40, 200, false, now)
	j.skip(50)
	j.rewind()
	for _, step := range [][3]uint64{{10, 10, 20}, {15, 15, 20}, {20, 30, 40}, {29, 30, 40}, {30, 30, 40}, {40, 50, math.MaxUint64}, {60, 60, math.MaxUint64}} {
		if from, end := j.stretch(step[0]); from != step[1] || end != step[2] {
			t.Errorf("from %d: %d to %d, want %d to %d", step[0], from, end, step[1], step[2])
		}
	}
	if n := j.counted(10, 45); n != 15 {
		t.Errorf("%d are gone", n)
	}
	j.lose(10, 45) // the store has removed it
	if len(j.gone) != 1 || j.gone[0] != (span{10, 50}) {
		t.Errorf("%v", j.gone)
	}
	j.skip(50)
	if len(j.gone) != 0 || j.position != 50 {
		t.Errorf("%+v", j)
	}
}

// However much goes out, the marks are few.
func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var j journey
	for i := range 100_000 { // 100 s of a message each millisecond, none of them acknowledged
		j.mark(uint64(i), int64(i)*300, false, now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(j.marks) > 10_001 {
		t.Errorf("%d marks", len(j.marks))
	}
	j = journey{}
	for i := range 1000 { // 64 MB at once
		j.mark(uint64(i), int64(i)<<16, false, now)
	}
	if n := len(j.marks); n < 200 || n > 400 {
		t.Errorf("%d marks: what is delivered is known to %d KiB", n, (1000<<6)/n)
	}
}

func TestPositionFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.position")
	if _, found, err := load(path); found || err != nil {
		t.Error(found, err)
	}
	want := kept{Next: 1 << 63, Untold: loss{Count: 7, AtMost: true, From: time.Unix(1, 0).UTC(), To: time.Unix(2, 5).UTC()}}
	if err := want.save(path); err != nil {
		t.Fatal(err)
	}
	if got, found, err := load(path); got != want || !found || err != nil {
		t.Errorf("%+v, %t, %v", got, found, err)
	}
}
