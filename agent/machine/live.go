package machine

import (
	"bytes"
	"context"
	"log/slog"
	"os/exec"
	"time"

	"berth/appliance/disk"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/login"
	"berth/appliance/network"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/systemd"
)

// Live is the machine that this process runs on.
type Live struct {
	units   *systemd.Conn
	ssh     *login.SSH
	guest   *guestinfo.Client
	changer *network.Changer
}

// NewLive connects to systemd, which is there from the first moment of a boot.
func NewLive(ctx context.Context, log *slog.Logger) (*Live, error) {
	units, err := systemd.Open(ctx)
	if err != nil {
		return nil, err
	}
	changer := &network.Changer{Dir: setting.StateDir, Apply: network.Apply, Log: log}
	return &Live{units: units, ssh: login.NewSSH("/", units), guest: guestinfo.New(""), changer: changer}, nil
}

// Close ends the connection.
func (l *Live) Close() { l.units.Close() }

// Units, Start, Stop, Restart, Reboot and PowerOff are systemd's.

func (l *Live) Units(ctx context.Context, patterns ...string) ([]systemd.Unit, error) {
	return l.units.Units(ctx, patterns...)
}
func (l *Live) Start(ctx context.Context, unit string) error   { return l.units.Start(ctx, unit) }
func (l *Live) Stop(ctx context.Context, unit string) error    { return l.units.Stop(ctx, unit) }
func (l *Live) Restart(ctx context.Context, unit string) error { return l.units.Restart(ctx, unit) }
func (l *Live) Reboot(ctx context.Context) error               { return l.units.Reboot(ctx) }
func (l *Live) PowerOff(ctx context.Context) error             { return l.units.PowerOff(ctx) }

// ApplySSH switches sshd.
func (l *Live) ApplySSH(ctx context.Context, s setting.SSH) error { return l.ssh.Apply(ctx, s) }

// SetRootPassword changes root's password.
func (l *Live) SetRootPassword(ctx context.Context, p secret.Text) error {
	return login.SetPassword(ctx, "root", p)
}

// VerifyRoot checks root's password.
func (l *Live) VerifyRoot(ctx context.Context, p secret.Text) (bool, error) {
	return login.Verify(ctx, "root", p)
}

// registryTime is how long the change of the registry's password may take.
const registryTime = time.Minute

// SetRegistryPassword lets berth do it, which knows the database.
func (l *Live) SetRegistryPassword(ctx context.Context, p secret.Text) error {
	ctx, cancel := context.WithTimeout(ctx, registryTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/berth", "admin", "reset-password", "admin", "--config", setting.File)
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader([]byte(p.Reveal() + "\n"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the registry's password was not changed: %.300s", bytes.TrimSpace(said.Bytes())).
			WithHint("see whether the database runs: berth-agent health")
	}
	return nil
}

// ListDisks looks at the block devices.
func (l *Live) ListDisks(ctx context.Context) ([]BlockDevice, error) {
	disks, err := disk.List(ctx)
	list := make([]BlockDevice, len(disks))
	for i, d := range disks {
		list[i] = BlockDevice{Device: d.Device, Bytes: uint64(d.Bytes), Role: string(d.Role), State: string(d.State), Mounted: d.Mounted}
	}
	return list, err
}

// GrowDisk lets a file system fill its disk.
func (l *Live) GrowDisk(ctx context.Context, device string) (bool, error) {
	_, grown, err := disk.Grow(ctx, device)
	return grown, err
}

// Publish sets a guestinfo variable.
func (l *Live) Publish(ctx context.Context, key, value string) error {
	return l.guest.Set(ctx, key, value)
}
