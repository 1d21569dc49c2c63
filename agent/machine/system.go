package machine

import (
	"context"
	"net/netip"
	"time"

	"berth/agent/api"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/systemd"
)

// System is what only the operating system of the appliance can do. Live is the
// real one; tests have one that remembers what it was asked for, since no test may
// reboot the machine that it runs on.
type System interface {
	Networking
	Clock
	Doors
	Units
	Disks

	// SetRootPassword and VerifyRoot are about the machine's own account. The
	// password's strength has been checked.
	SetRootPassword(ctx context.Context, p secret.Text) error
	VerifyRoot(ctx context.Context, p secret.Text) (bool, error)
	// SetRegistryPassword gives the registry's user admin a password; it works while
	// the registry's services are down, but not without the database.
	SetRegistryPassword(ctx context.Context, p secret.Text) error
	// Publish sets a guestinfo variable; guestinfo.ErrUnavailable: this machine has
	// none.
	Publish(ctx context.Context, key, value string) error
}

// Networking is the network's part of a System.
type Networking interface {
	NetworkNow(ctx context.Context) (api.NetworkNow, error)
	// ChangeNetwork begins a change, which RunNetwork carries out. It is taken back
	// after a while, also when the agent has ended or the machine was restarted
	// meanwhile, unless ConfirmNetwork comes over an address of the new settings.
	ChangeNetwork(ctx context.Context, old, n setting.Network, within time.Duration) (api.Pending, error)
	PendingNetwork() (api.Pending, bool)
	ConfirmNetwork(ctx context.Context, id string, over netip.Addr) error
	RevertNetwork(ctx context.Context, id string) error
	// RunNetwork carries changes out until ctx ends. commit writes the settings of one
	// that was confirmed.
	RunNetwork(ctx context.Context, commit func(context.Context, setting.Network) error) error
}

// Clock is the time's part of a System.
type Clock interface {
	ApplyTime(ctx context.Context, t setting.Time) error
	TimeNow(ctx context.Context) (api.Time, error)
	TestTime(ctx context.Context, server string) (api.TimeAnswer, error)
}

// Doors are who gets in: the firewall and sshd.
type Doors interface {
	ApplyFirewall(ctx context.Context, f setting.Firewall, ssh bool) error
	ApplySSH(ctx context.Context, s setting.SSH) error
}

// Units is systemd's part of a System.
type Units interface {
	Units(ctx context.Context, patterns ...string) ([]systemd.Unit, error)
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	// Reboot and PowerOff begin at once.
	Reboot(ctx context.Context) error
	PowerOff(ctx context.Context) error
}

// Disks is the block devices' part of a System.
type Disks interface {
	ListDisks(ctx context.Context) ([]BlockDevice, error)
	// GrowDisk makes the file system of a device as large as the device.
	GrowDisk(ctx context.Context, device string) (grown bool, err error)
}

// BlockDevice is a whole disk, as package disk sees it.
type BlockDevice struct {
	Device  string
	Bytes   uint64
	Role    string // of a marked disk, or one of ours
	State   string // blank-marked, blank, ours, foreign, system
	Mounted string
}
