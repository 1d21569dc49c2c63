// Package segment is the log store: messages on disk, compressed, found by their
// request id without reading the rest, and safe from crashes.
//
// Every message has a number, its Seq, in the order in which messages came. They
// gather in a block in memory, and at once (within 100 ms) in a tail file, which
// is synced every second. A block of 256 KiB is compressed and appended to the
// current segment file; a segment of 32 MiB is sealed: it gets an index of
// request ids and does not change any more. The oldest segments are removed
// when they are too old or all of them too large.
//
//	lock                    whoever holds it writes here
//	00000000000f4240.log    a segment, named after its first Seq
//	00000000000f4240.index  its index; made anew if it is missing or broken
//	00000000001e8480.tail   what is not in a segment yet
//
// A process that is killed loses what came in the last 100 ms; a machine that
// loses power, what came since the last sync. Everything before opens again,
// whatever the cut has left behind; see load.go.
package segment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"berth/appliance/fault"
	"berth/appliance/syslog"
)

// Record is a message and its number.
type Record struct {
	Seq uint64
	syslog.Message
}

// Options are how a store is kept.
type Options struct {
	// MaxBytes is what all files may take together; 0 means no limit.
	MaxBytes int64
	// MaxAge is how long a segment is kept after its last message came; 0 means
	// for ever.
	MaxAge time.Duration
	// BlockBytes is how large a block is before compression; 0 means 256 KiB.
	BlockBytes int
	// SegmentBytes is how large a segment grows; 0 means 32 MiB, or less if MaxBytes
	// is small.
	SegmentBytes int64
	// Log hears of what was cut off at opening and of disks that fail. It may lead
	// to this store again: it is never called under a lock.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.BlockBytes <= 0 {
		o.BlockBytes = 256 << 10
	}
	o.BlockBytes = min(o.BlockBytes, maxRaw/4)
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 32 << 20
		if o.MaxBytes > 0 {
			o.SegmentBytes = max(min(o.SegmentBytes, o.MaxBytes/8), 1<<20)
		}
	}
	o.SegmentBytes = min(o.SegmentBytes, 1<<30)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

const (
	// maxFull is how many full blocks may wait for the disk. Beyond it, messages
	// are dropped and counted.
	maxFull = 32
	// keepRecent is how many written blocks stay in memory for readers.
	keepRecent = 4
	// maxBlocks is how many blocks a segment may have: their numbers are 16 bits
	// in its index.
	maxBlocks = 1 << 16
	// maxHashes is how many request ids a segment may have: until it is sealed
	// they are in memory, four bytes each.
	maxHashes = 1 << 20
)

// Store is a directory of log messages. All methods can be called at once.
type Store struct {
	dir      string
	o        Options
	readOnly bool
	lock     *os.File
	encoder  *zstd.Encoder
	decoder  *zstd.Decoder
	blocks   sync.Pool // of *block
	scans    sync.Pool // of *scan

	mu         sync.Mutex
	open       *block
	full       []*block
	recent     []*block
	segments   []*segment
	components components
	next       uint64
	woken      chan struct{} // closed when messages come, if anyone waits
	room       chan struct{} // closed when a full block was written, if anyone waits
	cached     []*block      // read from disk for readers, the last used last
	broken     []*segment    // that want a new index
	failing    error         // why nothing can be written
	stalled    bool          // the disk has taken nothing for longer than patience
	running    bool
	closed     bool

	dirty  chan struct{} // there is something to write
	filled chan struct{} // there is a full block

	sealer sync.Mutex // held while segments are sealed
	io     sync.Mutex // guards files
	files  files

	appended, dropped, cut, ruined, syncErrors, writeErrors, bytes atomic.Int64
	toldOfRuin                                                     atomic.Bool
}

// Stats are figures of a store.
type Stats struct {
	Messages    int64     `json:"messages"`     // that can be found
	Bytes       int64     `json:"bytes"`        // on disk
	Raw         int64     `json:"raw_bytes"`    // before compression
	Segments    int       `json:"segments"`     // files
	Blocks      int       `json:"blocks"`       // in them
	Oldest      time.Time `json:"oldest"`       // time of the oldest message; zero if there is none
	Newest      time.Time `json:"newest"`       // time of the newest
	First       uint64    `json:"first"`        // Seq of the oldest
	End         uint64    `json:"end"`          // Seq of the next
	Appended    int64     `json:"appended"`     // since this store was opened
	Dropped     int64     `json:"dropped"`      // because the disk was full or failed
	Cut         int64     `json:"cut_bytes"`    // cut off at opening
	Ruined      int64     `json:"ruined"`       // blocks that were found unreadable, each time one was met
	WriteErrors int64     `json:"write_errors"` // failed writes
	SyncErrors  int64     `json:"sync_errors"`  // failed syncs
	Failing     string    `json:"failing"`      // why nothing can be written; "" = all is well
}

