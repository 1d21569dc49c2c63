package machine

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"berth/appliance/pause"
)

// Run does what has to be done without being asked, until ctx ends: it takes back
// changes of the network that nobody confirms, keeps the certificate right, makes
// the registry read-only before a disk is full, ends SSH in time, keeps the code of
// the setup, does planned reboots, tells vSphere how the appliance is. None of it
// ends the others by failing.
func (m *Machine) Run(ctx context.Context) error {
	if err := m.applyDoors(ctx); err != nil {
		m.o.Log.Error("cannot set SSH and the firewall", "err", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range []func(context.Context) error{
		m.followNetwork, m.followCertificate, m.watchDisks, m.endSSH, m.followCode, m.followPower, m.publish,
	} {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}

// applyDoors makes SSH and the firewall as the settings say, at each start: a crash
// may have come between the settings and them.
func (m *Machine) applyDoors(ctx context.Context) error {
	s, err := m.Settings()
	if err != nil {
		return broken(err)
	}
	return errors.Join(m.o.System.ApplySSH(ctx, s.SSH), m.o.System.ApplyFirewall(ctx, s.Firewall, s.SSH.Enabled))
}

// followNetwork lets the system carry changes of the network out, and take them back
// in time.
func (m *Machine) followNetwork(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := m.o.System.RunNetwork(ctx, m.commitNetwork); err != nil && ctx.Err() == nil {
			m.o.Log.Error("cannot follow changes of the network", "err", err)
			pause.For(ctx, lookEvery)
		}
	}
	return nil
}
