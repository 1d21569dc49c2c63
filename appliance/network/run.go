package network

import (
	"context"
	"time"

	"berth/appliance/fault"
)

// again is how long Run waits after something that went wrong.
const again = 5 * time.Second

// Run carries changes out until ctx ends, beginning with one that an agent before
// this one has left. It ends with an error only if it cannot begin.
func (c *Changer) Run(ctx context.Context) error {
	c.mu.Lock()
	err := c.load()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		wait := c.step(ctx)
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer:
		}
	}
	return nil
}

// step does what is to be done next, and says after which time to look again;
// negative: when something happens.
func (c *Changer) step(ctx context.Context) time.Duration {
	c.mu.Lock()
	now := c.now
	c.mu.Unlock()
	var err error
	switch {
	case now == nil:
		return -1
	case now.Confirmed:
		err = c.commit(ctx, now)
	case now.Boot != c.boot():
		err = c.revert(ctx, now, "the machine was restarted before it was confirmed")
	case now.Reverting != "":
		err = c.revert(ctx, now, now.Reverting)
	case !now.Applied:
		err = c.begin(ctx, now)
	case !time.Now().Before(now.deadline):
		err = c.revert(ctx, now, "nobody has confirmed it at the new address in time")
	default:
		return time.Until(now.deadline)
	}
	if err != nil && ctx.Err() == nil {
		c.Log.Error("a change of the network does not get on; it is tried again", "id", now.ID, "err", err)
		return again
	}
	return 0
}

// begin puts the new settings in force. If they do not work, the old ones come back
// at once.
func (c *Changer) begin(ctx context.Context, now *change) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	c.Log.Info("the network is changed on trial", "id", now.ID)
	failed := c.Apply(ctx, now.New)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || c.now.ID != now.ID || c.now.Reverting != "" {
		return nil // taken back meanwhile
	}
	next := *c.now
	if failed != nil {
		next.Reverting = fault.Of(failed).Text
		c.Log.Warn("the new network does not work", "id", now.ID, "err", failed)
	} else {
		next.Applied = true
		next.deadline = time.Now().Add(now.Wait)
		next.Until = next.deadline.UTC()
	}
	return c.store(&next)
}

func (c *Changer) commit(ctx context.Context, now *change) error {
	if err := c.Commit(ctx, now.New); err != nil {
		return err
	}
	// After a restart of the machine the old ones are in force.
	if now.Boot != c.boot() {
		if err := c.Apply(ctx, now.New); err != nil {
			c.Log.Warn("the confirmed network does not work after a restart", "id", now.ID, "err", err)
		}
	}
	c.Log.Info("the new network is confirmed", "id", now.ID)
	return c.end(Outcome{ID: now.ID, Confirmed: true, Text: "it was confirmed"})
}

// revert puts the old settings in force. That they may not work either, as without
// a DHCP server, is no reason to keep the new ones.
func (c *Changer) revert(ctx context.Context, now *change, why string) error {
	err := c.Apply(ctx, now.Old)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Conflict) {
		return err
	}
	if err != nil {
		c.Log.Warn("the old network is back, and does not work either", "id", now.ID, "err", err)
	}
	c.Log.Warn("the old network is back", "id", now.ID, "why", why)
	return c.end(Outcome{ID: now.ID, Text: why})
}
