package segment

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/appliance/durable"
)

const (
	// writeEvery is how long a message may be in memory alone.
	writeEvery = 100 * time.Millisecond
	// syncEvery is how long it may be off the disk.
	syncEvery = time.Second
	// sealAfter is how old a block or a segment grows before it is finished though
	// it is small: age is counted by whole segments.
	sealAfter = 24 * time.Hour
)

// Run writes, syncs, seals and removes until ctx ends, and then once more.
// Without it, messages are written when memory is full and at Close.
func (s *Store) Run(ctx context.Context) error {
	if s.readOnly {
		return errors.New("a store that was opened to be read cannot run")
	}
	s.setRunning(true)
	defer s.setRunning(false)
	var g errgroup.Group
	g.Go(func() error { s.keepWriting(ctx); return nil })
	g.Go(func() error { s.keepSyncing(ctx); return nil })
	return g.Wait()
}

func (s *Store) setRunning(on bool) {
	s.mu.Lock()
	s.running = on
	s.mu.Unlock()
}

// keepWriting writes full blocks at once, and others when they have waited a bit.
func (s *Store) keepWriting(ctx context.Context) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	signal(s.dirty) // what was found at opening
	for {
		select {
		case <-ctx.Done():
			_ = s.write() // counted and told by itself
			return
		case <-s.filled:
		case <-s.dirty:
			wait.Reset(writeEvery)
			select {
			case <-ctx.Done():
			case <-s.filled:
			case <-wait.C:
			}
		}
		if s.write() != nil {
			signal(s.dirty)
			wait.Reset(syncEvery)
			select {
			case <-ctx.Done():
			case <-wait.C:
			}
		}
	}
}

// keepSyncing does once a second what takes time.
func (s *Store) keepSyncing(ctx context.Context) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	s.io.Lock()
	current := s.files.current
	s.io.Unlock()
	if current != nil {
		_ = s.findHashes(ctx, current) // or else at sealing
	}
	for {
		_ = s.sync()
		if err := s.seal(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Error("cannot write the index of log messages", "dir", s.dir, "err", err)
		}
		s.retain(time.Now())
		select {
		case <-ctx.Done():
			_ = s.sync()
			return
		case <-tick.C:
		}
	}
}

// sync makes durable what was written. Tails that are not needed any more go.
func (s *Store) sync() error {
	s.io.Lock()
	f := &s.files
	segment, unsynced, tail, dirty, names := f.segment, f.unsynced, f.tail.file, f.tail.dirty, f.names
	start := f.tail.start
	complete := slices.Clone(f.sealing)
	old := f.oldTails
	if !unsynced && !dirty && !names && len(complete) == 0 && len(old) == 0 {
		s.io.Unlock()
		return nil
	}
	f.unsynced, f.tail.dirty, f.names, f.oldTails = false, false, false, nil
	covered := s.covered()
	// A duplicate of the tail's descriptor stays good if the writer begins another.
	var err error
	if tail, err = duplicate(tail, dirty); err == nil {
		segment, err = duplicate(segment, unsynced)
	}
	s.io.Unlock()

	if err == nil {
		err = s.syncFiles(segment, tail, names, complete)
	}
	if err == nil && covered >= start {
		for _, path := range old {
			if info, serr := os.Stat(path); serr == nil {
				s.bytes.Add(-info.Size())
			}
			err = errors.Join(err, os.Remove(path))
		}
		old = nil
	}
	if err == nil && len(old) == 0 {
		return nil
	}
	s.io.Lock()
	f.oldTails = append(old, f.oldTails...)
	if err != nil {
		f.unsynced, f.tail.dirty, f.names = f.segment != nil, true, true
	}
	s.io.Unlock()
	if err != nil && s.syncErrors.Add(1) == 1 {
		s.o.Log.Error("cannot sync log messages", "dir", s.dir, "err", err)
	}
	return err
}

// covered is the Seq before which everything is in segments.
func (s *Store) covered() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.full) > 0 {
		return s.full[0].first
	}
	if s.open != nil {
		return s.open.first
	}
	return s.next
}

