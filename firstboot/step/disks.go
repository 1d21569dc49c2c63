package step

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"berth/appliance/disk"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/firstboot"
)

// mountPoints are where the disks of the roles are mounted.
var mountPoints = []struct {
	role diskrole.Role
	at   string
}{{diskrole.Data, setting.DataMount}, {diskrole.Database, setting.DatabaseMount}, {diskrole.Log, setting.LogMount}}

// A Place is where a role's files go.
type Place struct {
	Disk   disk.Disk // zero: a directory on the system disk
	Format bool      // it is blank, and becomes the role's
}

// Choose finds the place of a role among the machine's disks, and touches nothing.
// known is what earlier boots have recorded, nil before the first; chosen is the
// blank disk that somebody wants for it, or firstboot.OnSystemDisk. At a later boot
// that is a disk for a role whose own one is lost.
func Choose(role diskrole.Role, list []disk.Disk, known *firstboot.DiskState, chosen string) (Place, error) {
	of := func(state disk.State) (found []disk.Disk) {
		for _, d := range list {
			if d.State == state && d.Role == role {
				found = append(found, d)
			}
		}
		return found
	}
	ours := of(disk.Ours)
	if known != nil {
		place, err := again(role, ours, *known)
		switch {
		case chosen == "":
			return place, err
		case err == nil:
			return Place{}, fault.New(fault.Precondition, "the disk for %s is there: %s", role, place.Disk.Device).WithHint("name the disk that is missing")
		}
		place, refusal := instead(role, list, chosen)
		if refusal != nil {
			return Place{}, errors.Join(err, refusal) // what is wrong with the boot comes first
		}
		return place, nil
	}
	switch {
	case len(ours) == 1:
		return Place{Disk: ours[0]}, nil
	case len(ours) > 1:
		return Place{}, fault.New(fault.Conflict, "there are several disks with the label %s: %s", role.Label(), devices(ours)).
			WithHint("detach those that do not belong to this appliance")
	}
	marked := of(disk.Marked)
	switch {
	case len(marked) == 1:
		return Place{Disk: marked[0], Format: true}, nil
	case len(marked) > 1:
		return Place{}, fault.New(fault.Conflict, "there are several blank disks for %s: %s", role, devices(marked)).WithHint("detach those that are too many")
	case chosen == firstboot.OnSystemDisk:
		return Place{}, nil
	case chosen != "":
		for _, d := range list {
			if d.Device == chosen && d.State == disk.Blank {
				return Place{Disk: d, Format: true}, nil
			}
		}
		return Place{}, fault.New(fault.Precondition, "the disk %s, which was chosen for %s, is not there or not blank", chosen, role).
			WithHint("choose another one, or detach and wipe it")
	}
	if blank := slices.DeleteFunc(slices.Clone(list), func(d disk.Disk) bool { return d.State != disk.Blank }); len(blank) > 0 {
		return Place{}, fault.New(fault.Precondition, "there is no disk for %s, and what the blank disk %s is for is not known", role, devices(blank)).
			WithHint("say in the wizard which one is for %s, or detach it; then %s has a directory on the system disk", role, role)
	}
	return Place{}, nil
}

// again finds the disk that the role had at the first boot. There is no other: a
// fresh one in its place would be an empty registry.
func again(role diskrole.Role, ours []disk.Disk, known firstboot.DiskState) (Place, error) {
	if known.UUID == "" {
		return Place{}, nil
	}
	for _, d := range ours {
		if d.UUID == known.UUID {
			return Place{Disk: d}, nil
		}
	}
	if len(ours) > 0 {
		return Place{}, fault.New(fault.Precondition, "the disk for %s is another one than before: %s has the file system %s, and it was %s", role, ours[0].Device, ours[0].UUID, known.UUID).
			WithHint("attach the disk that belongs to this appliance; if it is lost: berth-agent disks replace %s %s", role, ours[0].Device)
	}
	return Place{}, fault.New(fault.Unavailable, "the disk for %s (label %s) is missing", role, role.Label()).
		WithHint("attach it to the virtual machine again and restart; nothing is put in its place. If it is lost: berth-agent disks replace %s DEVICE", role)
}

// instead judges the disk that somebody wants in place of a role's lost one. The log
// may begin anew. The data without their database, or the reverse, would be an empty
// or a broken registry that looks like a sound one: there it must be a copy.
func instead(role diskrole.Role, list []disk.Disk, device string) (Place, error) {
	i := slices.IndexFunc(list, func(d disk.Disk) bool { return d.Device == device })
	if i < 0 {
		return Place{}, fault.New(fault.Precondition, "there is no disk %.60q to take for %s", device, role).WithHint("there are %s", devices(list))
	}
	d := list[i]
	blank := d.State == disk.Blank || d.State == disk.Marked && d.Role == role
	switch {
	case d.State == disk.Ours && d.Role == role:
		return Place{Disk: d}, nil
	case blank && role == diskrole.Log:
		return Place{Disk: d, Format: true}, nil
	case blank:
		return Place{}, fault.New(fault.Precondition, "the disk %s is blank, and the lost one had the %s of the registry", device, role).
			WithHint("attach a copy of the lost disk: from the storage's snapshots, or a backup of the virtual machine")
	}
	what := d.Kind
	if d.Role != "" {
		what = "the disk for " + string(d.Role)
	}
	return Place{}, fault.New(fault.Precondition, "the disk %s is not blank: there is %s on it", device, what).WithHint("attach a blank one")
}

