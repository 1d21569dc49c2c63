package firstboot

import (
	"path/filepath"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
)

// Replace has the Runs of this boot take the device for the role, whose own disk is
// lost; when several are lost, the one that can name the last goes on. What kind of
// disk may be taken is the step's decision. It is a fault.Precondition unless this
// boot has failed because a disk is missing.
func Replace(dir string, role diskrole.Role, device string) error {
	unlock, err := lock(filepath.Join(dir, "firstboot.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	s, err := ReadState(dir)
	if err != nil {
		return err
	}
	if f, failed := s.Failure(); !failed || f.Name != "disks" || s.Disks[role].UUID == "" {
		return fault.New(fault.Precondition, "the appliance does not lack its disk for %s", role).
			WithHint("a disk can be replaced when the start has failed because it is missing; to have more room enlarge it in vCenter")
	}
	if s.Replace == nil {
		s.Replace = map[diskrole.Role]string{}
	}
	s.Replace[role] = device
	return writeState(dir, s)
}
