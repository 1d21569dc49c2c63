package forward

import (
	"context"
	"errors"
	"time"

	"berth/appliance/fault"
	"berth/appliance/pause"
	"berth/appliance/syslog"
	"berth/services/segment"
)

const (
	// batchBytes is about what goes out in one write, batchRecords what is looked at
	// for it.
	batchBytes   = 64 << 10
	batchRecords = 512
	// datagramBytes go out by UDP before a pause: a receiver's socket has room for
	// 208 KiB, mostly, and nobody tells us when it is full.
	datagramBytes = 16 << 10
	datagramPause = time.Millisecond
	// resolveEvery is how often the collector's name is asked for by UDP. A
	// connection by TCP ends when its address does.
	resolveEvery = 5 * time.Minute
	// gather is how long messages gather after a batch that was not full: a busy
	// Berth sends 50 batches a second, not each message alone. After silence the
	// first one goes out at once.
	gather = 20 * time.Millisecond
	// dropRecords are passed over between two looks at the queue's size.
	dropRecords = 256
)

// batch is what goes out next, and the room for it.
type batch struct {
	out            []byte
	ends           []int  // of the messages in out
	one            []byte // the message that is put into its frame
	next           uint64 // Seq of what comes after it
	told           bool   // a notice of what was dropped is in it
	sent, repeated uint64 // messages
}

var errFull = errors.New("the batch is full")

// feed sends batch after batch, until the connection or ctx ends. Without an
// error it is time for another connection.
func (c *collector) feed(ctx context.Context, conn *conn) error {
	udp, start := conn.wire == nil, time.Now()
	if !udp && c.hasFailed() {
		pause.For(conn.alive, refusalTime)
		c.working(conn)
	}
	for first := true; ctx.Err() == nil; first = false {
		full, err := c.prepare(conn.alive, udp && first)
		if err != nil {
			return err
		}
		if udp && time.Since(start) > resolveEvery {
			return nil
		}
		if err := c.send(conn); err != nil {
			return err
		}
		switch {
		case udp && first:
			pause.For(conn.alive, refusalTime) // a refusal is all that a collector can say
			c.working(conn)
		case udp:
			pause.For(conn.alive, datagramPause)
		case !full:
			pause.For(conn.alive, gather)
		}
	}
	return ctx.Err()
}

// prepare waits for the next batch and fills it, see fill.
func (c *collector) prepare(ctx context.Context, single bool) (full bool, err error) {
	if err = c.wait(ctx); err == nil {
		err = c.limit(ctx)
	}
	if err == nil {
		full, err = c.fill(ctx, single)
	}
	if err != nil && ctx.Err() == nil {
		err = fault.Wrap(fault.Internal, err, "the log store cannot be read").WithHint("check the disk; the log has the cause")
	}
	return full, err
}

