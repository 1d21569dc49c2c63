package command

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/agent/api"
	"berth/agent/machine"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/systemd"
)

// recorded is an operating system that does nothing but remember what it was asked
// for. The real one is used where a whole appliance is booted (tests/appliance).
type recorded struct {
	mu        sync.Mutex
	calls     []string
	fail      map[string]error // by the beginning of a call
	pending   *api.Pending
	network   setting.Network
	confirmed chan setting.Network
	units     []systemd.Unit
	disks     []machine.BlockDevice
	published map[string]string
	tools     bool // guestinfo is there
	// hold keeps a restart from ending; it gives up when its context ends. nil: it ends at once.
	hold   chan struct{}
	gaveUp chan struct{}
}

func newRecorded() *recorded {
	return &recorded{published: map[string]string{}, fail: map[string]error{}, confirmed: make(chan setting.Network, 1), gaveUp: make(chan struct{}, 1)}
}

func (s *recorded) note(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	s.calls = append(s.calls, call)
	for prefix, err := range s.fail {
		if strings.HasPrefix(call, prefix) {
			return err
		}
	}
	return nil
}

func (s *recorded) asked(call string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.calls, call)
}

func (s *recorded) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

func (s *recorded) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *recorded) NetworkNow(context.Context) (api.NetworkNow, error) {
	return api.NetworkNow{Interface: "eth0", Up: true, Addresses: []string{"192.0.2.10/24"}, DNS: []string{}, Search: []string{}, Hostname: "berth", Source4: "dhcp"}, nil
}

func (s *recorded) ChangeNetwork(_ context.Context, _, n setting.Network, within time.Duration) (api.Pending, error) {
	if err := s.note("network %s %s", n.Mode, n.IP4); err != nil {
		return api.Pending{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = &api.Pending{ID: "p1", Until: time.Now().Add(within), Applied: true, Addresses: []string{n.IP4}}
	s.network = n
	return *s.pending, nil
}

func (s *recorded) PendingNetwork() (api.Pending, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		return api.Pending{}, false
	}
	return *s.pending, true
}

func (s *recorded) ConfirmNetwork(_ context.Context, id string, over netip.Addr) error {
	if err := s.note("confirm %s %s", id, over); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || s.pending.ID != id {
		return fault.New(fault.NotFound, "no such change")
	}
	s.pending = nil
	s.confirmed <- s.network
	return nil
}

func (s *recorded) RevertNetwork(context.Context, string) error {
	err := s.note("revert")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = nil
	return err
}

func (s *recorded) RunNetwork(ctx context.Context, commit func(context.Context, setting.Network) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-s.confirmed:
			if err := commit(ctx, n); err != nil {
				return err
			}
		}
	}
}

func (s *recorded) ApplyTime(_ context.Context, t setting.Time) error {
	return s.note("time %s %v", t.Zone, t.NTP)
}

func (s *recorded) TimeNow(context.Context) (api.Time, error) {
	return api.Time{Now: time.Now(), Zone: "UTC", Synchronized: true}, nil
}

func (s *recorded) TestTime(_ context.Context, server string) (api.TimeAnswer, error) {
	return api.TimeAnswer{Stratum: 2, OffsetMillis: 1}, s.note("test time %s", server)
}

func (s *recorded) ApplyFirewall(_ context.Context, f setting.Firewall, ssh bool) error {
	return s.note("firewall %v %v %v ssh %v", f.Registry, f.Console, f.SSH, ssh)
}

func (s *recorded) ApplySSH(_ context.Context, ssh setting.SSH) error {
	return s.note("ssh %v", ssh.Enabled)
}

func (s *recorded) Units(_ context.Context, patterns ...string) ([]systemd.Unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []systemd.Unit
	for _, u := range s.units {
		if slices.Contains(patterns, u.Name) {
			list = append(list, u)
		}
	}
	return list, nil
}

func (s *recorded) Start(_ context.Context, u string) error { return s.note("start %s", u) }
func (s *recorded) Stop(_ context.Context, u string) error  { return s.note("stop %s", u) }
func (s *recorded) Restart(ctx context.Context, u string) error {
	err := s.note("restart %s", u)
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold == nil {
		return err
	}
	select {
	case <-hold:
		return err
	case <-ctx.Done():
		s.gaveUp <- struct{}{}
		return ctx.Err()
	}
}
func (s *recorded) Reboot(context.Context) error   { return s.note("reboot") }
func (s *recorded) PowerOff(context.Context) error { return s.note("poweroff") }

func (s *recorded) ListDisks(context.Context) ([]machine.BlockDevice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.disks), nil
}

func (s *recorded) GrowDisk(_ context.Context, device string) (bool, error) {
	return true, s.note("grow %s", device)
}

func (s *recorded) SetRootPassword(context.Context, secret.Text) error {
	return s.note("root password")
}

func (s *recorded) VerifyRoot(_ context.Context, p secret.Text) (bool, error) {
	return p == "Root-1-Password", nil
}

func (s *recorded) SetRegistryPassword(context.Context, secret.Text) error {
	return s.note("registry password")
}

func (s *recorded) Publish(_ context.Context, key, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tools {
		return guestinfo.ErrUnavailable
	}
	s.published[key] = value
	return nil
}
