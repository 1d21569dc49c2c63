package screen_test

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"berth/agent/screen"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		w    int
		want []string
	}{
		{"", 10, []string{""}},
		{"one two three", 7, []string{"one two", "three"}},
		{"a\nb", 10, []string{"a", "b"}},
		{"sha256:0123456789abcdef", 10, []string{"sha256:012", "3456789abc", "def"}},
		{"see sha256:0123456789abcdef", 20, []string{"see sha256:012345678", "9abcdef"}},
	} {
		if got := screen.Wrap(c.text, c.w); !slices.Equal(got, c.want) {
			t.Errorf("%q in %d: %q, want %q", c.text, c.w, got, c.want)
		}
	}
}

func TestFingerprintWithNothing(t *testing.T) {
	if got := screen.Fingerprint("", 80); !slices.Equal(got, []string{"(no certificate yet)"}) {
		t.Errorf("got %q", got)
	}
	if got := screen.Fingerprint(print1, 33); len(got) != 4 || got[0] != "AA:BB:CC:DD  EE:FF:00:11" {
		t.Errorf("got %q", got)
	}
	if got := screen.Fingerprint(print1, 1); len(got) != 8 {
		t.Errorf("got %q", got)
	}
	if got := screen.Fingerprint(print1, 60); len(got) != 2 || got[0] != "AA:BB:CC:DD  EE:FF:00:11  22:33:44:55  66:77:88:99" {
		t.Errorf("got %q", got)
	}
}

// Whatever a stranger has written, it takes the columns that it is given, and none
// of it is for the terminal.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[2J\x1b]0;x\x07", "名前 ✓ é", "\u202etxt\u200b", "\xff\xfe", strings.Repeat("x", 300), "a\tb\r\nc\x00"} {
		f.Add(s, 20)
	}
	f.Fuzz(func(t *testing.T, s string, w int) {
		for _, l := range append(screen.Wrap(s, w), screen.Plain(s)) {
			for _, r := range l {
				if unicode.IsControl(r) || unicode.Is(unicode.Mn, r) || r > 0x25ff {
					t.Fatalf("%q has %U left", l, r)
				}
			}
		}
		for _, l := range screen.Wrap(s, w) {
			if n := len([]rune(l)); n > max(w, 1) {
				t.Fatalf("%q is wider than %d", l, w)
			}
		}
	})
}
