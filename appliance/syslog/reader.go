package syslog

import (
	"bytes"
	"errors"
	"io"
)

const (
	// maxFrame is the length of a counted message after which a connection cannot
	// be trusted any more.
	maxFrame = 16 << 20
	// smallRoom is what a Reader has while messages are of the usual length.
	smallRoom = 16 << 10
	// maxDigits is enough for every length that somebody may write; more digits
	// are the beginning of a line.
	maxDigits = 19
)

// ErrFrame ends a connection whose sender announces a message of more than 16 MiB.
var ErrFrame = errors.New("a message of more than 16 MiB is announced")

// Reader splits a stream into messages (RFC 6587). Each may have its length in
// front ("12 <13>…", section 3.4.1), or end in LF, CR LF or NUL (section 3.4.2):
// a message that begins with digits, a space and "<" is counted, any other is a
// line. So a line that begins with a number is none of a wrong length.
//
// It needs the room of one message of the maximal length at most, and less than
// 20 KiB usually.
type Reader struct {
	r    io.Reader
	max  int
	buf  []byte
	have []byte // what of buf is read and not given
	skip int    // bytes of a counted message that are passed over
	line bool   // the rest of a line is passed over
	err  error
}

// NewReader reads messages of at most max bytes from r.
func NewReader(r io.Reader, max int) *Reader { return &Reader{r: r, max: max} }

// Next gives the next message, which is valid until the following call. With
// cut, it is not whole: its rest was longer than the maximum and is passed over,
// or the stream ended in it. Empty messages are passed over. Errors: io.EOF,
// ErrFrame, those of the stream; they stay.
func (r *Reader) Next() (line []byte, cut bool, err error) {
	if err := r.passOver(); err != nil {
		return nil, false, err
	}
	for {
		for len(r.have) > 0 && isEnd(r.have[0]) {
			r.have = r.have[1:]
		}
		length, head, known, err := r.length()
		switch {
		case err != nil:
			return nil, false, err
		case known && head > 0:
			return r.counted(length, head)
		case known:
			return r.delimited()
		}
		if !r.fill() {
			if len(r.have) == 0 {
				return nil, false, r.err
			}
			line, r.have = r.have, nil
			return line, false, nil
		}
	}
}

func isEnd(c byte) bool { return c == '\n' || c == '\r' || c == 0 }

// length looks at what a message begins with: head is how long the length and
// the space after it are, 0 for a line. It is not known before enough has come.
func (r *Reader) length() (n, head int, known bool, err error) {
	for i, c := range r.have {
		switch {
		case c >= '0' && c <= '9' && i < maxDigits && (i > 0 || c != '0'):
			n = min(n*10+int(c-'0'), maxFrame+1)
		case c == ' ' && i > 0:
			if i+1 == len(r.have) {
				return 0, 0, false, nil
			}
			if r.have[i+1] != '<' {
				return 0, 0, true, nil
			}
			if n > maxFrame {
				r.err = ErrFrame
				return 0, 0, true, ErrFrame
			}
			return n, i + 1, true, nil
		default:
			return 0, 0, true, nil
		}
	}
	return 0, 0, false, nil
}

func (r *Reader) counted(length, head int) (line []byte, cut bool, err error) {
	r.have = r.have[head:]
	want := min(length, r.max)
	for len(r.have) < want {
		if !r.fill() {
			line, r.have = r.have, nil
			return line, true, nil
		}
	}
	line, r.have = r.have[:want], r.have[want:]
	r.skip = length - want
	return line, r.skip > 0, nil
}

func (r *Reader) delimited() (line []byte, cut bool, err error) {
	for looked := 0; ; {
		if i := endOfLine(r.have[looked:min(len(r.have), r.max+1)]); i >= 0 {
			line, r.have = r.have[:looked+i], r.have[looked+i+1:]
			return bytes.TrimRight(line, "\r"), false, nil
		}
		looked = min(len(r.have), r.max+1)
		if looked > r.max {
			line, r.have = r.have[:r.max], r.have[r.max:]
			r.line = true
			return line, true, nil
		}
		if !r.fill() {
			line, r.have = r.have, nil
			return line, false, nil
		}
	}
}

// endOfLine is where the first LF or NUL is, or -1.
func endOfLine(b []byte) int {
	end := bytes.IndexByte(b, '\n')
	if end >= 0 {
		b = b[:end]
	}
	if nul := bytes.IndexByte(b, 0); nul >= 0 {
		return nul
	}
	return end
}

// passOver leaves out the rest of a message that was cut.
func (r *Reader) passOver() error {
	for r.skip > 0 || r.line {
		n := len(r.have)
		if r.skip > 0 {
			n = min(n, r.skip)
			r.skip -= n
		} else if i := endOfLine(r.have); i >= 0 {
			n = i + 1
			r.line = false
		}
		r.have = r.have[n:]
		if (r.skip > 0 || r.line) && len(r.have) == 0 && !r.fill() {
			return r.err
		}
	}
	return nil
}

// fill reads more behind what is there, and reports false when nothing comes any
// more.
func (r *Reader) fill() bool {
	if r.err != nil {
		return false
	}
	if len(r.have) == 0 && (r.buf == nil || len(r.buf) > smallRoom) {
		r.buf = make([]byte, min(smallRoom, r.room()))
	}
	if len(r.have) == len(r.buf) {
		bigger := make([]byte, min(2*len(r.buf), r.room()))
		r.have = bigger[:copy(bigger, r.have)]
		r.buf = bigger
	} else {
		r.have = r.buf[:copy(r.buf, r.have)]
	}
	for range 100 {
		n, err := r.r.Read(r.buf[len(r.have):])
		r.have = r.buf[:len(r.have)+n]
		if err != nil {
			r.err = err
		}
		if n > 0 || err != nil {
			return n > 0
		}
	}
	r.err = io.ErrNoProgress
	return false
}

// room is for the longest message, its end, and the length in front.
func (r *Reader) room() int { return r.max + maxDigits + 8 }
