package step

import (
	"cmp"
	"context"
	"strings"

	"berth/appliance/clock"
	"berth/appliance/fault"
	"berth/appliance/firewall"
	"berth/appliance/login"
	"berth/appliance/network"
	"berth/appliance/setting"
	"berth/firstboot"
)

// network puts names and addresses in force. A network that is not there, or has no
// address for us yet, stops nobody: it may come later, and what is missing is said.
// A wrong address is another thing.
func (m Machine) network(ctx context.Context, w *firstboot.Work) (string, error) {
	n := w.Answers.Settings.Network
	err := network.Apply(ctx, n)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if f := fault.Of(err); fault.Is(err, fault.Unavailable) || fault.Is(err, fault.NotFound) {
		w.Warn("network: %s (%s)", f.Text, f.Hint)
	} else if err != nil {
		return "", err
	}
	now, err := network.Current(ctx)
	if err != nil {
		return "", err
	}
	var has []string
	for _, p := range now.Addresses {
		if p.Addr().IsGlobalUnicast() {
			has = append(has, p.Addr().String())
		}
	}
	return strings.Join(has, ", "), nil
}

// Reach puts network settings in force for the wizard.
func (m Machine) Reach(ctx context.Context, n setting.Network) error { return network.Apply(ctx, n) }

// time sets the zone and the servers. Nobody waits until the clock is right: where no
// server answers, it never is.
func (m Machine) time(ctx context.Context, w *firstboot.Work) (string, error) {
	t := w.Answers.Settings.Time
	if err := clock.Apply(ctx, t); err != nil {
		return "", err
	}
	return cmp.Or(t.Zone, "UTC"), nil
}

// access says who may come, and starts or stops SSH.
func (m Machine) access(ctx context.Context, w *firstboot.Work) (string, error) {
	s := w.Answers.Settings
	if err := firewall.Apply(ctx, s.Firewall, s.SSH.Enabled); err != nil {
		return "", err
	}
	if err := login.NewSSH("/", m.Systemd).Apply(ctx, s.SSH); err != nil {
		return "", err
	}
	if s.SSH.Enabled {
		return "SSH is on", nil
	}
	return "SSH is off", nil
}
