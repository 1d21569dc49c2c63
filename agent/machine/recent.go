package machine

import (
	"context"
	"sync"
	"time"

	"berth/agent/api"
)

// share is how much of the time may go into checks for those who only look: the VM's screen asks every two seconds,
// whether or not somebody sees it, and each check costs systemd more than it costs us. On a machine so slow that a check
// takes seconds (measured in QEMU without KVM, where it kept systemd from everything else), the answer gets older.
const share = 10

// recently is the outcome of the last checks.
type recently struct {
	mu     sync.Mutex // held during checks: who comes meanwhile gets the same answer
	until  time.Time
	phase  string
	health api.Health
}

// Health makes all checks, root causes first: what failed in the first boot comes before the disks, those before the
// database, that before the services. Status says the same from then on.
func (m *Machine) Health(ctx context.Context) api.Health {
	r := &m.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.make(ctx, m, m.Phase())
}

// recentHealth is Health, or its last answer if making that took more than a share of the time since. A boot that
// has come to another phase is checked at once, and so is a machine on which a service was started or stopped.
func (m *Machine) recentHealth(ctx context.Context, phase string) api.Health {
	r := &m.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().Before(r.until) && r.phase == phase {
		return r.health
	}
	return r.make(ctx, m, phase)
}

func (r *recently) make(ctx context.Context, m *Machine, phase string) api.Health {
	began := time.Now()
	h := m.look(ctx)
	if ctx.Err() != nil {
		return h // who asked has gone: half of it may not have been looked at
	}
	r.health, r.phase, r.until = h, phase, time.Now().Add(share*time.Since(began))
	return h
}

// forget lets the next who asks make the checks.
func (r *recently) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Time{}
}
