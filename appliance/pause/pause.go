// Package pause waits for a time, or less if somebody wants to end.
package pause

import (
	"context"
	"time"
)

// For waits for d; it is false, and at once, if ctx ends before.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
