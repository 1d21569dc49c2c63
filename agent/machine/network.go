package machine

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/pause"
	"berth/appliance/setting"
)

// confirmWithin is how long a change of the network is kept without being confirmed.
const confirmWithin = 2 * time.Minute

// Network is what was set, and how it is.
func (m *Machine) Network(ctx context.Context) (api.Network, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Network{}, broken(err)
	}
	now, err := m.o.System.NetworkNow(ctx)
	if err != nil {
		return api.Network{}, err
	}
	n := api.Network{Settings: lists(s.Network), Now: now, Pending: m.pending()}
	return n, nil
}

func (m *Machine) pending() *api.Pending {
	if p, ok := m.o.System.PendingNetwork(); ok {
		return &p
	}
	return nil
}

// PendingNetwork is the change that waits for its confirmation.
func (m *Machine) PendingNetwork() (api.Pending, error) {
	p, ok := m.o.System.PendingNetwork()
	if !ok {
		return p, fault.New(fault.NotFound, "no change of the network waits for a confirmation")
	}
	return p, nil
}

// lists makes empty lists of those that are not there: JSON tells them apart.
func lists(n setting.Network) setting.Network {
	n.DNS, n.Search = some(n.DNS), some(n.Search)
	return n
}

func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// ChangeNetwork applies settings of the network for a while.
func (m *Machine) ChangeNetwork(ctx context.Context, n setting.Network) (api.Pending, error) {
	done, err := m.change(ctx, func(s *setting.Settings) error { s.Network = n; return nil })
	switch {
	case err != nil:
		return api.Pending{}, err
	case done.Pending == nil:
		return api.Pending{}, fault.New(fault.Conflict, "these are the settings that the network has already")
	}
	return *done.Pending, nil
}

// commitTime is how long the end of a confirmed change is waited for.
const commitTime = 15 * time.Second

// noPending refuses a second change of the network.
func (m *Machine) noPending() error {
	if _, busy := m.o.System.PendingNetwork(); busy {
		return fault.New(fault.Conflict, "a change of the network waits for its confirmation").WithHint("confirm it or take it back first; until the old network is back, that takes up to half a minute")
	}
	return nil
}

// ConfirmNetwork keeps a change. over is the address of ours that the confirmation
// came to; the zero value: over the unix socket, where whoever asks sits at the
// machine. An empty id is the change that is pending. What follows from it (settings,
// certificate, services that tell the name) is waited for, so that whoever comes next
// finds no change under way; if that takes long, it ends by itself.
func (m *Machine) ConfirmNetwork(ctx context.Context, id string, over netip.Addr) error {
	p, err := m.PendingNetwork()
	if err != nil {
		return err
	}
	if id == "" {
		id = p.ID
	}
	if err := m.o.System.ConfirmNetwork(ctx, id, over); err != nil {
		return err
	}
	for end := time.Now().Add(commitTime); time.Now().Before(end); {
		if now, busy := m.o.System.PendingNetwork(); !busy || now.ID != id || !pause.For(ctx, 50*time.Millisecond) {
			break
		}
	}
	return nil
}

// RevertNetwork takes a change back now.
func (m *Machine) RevertNetwork(ctx context.Context) error {
	p, err := m.PendingNetwork()
	if err != nil {
		return err
	}
	return m.o.System.RevertNetwork(ctx, p.ID)
}

// commitNetwork writes the settings of a change that was confirmed, and does what
// follows from its host name. It may be called again with the same.
func (m *Machine) commitNetwork(ctx context.Context, n setting.Network) error {
	m.settings.Lock()
	defer m.settings.Unlock()
	s, err := m.Settings()
	if err != nil {
		return broken(err)
	}
	renamed := s.Network.Hostname != n.Hostname
	s.Network = n
	if err := m.write(s); err != nil {
		return err
	}
	_, err = m.ensureCertificate(ctx, s)
	if !renamed {
		return err
	}
	// Whoever tells clients the registry's name.
	return errors.Join(err, m.restart(ctx, restarts([]api.Change{{Field: "hostnames"}}, s)))
}

// RestoreAccess gives the network back to DHCP, for good, and opens the console to
// every network: for whoever sits at the VM's console and cannot get in any more.
func (m *Machine) RestoreAccess(ctx context.Context) error {
	if _, busy := m.o.System.PendingNetwork(); busy {
		if err := m.RevertNetwork(ctx); err != nil {
			return err
		}
		if err := m.settled(ctx, func(_ api.Pending, busy bool) bool { return !busy }); err != nil {
			return err
		}
	}
	if _, err := m.change(ctx, func(s *setting.Settings) error { s.Firewall.Console = nil; return nil }); err != nil {
		return err
	}
	done, err := m.change(ctx, func(s *setting.Settings) error {
		s.Network = setting.Network{Hostname: s.Network.Hostname}
		return nil
	})
	if err != nil || done.Pending == nil {
		return err
	}
	if err := m.settled(ctx, func(p api.Pending, busy bool) bool { return !busy || p.Applied }); err != nil {
		return err
	}
	return m.ConfirmNetwork(ctx, done.Pending.ID, netip.Addr{})
}

// applyTime is how long a change may take to be in force: DHCP has its own patience.
const applyTime = 90 * time.Second

// settled waits until the change that is pending is as ready says.
func (m *Machine) settled(ctx context.Context, ready func(p api.Pending, busy bool) bool) error {
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	for {
		if p, busy := m.o.System.PendingNetwork(); ready(p, busy) {
			return nil
		}
		if !pause.For(ctx, 200*time.Millisecond) {
			return fault.Wrap(fault.Unavailable, ctx.Err(), "the change of the network takes too long").WithHint("look at the network again in a while")
		}
	}
}

// Names are what clients call the appliance.
func (m *Machine) Names(context.Context) (api.Names, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Names{}, broken(err)
	}
	n := api.Names{Names: some(s.Hostnames), Certificate: []string{}}
	n.Hostname, _ = os.Hostname()
	if c, err := m.served(s); err == nil {
		n.Certificate = certificateNames(c)
		for _, want := range m.names(s) {
			if c.VerifyHostname(bracket(want)) != nil {
				n.Missing = append(n.Missing, want)
			}
		}
	}
	return n, nil
}

// bracket is how x509 wants an IPv6 address to be asked for.
func bracket(name string) string {
	if a, err := netip.ParseAddr(name); err == nil && a.Is6() {
		return "[" + name + "]"
	}
	return name
}

// SetNames changes the names beside the machine's own; the certificate follows.
func (m *Machine) SetNames(ctx context.Context, names []string) (api.Names, error) {
	_, err := m.change(ctx, func(s *setting.Settings) error { s.Hostnames = slices.Clone(names); return nil })
	if err != nil {
		return api.Names{}, err
	}
	return m.Names(ctx)
}

// below gives a path of the settings below the root.
func (m *Machine) below(path string) string { return filepath.Join(m.o.Root, path) }
