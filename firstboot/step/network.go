package step

import (
	"cmp"
	"context"
	"net/netip"
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
	if err := apply(ctx, w, n); err != nil {
		return "", err
	}
	var said []string
	if n.Hostname == "" {
		if name := nameFor(ctx); name != "" {
			s := w.Answers.Settings
			s.Network.Hostname = name
			if err := apply(ctx, w, s.Network); err != nil {
				return "", err
			}
			if err := setting.Write(setting.File, s); err != nil {
				return "", err
			}
			said = append(said, "the network calls it "+name)
		}
	}
	now, err := network.Current(ctx)
	if err != nil {
		return "", err
	}
	for _, a := range addresses(now) {
		said = append(said, a.String())
	}
	return strings.Join(said, ", "), nil
}

func apply(ctx context.Context, w *firstboot.Work, n setting.Network) error {
	err := network.Apply(ctx, n)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f := fault.Of(err); fault.Is(err, fault.Unavailable) || fault.Is(err, fault.NotFound) {
		w.Warn("network: %s (%s)", f.Text, f.Hint)
		return nil
	}
	return err
}

// addresses are the machine's own that others may know.
func addresses(now network.State) []netip.Addr {
	var list []netip.Addr
	for _, p := range now.Addresses {
		if p.Addr().IsGlobalUnicast() {
			list = append(list, p.Addr())
		}
	}
	return list
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
