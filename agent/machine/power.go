package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"berth/agent/api"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// The actions of Power.
const (
	Reboot   = "reboot"
	Shutdown = "shutdown"
)

// planned is what will happen to the machine.
type planned struct {
	mu    sync.Mutex
	state *api.PowerState // nil = nothing
}

// longestDelay is how long a reboot can be put off, in seconds.
const longestDelay = 24 * 60 * 60

// Power plans a reboot or a shutdown, also one that begins at once. A plan lives
// until the machine is off: it survives the agent.
func (m *Machine) Power(_ context.Context, action string, p api.Power, by string) (api.PowerState, error) {
	if action != Reboot && action != Shutdown {
		return api.PowerState{}, fault.New(fault.NotFound, "there is no %.40q", action).WithHint("there are %s and %s", Reboot, Shutdown)
	}
	if p.Seconds < 0 || p.Seconds > longestDelay {
		return api.PowerState{}, fault.New(fault.Invalid, "it must be between 0 and %d", longestDelay).On("seconds")
	}
	if len(p.Reason) > 200 {
		return api.PowerState{}, fault.New(fault.Invalid, "it has more than 200 characters").On("reason")
	}
	m.power.mu.Lock()
	defer m.power.mu.Unlock()
	if s := m.power.state; s != nil {
		return *s, fault.New(fault.Conflict, "a %s is planned for %s", s.Action, s.At.UTC().Format(time.DateTime)).WithHint("cancel it first")
	}
	// A second for the answer to get to whoever asks.
	s := &api.PowerState{Action: action, At: m.o.Now().Add(max(time.Second, time.Duration(p.Seconds)*time.Second)).UTC().Truncate(time.Millisecond), Reason: p.Reason, By: by}
	b, err := json.Marshal(s)
	if err == nil {
		err = durable.WriteFile(m.powerFile(), b, 0o600)
	}
	if err != nil {
		return api.PowerState{}, err
	}
	m.power.state = s
	return *s, nil
}

func (m *Machine) powerFile() string { return m.path(setting.AgentRunDir, "power.json") }

// CancelPower takes a plan back.
func (m *Machine) CancelPower(context.Context) error {
	m.power.mu.Lock()
	defer m.power.mu.Unlock()
	if m.power.state == nil {
		return fault.New(fault.NotFound, "neither a reboot nor a shutdown is planned")
	}
	if err := os.Remove(m.powerFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.power.state = nil
	return nil
}

// PowerPlan is what is planned; nil: nothing.
func (m *Machine) PowerPlan() *api.PowerState {
	m.power.mu.Lock()
	defer m.power.mu.Unlock()
	return m.power.state
}

// followPower does what is planned when its time has come, until ctx ends.
func (m *Machine) followPower(ctx context.Context) error {
	m.power.mu.Lock()
	if b, err := os.ReadFile(m.powerFile()); err == nil {
		var s api.PowerState
		if json.Unmarshal(b, &s) == nil && s.Action != "" {
			m.power.state = &s
		}
	}
	m.power.mu.Unlock()
	return every(ctx, 500*time.Millisecond, func(ctx context.Context) {
		s := m.PowerPlan()
		if s == nil || m.o.Now().Before(s.At) {
			return
		}
		do := m.o.System.PowerOff
		if s.Action == Reboot {
			do = m.o.System.Reboot
		}
		m.o.Log.Warn("the machine goes down", "action", s.Action, "reason", s.Reason, "by", s.By)
		err := do(ctx)
		if err != nil {
			m.o.Log.Error("cannot do what was planned", "action", s.Action, "err", err)
		}
		if err := m.CancelPower(ctx); err != nil && !fault.Is(err, fault.NotFound) {
			m.o.Log.Error("cannot forget what was planned", "err", err)
		}
	})
}
