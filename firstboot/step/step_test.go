package step_test

import (
	"strings"
	"testing"

	"berth/appliance/disk"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/firstboot"
	"berth/firstboot/step"
)

// Which disk a role gets, and when it gets none rather than the wrong one.
func TestChoose(t *testing.T) {
	t.Parallel()
	ours := disk.Disk{Device: "/dev/sdb", State: disk.Ours, Role: diskrole.Data, UUID: "u1"}
	other := disk.Disk{Device: "/dev/sdc", State: disk.Ours, Role: diskrole.Data, UUID: "u2"}
	marked := disk.Disk{Device: "/dev/sdd", State: disk.Marked, Role: diskrole.Data}
	second := disk.Disk{Device: "/dev/sde", State: disk.Marked, Role: diskrole.Data}
	blank := disk.Disk{Device: "/dev/sdf", State: disk.Blank}
	foreign := disk.Disk{Device: "/dev/sdg", State: disk.Foreign, Kind: "XFS"}
	system := disk.Disk{Device: "/dev/sda", State: disk.System}
	database := disk.Disk{Device: "/dev/sdh", State: disk.Marked, Role: diskrole.Database}
	for _, test := range []struct {
		name   string
		list   []disk.Disk
		known  *firstboot.DiskState
		chosen string
		device string
		format bool
		fault  string
	}{
		{"the OVA's", []disk.Disk{system, marked, database}, nil, "", "/dev/sdd", true, ""},
		{"an earlier appliance's before a blank one", []disk.Disk{ours, marked}, nil, "", "/dev/sdb", false, ""},
		{"two earlier appliances'", []disk.Disk{ours, other}, nil, "", "", false, "several disks with the label berth-data"},
		{"two marked", []disk.Disk{marked, second}, nil, "", "", false, "several blank disks"},
		{"none", []disk.Disk{system, foreign, database}, nil, "", "", false, ""},
		{"a blank one that nobody has chosen", []disk.Disk{system, blank}, nil, "", "", false, "/dev/sdf"},
		{"a blank one that somebody has chosen", []disk.Disk{system, blank}, nil, "/dev/sdf", "/dev/sdf", true, ""},
		{"the system disk, chosen", []disk.Disk{system, blank}, nil, firstboot.OnSystemDisk, "", false, ""},
		{"a foreign one, chosen", []disk.Disk{foreign}, nil, "/dev/sdg", "", false, "not blank"},
		{"the same as before", []disk.Disk{other, ours}, &firstboot.DiskState{UUID: "u1"}, "", "/dev/sdb", false, ""},
		{"missing", []disk.Disk{marked, blank}, &firstboot.DiskState{UUID: "u1"}, "", "", false, "is missing"},
		{"another than before", []disk.Disk{other, marked}, &firstboot.DiskState{UUID: "u1"}, "", "", false, "another one than before"},
		{"a directory before", []disk.Disk{ours, marked}, &firstboot.DiskState{}, "", "", false, ""},
	} {
		p, err := step.Choose(diskrole.Data, test.list, test.known, test.chosen)
		if test.fault != "" {
			if err == nil || !strings.Contains(err.Error(), test.fault) || fault.Of(err).Hint == "" {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil || p.Disk.Device != test.device || p.Format != test.format {
			t.Errorf("%s: %+v, %v", test.name, p, err)
		}
	}
}
