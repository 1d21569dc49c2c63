package descriptor_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"berth/ova/descriptor"
)

func machine() descriptor.Machine {
	m := descriptor.Machine{ID: "berth", Product: "Berth", Vendor: "Berth", Version: "1.2.3", FullVersion: "1.2.3 abc", Annotation: "Berth\nsecond line",
		EULA: "A licence with <brackets> & \"quotes\".", OS: descriptor.Debian, UEFI: true, Network: "VM Network", Sizes: descriptor.Sizes()}
	for i, role := range []string{"system", "data", "database", "log"} {
		m.Disks = append(m.Disks, descriptor.SourceDisk{ID: role, File: "berth-" + role + ".vmdk", Size: int64(1000 + i), Capacity: int64(i+1) << 30, Populated: 65536})
	}
	return m
}

// The whole descriptor, so that a change of it is seen by whoever reviews it; UPDATE=1
// writes it.
func TestGolden(t *testing.T) {
	const path = "testdata/berth.ovf"
	got := descriptor.New(machine()).Render()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the descriptor has changed (UPDATE=1 go test ./ova/descriptor)")
	}
}

// What was written is read back.
func TestRead(t *testing.T) {
	m := machine()
	root, err := descriptor.Parse(descriptor.New(m).Render())
	if err != nil {
		t.Fatal(err)
	}
	d := descriptor.Read(root)
	if len(d.Files) != 4 || d.Files[3] != (descriptor.File{ID: "file-log", Href: "berth-log.vmdk", Size: 1003, Line: 7}) {
		t.Errorf("%+v", d.Files)
	}
	if len(d.Disks) != 4 || d.Disks[1].Capacity != 2<<30 || d.Disks[1].FileRef != "file-data" || d.Disks[1].Populated != 65536 {
		t.Errorf("%+v", d.Disks)
	}
	if got := d.System.Child("EulaSection").Value("License"); got != m.EULA {
		t.Errorf("the licence is %q", got)
	}
	if got := d.System.Child("AnnotationSection").Value("Annotation"); got != m.Annotation {
		t.Errorf("the annotation is %q", got)
	}
	p := d.Properties[0]
	if p.Name() != "network.mode" || p.Qualifiers != `ValueMap{"dhcp","static"}` || p.Value != "dhcp" || !p.Configurable || p.Category != "1. Network" {
		t.Errorf("%+v", p)
	}
	if len(d.Configurations) != 3 || !d.Configurations[0].Default || d.Configurations[1].Default || len(d.Items) != 14 {
		t.Errorf("%+v, %d items", d.Configurations, len(d.Items))
	}
	again, err := descriptor.Parse(root.Render())
	if err != nil || !bytes.Equal(again.Render(), root.Render()) {
		t.Errorf("rendering what was read makes something else: %v", err)
	}
}

// Prefixes are the author's choice; the namespaces count.
func TestOtherPrefixes(t *testing.T) {
	root, err := descriptor.Parse([]byte(`<o:Envelope xmlns:o="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<o:References><o:File o:id="a" href="a.vmdk" size="7"/></o:References><o:DiskSection><o:Disk o:diskId="d" o:fileRef="a" o:capacity="20" o:capacityAllocationUnits="byte * 2^30"/></o:DiskSection>
<o:VirtualSystem o:id="v"><o:VirtualHardwareSection><o:Item o:configuration="x y"><r:InstanceID>4</r:InstanceID><r:ResourceType>17</r:ResourceType></o:Item></o:VirtualHardwareSection></o:VirtualSystem></o:Envelope>`))
	if err != nil {
		t.Fatal(err)
	}
	d := descriptor.Read(root)
	if d.Files[0].Size != 7 || d.Disks[0].Capacity != 20<<30 || d.Items[0].ID != "4" || d.Items[0].Type != descriptor.HardDisk || !d.Items[0].In("y") || d.Items[0].In("z") {
		t.Errorf("%+v", d)
	}
}

func TestCapacities(t *testing.T) {
	for attrs, want := range map[string]int64{
		`ovf:capacity="512"`: 512,
		`ovf:capacity="3" ovf:capacityAllocationUnits="byte"`:            3,
		`ovf:capacity="3" ovf:capacityAllocationUnits="byte * 2^20"`:     3 << 20,
		`ovf:capacity="3" ovf:capacityAllocationUnits="byte*1024"`:       3 << 10,
		`ovf:capacity="3" ovf:capacityAllocationUnits="byte * 10^400"`:   -1,
		`ovf:capacity="99999" ovf:capacityAllocationUnits="byte * 2^60"`: -1,
		`ovf:capacity="-3"`: -1,
		`ovf:capacity="${disk.size}" ovf:capacityAllocationUnits="byte"`:   -1,
		`ovf:capacity="3" ovf:capacityAllocationUnits="fortnight"`:         -1,
		`ovf:capacity="3" ovf:capacityAllocationUnits="byte * MegaBytes^"`: -1,
	} {
		root, err := descriptor.Parse([]byte(`<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><DiskSection><Disk ` + attrs + `/></DiskSection></Envelope>`))
		if err != nil {
			t.Fatal(err)
		}
		if got := descriptor.Read(root).Disks[0].Capacity; got != want {
			t.Errorf("%s: %d, want %d", attrs, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         "",
		"no XML":          "hello",
		"cut":             "<Envelope><a>",
		"wrong end":       "<Envelope></a>",
		"two roots":       "<Envelope/><Envelope/>",
		"a document type": `<!DOCTYPE x SYSTEM "file:///etc/passwd"><Envelope/>`,
		"an entity":       "<Envelope>&xxe;</Envelope>",
		"deep":            strings.Repeat("<a>", 40) + strings.Repeat("</a>", 40),
		"wide":            "<a>" + strings.Repeat("<b/>", 60_000) + "</a>",
		"long":            "<a>" + strings.Repeat("x", descriptor.MaxBytes) + "</a>",
		"not UTF-8":       "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>",
		"wrong UTF-8":     "<a>\xff</a>",
	} {
		if _, err := descriptor.Parse([]byte(text)); !errors.Is(err, descriptor.ErrXML) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(descriptor.New(machine()).Render())
	f.Add([]byte(`<a xmlns="x" b="c"><!-- d --><e>&amp;</e></a>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := descriptor.Parse(b)
		if err != nil {
			if !errors.Is(err, descriptor.ErrXML) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, p := range descriptor.Read(root).Properties {
			if p.Name() == "" && p.Key != "" {
				t.Errorf("%+v has no name", p)
			}
		}
	})
}
