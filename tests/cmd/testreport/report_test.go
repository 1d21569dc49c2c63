package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const passing = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.5}
`
	for _, tc := range []struct {
		name  string
		in    string
		ok    bool
		want  []string // must be told
		never []string // must not
	}{{
		name: "all pass",
		in:   passing,
		ok:   true,
		want: []string{"ok    p", "1.5s", "\n1 passed, 0 failed, 0 skipped\n"},
	}, {
		name: "a skip is named with its reason",
		in: `{"Action":"run","Package":"p","Test":"TestD"}
{"Action":"output","Package":"p","Test":"TestD","Output":"=== RUN   TestD\n"}
{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:10: starting dockerd\n"}
{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:12: dockerd cannot start here:\n"}
{"Action":"output","Package":"p","Test":"TestD","Output":"        not root\n"}
{"Action":"output","Package":"p","Test":"TestD","Output":"--- SKIP: TestD (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestD"}
{"Action":"pass","Package":"p"}
` + strings.ReplaceAll(passing, `"p"`, `"q"`),
		ok:    true,
		want:  []string{"Skipped:\n  p TestD: dockerd cannot start here: not root\n", "\n1 passed, 0 failed, 1 skipped\n"},
		never: []string{"starting dockerd"},
	}, {
		name: "a failure shows its output",
		in: `{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p"}
`,
		want: []string{"--- FAIL: p TestB\n    b_test.go:3: got 1, want 2\n", "Failed:\n  p TestB\n", "\n0 passed, 1 failed, 0 skipped\n"},
	}, {
		name: "a package that does not compile",
		in: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/x.go:1: undefined: y\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
`,
		want: []string{"undefined: y", "p (build)", "\n0 passed, 1 failed, 0 skipped\n"},
	}, {
		name: "a package that fails outside of its tests",
		in: passing + `{"Action":"start","Package":"q"}
{"Action":"output","Package":"q","Output":"cannot start Berth: no database\n"}
{"Action":"fail","Package":"q"}
`,
		want: []string{"cannot start Berth: no database", "FAIL  q", "\n1 passed, 1 failed, 0 skipped\n"},
	}, {
		name: "a test that the time limit cut off",
		in: `{"Action":"run","Package":"p","Test":"TestSlow"}
{"Action":"output","Package":"p","Test":"TestSlow","Output":"still waiting\n"}
{"Action":"output","Package":"p","Output":"panic: test timed out after 1s\n"}
{"Action":"fail","Package":"p"}
`,
		want: []string{"p TestSlow", "still waiting", "did not finish", "panic: test timed out", "\n0 passed, 1 failed, 0 skipped\n"},
	}, {
		name: "a go command that was killed",
		in:   passing + `{"Action":"run","Package":"q","Test":"TestC"}` + "\n",
		want: []string{"q (package)", "did not finish", "\n1 passed, 1 failed, 0 skipped\n"},
	}, {
		name: "nothing ran",
		in:   "",
		want: []string{"\n0 passed, 0 failed, 0 skipped\n"},
	}, {
		name: "no test files",
		in:   passing + `{"Action":"start","Package":"q"}` + "\n" + `{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}` + "\n" + `{"Action":"skip","Package":"q"}` + "\n",
		ok:   true,
		want: []string{"\n1 passed, 0 failed, 0 skipped\n"},
	}} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := report(strings.NewReader(tc.in), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != tc.ok {
				t.Errorf("ok = %v, want %v", ok, tc.ok)
			}
			for _, w := range tc.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("%q is not told", w)
				}
			}
			for _, w := range tc.never {
				if strings.Contains(out.String(), w) {
					t.Errorf("%q is told", w)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}
