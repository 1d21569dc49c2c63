// Package logs tests what an operator reads when something is wrong, on the whole product: one request's id finds all of
// a push, no secret is kept, floods harm nobody, and a log service that is killed comes again.
package logs

import (
	"encoding/json"
	"testing"
	"time"
)

func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(90 * time.Second):
		t.Fatalf("%s: nothing came", what)
	}
	return v
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}
