package segment

import (
	"context"
	"time"

	"berth/appliance/fault"
	"berth/appliance/syslog"
)

// patience is how long Append waits for a disk that has come to a standstill: a
// journal that is being written, a snapshot of the virtual machine. It waits once;
// what comes after is dropped at once, until the disk takes a block again.
const patience = 5 * time.Second

// Append copies messages into the store and gives each the next Seq. It waits
// for no sync; if blocks come faster than they can be written it waits for one,
// but for 5 s at most. What finds no room is dropped and counted,
// and Append says so with a fault of kind NoSpace; the messages before it are in.
func (s *Store) Append(ms ...*syslog.Message) error {
	now := time.Now()
	for len(ms) > 0 {
		n, err := s.add(ms, now)
		ms = ms[n:]
		if err != nil {
			return err
		}
		if len(ms) > 0 && !s.waitForRoom() {
			s.dropped.Add(int64(len(ms)))
			return fault.New(fault.NoSpace, "the disk of log messages takes no more: %d were dropped", len(ms))
		}
	}
	return nil
}

// add appends messages until there is no room, and says how many it took.
func (s *Store) add(ms []*syslog.Message, now time.Time) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.readOnly {
		return 0, fault.New(fault.Unavailable, "the store of log messages is closed")
	}
	for _, m := range ms {
		if s.open == nil && !s.startBlock() {
			break
		}
		t := now
		if !m.Time.IsZero() {
			t = m.Time
		}
		s.open.add(m, nanos(t))
		s.next++
		n++
		if s.open.raw() >= s.o.BlockBytes {
			s.finishBlock()
		}
	}
	s.appended.Add(int64(n))
	if n > 0 {
		signal(s.dirty)
		if s.woken != nil {
			close(s.woken)
			s.woken = nil
		}
	}
	return n, nil
}

// startBlock begins a new block, if the full ones are not too many.
func (s *Store) startBlock() bool {
	if len(s.full) >= maxFull {
		return false
	}
	s.open = s.blocks.Get().(*block)
	s.open.start(s.next)
	return true
}

// finishBlock puts the open block to those that wait to be written.
func (s *Store) finishBlock() {
	s.open.finish()
	s.full = append(s.full, s.open)
	s.open = nil
	signal(s.filled)
}

// signal sends on a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// waitForRoom waits until a block was written, and reports whether there is room.
func (s *Store) waitForRoom() bool {
	s.mu.Lock()
	if len(s.full) < maxFull {
		s.mu.Unlock()
		return true
	}
	if !s.running {
		// Nobody else writes: a store without Run, or before it.
		s.mu.Unlock()
		return s.write() == nil && s.seal(context.Background()) == nil
	}
	if s.failing != nil || s.stalled {
		s.mu.Unlock()
		return false
	}
	if s.room == nil {
		s.room = make(chan struct{})
	}
	room := s.room
	s.mu.Unlock()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-room:
		return true
	case <-late.C:
		s.mu.Lock()
		s.stalled = s.room == room // and not since then
		s.mu.Unlock()
		return false
	}
}
