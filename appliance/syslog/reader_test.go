package syslog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"berth/appliance/syslog"
)

// read gives the messages of a stream, "…" behind those that were cut.
func read(r io.Reader, max int) (messages []string, err error) {
	reader := syslog.NewReader(r, max)
	for {
		line, cut, err := reader.Next()
		if err != nil {
			return messages, err
		}
		s := string(line)
		if cut {
			s += "…"
		}
		messages = append(messages, s)
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	mega := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, stream string
		want         []string
		err          error
	}{
		{"nothing", "", nil, io.EOF},
		{"counted", "5 <13>a6 <13>bc", []string{"<13>a", "<13>bc"}, io.EOF},
		{"counted with a newline inside and between", "7 <13>a\nb\n5 <13>c\n", []string{"<13>a\nb", "<13>c"}, io.EOF},
		{"lines", "<13>a\n<13>b\r\n\n<13>c\x00<13>d", []string{"<13>a", "<13>b", "<13>c", "<13>d"}, io.EOF},
		{"mixed", "<13>a\n5 <13>b<13>c\n5 <13>d", []string{"<13>a", "<13>b", "<13>c", "<13>d"}, io.EOF},
		{"a line that begins with a number", "404 not found\n2026-01-02 x\n7\n", []string{"404 not found", "2026-01-02 x", "7"}, io.EOF},
		{"half a frame", "50 <13>a", []string{"<13>a…"}, io.EOF},
		{"half a length", "50 ", []string{"50 "}, io.EOF},
		{"a length that is too small", "5 <13>abc\n<13>d\n", []string{"<13>a", "bc", "<13>d"}, io.EOF},
		{"a length that is too big", "9 <13>a\n<13>d\n<13>e\n", []string{"<13>a\n<13", ">d", "<13>e"}, io.EOF},
		{"a giant length", "99999999999 <13>a", nil, syslog.ErrFrame},
		{"a length of more digits than a number has", strings.Repeat("9", 40) + " <13>a\n<13>b\n", []string{strings.Repeat("9", 40) + " <13>a", "<13>b"}, io.EOF},
		{"a length of zero", "0 <13>a\n", []string{"0 <13>a"}, io.EOF},
		{"1 MiB counted", fmt.Sprintf("%d <13>%s5 <13>b", 4+len(mega), mega), []string{"<13>" + mega[:60] + "…", "<13>b"}, io.EOF},
		{"1 MiB line", "<13>" + mega + "\n<13>b\n", []string{"<13>" + mega[:60] + "…", "<13>b"}, io.EOF},
		{"1 MiB without an end", "<13>" + mega, []string{"<13>" + mega[:60] + "…"}, io.EOF},
		{"a line of the greatest length", mega[:64] + "\n" + mega[:64] + "\r\nb", []string{mega[:64], mega[:64] + "…", "b"}, io.EOF},
	} {
		for pace, r := range map[string]io.Reader{"at once": strings.NewReader(tt.stream), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.stream))} {
			got, err := read(r, 64)
			if !errors.Is(err, tt.err) || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("%s, %s: %.300q, %v", tt.name, pace, got, err)
			}
		}
	}
	if _, err := read(iotest.ErrReader(errors.New("broken")), 64); err == nil || err.Error() != "broken" {
		t.Error(err)
	}
	if _, err := read(stuck{}, 64); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// FuzzReader: however a stream is split into reads, its messages are the same;
// none is longer than allowed; and the lines of a stream are in it.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"5 <13>a6 <13>bc", "<13>a\n<13>b\r\n\n<13>c\x00<13>d", "404 not found\n", "99999999999 <13>a", "9 <13>a\n<13>d\n<13>e\n", strings.Repeat("x", 100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := read(bytes.NewReader(stream), 32)
		parts, err2 := read(iotest.OneByteReader(bytes.NewReader(stream)), 32)
		if fmt.Sprintf("%q", whole) != fmt.Sprintf("%q", parts) || !errors.Is(err2, err) {
			t.Errorf("%q, %v; byte by byte %q, %v", whole, err, parts, err2)
		}
		for _, s := range whole {
			s = strings.TrimSuffix(s, "…")
			if s == "" || len(s) > 32 || !bytes.Contains(stream, []byte(s)) {
				t.Errorf("%q", s)
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	for name, one := range map[string][]byte{"counted": syslog.AppendFrame(nil, []byte(ownLine)), "lines": []byte(ownLine + "\n")} {
		b.Run(name, func(b *testing.B) {
			stream := bytes.Repeat(one, 1000)
			r := syslog.NewReader(&endless{b: stream}, 64<<10)
			b.ReportAllocs()
			b.SetBytes(int64(len(one)))
			for b.Loop() {
				if line, cut, err := r.Next(); err != nil || cut || len(line) != len(ownLine) {
					b.Fatal(len(line), cut, err)
				}
			}
		})
	}
}

// endless gives b for ever.
type endless struct {
	b []byte
	i int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.i:])
	e.i = (e.i + n) % len(e.b)
	return n, nil
}
