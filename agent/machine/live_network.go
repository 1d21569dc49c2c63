package machine

import (
	"context"
	"net/netip"
	"time"

	"berth/agent/api"
	"berth/appliance/network"
	"berth/appliance/setting"
)

// The network's part of Live.

// NetworkNow looks at the first network card.
func (l *Live) NetworkNow(ctx context.Context) (api.NetworkNow, error) {
	s, err := network.Current(ctx)
	w := api.NetworkNow{Interface: s.Interface, MAC: s.MAC, Up: s.Up, Addresses: []string{}, Gateway4: s.Gateway4, Gateway6: s.Gateway6,
		DNS: some(s.DNS), Search: some(s.Search), Hostname: s.Hostname, Source4: s.Source4}
	for _, p := range s.Addresses {
		w.Addresses = append(w.Addresses, p.String())
	}
	return w, err
}

// ChangeNetwork begins a change.
func (l *Live) ChangeNetwork(ctx context.Context, old, n setting.Network, within time.Duration) (api.Pending, error) {
	p, err := l.changer.Change(ctx, old, n, within)
	if err != nil {
		return api.Pending{}, err
	}
	w := wirePending(p)
	w.Until = time.Now().Add(within).UTC().Truncate(time.Second) // more exactly as soon as it is in force
	return w, nil
}

func wirePending(p network.Pending) api.Pending {
	w := api.Pending{ID: p.ID, Until: p.Until, Applied: p.Applied, Addresses: []string{}}
	for _, text := range []string{p.New.IP4, p.New.IP6} {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			w.Addresses = append(w.Addresses, prefix.Addr().String())
		}
	}
	return w
}

// PendingNetwork is the change that waits.
func (l *Live) PendingNetwork() (api.Pending, bool) {
	p, ok := l.changer.Pending()
	return wirePending(p), ok
}

// ConfirmNetwork keeps it.
func (l *Live) ConfirmNetwork(ctx context.Context, id string, over netip.Addr) error {
	return l.changer.Confirm(ctx, id, over)
}

// RevertNetwork takes it back.
func (l *Live) RevertNetwork(ctx context.Context, id string) error {
	return l.changer.Revert(ctx, id)
}

// RunNetwork carries changes out.
func (l *Live) RunNetwork(ctx context.Context, commit func(context.Context, setting.Network) error) error {
	l.changer.Commit = commit
	return l.changer.Run(ctx)
}
