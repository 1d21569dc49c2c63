package usage

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	p, err := parseStat("42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100 0 0\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (process{42, 7, "a) (b c", 300 * time.Millisecond, 700 * time.Millisecond, 1}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 2", "y (x) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// The time of a child counts while it runs and after it was reaped.
func TestChildrenCount(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exec sleep 60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	used := func() time.Duration {
		now, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return now - before
	}
	for deadline := time.Now().Add(20 * time.Second); used() < 50*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a child's work does not count")
		}
	}
	c.Process.Kill()
	c.Wait()
	if used() < 50*time.Millisecond {
		t.Error("the work of a child that was reaped does not count")
	}
}

func TestMemory(t *testing.T) {
	if err := ResetPeak(os.Getpid()); err != nil {
		t.Skip("cannot reset the peak:", err)
	}
	m, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.Peak < 1<<20 || m.Peak > 4<<30 {
		t.Errorf("this process has a peak of %d bytes", m.Peak)
	}
}
