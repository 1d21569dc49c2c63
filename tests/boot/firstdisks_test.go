package boot_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/appliance/setting"
	"berth/firstboot"
	"berth/tests/boot"
)

// A disk that was there once and is missing is a failure with its reason, and nothing is put in its place.
func TestMissingDisk(t *testing.T) {
	t.Parallel()
	environment := passwords("network.hostname", "berth.berth.test")
	m := boot.Start(t, boot.Options{Environment: environment})
	phase(t, m, firstboot.Ready)
	m.PowerOff(t)
	m.Detach(diskrole.Database)
	m.On(t)
	s := phase(t, m, firstboot.Failed)
	if f, ok := s.Failure(); !ok || f.Name != "disks" || !strings.Contains(f.Text, "berth-db") || f.Hint == "" {
		t.Errorf("the state is %+v", s)
	}
	if out := m.Command(t, "ls", "-A", setting.DatabaseMount); strings.TrimSpace(out) != "" {
		t.Errorf("something was made in its place: %s", out)
	}
	if _, err := m.Try("systemctl", "is-active", "berth-registry.service"); err == nil {
		t.Error("the registry was started")
	}
	m.PowerOff(t)
	m.Attach(diskrole.Database)
	m.On(t)
	m.Serving(t, time.Minute)
	phase(t, m, firstboot.Ready)
	admin(t, m, environment["registry.admin_password"])
}

// A lost disk for the log is replaced by a blank one; one for the data is not, and neither is a disk that is there.
func TestLostDisk(t *testing.T) {
	t.Parallel()
	environment := passwords("network.hostname", "berth.berth.test")
	m := boot.Start(t, boot.Options{Environment: environment})
	phase(t, m, firstboot.Ready)
	refused := func(role, device, why string) {
		t.Helper()
		if out, err := m.Try("berth-agent", "disks", "replace", role, device); err == nil || !strings.Contains(out+err.Error(), why) {
			t.Errorf("%s for %s: %v: %s", device, role, err, out)
		}
	}
	refused("log", m.Device(t, diskrole.Log), "does not lack")
	m.PowerOff(t)
	m.Lose(t, diskrole.Log)
	m.On(t)
	s := phase(t, m, firstboot.Failed)
	if f, ok := s.Failure(); !ok || f.Name != "disks" || !strings.Contains(f.Hint, "berth-agent disks replace log") {
		t.Errorf("the state is %+v", s)
	}
	refused("data", m.Device(t, diskrole.Log), "the disk for data is there")
	refused("log", "/dev/none", "no disk")
	refused("log", m.Device(t, diskrole.Data), "the disk for data")
	m.Command(t, "berth-agent", "disks", "replace", "log", m.Device(t, diskrole.Log))
	m.Serving(t, time.Minute)
	if out := m.Command(t, "findmnt", "-n", "-o", "LABEL", setting.LogMount); strings.TrimSpace(out) != diskrole.Log.Label() {
		t.Errorf("at %s is %s", setting.LogMount, out)
	}
	m.Kill(t)
	m.On(t)
	m.Serving(t, time.Minute)
	phase(t, m, firstboot.Ready)
	admin(t, m, environment["registry.admin_password"])
}

