package unit

import (
	"io"
	"log/slog"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// LimitMemory tells Go's garbage collector how much memory the process may use, by its
// control group and those above it: near that it collects more often, where otherwise the
// kernel would slow the process down and then kill it. Nothing happens where there is
// no limit, no cgroup v2, or GOMEMLIMIT in the environment.
func LimitMemory(log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := memoryLimit("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 {
		limit = limit / 10 * 9 // the rest is for what Go does not count: the program itself, sockets' buffers
		debug.SetMemoryLimit(limit)
		log.Debug("the garbage collector knows the control group's limit", "bytes", limit)
	}
}

// memoryLimit is the smallest memory.high and memory.max of the control group that
// file (/proc/self/cgroup) names below root, and of all groups above it; 0 if there is none.
func memoryLimit(file, root string) int64 {
	group, ok := "", false
	for line := range strings.Lines(read(file)) {
		if group, ok = strings.CutPrefix(line, "0::"); ok { // cgroups(7): the unified hierarchy's
			break
		}
	}
	if !ok {
		return 0
	}
	least := int64(math.MaxInt64)
	for group = path.Clean("/" + strings.TrimSpace(group)); ; group = path.Dir(group) {
		for _, name := range []string{"memory.high", "memory.max"} {
			// "max", or a file that is not there, as in the root group, is no limit.
			if n, err := strconv.ParseInt(strings.TrimSpace(read(filepath.Join(root, group, name))), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if group == "/" {
			break
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// read gives the beginning of a file of the kernel's; "" if there is none.
func read(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 16<<10)) // what cannot be read is no limit
	return string(b)
}
