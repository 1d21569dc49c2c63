package firstboot_test

import (
	"context"
	"maps"
	"path/filepath"
	"testing"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/firstboot"
)

// Disks that are lost are named one by one; what the step has refused is named again, and nothing counts at the next boot.
func TestReplace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(t, "ovf-env.xml", environment(t, minimal()))
	if err := setting.Write(filepath.Join(m.dir, "appliance.yaml"), setting.Appliance()); err != nil {
		t.Fatal(err)
	}
	var asked map[diskrole.Role]string
	lost := false
	m.steps[1].Check = nil
	m.steps[1].Apply = func(_ context.Context, w *firstboot.Work) (string, error) {
		asked = maps.Clone(w.Replace)
		if lost && len(w.Replace) < 2 {
			return "", fault.New(fault.Unavailable, "missing").WithHint("attach it")
		}
		for role, uuid := range map[diskrole.Role]string{diskrole.Data: "u1", diskrole.Database: "u2"} {
			if err := w.Place(role, firstboot.DiskState{UUID: uuid}); err != nil {
				return "", err
			}
		}
		return "", nil
	}
	replace := func(role diskrole.Role) error {
		return firstboot.Replace(filepath.Join(m.dir, "state"), role, "/dev/for-"+string(role))
	}
	if _, err := m.run(t); err != nil {
		t.Fatal(err)
	}
	if err := replace(diskrole.Data); !fault.Is(err, fault.Precondition) {
		t.Errorf("nothing is lost: %v", err)
	}
	lost = true
	if _, err := m.run(t); err == nil {
		t.Fatal("nothing has failed")
	}
	if err := replace(diskrole.Log); !fault.Is(err, fault.Precondition) {
		t.Errorf("a role without a disk: %v", err)
	}
	if err := replace(diskrole.Data); err != nil {
		t.Fatal(err)
	}
	if _, err := m.run(t); err == nil || len(asked) != 1 || asked[diskrole.Data] != "/dev/for-data" {
		t.Errorf("one of two: %v, %v", asked, err)
	}
	if err := replace(diskrole.Database); err != nil {
		t.Fatal(err)
	}
	if s, err := m.run(t); err != nil || len(asked) != 2 || len(s.Replace) != 0 || s.Phase != firstboot.Ready {
		t.Errorf("both: %v, %+v, %v", asked, s, err)
	}
}