// Open opens or makes the store in dir, which no other process may have open for
// writing. What a crash has cut off is told to the log.
func Open(dir string, o Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot make the directory of log messages").On("logs.dir")
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := newStore(dir, o)
	if err == nil {
		s.lock = lock
		err = s.load()
	}
	if err == nil {
		err = s.newTail(s.next)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// OpenReadOnly reads what is on the disk in dir at this moment, also while a
// service writes there. It changes nothing; later messages are not seen.
func OpenReadOnly(dir string) (*Store, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "there are no log messages in %s", dir)
	}
	s, err := newStore(dir, Options{})
	if err != nil {
		return nil, err
	}
	s.readOnly = true
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot lock the directory of log messages").On("logs.dir")
	}
	// The one before may just be ending; and a child that this process has begun
	// and that is not yet its own program holds what we have let go of.
	for range 20 {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fault.New(fault.Conflict, "another process keeps log messages in %s", dir).On("logs.dir").
			WithHint("stop it, or give this one a directory of its own")
	}
	return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
}

func newStore(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, o: o.withDefaults(), components: newComponents(), next: 1,
		dirty: make(chan struct{}, 1), filled: make(chan struct{}, 1)}
	var err error
	// One block at a time is compressed, so one encoder does; its window need not
	// be larger than a block.
	s.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	s.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecoderMaxWindow(8<<20), zstd.IgnoreChecksum(true))
	if err != nil {
		return nil, err
	}
	s.blocks.New = func() any { return &block{} }
	s.scans.New = func() any { return &scan{} }
	return s, nil
}

// Dir is the directory that the store is in.
func (s *Store) Dir() string { return s.dir }

// Close writes what is in memory, syncs it and lets go of the directory. Call it
// after Run has ended.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	defer s.decoder.Close()
	if s.readOnly {
		return nil
	}
	err := s.write()
	if err == nil {
		err = s.endTail()
	}
	err = errors.Join(err, s.sync(), s.seal(context.Background()))
	s.io.Lock()
	defer s.io.Unlock()
	s.files.close()
	// Not by closing alone: a child that is just being started may have the file
	// open for a moment more.
	return errors.Join(err, syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close())
}

// Stats gives the store's figures.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Bytes: s.bytes.Load(), Segments: len(s.segments), First: s.firstLocked(), End: s.next,
		Appended: s.appended.Load(), Dropped: s.dropped.Load(), Cut: s.cut.Load(), Ruined: s.ruined.Load(),
		WriteErrors: s.writeErrors.Load(), SyncErrors: s.syncErrors.Load()}
	oldest, newest := int64(0), int64(0)
	span := func(lo, hi int64) {
		if st.Messages == 0 {
			oldest, newest = lo, hi
		}
		oldest, newest = min(oldest, lo), max(newest, hi)
	}
	for _, g := range s.segments {
		if len(g.entries) > 0 {
			span(g.min, g.max)
		}
		st.Messages += g.messages
		st.Raw += g.raw
		st.Blocks += len(g.entries)
	}
	for _, b := range s.unwritten() {
		if b.count > 0 {
			span(b.min, b.max)
		}
		st.Messages += int64(b.count)
		st.Raw += int64(b.raw())
	}
	if st.Messages > 0 {
		st.Oldest, st.Newest = time.Unix(0, oldest).UTC(), time.Unix(0, newest).UTC()
	}
	if s.failing != nil {
		st.Failing = s.failing.Error()
	}
	return st
}

// unwritten are the blocks that are in no segment yet, in order.
func (s *Store) unwritten() []*block {
	if s.open == nil {
		return s.full
	}
	return append(s.full[:len(s.full):len(s.full)], s.open)
}

// First is the Seq of the oldest message that is kept; End's if there is none.
func (s *Store) First() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.firstLocked()
}

func (s *Store) firstLocked() uint64 {
	for _, g := range s.segments {
		if len(g.entries) > 0 {
			return g.entries[0].first
		}
	}
	for _, b := range s.unwritten() {
		if b.count > 0 {
			return b.first
		}
	}
	return s.next
}

// End is the Seq that the next message will get.
func (s *Store) End() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Components gives the names of the components that messages are there of, or
// were since the store was opened.
func (s *Store) Components() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Collect(maps.Keys(s.components.names))
	for _, b := range s.unwritten() {
		for _, c := range b.components {
			if !slices.Contains(names, b.words[c]) {
				names = append(names, b.words[c])
			}
		}
	}
	slices.Sort(names)
	return names
}
