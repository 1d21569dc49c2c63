package main

import (
	"strings"
	"testing"
	"time"
)

func TestPrefaceIsKept(t *testing.T) {
	if got := preface(""); !strings.HasPrefix(got, prefaceBegin) || !strings.HasSuffix(got, prefaceEnd+"\n") {
		t.Errorf("a new file begins with %q", got)
	}
	hand := prefaceBegin + "\n# Title\n\nWords.\n\n" + prefaceEnd + "\n"
	if got := preface(hand + "\n## Figures\n\nold\n"); got != hand {
		t.Errorf("got %q, want %q", got, hand)
	}
}

func TestFigures(t *testing.T) {
	figures := func(cpu ...time.Duration) *result {
		r := &result{}
		for _, d := range cpu {
			r.Rounds = append(r.Rounds, figure{CPU: d, Took: 2 * time.Second, Ops: 100, Bytes: 2 << 30, Peak: 50 << 20})
		}
		return r
	}
	for _, test := range []struct {
		row  row
		want string
	}{
		{row{Title: "a", Workers: 4, Unit: perOp, Target: 1, Results: map[string]*result{
			"Berth": figures(90*time.Millisecond, 200*time.Millisecond, 50*time.Millisecond), "CNCF": figures(900 * time.Millisecond)}},
			"a|4|ms|0.900|0.500–2.00|≤ 1.00|met|9.00|10.0×||50.0/s|50.0/s"},
		{row{Title: "b", Workers: 2, Unit: perGiB, Target: .2, Results: map[string]*result{"Berth": figures(time.Second), "bare": figures(time.Second / 2)}},
			"b|2|s/GiB|0.500||≤ 0.200|**missed**|||0.250|1024 MiB/s|"},
		{row{Title: "c", Workers: 64, Unit: memory, Results: map[string]*result{"Berth": figures(time.Second), "CNCF": figures(time.Second)}},
			"c|64|MiB RSS|50.0||||50.0|1.00×|||"},
	} {
		if got := strings.Join(test.row.cells(), "|"); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
		if len(test.row.cells()) != len(heads) {
			t.Errorf("%d cells under %d heads", len(test.row.cells()), len(heads))
		}
	}
}

func TestScenariosAreNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios() {
		if s.name == "" || seen[s.name] || s.title == "" || s.do == nil || s.workers < 1 || s.ops < s.workers || s.unit == perGiB && s.bytes == 0 {
			t.Errorf("scenario %q is not complete", s.name)
		}
		seen[s.name] = true
	}
}
