package unit

import (
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// The files are as systemd 252 leaves them for a service on a machine of 4 GiB, and for containers.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	const unit = "berth.slice/berth-registry.service/"
	for name, c := range map[string]struct {
		cgroup string
		files  map[string]string
		want   int64
	}{
		"a service": {"0::/berth.slice/berth-registry.service\n", map[string]string{
			unit + "memory.high": "1655037952\n", unit + "memory.max": "2068795392\n", "berth.slice/memory.high": "max\n", "berth.slice/memory.max": "3516952576\n"}, 1655037952},
		"the slice has less": {"0::/berth.slice/berth-registry.service\n", map[string]string{
			unit + "memory.high": "max\n", unit + "memory.max": "2068795392\n", "berth.slice/memory.max": "1073741824\n"}, 1073741824},
		"no limit":             {"0::/user.slice/session-1.scope\n", map[string]string{"user.slice/memory.max": "max\n", "user.slice/memory.high": "max\n"}, 0},
		"a container":          {"0::/\n", map[string]string{"memory.max": "536870912\n", "memory.high": "max\n"}, 536870912},
		"outside of its own":   {"0::/../../other\n", map[string]string{"memory.max": "536870912\n"}, 536870912},
		"no files":             {"0::/gone (deleted)\n", nil, 0},
		"version 1":            {"9:name=systemd:/\n4:memory:/a\n", map[string]string{"memory.max": "1\n"}, 0},
		"both versions":        {"4:memory:/a\n1:cpu:/\n0::/b\n", map[string]string{"b/memory.max": "268435456"}, 268435456},
		"nothing":              {"", map[string]string{"memory.max": "1\n"}, 0},
		"no number":            {"0::/a\n", map[string]string{"a/memory.max": "lots\n", "a/memory.high": "-1\n"}, 0},
		"zero":                 {"0::/a\n", map[string]string{"a/memory.high": "0\n"}, 0},
		"more than there is":   {"0::/a\n", map[string]string{"a/memory.max": "9223372036854775807\n", "a/memory.high": "18446744073709551615\n"}, 0},
		"a file without end":   {"0::/a\n", map[string]string{"a/memory.max": strings.Repeat("7", 1<<20)}, 0},
		"a path without end":   {"0::" + strings.Repeat("/a", 1<<20), map[string]string{"memory.max": "4096\n"}, 4096},
		"not in its beginning": {strings.Repeat("1:cpu:/\n", 1<<15) + "0::/\n", map[string]string{"memory.max": "4096\n"}, 0},
	} {
		root := t.TempDir()
		for file, content := range c.files {
			place(t, filepath.Join(root, file), content)
		}
		cgroup := filepath.Join(t.TempDir(), "cgroup")
		place(t, cgroup, c.cgroup)
		if got := memoryLimit(cgroup, root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Whoever has set GOMEMLIMIT knows better; where there is a limit, less than that is for the collector.
func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	t.Setenv("GOMEMLIMIT", "off")
	LimitMemory(log)
	if now := debug.SetMemoryLimit(-1); now != before {
		t.Errorf("%d instead of %d", now, before)
	}
	t.Setenv("GOMEMLIMIT", "")
	LimitMemory(log)
	want := int64(math.MaxInt64)
	if limit := memoryLimit("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 { // where the tests run
		want = limit / 10 * 9
	}
	if now := debug.SetMemoryLimit(-1); now != want {
		t.Errorf("%d, want %d", now, want)
	}
}

func place(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
