package trail_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/agent/api"
	"berth/agent/trail"
)

func TestTrail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var log bytes.Buffer
	tr := trail.New(path, slog.New(slog.NewTextHandler(&log, nil)))
	tr.Add(api.Event{User: "admin", From: "192.0.2.1", Action: "change a password", Target: "root", Result: "ok"})
	tr.Add(api.Event{User: strings.Repeat("x", 5000), Action: "log in", Detail: "password=S3cr3t-Value", Result: "\xffwrong"})
	// A power cut leaves half a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"time":"20`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	list, err := trail.New(path, slog.New(slog.DiscardHandler)).Last(10)
	if err != nil || len(list) != 2 || list[1].Target != "root" || len(list[0].User) > 1030 || list[1].Time.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	b, _ := os.ReadFile(path)
	if strings.Contains(string(b)+log.String(), "S3cr3t") || !strings.Contains(log.String(), "change a password") {
		t.Errorf("%s", log.String())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// The file does not grow without end, and the newest entries are there.
func TestTrailIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := trail.New(path, slog.New(slog.DiscardHandler))
	const n = 1500
	for i := range n {
		tr.Add(api.Event{Action: fmt.Sprint(i), Detail: strings.Repeat("x", 900)})
	}
	var size int64
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	list, err := tr.Last(500)
	if err != nil || len(list) != 500 || list[0].Action != fmt.Sprint(n-1) || list[499].Action != fmt.Sprint(n-500) || size > 2<<20 {
		t.Errorf("%d bytes, %d entries, %v", size, len(list), err)
	}
}
