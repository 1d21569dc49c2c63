package forward

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"time"

	"berth/appliance/durable"
)

const (
	positionSuffix = ".position"
	// resend is how long a connection has to live on after the collector's TCP has
	// acknowledged a message, until that counts as delivered: the collector may not
	// have read it from its socket yet when it is killed.
	resend = 2 * time.Second
	// markEvery is the least time between two marks, markBytes the most that one may
	// stand for before that: together they bound how many there are.
	markEvery = 10 * time.Millisecond
	markBytes = 256 << 10
	// socketRoom is more than a socket holds (tcp_rmem's limit is 6 MiB, mostly).
	socketRoom = 8 << 20
)

// loss is what a collector lacks and has not been told yet.
type loss struct {
	Count  uint64    `json:"count"`
	AtMost bool      `json:"at_most,omitempty"` // its filters could not be asked any more, or some may have arrived
	From   time.Time `json:"from,omitzero"`     // time of the oldest message, if it is known
	To     time.Time `json:"to,omitzero"`       // of the newest
}

func (l loss) and(other loss) loss {
	if l.Count == 0 {
		return other
	}
	if other.Count == 0 {
		return l
	}
	l.Count += other.Count
	l.AtMost = l.AtMost || other.AtMost
	if l.From.IsZero() || !other.From.IsZero() && other.From.Before(l.From) {
		l.From = other.From
	}
	if other.To.After(l.To) {
		l.To = other.To
	}
	return l
}

// journey is where a collector stands. Its numbers are Seqs of the store:
//
//	position <= mark.next <= … <= next
//
// All before position is delivered; all before next is sent.
type journey struct {
	position uint64
	next     uint64
	high     uint64 // the greatest next that there ever was: what is sent below is a repetition
	marks    []mark
	gone     []span // after position: dropped and counted, not to be sent and not to be counted again
	untold   loss   // what the collector does not know
	telling  loss   // what it is being told
}

// span is all Seqs from one up to another.
type span struct{ from, to uint64 }

// mark is the end of something that was sent.
type mark struct {
	next  uint64
	from  int64     // bytes written to the connection before it
	bytes int64     // and with it
	sent  time.Time // the first of it
	acked time.Time // when it was seen that the collector's TCP has it
	told  bool      // journey.telling is in it
}

// mark notes that all before next was written, which were so many bytes of this
// connection.
func (j *journey) mark(next uint64, bytes int64, told bool, now time.Time) {
	j.next, j.high = next, max(j.high, next)
	var from int64
	if n := len(j.marks); n > 0 {
		last := &j.marks[n-1]
		if last.acked.IsZero() && now.Sub(last.sent) < markEvery && bytes-last.from < markBytes {
			last.next, last.bytes, last.told = next, bytes, last.told || told
			return
		}
		from = last.bytes
	}
	j.marks = append(j.marks, mark{next: next, from: from, bytes: bytes, sent: now, told: told})
}

// settle moves the position over what was acknowledged long enough ago. While the
// collector's window is closed, its program does not read, and what its socket
// holds is not delivered: that is no more than socketRoom.
func (j *journey) settle(s sight, now time.Time) {
	passed := 0
	for i := range j.marks {
		m := &j.marks[i]
		if m.bytes > s.acked {
			break
		}
		if m.acked.IsZero() {
			m.acked = now
		}
		if now.Sub(m.acked) >= resend && (s.ready || s.acked-m.bytes >= socketRoom) {
			passed = i + 1
		}
	}
	j.pass(passed)
}

// pass delivers the first marks.
func (j *journey) pass(n int) {
	for _, m := range j.marks[:n] {
		j.position = m.next
		if m.told {
			j.telling = loss{}
		}
	}
	j.marks = append(j.marks[:0], j.marks[n:]...)
	j.prune()
}

// prune forgets what is gone before the position.
func (j *journey) prune() {
	n := 0
	for n < len(j.gone) && j.gone[n].to <= j.position {
		n++
	}
	j.gone = append(j.gone[:0], j.gone[n:]...)
}

// tell gives what the collector must be told now. There is one such message on
// its way at a time.
func (j *journey) tell() loss {
	if j.telling.Count > 0 {
		return loss{}
	}
	j.telling, j.untold = j.untold, loss{}
	return j.telling
}

// skip passes over what will not be sent. With something on its way the position
// stays before that, so what is passed over is noted.
func (j *journey) skip(next uint64) {
	from := j.next
	j.next = next
	n := len(j.marks)
	if n == 0 {
		j.position = next
		j.prune()
		return
	}
	j.lose(from, next)
	if last := &j.marks[n-1]; last.from == last.bytes { // passed over, too
		last.next = next
		return
	}
	bytes := j.marks[n-1].bytes
	j.marks = append(j.marks, mark{next: next, from: bytes, bytes: bytes})
}

// lose notes that Seqs are gone. They come in their order, but for those that
// the store has removed after they were sent in vain.
func (j *journey) lose(from, to uint64) {
	j.gone = append(j.gone, span{from, to})
	slices.SortFunc(j.gone, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	merged := j.gone[:1]
	for _, s := range j.gone[1:] {
		if last := &merged[len(merged)-1]; s.from <= last.to {
			last.to = max(last.to, s.to)
		} else {
			merged = append(merged, s)
		}
	}
	j.gone = merged
}

// stretch gives where reading goes on from a Seq, and where the next gone Seqs
// begin.
func (j *journey) stretch(seq uint64) (from, end uint64) {
	for _, s := range j.gone {
		if s.from > seq {
			return seq, s.from
		}
		seq = max(seq, s.to)
	}
	return seq, math.MaxUint64
}

// counted is how many Seqs of a span are gone already.
func (j *journey) counted(from, to uint64) (n uint64) {
	for _, s := range j.gone {
		if a, b := max(s.from, from), min(s.to, to); a < b {
			n += b - a
		}
	}
	return n
}

// rewind goes back to what is delivered, when a connection is lost.
func (j *journey) rewind() {
	j.next = j.position
	j.marks = j.marks[:0]
	j.untold = j.telling.and(j.untold)
	j.telling = loss{}
}

// kept is what is in a position file.
type kept struct {
	Next   uint64 `json:"next"`            // Seq of the first message that is not delivered
	Untold loss   `json:"untold,omitzero"` // what was dropped and not told yet
}

func (j *journey) kept() kept { return kept{Next: j.position, Untold: j.telling.and(j.untold)} }

// load reads a position. There is none for a collector that is new.
func load(path string) (k kept, found bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return kept{}, false, fmt.Errorf("cannot read the position %s: %w", path, err)
	}
	return k, true, nil
}

func (k kept) save(path string) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(b, '\n'), 0o600)
}