// wait waits until there is something to send.
func (c *collector) wait(ctx context.Context) error {
	c.mu.Lock()
	next, untold, telling := c.journey.next, c.journey.untold.Count > 0, c.journey.telling.Count > 0
	c.mu.Unlock()
	if !untold {
		return c.store.Wait(ctx, next)
	}
	if telling { // the one before has to arrive first
		bounded, cancel := context.WithTimeout(ctx, resend)
		defer cancel()
		if err := c.store.Wait(bounded, next); err != nil && bounded.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

// fill fills the batch with what comes next; with single, with one message. It
// reports whether there may be more at once.
func (c *collector) fill(ctx context.Context, single bool) (full bool, err error) {
	b := &c.batch
	b.out, b.ends, b.sent, b.repeated = b.out[:0], b.ends[:0], 0, 0
	room := batchBytes
	if c.to.scheme == "udp" {
		room = datagramBytes
	}
	c.mu.Lock()
	high, told := c.journey.high, c.journey.tell()
	c.mu.Unlock()
	start, end := c.stretch()
	b.next, b.told = start, told.Count > 0
	if b.told {
		c.add(c.render.message(b.one[:0], notice(c.set.Name, told)))
	}
	after, err := c.store.Read(ctx, start, batchRecords, func(rec *segment.Record) error {
		c.gap(b.next, min(rec.Seq, end), rec.Time)
		if rec.Seq >= end {
			b.next = end
			return errFull
		}
		b.next = rec.Seq + 1
		if !c.filter.wants(&rec.Message) {
			return nil
		}
		c.add(c.render.record(b.one[:0], rec))
		b.sent++
		if rec.Seq < high {
			b.repeated++
		}
		if single || len(b.out) >= room {
			return errFull
		}
		return nil
	})
	if errors.Is(err, errFull) {
		return true, nil
	}
	if err == nil {
		after = min(after, end)
		c.gap(b.next, after, time.Time{})
		b.next = max(b.next, after)
	}
	return b.next-start >= batchRecords, err
}

// add puts a message into the batch.
func (c *collector) add(message []byte) {
	b := &c.batch
	b.one = message
	b.out = frame(b.out, message, c.to.scheme, c.render.json)
	b.ends = append(b.ends, len(b.out))
}

// frame puts a message into what parts it from the next: by TCP and TLS octet
// counting, or for JSON the end of a line; by UDP nothing does.
func frame(b, message []byte, scheme string, json bool) []byte {
	switch {
	case scheme == "udp":
		return append(b, message...)
	case json:
		return append(append(b, message...), '\n')
	}
	return syslog.AppendFrame(b, message)
}

// stretch gives where reading goes on, and where it ends at the latest.
func (c *collector) stretch() (from, end uint64) {
	c.mu.Lock()
	next := c.journey.next
	from, end = c.journey.stretch(next)
	c.mu.Unlock()
	if from > next {
		c.holes = c.holesAfter(from)
	}
	return from, end
}

// gap is called when no message stands between two Seqs. They were lost, or
// there have never been any: after a crash the store leaves out numbers.
func (c *collector) gap(from, to uint64, then time.Time) {
	if to <= from {
		return
	}
	holes := c.holesAfter(to)
	c.mu.Lock()
	lost := int64(to-from) - int64(c.journey.counted(from, to)) - (c.holes - holes)
	c.journey.lose(from, to)
	c.mu.Unlock()
	c.holes = holes
	if lost > 0 { // nobody can tell any more what the filters would have said
		c.drop(loss{Count: uint64(lost), AtMost: !c.filter.all() || c.wasSent(from), To: then})
	}
}

// holesAfter is how many Seqs from one on, of those that the store reaches back
// to, have no message.
func (c *collector) holesAfter(seq uint64) (n int64) {
	seq = max(seq, c.store.First())
	for range 100 { // until nothing comes in between, which is at once, mostly
		end := c.store.End()
		messages, _ := c.store.Waiting(seq)
		n = max(int64(end)-int64(seq), 0) - messages
		if c.store.End() == end {
			break
		}
	}
	return max(n, 0)
}

// drop counts what the collector will lack.
func (c *collector) drop(l loss) {
	c.mu.Lock()
	c.journey.untold = c.journey.untold.and(l)
	c.counts.dropped += l.Count
	news := time.Since(c.dropLogged) > time.Minute
	if news {
		c.dropLogged = time.Now()
	}
	c.mu.Unlock()
	if news {
		c.log.Warn("messages for a collector are dropped: it was away or too slow for too long", "dropped", l.Count, "queue_mb", c.set.Queue()>>20)
	}
}

// send writes the batch. What was written in part is sent again.
func (c *collector) send(conn *conn) error {
	b := &c.batch
	if err := conn.send(b.out, b.ends); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journey.mark(b.next, conn.bytes(), b.told, time.Now())
	c.counts.sent += b.sent
	c.counts.repeated += b.repeated
	c.counts.bytes += uint64(len(b.out))
	return nil
}

// limit passes over what the store has removed, and over the oldest messages
// while more wait than may. It counts those that the collector would have got.
func (c *collector) limit(ctx context.Context) error {
	next, end := c.stretch()
	if first := c.store.First(); first > next {
		c.gap(next, first, time.Time{})
		c.skip(first)
		next, end = c.stretch()
	}
	for {
		if _, bytes := c.store.Waiting(next); bytes <= c.set.Queue() {
			return nil
		}
		start := next
		var l loss
		after, err := c.store.Read(ctx, next, dropRecords, func(rec *segment.Record) error {
			c.gap(next, min(rec.Seq, end), rec.Time)
			if rec.Seq >= end {
				next = end
				return errFull
			}
			next = rec.Seq + 1
			if c.filter.wants(&rec.Message) {
				l = l.and(loss{Count: 1, AtMost: c.wasSent(rec.Seq), From: rec.Time, To: rec.Time})
			}
			return nil
		})
		if err == nil {
			next = max(next, min(after, end))
		}
		if l.Count > 0 {
			c.drop(l)
		}
		c.skip(next)
		if err != nil && !errors.Is(err, errFull) || next == start {
			return err
		}
		next, end = c.stretch()
	}
}

// wasSent reports whether a message may have arrived, though nothing is known of
// it: it was sent, and then the connection was lost.
func (c *collector) wasSent(seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return seq < c.journey.high
}

func (c *collector) skip(next uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journey.skip(next)
}

// timeOf is the time of the first message from a Seq on; zero if there is none.
func (c *collector) timeOf(ctx context.Context, seq uint64) (t time.Time, err error) {
	if seq >= c.store.End() {
		return t, nil
	}
	_, err = c.store.Read(ctx, seq, 1, func(rec *segment.Record) error {
		t = rec.Time
		return nil
	})
	return t, err
}
