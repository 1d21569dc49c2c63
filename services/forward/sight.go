package forward

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sight is what can be seen of the other side of a connection.
type sight struct {
	acked int64     // bytes that its TCP has acknowledged
	ready bool      // its window is open: its program reads what comes
	moved time.Time // when something was acknowledged last, or nothing was left to be
	heard time.Time // when it was known last that there is somebody
}

// look asks the kernel how far the other side is. It ends a connection whose
// other side has been silent for too long. By UDP there is nothing to see: what
// is written counts as acknowledged.
func (c *conn) look(now time.Time) (sight, error) {
	if c.wire == nil {
		return sight{acked: c.bytes(), ready: true, moved: now, heard: now}, nil
	}
	// The order matters: what is written after this line must not count.
	written := c.wire.written.Load()
	var queued int
	var info *unix.TCPInfo
	var err error
	closed := c.wire.raw.Control(func(fd uintptr) {
		if queued, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil { // tcp(7): not acknowledged yet
			info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		}
	})
	if err := errors.Join(closed, err); err != nil {
		return c.seen, err
	}
	s := sight{acked: written - int64(queued), ready: info.Notsent_bytes == 0, moved: c.seen.moved, heard: c.seen.heard}
	moved := s.acked != c.seen.acked || s.moved.IsZero()
	if moved || queued == 0 {
		s.moved = now
	}
	// Where the window is closed, nothing is under way but probes, which are answered at once.
	if moved || info.Unacked == 0 && info.Probes == 0 {
		s.heard = now
	}
	c.seen = s
	if now.Sub(s.heard) >= silence {
		c.end(os.ErrDeadlineExceeded)
		c.wire.Close()
	}
	return s, nil
}
