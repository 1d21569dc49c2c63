package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/api"
	"berth/appliance/diskrole"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/firstboot"
)

// mounts are where the roles' file systems are.
func mounts() []struct {
	role  diskrole.Role
	mount string
} {
	return []struct {
		role  diskrole.Role
		mount string
	}{{diskrole.System, "/"}, {diskrole.Data, setting.DataMount}, {diskrole.Database, setting.DatabaseMount}, {diskrole.Log, setting.LogMount}}
}

// The states of a disk.
const (
	diskOK       = "ok"
	diskWarning  = "warning"
	diskReadOnly = "read-only"
	diskFull     = "full"    // of a disk whose filling up does not stop pushes
	diskMissing  = "missing" // nothing is there
)

// reserve is what must be left however large the disk is: PostgreSQL writes its
// journal in pieces of 16 MiB, and stops when it cannot.
const reserve = 256 << 20

// Disks are the file systems of all roles.
func (m *Machine) Disks(ctx context.Context) (api.Disks, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Disks{}, broken(err)
	}
	devices, err := m.o.System.ListDisks(ctx)
	if err != nil {
		return api.Disks{}, err
	}
	d := api.Disks{Settings: s.Disks, ReadOnly: m.watch.closed(), Disks: []api.Disk{}}
	for _, place := range mounts() {
		one := m.usage(place.role, place.mount, s.Disks)
		for _, b := range devices {
			if b.Mounted == place.mount || b.Role == string(place.role) && b.State == "ours" {
				one.Device, one.DeviceBytes = b.Device, b.Bytes
			}
		}
		d.Disks = append(d.Disks, one)
	}
	return d, nil
}

// usage looks how full a role's file system is, and judges it.
func (m *Machine) usage(role diskrole.Role, mount string, limits setting.Disks) api.Disk {
	d := api.Disk{Role: string(role), Mount: mount, State: diskMissing}
	var s unix.Statfs_t
	if err := unix.Statfs(m.below(mount), &s); err != nil {
		d.Text = "there is nothing at " + mount
		return d
	}
	size := uint64(s.Frsize)
	d.Bytes, d.Used = s.Blocks*size, (s.Blocks-s.Bfree)*size
	free := s.Bavail * size
	d.Percent = percent(d.Used, free)
	what := fmt.Sprintf("the %s disk is %d %% full", role, d.Percent)
	if s.Files > 0 {
		if files := percent(s.Files-s.Ffree, s.Ffree); files > d.Percent {
			d.Percent, what = files, fmt.Sprintf("%d %% of the files that the %s disk has room for are there", files, role)
		}
	}
	short := free < reserve && d.Bytes > 8*reserve
	switch closes := role == diskrole.Data || role == diskrole.Database; {
	case closes && (d.Percent >= limits.ReadOnly() || short):
		d.State = diskReadOnly
	case d.Percent >= limits.ReadOnly() || short:
		d.State = diskFull
	case d.Percent >= limits.Warn():
		d.State = diskWarning
	default:
		d.State = diskOK
		return d
	}
	d.Text = what
	return d
}

// percent is how much of what programs can have is used, rounded up as df does.
func percent(used, free uint64) int {
	if used+free == 0 {
		return 0
	}
	return int((used*100 + used + free - 1) / (used + free))
}

// SetDisks changes the limits. They count from the next look on, in seconds.
func (m *Machine) SetDisks(ctx context.Context, d setting.Disks) (api.Disks, error) {
	if _, err := m.change(ctx, func(s *setting.Settings) error { s.Disks = d; return nil }); err != nil {
		return api.Disks{}, err
	}
	return m.Disks(ctx)
}

