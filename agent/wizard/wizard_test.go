package wizard_test

import (
	"strings"
	"testing"

	"berth/agent/api"
	"berth/agent/wizard"
	"berth/appliance/diskrole"
	"berth/appliance/property"
)

// Every property of the form is asked on exactly one page, but for those that only
// make sense without a wizard.
func TestEveryPropertyHasItsPage(t *testing.T) {
	without := map[string]string{
		"network.prefix_or_mask": "the address is typed with its prefix",
		"install.config_b64":     "for Terraform and govc",
		"install.unattended":     "whoever sits at the wizard has chosen",
		"install.restore_url":    "restoring comes with backups",
		"install.restore_secret": "restoring comes with backups",
	}
	asked := map[string]string{}
	for _, page := range wizard.Pages() {
		if page.Title == "" || page.Text == "" {
			t.Errorf("page %s does not say what it is for", page.Name)
		}
		for _, f := range page.Fields {
			if _, ok := property.Find(f); !ok {
				t.Errorf("page %s asks for %s, which is no property", page.Name, f)
			}
			if asked[f] != "" {
				t.Errorf("%s is asked on %s and %s", f, asked[f], page.Name)
			}
			asked[f] = page.Name
			if got := wizard.PageOf(f).Name; got != page.Name {
				t.Errorf("a fault of %s leads to %s", f, got)
			}
		}
	}
	for _, p := range property.All() {
		if asked[p.Name()] == "" && without[p.Name()] == "" {
			t.Errorf("%s is asked on no page", p.Name())
		}
	}
}

func TestFaultsOfSettingsLeadToTheirPages(t *testing.T) {
	for field, want := range map[string]string{
		"time.zone": "time", "time.ntp": "time", "disks.warn_percent": "storage", "tls.anything": "certificate",
		"proxy.http": "proxy", "vcenter.address": "vcenter", "nonsense": "network", "": "network",
	} {
		if got := wizard.PageOf(field).Name; got != want {
			t.Errorf("%q leads to %s, want %s", field, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	var a wizard.Answers
	set := func(name, value string, wrong bool) {
		t.Helper()
		if err := a.Set(name, value); (err != nil) != wrong {
			t.Errorf("%s: %v", name, err)
		}
	}
	set("network.hostname", "  reg.example.com ", false)
	set("appliance.root_password", " s p & <\"' ", false)
	set("appliance.root_password", "", false) // left standing
	set("tls.certificate", "-----BEGIN\r\n", false)
	set("no.such", "x", true)
	set("network.dns", "a\x00b", true)
	set("network.dns", "\xff", true)
	set("network.dns", strings.Repeat("x", property.MaxLen+1), true)
	if got := a.Shown("network.hostname"); got != "reg.example.com" {
		t.Errorf("the host name is %q", got)
	}
	if a.Shown("appliance.root_password") != "" || a.Values["appliance.root_password"] != " s p & <\"' " {
		t.Error("a password is kept as it was typed and never shown")
	}
	if a.Shown("network.mode") != "dhcp" || a.Given("network.mode") {
		t.Error("a default is shown and is not an answer")
	}
	b := a.Copy()
	a.Forget("appliance.root_password")
	if a.Given("appliance.root_password") || !b.Given("appliance.root_password") {
		t.Error("a copy has maps of its own")
	}
	a.Choose(diskrole.Data, "/dev/sdb")
	a.Choose(diskrole.Log, "/dev/sdc")
	a.Choose(diskrole.Log, "")
	if len(a.Disks) != 1 || a.Disks[diskrole.Data] != "/dev/sdb" {
		t.Errorf("disks: %v", a.Disks)
	}
	set("network.hostname", "", false)
	if a.Given("network.hostname") {
		t.Error("an emptied answer is none")
	}
	set("network.mode", "DHCP", false)
	set("network.ip4", "192.0.2.10/24", false)
	final := a.Final()
	for name, want := range map[string]string{"network.hostname": "", "network.ip4": "", "network.mode": "dhcp", "appliance.timezone": "UTC", "appliance.root_password": ""} {
		if got, ok := final.Values[name]; !ok || got != want {
			t.Errorf("%s is sent as %q, %v; want %q", name, got, ok, want)
		}
	}
	if _, ok := final.Values["registry.admin_password"]; ok {
		t.Error("a password that nobody has typed is sent, and would take the known one away")
	}
	if a.Shown("network.ip4") != "192.0.2.10/24" {
		t.Error("what is not sent is kept for the page")
	}
}

func TestDisks(t *testing.T) {
	disks := []api.SetupDisk{{Device: "/dev/sda", Role: "system", State: "system"}, {Device: "/dev/sdb", Role: "data", State: "marked"}, {Device: "/dev/sdc", State: "blank"},
		{Device: "/dev/sdd", State: "blank"}, {Device: "/dev/sde", State: "foreign", Role: "log"}}
	var a wizard.Answers
	places := a.Places(disks)
	if len(places) != 3 || places[0].Disk.Device != "/dev/sdb" || places[0].Open() || !places[1].Open() || places[2].Disk != nil {
		t.Errorf("places: %+v", places)
	}
	if f := a.CheckDisks(disks); len(f) != 2 || f[0].Field != "disks.database" || wizard.PageOf(f[0].Field).Name != wizard.Storage {
		t.Errorf("faults: %+v", f)
	}
	var seen []string
	for range 4 {
		a.Choose(diskrole.Database, a.Next(a.Places(disks)[1]))
		seen = append(seen, a.Disks[diskrole.Database])
	}
	if got := strings.Join(seen, " "); got != "/dev/sdc /dev/sdd system /dev/sdc" {
		t.Errorf("choices: %s", got)
	}
	if next := a.Next(a.Places(disks)[2]); next != "/dev/sdd" {
		t.Errorf("the log is offered %s, which the database has", next)
	}
	a.Choose(diskrole.Log, wizard.OnSystemDisk)
	if f := a.CheckDisks(disks); len(f) != 0 {
		t.Errorf("faults: %+v", f)
	}
	if f := (wizard.Answers{}).CheckDisks(disks[:2]); len(f) != 0 {
		t.Errorf("nothing to choose from, and yet %+v", f)
	}
}
