package blob

import (
	"container/list"
	"encoding"
	"hash"
	"sync"
	"time"

	"github.com/google/uuid"

	"berth/services/reference"
)

// maxStates bounds how many hash states are kept between requests (about 200
// bytes each), maxParked how many uploads to an object store stay open.
const (
	maxStates = 4096
	maxParked = 64
)

// sessions is what a store remembers of uploads from one request to the next.
// All of it may be forgotten: the hash is then computed again, and an upload
// to an object store is resumed from what the store has.
type sessions struct {
	mu     sync.Mutex
	busy   map[uuid.UUID]*Upload // one writer at a time
	states map[uuid.UUID]*list.Element
	recent *list.List // of state, the latest first
	parked map[uuid.UUID]parked
}

// state is a running hash, at rest.
type state struct {
	id     uuid.UUID
	offset int64
	hash   []byte
}

// parked is an upload whose bytes are partly in memory, between two requests.
type parked struct {
	sink  *objectSink
	since time.Time
}

func (s *sessions) init() {
	s.busy = map[uuid.UUID]*Upload{}
	s.states = map[uuid.UUID]*list.Element{}
	s.recent = list.New()
	s.parked = map[uuid.UUID]parked{}
}

// claim makes u the only writer of its session. It does not wait.
func (s *sessions) claim(id uuid.UUID, u *Upload) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.busy[id]; taken {
		return false
	}
	s.busy[id] = u
	return true
}

func (s *sessions) release(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
}

// writer gives the upload that has claimed the session, if one has.
func (s *sessions) writer(id uuid.UUID) *Upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[id]
}

// remember keeps a hash state, and forgets the oldest when there are too many.
func (s *sessions) remember(id uuid.UUID, offset int64, hash []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.states[id]; ok {
		s.recent.Remove(e)
	}
	s.states[id] = s.recent.PushFront(state{id, offset, hash})
	if s.recent.Len() > maxStates {
		oldest := s.recent.Remove(s.recent.Back()).(state)
		delete(s.states, oldest.id)
	}
}

// recall takes a session's hash state out.
func (s *sessions) recall(id uuid.UUID) (offset int64, hash []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.states[id]
	if !ok {
		return 0, nil
	}
	delete(s.states, id)
	st := s.recent.Remove(e).(state)
	return st.offset, st.hash
}

// park keeps a sink until the session's next request. When there are too
// many, it gives the id of the one that has waited longest.
func (s *sessions) park(id uuid.UUID, k *objectSink) (surplus uuid.UUID, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked[id] = parked{k, time.Now()}
	if len(s.parked) <= maxParked {
		return uuid.Nil, false
	}
	oldest := time.Now()
	for other, p := range s.parked {
		if other != id && p.since.Before(oldest) {
			surplus, oldest, over = other, p.since, true
		}
	}
	return surplus, over
}

// unpark takes a sink out.
func (s *sessions) unpark(id uuid.UUID) (*objectSink, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.parked[id]
	delete(s.parked, id)
	return p.sink, ok
}

// idle lists the parked sessions that have waited so long.
func (s *sessions) idle(olderThan time.Duration) (ids []uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.parked {
		if time.Since(p.since) >= olderThan {
			ids = append(ids, id)
		}
	}
	return ids
}

// evict takes a parked sink out of memory, unless a request has just claimed it.
func (s *Store) evict(id uuid.UUID, end func(*objectSink) error) error {
	if !s.uploads.claim(id, nil) {
		return nil
	}
	defer s.uploads.release(id)
	if k, ok := s.uploads.unpark(id); ok {
		return end(k)
	}
	return nil
}

// freeze gives a running hash as bytes, nil if there is none.
func freeze(h hash.Hash) []byte {
	if h == nil {
		return nil
	}
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil // only costs a second reading
	}
	return b
}

// thaw undoes freeze. Bytes of another algorithm, or none, give nil.
func thaw(a reference.Algorithm, b []byte) hash.Hash {
	h := a.New()
	if len(b) == 0 || h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b) != nil {
		return nil
	}
	return h
}
