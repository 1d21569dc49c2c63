package machine

import (
	"strings"
	"testing"
)

// What a message is about is in its attributes: without them "a request was refused" tells nothing.
func TestLineOf(t *testing.T) {
	t.Parallel()
	for want, attributes := range map[string]map[string]any{
		"refused": nil,
		"refused: no route to host field=hours n=2 text=\"a b\"": {"err": "no route to host", "field": "hours", "n": 2.0, "text": "a b", "empty": ""},
		"refused a=\"x\\ny\"": {"a": "x\ny"},
	} {
		if got := lineOf("refused", attributes); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := lineOf("refused", map[string]any{"a": "1", "b": strings.Repeat("x", 10_000)}); got != "refused a=1 …" {
		t.Errorf("%.100q", got)
	}
}