func devices(list []disk.Disk) string {
	var names []string
	for _, d := range list {
		names = append(names, fmt.Sprintf("%s (%d GiB)", d.Device, d.Bytes>>30))
	}
	return strings.Join(names, ", ")
}

// settleTime is how long a disk that should be there is waited for: a controller may
// still be looking for its disks when the boot is this far.
const settleTime = 10 * time.Second

// disks finds, formats and mounts the disks, and makes what the services need on
// them; at every boot.
func (m Machine) disks(ctx context.Context, w *firstboot.Work) (string, error) {
	places, err := find(ctx, w)
	if err != nil {
		return "", err
	}
	var said []string
	for _, mp := range mountPoints {
		text, err := m.disk(ctx, w, places[mp.role], mp.role, mp.at)
		if err != nil {
			return "", err
		}
		if text != "" {
			said = append(said, text)
		}
	}
	// What these say about owners is true for the disks of another appliance, too.
	if _, err := run(ctx, nil, "/usr/bin/systemd-tmpfiles", "--create", "--prefix=/storage"); err != nil {
		return "", fmt.Errorf("cannot make the directories on the disks: %w", err)
	}
	if err := m.start(ctx, "berth-storage.target"); err != nil {
		return "", err
	}
	return strings.Join(said, ", "), nil
}

// find chooses the places of all roles before anything is written. As long as a role
// has none, or none but the system disk although nobody has asked for that, it looks
// again.
func find(ctx context.Context, w *firstboot.Work) (map[diskrole.Role]Place, error) {
	for end := time.Now().Add(settleTime); ; {
		list, err := disk.List(ctx)
		if err != nil {
			return nil, err
		}
		places, faults, lacking := map[diskrole.Role]Place{}, []error{}, false
		var refused []diskrole.Role // in place of lost ones
		for _, mp := range mountPoints {
			var known *firstboot.DiskState
			if d, ok := w.Disks[mp.role]; ok {
				known = &d
			}
			chosen := w.Answers.UseDisks[mp.role]
			if known != nil {
				chosen = w.Replace[mp.role]
			}
			place, err := Choose(mp.role, list, known, chosen)
			if err != nil {
				faults, refused = append(faults, err), append(refused, mp.role)
			}
			places[mp.role] = place
			lacking = lacking || err != nil || place.Disk.Device == "" && known == nil && chosen != firstboot.OnSystemDisk
		}
		if !lacking || time.Now().After(end) {
			for _, role := range refused {
				delete(w.Replace, role)
			}
			return places, errors.Join(faults...)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// disk prepares the place of one role.
func (m Machine) disk(ctx context.Context, w *firstboot.Work, place Place, role diskrole.Role, at string) (string, error) {
	known, again := w.Disks[role]
	if again && place.Disk.UUID != known.UUID {
		w.Log.Warn("another disk replaces the lost one", "role", role, "device", place.Disk.Device, "lost", known.UUID)
	}
	if place.Disk.Device == "" {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return "", fmt.Errorf("cannot make the directory %s: %w", at, err)
		}
		w.Warn("%s has no disk of its own: it is on the system disk, which must not run full", role)
		return "", w.Place(role, firstboot.DiskState{})
	}
	d, said, err := place.Disk, "", error(nil)
	if place.Format {
		said = "formatted " + d.Device + " for " + string(role)
		if err := disk.Format(ctx, d.Device, role); err != nil {
			return "", err
		}
		if d, err = disk.Probe(d.Device); err != nil {
			return "", err
		}
	}
	if err := disk.Mount(ctx, d, at); err != nil {
		return "", err
	}
	now := firstboot.DiskState{UUID: d.UUID, TakenOver: known.TakenOver}
	if !again && !place.Format {
		// One without files is this appliance's own: a cut came between its file system
		// and the state.
		if now.TakenOver = used(at); now.TakenOver {
			said = "took over " + d.Device + " for " + string(role)
		}
	}
	if err := w.Place(role, now); err != nil {
		return "", err
	}
	if bytes, grown, err := disk.Grow(ctx, d.Device); err != nil {
		w.Warn("the disk for %s could not grow: %v", role, err)
	} else if grown {
		said = fmt.Sprintf("%s has grown to %d GiB", role, bytes>>30)
	}
	return said, nil
}

// used reports whether there is something in a file system but what mke2fs makes. What
// cannot be read counts as something.
func used(at string) bool {
	entries, err := os.ReadDir(at)
	return err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != "lost+found" })
}

// takenOver are the roles that a disk from an earlier appliance has.
func takenOver(disks map[diskrole.Role]firstboot.DiskState) []diskrole.Role {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(disks)), func(r diskrole.Role) bool { return !disks[r].TakenOver })
}