// Without an environment it waits for answers. A disk without a mark is nobody's before somebody says what it is for: until
// then the step fails and says so, and other answers go on from there.
func TestUnmarkedDisks(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{Unmarked: true, NoTools: true})
	if s := phase(t, m, firstboot.Waiting); len(s.Missing) != 3 || s.Hint == "" {
		t.Errorf("the state is %+v", s)
	}
	answers := ""
	for name, value := range passwords("network.hostname", "berth.berth.test") {
		answers += name + "=" + value + "\n"
	}
	apply := func(text string) {
		t.Helper()
		m.Wait(t, "the answers are taken", time.Minute, func() error {
			out, err := m.Input(text, "berth-agent", "setup", "apply", "-")
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	}
	apply(answers)
	m.Wait(t, "the step fails", time.Minute, func() error {
		if f, ok := stateOf(m).Failure(); !ok || f.Name != "disks" || !strings.Contains(f.Text, m.Device(t, diskrole.Data)) || f.Hint == "" {
			return fmt.Errorf("it is %+v", f)
		}
		return nil
	})
	roles := []diskrole.Role{diskrole.Data, diskrole.Database, diskrole.Log}
	for _, role := range roles {
		m.Command(t, "cmp", "-n", "67108864", m.Device(t, role), "/dev/zero")
		answers += "disks." + string(role) + "=" + m.Device(t, role) + "\n"
	}
	apply(answers)
	m.Serving(t, time.Minute)
	s := phase(t, m, firstboot.Ready)
	for _, role := range roles {
		if s.Disks[role].UUID == "" {
			t.Errorf("%s has no disk", role)
		}
	}
	admin(t, m, "Registry1"+odd)
	keptNoSecrets(t, m)
}

// An environment in a file, and no disks: all is on the system disk, and the state says so.
func TestOneDisk(t *testing.T) {
	t.Parallel()
	environment := passwords("network.search", "berth.berth.test") // and no host name: DNS knows it
	m := boot.Start(t, boot.Options{NoTools: true, Disks: map[diskrole.Role]int64{}, Files: map[string]string{"etc/berth/ovf-env.xml": boot.Document(environment)}})
	m.Serving(t, time.Minute)
	s := phase(t, m, firstboot.Ready)
	if s.Source != "/etc/berth/ovf-env.xml" || len(s.Warnings) != 3 {
		t.Errorf("the state is %+v", s)
	}
	if name := strings.TrimSpace(m.Command(t, "uname", "-n")); name != "berth.berth.test" || !strings.Contains(m.File(setting.File), "hostname: "+name) {
		t.Errorf("it is called %s, and in the settings %s", name, m.File(setting.File))
	}
	if text := m.File("/etc/berth/ovf-env.xml"); strings.Contains(text, "Root1") || !strings.Contains(text, "berth.berth.test") {
		t.Errorf("the environment is %s", text)
	}
	admin(t, m, environment["registry.admin_password"])
	m.Reboot(t)
	m.Serving(t, time.Minute)
	phase(t, m, firstboot.Ready)
}

// A new appliance takes over the disks of an earlier one, with everything on them, and its administrator has the password
// that was chosen now, which may be the one that it had.
func TestTakesOverDisks(t *testing.T) {
	t.Parallel()
	for name, password := range map[string]string{"another password": "Another-Passw0rd", "the same password": passwords()["registry.admin_password"]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			takeOver(t, password)
		})
	}
}

func takeOver(t *testing.T, password string) {
	m := boot.Start(t, boot.Options{Environment: passwords("network.hostname", "old.berth.test")})
	m.Serving(t, time.Minute)
	before := phase(t, m, firstboot.Ready)
	m.Command(t, "berth", "admin", "project", "create", "kept")
	ca := m.File(setting.DataMount + "/ca.crt")
	m.Command(t, "sh", "-c", "rm -rf "+setting.StateDir+"/* /etc/berth/appliance.yaml "+setting.SecretsDir+"/*")
	environment := passwords("network.hostname", "new.berth.test", "registry.admin_password", password)
	if err := m.SetDocument(boot.Document(environment)); err != nil {
		t.Fatal(err)
	}
	m.Reboot(t)
	m.Serving(t, time.Minute)
	s := phase(t, m, firstboot.Ready)
	for role, d := range s.Disks {
		if !d.TakenOver || d.UUID != before.Disks[role].UUID {
			t.Errorf("%s is %+v and was %+v", role, d, before.Disks[role])
		}
	}
	admin(t, m, password)
	if out := m.Command(t, "berth", "admin", "project", "list"); !strings.Contains(out, "kept") {
		t.Errorf("the projects are %s", out)
	}
	if m.File(setting.DataMount+"/ca.crt") != ca {
		t.Error("there is another CA")
	}
}
