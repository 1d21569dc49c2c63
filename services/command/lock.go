package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockedError says that another Berth works on a data directory.
type lockedError struct {
	dir string
	pid string
	url string // where it can be reached, if it got that far
}

func (e *lockedError) Error() string {
	s := "Berth is already running on " + e.dir
	if e.pid != "" {
		s += " (process " + e.pid + ")"
	}
	if e.url != "" {
		s += " at " + e.url
	}
	return s
}

// lock makes this process the only one on a data directory. The kernel lets go
// of it when the process ends, however it ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		b, _ := os.ReadFile(f.Name())
		f.Close()
		pid, url, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		return nil, &lockedError{dir, pid, url}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	note(f, "")
	return func() { f.Truncate(0); f.Close() }, nil
}

// noteURL tells whoever finds the lock taken where this Berth can be reached.
func noteURL(dir, url string) {
	if f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0o600); err == nil {
		note(f, url)
		f.Close()
	}
}

func note(f *os.File, url string) {
	f.Truncate(0)
	fmt.Fprintf(f, "%d %s\n", os.Getpid(), url)
}

// ours reports whether a file belongs to this process's user, or to root, who
// could do anything to us without it.
func ours(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == os.Geteuid() || st.Uid == 0)
}