// Grow makes the file system of a role as large as its disk, which somebody has
// enlarged in vCenter. Nothing stops meanwhile.
func (m *Machine) Grow(ctx context.Context, role string) (api.Disk, error) {
	if r, ok := diskrole.Parse(role); !ok || r == diskrole.System {
		return api.Disk{}, fault.New(fault.NotFound, "there is no disk %.40q that can grow", role).WithHint("there are data, database and log")
	}
	devices, err := m.o.System.ListDisks(ctx)
	if err != nil {
		return api.Disk{}, err
	}
	for _, b := range devices {
		if b.Role != role || b.State != "ours" {
			continue
		}
		grown, err := m.o.System.GrowDisk(ctx, b.Device)
		if err != nil {
			return api.Disk{}, err
		}
		all, err := m.Disks(ctx)
		if err != nil {
			return api.Disk{}, err
		}
		for _, d := range all.Disks {
			if d.Role == role {
				if !grown {
					d.Text = "it is as large as its disk already"
				}
				return d, nil
			}
		}
	}
	return api.Disk{}, fault.New(fault.Precondition, "the role %s has no disk of its own: it is a directory on the system disk", role).
		WithHint("enlarge the system disk in vCenter and restart the virtual machine")
}

// Replace takes another disk for a role whose own one is lost, after which the start
// has failed, and goes on with the start.
func (m *Machine) Replace(ctx context.Context, role, device string) (api.Disks, error) {
	r, ok := diskrole.Parse(role)
	if !ok || r == diskrole.System {
		return api.Disks{}, fault.New(fault.NotFound, "there is no disk %.40q that can be replaced", role).WithHint("there are data, database and log")
	}
	if device == "" {
		return api.Disks{}, fault.New(fault.Invalid, "which disk is to be taken for %s is missing", role).On("device")
	}
	if err := firstboot.Replace(m.path(setting.StateDir), r, device); err != nil {
		return api.Disks{}, err
	}
	err := m.o.System.Restart(ctx, firstbootUnit)
	if step, failed := m.state().Failure(); failed { // why the unit has failed
		return api.Disks{}, fault.New(fault.Precondition, "%s", step.Text).WithHint("%s", step.Hint)
	}
	if err != nil {
		return api.Disks{}, err
	}
	return m.Disks(ctx)
}

const (
	// lookAtDisks is how often disks are looked at: a fast push fills the last five
	// percent of a small disk in a few seconds.
	lookAtDisks = 2 * time.Second
	// open is how many percent a disk must be below the mark before the registry
	// takes pushes again: else each deletion would open it for one push.
	openBelow = 3
)

// watermarks make the registry read-only before a disk is full. They alone write
// the read-only file.
type watermarks struct {
	mu     sync.Mutex
	reason string // "" = the registry takes pushes
}

func (w *watermarks) closed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// watchDisks looks at the disks until ctx ends.
func (m *Machine) watchDisks(ctx context.Context) error {
	failed := ""
	return every(ctx, lookAtDisks, func(context.Context) {
		if err := m.lookAtDisks(); err != nil && err.Error() != failed {
			failed = err.Error()
			m.o.Log.Error("cannot make the registry read-only, or end that", "err", err)
		}
	})
}

func (m *Machine) lookAtDisks() error {
	s, err := m.Settings()
	if err != nil {
		s = setting.Appliance() // limits that are not known are the usual ones
	}
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	reason := ""
	for _, place := range mounts() {
		if place.role != diskrole.Data && place.role != diskrole.Database {
			continue
		}
		d := m.usage(place.role, place.mount, s.Disks)
		full := d.State == diskReadOnly
		if w.reason != "" && d.State != diskMissing && d.Percent > s.Disks.ReadOnly()-openBelow {
			full = full || d.Percent >= s.Disks.Warn()
		}
		if full && reason == "" {
			reason = d.Text
			if reason == "" {
				reason = fmt.Sprintf("the %s disk is %d %% full", d.Role, d.Percent)
			}
			reason += ": delete artifacts or enlarge it"
		}
	}
	// The file is looked at each time: /run is another one after a restart.
	file := m.below(s.ReadOnlyFile())
	_, missing := os.Stat(file)
	switch {
	case reason != "" && (reason != w.reason || missing != nil):
		if err := durable.WriteFile(file, []byte(reason+"\n"), 0o644); err != nil {
			return err
		}
		if w.reason == "" {
			m.o.Log.Warn("the registry takes no more pushes", "reason", reason)
		}
	case reason == "" && missing == nil:
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		m.o.Log.Info("the registry takes pushes again")
	}
	w.reason = reason
	return nil
}
