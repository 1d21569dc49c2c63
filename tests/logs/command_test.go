package logs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// said is a line of `berth logs -o json`.
type said struct {
	Seq        uint64
	Time       time.Time
	Severity   string
	Component  string
	Message    string
	Attributes map[string]any
}

func lines(t *testing.T, out string) (list []said) {
	t.Helper()
	for line := range strings.Lines(out) {
		var s said
		decode(t, []byte(line), &s)
		list = append(list, s)
	}
	return list
}

// What an operator does who has a request's id and asks what the push was, while
// Berth runs and when it has ended.
func TestReadAPush(t *testing.T) {
	t.Parallel()
	s := berthtest.Start(t, berthtest.Options{})
	r := s.Registry(t, s.Admin(t))
	r.PushImage(t, "library/seen", "1", berthtest.NewImage(2, 1000))
	logs := func(args ...string) berthtest.Said {
		return berthtest.Run(t, append([]string{"logs", "--data", s.Dir}, args...)...)
	}
	var pushed said
	deadline := time.Now().Add(20 * time.Second)
	for pushed.Seq == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the push is not in the log: ", logs().Stdout)
		}
		for _, l := range lines(t, logs("--component", "registry", "--grep", "LIBRARY/seen", "--since", "1h", "-o", "json").Stdout) {
			if l.Message == "manifest pushed" {
				pushed = l
			}
		}
	}
	id, _ := pushed.Attributes["request_id"].(string)
	one := lines(t, logs("--request", id, "-o", "json").Stdout)
	push := lines(t, logs("--request", id, "--push", "-o", "json").Stdout)
	if len(one) < 2 || len(push) < len(one)+5 {
		t.Fatalf("%d messages of the request, %d of its push", len(one), len(push))
	}
	seen := map[string]bool{}
	for i, l := range push {
		seen[l.Component] = true
		if i > 0 && l.Time.Before(push[i-1].Time) {
			t.Errorf("%v comes after %v", l.Time, push[i-1].Time)
		}
	}
	if !seen["registry"] || !seen["token"] || !seen["proxy"] {
		t.Errorf("the push is seen in %v", seen)
	}

	for _, x := range []struct {
		want int // exit code
		says string
		args []string
	}{
		{2, "--level", []string{"--level", "loud"}},
		{2, "--since", []string{"--since", "recently"}},
		{2, "--push", []string{"--push"}},
		{2, "--output", []string{"-o", "xml"}},
		{2, "--attr", []string{"--attr", "status"}},
		{0, "no such messages", []string{"--grep", "nobody said this"}},
		{1, "no collector", []string{"test", "central"}},
	} {
		if got := logs(x.args...); got.Code != x.want || !strings.Contains(got.Stderr, x.says) || strings.Contains(got.Stdout, "\x1b") {
			t.Errorf("%v: %+v", x.args, got)
		}
	}
	if got := logs("collectors"); got.Code != 0 || !strings.Contains(got.Stdout, "no collectors are configured") {
		t.Errorf("%+v", got)
	}
	if got := berthtest.Run(t, "__complete", "logs", "--data", s.Dir, "--component", ""); !strings.Contains(got.Stdout, "proxy\n") {
		t.Errorf("completion of components: %+v", got)
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	got := logs("--request", id, "--push", "-o", "json")
	if again := lines(t, got.Stdout); len(again) < len(push) || !strings.Contains(got.Stderr, "reading the files") {
		t.Errorf("with Berth stopped: %d of %d messages, %q", len(again), len(push), got.Stderr)
	}
	if got := logs("-f"); got.Code != 1 || !strings.Contains(got.Stderr, "hint: start Berth") {
		t.Errorf("following nobody: %+v", got)
	}
}

// Following goes on when Berth is started again, and Ctrl-C ends it quietly.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := berthtest.Start(t, berthtest.Options{})
	bin, err := berthtest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, "logs", "--data", s.Dir, "-f", "-n", "3", "-o", "json", "--component", "proxy")
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	shown := make(chan string, 1000)
	go func() {
		defer close(shown)
		for in := bufio.NewScanner(out); in.Scan(); {
			var l said
			if json.Unmarshal(in.Bytes(), &l) == nil {
				shown <- fmt.Sprint(l.Attributes["path"])
			}
		}
	}()
	for _, path := range []string{"/one", "/two"} {
		if _, err := s.Client(t).Get(s.URL + path); err != nil {
			t.Fatal(err)
		}
		for await(t, shown, path) != path {
		}
		if path == "/one" {
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for range shown {
	}
	if err := c.Wait(); err != nil || !strings.Contains(stderr.String(), "waiting for it") {
		t.Errorf("%v, %q", err, stderr.String())
	}
}

// A reader that has seen enough ends the command without a word.
func TestReaderLeaves(t *testing.T) {
	t.Parallel()
	s := berthtest.Start(t, berthtest.Options{})
	bin, err := berthtest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := exec.Command("sh", "-c", `"$0" logs --data "$1" -f -n 5 2>&1 | head -n 1`, bin, s.Dir).CombinedOutput()
		done <- result{out, err}
	}()
	for range 1000 {
		if _, err := s.Client(t).Get(s.URL + "/more"); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-done:
			if r.err != nil || strings.Count(string(r.out), "\n") != 1 || strings.Contains(string(r.out), "berth:") {
				t.Errorf("%v: %s", r.err, r.out)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Error("the command does not end though nobody reads it")
}
