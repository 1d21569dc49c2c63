package selector_test

import (
	"strings"
	"testing"

	"berth/services/selector"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"**", "a/b", true}, {"**", "", true}, {"*", "v1", true}, {"*", "a/b", false},
		{"v*", "v1.0", true}, {"v*", "1.0", false}, {"{v1,v2}", "v2", true}, {"{v1,v2}*", "v2-rc", true}, {"{v1,v2}", "v3", false},
		{"team-a/**", "team-a/x/y", true}, {"team-a/**", "team-b/x", false}, {"**/app", "a/b/app", true}, {"**/app", "app", true},
		{"v?.[0-9]", "v1.2", true}, {"release-[!0]*", "release-0", false}, {`a\*`, "a*", true}, {`a\*`, "ab", false},
	} {
		if err := selector.CheckPattern(c.pattern); err != nil {
			t.Errorf("%q: %v", c.pattern, err)
		}
		if got := selector.Match(c.pattern, c.name); got != c.want {
			t.Errorf("%q on %q: %v", c.pattern, c.name, got)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "[a", "{a,b", strings.Repeat("x", 256), strings.Repeat("{a,b}", 9), "a\x00", `a\`} {
		if selector.CheckPattern(p) == nil {
			t.Errorf("%q is accepted", p)
		}
	}
	tag := selector.Selector{Kind: "doublestar", Decoration: "matches", Pattern: "**", Extras: `{"untagged":true}`}
	if err := tag.CheckTag(); err != nil || !tag.Untagged() || !tag.Picks("x") {
		t.Errorf("%v, %v", err, tag.Untagged())
	}
	if tag.CheckRepository() == nil {
		t.Error("a tag's decoration on a repository is accepted")
	}
	except := selector.Selector{Kind: "doublestar", Decoration: "repoExcludes", Pattern: "tmp/**"}
	if err := except.CheckRepository(); err != nil || except.Picks("tmp/x") || !except.Picks("app") {
		t.Error("repoExcludes is wrong", err)
	}
	for _, s := range []selector.Selector{{Kind: "label", Decoration: "matches", Pattern: "x"}, {Kind: "doublestar", Pattern: "x"},
		{Kind: "doublestar", Decoration: "matches", Pattern: "x", Extras: "["}} {
		if s.CheckTag() == nil {
			t.Errorf("%v is accepted", s)
		}
	}
}

// Whatever a stranger writes is refused or matched, and soon: the fuzzer reports
// what hangs.
func FuzzMatch(f *testing.F) {
	for _, p := range []string{"**", "*a*a*a*a*b", "{a,{b,c}}*", "[a-", "[^a]", `\`, "**/**/**/x", "{,}{,}{,}"} {
		f.Add(p, strings.Repeat("a", 64))
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if selector.CheckPattern(pattern) != nil || len(name) > 512 {
			return
		}
		selector.Match(pattern, name)
	})
}
