package diskrole_test

import (
	"bytes"
	"testing"

	"berth/appliance/diskrole"
)

func TestMarks(t *testing.T) {
	for _, r := range diskrole.All() {
		m := r.Mark()
		if len(m) != diskrole.MarkSize {
			t.Errorf("%s: a mark of %d bytes", r, len(m))
		}
		if got, ok := diskrole.ReadMark(m); !ok || got != r {
			t.Errorf("%s: read as %q", r, got)
		}
		if got, ok := diskrole.Parse(string(r)); !ok || got != r {
			t.Errorf("%s: parsed as %q", r, got)
		}
		if len(r.Label()) > 12 {
			t.Errorf("%s is too long a label for XFS", r.Label())
		}
		m[diskrole.MarkSize-1] = 1
		if _, ok := diskrole.ReadMark(m); ok {
			t.Errorf("%s: something else in the sector was not noticed", r)
		}
	}
	for _, no := range [][]byte{nil, make([]byte, 512), bytes.Repeat([]byte("B"), 512), []byte("BERTH BLANK DISK 1\nrole=data\n")} {
		if r, ok := diskrole.ReadMark(no); ok {
			t.Errorf("%.20q is a mark of %s", no, r)
		}
	}
	if _, ok := diskrole.Parse("swap"); ok {
		t.Error("swap is a role")
	}
}
