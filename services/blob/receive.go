package blob

import (
	"context"
	"hash"
	"io"
	"sync"
)

// bufferSize is how much is read before it is hashed and written. A body that
// fits into one buffer is handled in the request's own goroutine.
const bufferSize = 64 << 10

// inFlight is how many buffers a larger body has: one being filled and written,
// the others being hashed.
const inFlight = 3

// buffers is a pool of read buffers.
type buffers struct{ pool sync.Pool }

type buffer = [bufferSize]byte

func (p *buffers) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

func (p *buffers) put(b *buffer) { p.pool.Put(b) }

// fill reads until b is full. Its error is that of r: nil only if b is full.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	if n == len(b) && err == io.EOF {
		err = nil // the next read says it again
	}
	return n, err
}

// receive moves r into the sink and the hash. rerr is how reading ended
// (io.EOF if well), werr that the sink failed.
func (u *Upload) receive(ctx context.Context, r io.Reader, length int64) (rerr, werr error) {
	first := u.store.buffers.get()
	defer u.store.buffers.put(first)
	n, rerr := fill(r, first[:])
	if rerr == nil && int64(n) == length {
		rerr = io.EOF
	}
	if rerr == nil {
		return u.stream(ctx, r, first)
	}
	if n == 0 {
		return rerr, nil
	}
	if u.hash != nil {
		u.hash.Write(first[:n])
	}
	if werr = u.sink.write(first[:n]); werr == nil {
		u.size.Add(int64(n))
	}
	return rerr, werr
}

// stream is receive for a body of more than one buffer; the first one is full.
// A second goroutine hashes what this one reads and writes: on one core the
// hash alone costs as much as all the rest.
func (u *Upload) stream(ctx context.Context, r io.Reader, first *buffer) (rerr, werr error) {
	full := make(chan []byte, inFlight)
	hashed := make(chan struct{}, inFlight)
	var running sync.WaitGroup
	running.Go(func() { hashAll(u.hash, full, hashed) })
	ring := [inFlight]*buffer{first}
	defer func() {
		close(full)
		running.Wait() // now the hash is complete, and the buffers are nobody's
		for _, b := range ring[1:] {
			if b != nil {
				u.store.buffers.put(b)
			}
		}
	}()

	n := bufferSize
	for i := 0; ; i++ {
		b := ring[i%inFlight][:n]
		full <- b
		if werr = u.sink.write(b); werr != nil {
			return nil, werr
		}
		u.size.Add(int64(n))
		if rerr != nil {
			return rerr, nil
		}
		next := (i + 1) % inFlight
		if i+1 >= inFlight {
			<-hashed // the buffer that comes next is free again
		} else {
			ring[next] = u.store.buffers.get()
		}
		if rerr = ctx.Err(); rerr != nil {
			return rerr, nil
		}
		n, rerr = fill(r, ring[next][:])
		if n == 0 && rerr != nil {
			return rerr, nil
		}
	}
}

func hashAll(h hash.Hash, full <-chan []byte, hashed chan<- struct{}) {
	for b := range full {
		if h != nil {
			h.Write(b)
		}
		hashed <- struct{}{}
	}
}
