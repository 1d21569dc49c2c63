package artifact_test

import (
	"fmt"
	"sync"
	"testing"

	"berth/appliance/fault"
	"berth/services/artifact"
)

// Pulls that share a query see every push that was acknowledged before they
// came, each its own tag, and a tag that is not there is not found.
func TestManyPullsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, artifact.Options{})
	c := b.blob("p/app", "1")
	first := b.mustPush("p/app", image(nil, c), "fixed")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			own := b.blob("p/app", fmt.Sprint("own", w))
			for i := range 40 {
				tag := fmt.Sprint("moving-", w)
				payload := image(nil, own, c)
				if i%2 == 0 {
					payload = image(nil, c, own)
				}
				d, err := b.push("p/app", payload, tag)
				if err != nil {
					t.Error(err)
					return
				}
				if m, err := b.Tagged(b.ctx, "p/app", tag); err != nil || m.Digest != d || string(m.Payload) != string(payload) {
					t.Errorf("%s names %s (%v), but %s was acknowledged", tag, m.Digest, err, d)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				if m, err := b.Tagged(b.ctx, "p/app", "fixed"); err != nil || m.Digest != first {
					t.Errorf("got %s, %v", m.Digest, err)
				}
				if _, err := b.Tagged(b.ctx, "p/app", "absent"); !fault.Is(err, fault.NotFound) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	wg.Wait()
}
