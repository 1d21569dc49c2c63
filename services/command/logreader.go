package command

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"berth/appliance/fault"
	"berth/services/logs"
	"berth/services/segment"
)

const (
	pageSize        = 1000   // messages asked for at once
	maxPushIDs      = 100    // tokens of which a request's messages may tell
	maxPushMessages = 50_000 // of one push, that are sorted in memory
)

// logReader is one run of `berth logs`.
type logReader struct {
	app    *app
	flags  logsFlags
	q      segment.Query
	client *logs.Client
	dir    string
	store  *segment.Store // instead of the client, where no service runs

	text    *logText
	out     *bufio.Writer
	ids     []string // of the push that is followed
	end     uint64   // the Seq that following begins with
	printed int
	late    map[uint64]bool // printed messages that following would show again
	told    bool            // progress stands on the terminal
}

func (r *logReader) run(ctx context.Context) error {
	r.out = bufio.NewWriterSize(r.app.stdout, 64<<10)
	r.late = map[uint64]bool{}
	r.text = &logText{colour: isTerminal(r.app.stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", zone: time.Local}
	defer func() {
		if r.store != nil {
			r.store.Close()
		}
	}()
	var err error
	switch {
	case r.flags.push:
		err = r.onePush(ctx)
	case r.flags.n > 0:
		err = r.newest(ctx)
	default:
		err = r.forward(ctx)
	}
	r.clear()
	if err != nil {
		return err
	}
	if r.flags.follow {
		return r.follow(ctx)
	}
	if r.printed == 0 {
		fmt.Fprintln(r.app.stderr, "berth: there are no such messages")
	}
	return nil
}

// newest prints the newest messages, the oldest of them first.
func (r *logReader) newest(ctx context.Context) error {
	var list []segment.Record
	q := r.q
	for len(list) < r.flags.n {
		q.Limit = min(r.flags.n-len(list), pageSize)
		page, end, err := r.search(ctx, q)
		if err != nil {
			return err
		}
		if q.Cursor == "" {
			r.end = end
		}
		list = append(list, page.Records...)
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
		r.progress(page)
	}
	slices.Reverse(list)
	return r.print(list)
}

// forward prints all messages, the oldest first, as they are found.
func (r *logReader) forward(ctx context.Context) error {
	q := r.q
	q.OldestFirst, q.Limit = true, pageSize
	for {
		page, end, err := r.search(ctx, q)
		if err != nil {
			return err
		}
		if q.Cursor == "" {
			r.end = end
		}
		if err := r.print(page.Records); err != nil {
			return err
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
		if len(page.Records) == 0 {
			r.progress(page)
		}
	}
}

// print writes messages. Those that came after the search began are remembered:
// following begins there.
func (r *logReader) print(list []segment.Record) error {
	r.clear()
	for i := range list {
		if list[i].Seq >= r.end && r.flags.follow {
			r.late[list[i].Seq] = true
		}
		if err := r.line(&list[i]); err != nil {
			return err
		}
	}
	return r.out.Flush()
}

func (r *logReader) line(m *segment.Record) error {
	r.printed++
	b := r.out.AvailableBuffer()
	if r.flags.output == "json" {
		b = marshalLine(b, m)
	} else {
		b = r.text.append(b, m)
	}
	_, err := r.out.Write(b)
	return err
}

// progress says on a terminal how far a long search has got.
func (r *logReader) progress(p segment.Page) {
	if !p.ScannedTo.IsZero() && isTerminal(r.app.stderr) {
		fmt.Fprintf(r.app.stderr, "\r\x1b[Kat %s …", p.ScannedTo.In(time.Local).Format(time.DateTime))
		r.told = true
	}
}

func (r *logReader) clear() {
	if r.told {
		fmt.Fprint(r.app.stderr, "\r\x1b[K")
		r.told = false
	}
}

// follow prints messages as they come. A service that is started again is found
// again.
func (r *logReader) follow(ctx context.Context) error {
	q := r.q
	q.Since = time.Time{} // what comes late is news too
	if len(r.ids) > 0 {
		q.ID = "" // several are asked for
	}
	const soon, late = 250 * time.Millisecond, 5 * time.Second
	wait, lost := soon, false
	for {
		next, err := r.client.Tail(ctx, q, r.end, func(m *segment.Record) error {
			if r.late[m.Seq] || len(r.ids) > 0 && !r.ofPush(m) {
				return nil
			}
			if err := r.line(m); err != nil {
				return err
			}
			return r.out.Flush()
		})
		if ctx.Err() != nil {
			return nil
		}
		if next > r.end {
			wait, lost = soon, false
		}
		r.end = next
		if f := fault.Of(err); f.Kind == fault.Invalid || f.Kind == fault.TooMany || isWriteError(err) {
			return err
		}
		if !lost {
			fmt.Fprintln(r.app.stderr, "berth: the log service has ended; waiting for it")
			lost = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, late)
		}
	}
}

func (r *logReader) ofPush(m *segment.Record) bool {
	for _, a := range m.Attrs {
		if slices.Contains(r.ids, a.Value) {
			return true
		}
	}
	return false
}
