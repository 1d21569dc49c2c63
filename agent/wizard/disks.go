package wizard

import (
	"slices"

	"berth/agent/api"
	"berth/appliance/diskrole"
	"berth/firstboot"
)

// OnSystemDisk, in place of a device, puts a role's files on the system disk.
const OnSystemDisk = firstboot.OnSystemDisk

// The states of a disk, as the agent names them.
const (
	blankDisk   = "blank"
	foreignDisk = "foreign"
)

// A Place is where a role's files can be.
type Place struct {
	Role diskrole.Role
	// Disk is the one that is marked for the role or was used for it: there is no choice.
	Disk *api.SetupDisk
	// Blank are the disks without a mark that can be chosen.
	Blank []api.SetupDisk
	// Chosen is one of them, or OnSystemDisk; empty: nothing was chosen.
	Chosen string
}

// Open reports whether somebody has to choose: there are blank disks, and one of
// them may have been attached for this.
func (p Place) Open() bool { return p.Disk == nil && p.Chosen == "" && len(p.Blank) > 0 }

// Places gives the roles' places among the disks that were found.
func (a Answers) Places(disks []api.SetupDisk) []Place {
	var out []Place
	for _, role := range diskrole.All() {
		if role == diskrole.System {
			continue
		}
		p := Place{Role: role, Chosen: a.Disks[role]}
		for _, d := range disks {
			switch {
			case d.State == blankDisk:
				p.Blank = append(p.Blank, d)
			case d.Role == string(role) && d.State != foreignDisk:
				p.Disk = &d
			}
		}
		out = append(out, p)
	}
	return out
}

// CheckDisks gives a fault for each role whose place has to be chosen and is not.
// Guessing it would format a disk that nobody has named, or leave one unused that
// somebody has bought.
func (a Answers) CheckDisks(disks []api.SetupDisk) []api.Fault {
	var out []api.Fault
	for _, p := range a.Places(disks) {
		if p.Open() {
			out = append(out, api.Fault{Field: "disks." + string(p.Role), Text: "no disk is chosen for " + string(p.Role), Hint: "choose a blank disk, or the system disk"})
		}
	}
	return out
}

// Next is the choice after the present one: the blank disks that no other role has,
// then the system disk, and from the beginning.
func (a Answers) Next(p Place) string {
	all := []string{}
	for _, d := range p.Blank {
		taken := false
		for role, device := range a.Disks {
			taken = taken || role != p.Role && device == d.Device
		}
		if !taken {
			all = append(all, d.Device)
		}
	}
	all = append(all, OnSystemDisk)
	return all[(slices.Index(all, p.Chosen)+1)%len(all)]
}
