package logs

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"berth/appliance/fault"
	"berth/appliance/pause"
	"berth/services/segment"
)

const (
	// maxTails is how many may follow at once.
	maxTails = 32
	// heartbeat is how often a silent tail says that it is alive, and how far it
	// has looked.
	heartbeat = 15 * time.Second
	// tailPause gathers messages that come one after another, so that a busy
	// service does not wake its readers for each.
	tailPause = 50 * time.Millisecond
	// tailPatience is how long a client may take to read, if the options do not say.
	tailPatience = 20 * time.Second
	// tailBatch is how many messages are looked at before what was found is sent.
	tailBatch = 2000
)

// tail sends messages as they come, as server-sent events (HTML Living Standard
// section 9.2). It begins with the next message, or at from=, or after the event
// that Last-Event-ID names. It reads the store as any reader does: a client that
// is slow falls behind there and costs no memory, and one that does not read at
// all is cut off.
func (a *api) tail(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.Query(), a.Now(), "from")
	if err != nil {
		return err
	}
	next, err := a.tailFrom(r)
	if err != nil {
		return err
	}
	select {
	case a.tails <- struct{}{}:
		defer func() { <-a.tails }()
	default:
		return fault.New(fault.TooMany, "%d clients follow the log messages already", maxTails).WithHint("try again when one of them has ended")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if a.Stopping != nil {
		go func() {
			select {
			case <-a.Stopping:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	t := &tailing{store: a.Store, filter: segment.NewFilter(q), out: bufio.NewWriterSize(w, 32<<10), control: http.NewResponseController(w),
		next: next, patience: a.Patience}
	// An end is an end: there is nobody to tell, or nothing more to say.
	_ = t.run(ctx)
	return nil
}

// tailFrom gives the first Seq that a client wants.
func (a *api) tailFrom(r *http.Request) (uint64, error) {
	if s := r.Header.Get("Last-Event-ID"); s != "" {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return 0, fault.New(fault.Invalid, "%q is no id of a message", s).On("Last-Event-ID")
		}
		return n + 1, nil
	}
	if s := r.URL.Query().Get("from"); s != "" {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return 0, fault.New(fault.Invalid, "%q is no id of a message", s).On("from")
		}
		return n, nil
	}
	return a.Store.End(), nil
}

// tailing is one tail.
type tailing struct {
	store    *segment.Store
	filter   *segment.Filter
	out      *bufio.Writer
	control  *http.ResponseController
	patience time.Duration
	next     uint64
	line     []byte
}

func (t *tailing) run(ctx context.Context) error {
	if err := t.alive(); err != nil {
		return err
	}
	for {
		from := t.next
		next, err := t.store.Read(ctx, t.next, tailBatch, t.send)
		if err != nil {
			return err
		}
		if t.next = next; t.out.Buffered() > 0 {
			if err := t.flush(); err != nil {
				return err
			}
		}
		if next > from {
			if !pause.For(ctx, tailPause) {
				return ctx.Err()
			}
			continue
		}
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		err = t.store.Wait(wait, t.next)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = t.alive()
		}
		if err != nil {
			return err
		}
	}
}

// send writes one event, if its message is asked for.
func (t *tailing) send(r *segment.Record) error {
	if !t.filter.Match(&r.Message) {
		return nil
	}
	t.line = append(t.line[:0], "id: "...)
	t.line = strconv.AppendUint(t.line, r.Seq, 10)
	t.line = append(t.line, "\ndata: "...)
	t.line = AppendRecord(t.line, r) // has no newline in it
	t.line = append(t.line, '\n', '\n')
	if t.out.Available() < len(t.line) { // it is about to write
		if err := t.deadline(); err != nil {
			return err
		}
	}
	_, err := t.out.Write(t.line)
	return err
}

// alive says that nothing has come, and how far the tail has got: whoever
// connects again need not be shown all of that again.
func (t *tailing) alive() error {
	t.line = t.line[:0]
	if t.next > 0 {
		t.line = append(strconv.AppendUint(append(t.line, "id: "...), t.next-1, 10), '\n')
	}
	if _, err := t.out.Write(append(t.line, ": alive\n\n"...)); err != nil {
		return err
	}
	return t.flush()
}

func (t *tailing) deadline() error {
	return t.control.SetWriteDeadline(time.Now().Add(t.patience))
}

func (t *tailing) flush() error {
	err := t.deadline()
	if err == nil {
		err = t.out.Flush()
	}
	if err == nil {
		err = t.control.Flush()
	}
	return err
}
