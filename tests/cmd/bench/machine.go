package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"berth/tests/berthtest"
	"berth/tests/cmd/bench/server"
)

// A machine is where the figures were got, and with what.
type machine struct {
	Date                        string
	CPU                         string
	Cores, Memory               int // Memory in GiB
	Kernel, FileSystem          string
	LoadBefore, LoadAfter       string
	Berth, CNCF, PostgreSQL, Go string
}

func (m *machine) fill(ctx context.Context, dir string, b *server.Berth, cncf string) (err error) {
	m.Date = time.Now().UTC().Format("2006-01-02 15:04 UTC")
	m.CPU, m.Cores, m.Go = procField("/proc/cpuinfo", "model name"), runtime.NumCPU(), runtime.Version()
	kb, _ := strconv.Atoi(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"))
	m.Memory = (kb + 1<<19) >> 20
	m.FileSystem = fileSystem(dir)
	m.Kernel = "Linux " + firstLine("/proc/sys/kernel/osrelease")
	if m.PostgreSQL, err = b.PostgreSQL(ctx); err != nil {
		return err
	}
	bin, err := berthtest.Binary()
	if err != nil {
		return err
	}
	if m.Berth, err = output(ctx, bin, "version"); err != nil {
		return err
	}
	// A tree that is not a release has no version; say which commit it is.
	if commit, err := output(ctx, "git", "describe", "--always", "--dirty"); err == nil {
		m.Berth += ", source " + commit
	}
	if m.CNCF, err = output(ctx, cncf, "--version"); err != nil {
		return err
	}
	m.CNCF = "CNCF registry: " + filepath.Base(m.CNCF) // which begins with the path that it was called by
	return nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("cannot run %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// loadAverage is that of one, five and fifteen minutes.
func loadAverage() string {
	fields := strings.Fields(firstLine("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// procField finds the first line "NAME : value".
func procField(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// fileSystem is the kind of file system that holds dir: that of the longest mount point above it.
func fileSystem(dir string) string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown file system"
	}
	best, kind := "", "unknown file system"
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			best, kind = f[1], f[2]+" on "+f[0]
		}
	}
	return kind
}
