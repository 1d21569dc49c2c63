package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"berth/appliance/pause"
)

func TestFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if !pause.For(ctx, 40*time.Second) || time.Since(begun) != 40*time.Second {
			t.Errorf("it waited %s", time.Since(begun))
		}
		if pause.For(ctx, 40*time.Second) || time.Since(begun) != time.Minute {
			t.Errorf("it waited %s though its context had ended", time.Since(begun))
		}
		if pause.For(ctx, time.Hour) || time.Since(begun) != time.Minute {
			t.Error("it waits though its context has ended")
		}
	})
}
