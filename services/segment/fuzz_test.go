package segment

import (
	"bytes"
	"testing"
	"time"

	"berth/appliance/syslog"
)

func sample() *block {
	b := &block{}
	b.start(7)
	for i := range 5 {
		b.add(&syslog.Message{Component: "core", Text: "text", Attrs: []syslog.Attr{{Key: syslog.RequestID, Value: "r"}}}, int64(i)*int64(time.Second))
	}
	b.finish()
	return b
}

// A tail file may hold anything.
func FuzzReadTail(f *testing.F) {
	f.Add(appendChunk(nil, sample()))
	f.Add(append(appendChunk(nil, sample()), "BTLC garbage"...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, good, _ := readTail(data)
		if good < 0 || good > len(data) {
			t.Fatal(good)
		}
		for _, b := range blocks {
			if err := check(&b.view, 0); err != nil {
				t.Fatal("a block that was taken does not decode")
			}
		}
	})
}

// The records of a block may be anything, though their CRC is right.
func FuzzRecords(f *testing.F) {
	b := sample()
	f.Add(b.recs, uint8(b.count))
	f.Add([]byte{5, 0, 0, 0, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, recs []byte, count uint8) {
		v := &view{first: 1, count: int(count), words: b.words, recs: recs}
		w := walk{v: v}
		var h head
		var r Record
		for {
			ok, err := w.next(&h)
			if !ok || err != nil {
				return
			}
			if v.decode(&h, &r) == nil && len(r.Text) > len(recs) {
				t.Fatal("a text is longer than all records")
			}
		}
	})
}

// A segment file may hold anything; blocks of it that are good are found.
func FuzzSegment(f *testing.F) {
	s, err := newStore(f.TempDir(), Options{})
	if err != nil {
		f.Fatal(err)
	}
	var room []byte
	good := appendBlock([]byte(segmentMagic), sample(), s.encoder.EncodeAll, &room)
	f.Add(good)
	f.Add(append(bytes.Clone(good), "BBLKBBLK"...))
	f.Add(append([]byte(segmentMagic+"garbage"), good[8:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Store{o: Options{}.withDefaults(), components: newComponents(), decoder: s.decoder, next: 1}
		g := &segment{size: int64(len(segmentMagic))}
		in := bytes.NewReader(data)
		if err := s.scanSegment(g, in, int64(len(data))); err != nil {
			t.Fatal(err)
		}
		for _, e := range g.entries {
			if v, err := s.read(&scan{}, in, e); err == nil {
				_ = check(v, 0)
			}
		}
	})
}

// An index file may hold anything.
func FuzzIndex(f *testing.F) {
	s, err := newStore(f.TempDir(), Options{})
	if err != nil {
		f.Fatal(err)
	}
	b := sample()
	g := &segment{name: segmentName(7), size: 8}
	g.add(entry{first: 7, count: 5, size: 100, offset: 8, set: s.components.set(b.names(), false)}, 200, b.hashes)
	f.Add(indexMeta(g, s.components.sets, &index{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		meta, err := readIndexMeta(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			meta = data // as if its CRC were right
		}
		s := &Store{components: newComponents(), next: 1}
		g := &segment{index: index{size: 1 << 20}}
		if s.parseIndex(g, meta, 108) == nil && len(g.entries)*entrySize > len(data) {
			t.Fatal("there are more blocks than bytes")
		}
	})
}
