// Package usage reads from /proc what a server costs: the processor time and the memory of a process and of all its
// descendants.
//
// Processor time is utime and stime of every live process of the tree, and cutime and cstime for those that it has
// reaped: a database's short-lived workers count. The kernel gives it in ticks of 10 ms, so an interval should hold a
// few hundred milliseconds of work. For processes of one thread, such as a database's many, the scheduler's own count
// in nanoseconds is taken instead, lest thirty roundings add up.
package usage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat: USER_HZ, 100 a second on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// A process is one line of /proc/PID/stat.
type process struct {
	pid, parent int
	name        string
	own, reaped time.Duration // processor time of itself, and of the children it has waited for
	threads     int
}

// parseStat reads a stat line (proc_pid_stat(5)). The name may hold spaces and parentheses; the last one ends it.
func parseStat(line string) (process, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("cannot read %q as a stat line", line)
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) < 18 {
		return process{}, fmt.Errorf("a stat line has %d fields after the name, at least 18 were expected", len(fields))
	}
	p := process{name: line[open+1 : end]}
	var err error
	if p.pid, err = strconv.Atoi(strings.TrimSpace(line[:open])); err != nil {
		return process{}, fmt.Errorf("cannot read a stat line's process id: %w", err)
	}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return process{}, fmt.Errorf("cannot read a stat line's parent: %w", err)
	}
	if p.threads, err = strconv.Atoi(fields[17]); err != nil {
		return process{}, fmt.Errorf("cannot read a stat line's number of threads: %w", err)
	}
	for i, sum := range []*time.Duration{&p.own, &p.own, &p.reaped, &p.reaped} { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("cannot read a stat line's times: %w", err)
		}
		*sum += time.Duration(n) * tick
	}
	return p, nil
}

// refine replaces the ticks of a process of one thread by the scheduler's count, where the kernel keeps one.
func (p *process) refine() {
	if p.threads != 1 {
		return
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", p.pid))
	if err != nil {
		return
	}
	first, _, _ := strings.Cut(string(data), " ")
	if n, err := strconv.ParseInt(first, 10, 64); err == nil && n > 0 {
		p.own = time.Duration(n)
	}
}

// tree finds the processes that descend from root, and root.
func tree(root int) ([]process, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]process{}
	var list []process
	for _, name := range names {
		line, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		p, err := parseStat(string(line))
		if err != nil {
			return nil, err
		}
		if p.pid == root {
			list = append(list, p)
		}
		children[p.parent] = append(children[p.parent], p)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("process %d is not there any more", root)
	}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i].pid]...)
	}
	return list, nil
}

// CPU is the processor time that the trees below these processes have used since they started.
func CPU(roots ...int) (time.Duration, error) {
	var sum time.Duration
	for _, root := range roots {
		list, err := tree(root)
		if err != nil {
			return 0, err
		}
		for _, p := range list {
			p.refine()
			sum += p.own + p.reaped
		}
	}
	return sum, nil
}

// Memory is what a tree of processes holds, in bytes.
type Memory struct {
	Peak     int64 // the root's own resident set at its highest since ResetPeak
	Database int64 // all processes named postgres, shared pages divided among them (PSS)
}

// Of reads the memory of a tree.
func Of(root int) (Memory, error) {
	list, err := tree(root)
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	if m.Peak, err = field(root, "status", "VmHWM:"); err != nil {
		return m, err
	}
	for _, p := range list {
		if p.name != "postgres" {
			continue
		}
		n, err := field(p.pid, "smaps_rollup", "Pss:")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		m.Database += n // a process that has just ended counts 0
	}
	return m, nil
}

// ResetPeak makes a process's peak start from what it holds now.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// field reads a line "NAME   123 kB" of a file in /proc/PID.
func field(pid int, file, name string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no line %s", pid, file, name)
}