func duplicate(f *os.File, wanted bool) (*os.File, error) {
	if f == nil || !wanted {
		return nil, nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (s *Store) syncFiles(segment, tail *os.File, names bool, complete []sealing) error {
	var err error
	for _, g := range complete {
		err = errors.Join(err, unix.Fdatasync(int(g.file.Fd())))
	}
	for _, f := range []*os.File{segment, tail} {
		if f != nil {
			err = errors.Join(err, unix.Fdatasync(int(f.Fd())), f.Close())
		}
	}
	if names {
		err = errors.Join(err, durable.SyncDir(s.dir))
	}
	return err
}

// seal gives an index to the segments that are complete.
func (s *Store) seal(ctx context.Context) error {
	s.sealer.Lock()
	defer s.sealer.Unlock()
	if err := s.takeBroken(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.open != nil && s.open.count > 0 && time.Since(s.open.made) > sealAfter {
		s.finishBlock()
	}
	s.mu.Unlock()
	s.io.Lock()
	if g := s.files.current; g != nil && time.Since(g.made) > sealAfter {
		s.finishSegment()
	}
	complete := slices.Clone(s.files.sealing)
	s.io.Unlock()
	for _, w := range complete {
		if ctx.Err() != nil {
			return nil // the next start does it
		}
		if err := s.sealOne(ctx, w.segment); err != nil {
			return err
		}
		s.io.Lock()
		s.files.sealing = slices.DeleteFunc(s.files.sealing, func(x sealing) bool { return x.segment == w.segment })
		s.io.Unlock()
		w.file.Close()
	}
	return nil
}

func (s *Store) sealOne(ctx context.Context, g *segment) error {
	if err := s.findHashes(ctx, g); err != nil {
		return err
	}
	s.mu.Lock()
	sets, there := s.components.sets, slices.Contains(s.segments, g)
	s.mu.Unlock()
	if !there {
		return nil // it was removed meanwhile
	}
	x, err := writeIndex(s.path(g.name, indexExt), g, sets)
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil {
		return err
	}
	s.bytes.Add(x.size)
	s.mu.Lock()
	g.index, g.hashes, g.hashed, g.entries = x, nil, 0, slices.Clip(g.entries)
	waiting := len(s.full) > 0
	s.mu.Unlock()
	if waiting {
		signal(s.filled) // the writer may have waited for this
	}
	return nil
}

// findHashes reads blocks whose request ids are not known: those of a segment
// that lost its index, or that was open at a crash.
func (s *Store) findHashes(ctx context.Context, g *segment) error {
	f, err := os.Open(s.path(g.name, segmentExt))
	if err != nil {
		return err
	}
	defer f.Close()
	for i := 0; ; i++ {
		s.mu.Lock()
		done := i >= len(g.hashes)
		known := done || g.hashes[i] != nil
		var e entry
		if !done {
			e = g.entries[i]
		}
		s.mu.Unlock()
		if done || ctx.Err() != nil {
			return ctx.Err()
		}
		if known {
			continue
		}
		hashes, err := s.hashesOf(f, e)
		if err != nil && !errors.Is(err, errRuined) {
			return err
		}
		s.mu.Lock()
		g.hashes[i] = hashes
		g.hashed += len(hashes)
		s.mu.Unlock()
	}
}

// indexIsBroken makes a segment's index be made again; until then searches look
// into all its blocks.
func (s *Store) indexIsBroken(g *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.index.size > 0 && !s.readOnly && slices.Contains(s.segments, g) {
		s.bytes.Add(-g.index.size)
		g.index, g.hashes, g.hashed = index{}, make([][]uint32, len(g.entries)), 0
		s.broken = append(s.broken, g)
	}
}

// takeBroken puts segments whose index is broken to those that want one.
func (s *Store) takeBroken() error {
	s.mu.Lock()
	broken := s.broken
	s.broken = nil
	s.mu.Unlock()
	var err error
	for _, g := range broken {
		f, ferr := os.OpenFile(s.path(g.name, segmentExt), os.O_RDWR, 0)
		if ferr != nil {
			err = errors.Join(err, ferr)
			continue
		}
		s.io.Lock()
		s.files.sealing = append(s.files.sealing, sealing{g, f})
		s.io.Unlock()
	}
	return err
}

// hashesOf gives a block's request ids; of a ruined block none, but not nil.
func (s *Store) hashesOf(f *os.File, e entry) ([]uint32, error) {
	c := s.scans.Get().(*scan)
	defer s.scans.Put(c)
	hashes := []uint32{}
	v, err := s.read(c, f, e)
	if err != nil {
		return hashes, err
	}
	w := walk{v: v}
	var h head
	for {
		ok, err := w.next(&h)
		if !ok || err != nil {
			break
		}
		if err := v.decode(&h, &c.record); err != nil {
			break
		}
		hashes = appendIDs(hashes, &c.record)
	}
	slices.Sort(hashes)
	return slices.Clip(slices.Compact(hashes)), nil
}

// retain removes the oldest segments while all files are too large together, or
// those are too old. The one that is written to stays.
func (s *Store) retain(now time.Time) {
	for {
		s.io.Lock()
		current := s.files.current
		busy := slices.Clone(s.files.sealing)
		s.io.Unlock()
		s.mu.Lock()
		var g *segment
		if len(s.segments) > 0 && s.segments[0] != current && !slices.ContainsFunc(busy, func(x sealing) bool { return x.segment == s.segments[0] }) {
			old := s.o.MaxAge > 0 && now.Sub(s.segments[0].last) > s.o.MaxAge
			large := s.o.MaxBytes > 0 && s.bytes.Load() > s.o.MaxBytes
			if old || large {
				g = s.segments[0]
				s.segments = slices.Delete(slices.Clone(s.segments), 0, 1)
			}
		}
		s.mu.Unlock()
		if g == nil {
			return
		}
		// The index goes first: a segment without one is found again at the next start.
		err := errors.Join(removeFile(s.path(g.name, indexExt)), removeFile(s.path(g.name, segmentExt)))
		s.bytes.Add(-g.size - g.index.size)
		if err != nil {
			s.o.Log.Error("cannot remove old log messages", "file", g.name+segmentExt, "err", err)
		}
	}
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
