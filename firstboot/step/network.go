package step

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/firstboot"
)

// network names the machine; addresses come by DHCP, as the image has it.
func (m Machine) network(ctx context.Context, w *firstboot.Work) (string, error) {
	return "by DHCP", m.Reach(ctx, w.Answers.Settings.Network)
}

// Reach puts network settings in force.
func (m Machine) Reach(_ context.Context, n setting.Network) error {
	if n.Static() || n.IP6 != "" {
		return fault.New(fault.Unsupported, "static addresses are not available yet")
	}
	if n.Hostname == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(n.Hostname)); err != nil {
		return fmt.Errorf("cannot name the machine: %w", err)
	}
	return nil
}

// time is left to the distribution.
func (m Machine) time(context.Context, *firstboot.Work) (string, error) {
	return "by the distribution", nil
}
