package step_test

import (
	"slices"
	"strings"
	"testing"

	"berth/appliance/disk"
	"berth/appliance/diskrole"
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
		{"a copy, in place of the lost one", []disk.Disk{other, marked}, &firstboot.DiskState{UUID: "u1"}, "/dev/sdc", "/dev/sdc", false, ""},
		{"a wish for another, but the own one is there", []disk.Disk{other, ours}, &firstboot.DiskState{UUID: "u1"}, "/dev/sdc", "", false, "is there: /dev/sdb"},
		{"a blank one, in place of lost data", []disk.Disk{blank, marked}, &firstboot.DiskState{UUID: "u1"}, "/dev/sdf", "", false, "had the data"},
		{"a marked one, in place of lost data", []disk.Disk{blank, marked}, &firstboot.DiskState{UUID: "u1"}, "/dev/sdd", "", false, "had the data"},
		{"one that is not there, in place of the lost one", []disk.Disk{blank}, &firstboot.DiskState{UUID: "u1"}, "/dev/sdz", "", false, "no disk \"/dev/sdz\""},
		{"one that is refused, which leaves the reason of the boot", []disk.Disk{blank}, &firstboot.DiskState{UUID: "u1"}, "/dev/sdz", "", false, "is missing"},
		{"a directory before", []disk.Disk{ours, marked}, &firstboot.DiskState{}, "", "", false, ""},
	} {
		p, err := step.Choose(diskrole.Data, test.list, test.known, test.chosen)
		if test.fault != "" {
			if err == nil || !strings.Contains(err.Error(), test.fault) || firstboot.Faults(err)[0].Hint == "" {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil || p.Disk.Device != test.device || p.Format != test.format {
			t.Errorf("%s: %+v, %v", test.name, p, err)
		}
	}
}

// A lost log may begin anew, on a disk that has nothing of anybody's.
func TestChooseForALostLog(t *testing.T) {
	t.Parallel()
	list := []disk.Disk{
		{Device: "/dev/sda", State: disk.System}, {Device: "/dev/sdb", State: disk.Blank}, {Device: "/dev/sdc", State: disk.Marked, Role: diskrole.Log},
		{Device: "/dev/sdd", State: disk.Marked, Role: diskrole.Data}, {Device: "/dev/sde", State: disk.Ours, Role: diskrole.Data, UUID: "u2"}, {Device: "/dev/sdf", State: disk.Foreign, Kind: "XFS"},
	}
	for device, refusal := range map[string]string{"/dev/sda": "not blank", "/dev/sdb": "", "/dev/sdc": "", "/dev/sdd": "the disk for data", "/dev/sde": "the disk for data", "/dev/sdf": "XFS"} {
		p, err := step.Choose(diskrole.Log, list, &firstboot.DiskState{UUID: "u1"}, device)
		if refusal == "" && (err != nil || p.Disk.Device != device || !p.Format) || refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal) || firstboot.Faults(err)[0].Hint == "") {
			t.Errorf("%s: %+v, %v", device, p, err)
		}
	}
}

// The certificate has the addresses in it, IPv6 ones too, which come late; it is there
// before the registry serves with it.
func TestOrder(t *testing.T) {
	var names []string
	for _, s := range (step.Machine{}).All() {
		names = append(names, s.Name)
	}
	at := func(name string) int { return slices.Index(names, name) }
	if at("credentials") != 0 || at("certificate") < at("database") || at("certificate") > at("services") {
		t.Errorf("the order is %q", names)
	}
}
