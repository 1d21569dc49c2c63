package ovfenv_test

import (
	"bytes"
	"encoding/xml"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/ovfenv"
)

// vcenter is a document as vCenter 7.0.3 makes it.
const vcenter = `<?xml version="1.0" encoding="UTF-8"?>
<Environment
     xmlns="http://schemas.dmtf.org/ovf/environment/1"
     xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
     xmlns:ve="http://www.vmware.com/schema/ovfenv"
     oe:id=""
     ve:vCenterId="vm-1042">
   <PlatformSection>
      <Kind>VMware ESXi</Kind>
      <Version>7.0.3</Version>
      <Vendor>VMware, Inc.</Vendor>
      <Locale>en</Locale>
   </PlatformSection>
   <PropertySection>
         <Property oe:key="network.mode" oe:value="dhcp"/>
         <Property oe:key="appliance.ssh_enabled" oe:value="True"/>
         <Property oe:key="appliance.root_password" oe:value="a&amp;b&lt;c&gt;d&quot;e&apos;f$%\g&#10;h"/>
         <Property oe:key="vami.loglevel.berth" oe:value="debug"/>
         <Property oe:key="network.hostname" oe:value=""/>
   </PropertySection>
   <PropertySection><Property oe:key="second.section" oe:value="yes"></Property></PropertySection>
   <ve:EthernetAdapterSection>
      <ve:Adapter ve:mac="00:50:56:a1:f5:aa" ve:network="VM Network" ve:unitNumber="7"/>
   </ve:EthernetAdapterSection>
   <Entity oe:id="other"><PropertySection><Property oe:key="network.mode" oe:value="theirs"/></PropertySection></Entity>
</Environment>
`

// document is the smallest that holds the properties.
func document(t testing.TB, properties ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(`<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"><PropertySection>`)
	for i := 0; i < len(properties); i += 2 {
		b.WriteString(`<Property oe:key="`)
		if err := xml.EscapeText(&b, []byte(properties[i])); err != nil {
			t.Fatal(err)
		}
		b.WriteString(`" oe:value="`)
		if err := xml.EscapeText(&b, []byte(properties[i+1])); err != nil {
			t.Fatal(err)
		}
		b.WriteString(`"/>`)
	}
	b.WriteString(`</PropertySection></Environment>`)
	return b.Bytes()
}

func parse(t *testing.T, b []byte) ovfenv.Environment {
	t.Helper()
	e, err := ovfenv.Parse(b)
	if err != nil {
		t.Fatalf("%v in %.300s", err, b)
	}
	return e
}

func TestDocumentOfVCenter(t *testing.T) {
	t.Parallel()
	e := parse(t, []byte(vcenter))
	want := map[string]string{
		"network.mode": "dhcp", "appliance.ssh_enabled": "True", "appliance.root_password": "a&b<c>d\"e'f$%\\g\nh",
		"vami.loglevel.berth": "debug", "vami.loglevel": "debug", "network.hostname": "", "second.section": "yes",
	}
	if !maps.Equal(e.Properties, want) {
		t.Errorf("got %q", e.Properties)
	}
	if e.Instance != "vm-1042" || e.Repaired || e.Duplicates != nil {
		t.Errorf("got %+v", e)
	}
	esxi := parse(t, []byte(`<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:ve="http://www.vmware.com/schema/ovfenv" ve:esxId="7"/>`))
	if esxi.Instance != "7" || len(esxi.Properties) != 0 {
		t.Errorf("got %+v", esxi)
	}
}

// Every value arrives as it was written, in every encoding.
func TestValues(t *testing.T) {
	t.Parallel()
	for _, v := range []string{
		"", " ", "True", "true", `&<>"'$%\`, "&amp;", "a\nb\tc", "ä€\U0001f512", strings.Repeat("-----BEGIN CERTIFICATE-----\n", 2400), "]]>", "<!--", "%s%n", "$(reboot)", "`id`",
	} {
		plain := document(t, "a.b", v)
		for name, b := range map[string][]byte{
			"plain": plain, "with BOM": append([]byte("\xef\xbb\xbf"), plain...), "with NUL at the end": append(bytes.Clone(plain), 0, 0),
			"UTF-16LE": utf16of(`<?xml version="1.0" encoding="UTF-16"?>`+string(plain), false), "UTF-16BE": utf16of(string(plain), true),
			"with CDATA": []byte(strings.Replace(string(plain), "<PropertySection>", "<Kind><![CDATA[<Property]]></Kind><PropertySection>", 1)),
		} {
			if got := parse(t, b).Properties["a.b"]; got != v {
				t.Errorf("%s: got %.60q, want %.60q", name, got, v)
			}
		}
	}
}

func utf16of(s string, big bool) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune("\ufeff" + s)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return b
}

func TestLatin1(t *testing.T) {
	t.Parallel()
	b := []byte("<?xml version='1.0' encoding='ISO-8859-1'?><Environment><PropertySection><Property key='a.b' value='\xe4'/></PropertySection></Environment>")
	if got := parse(t, b).Properties["a.b"]; got != "ä" {
		t.Errorf("got %q", got)
	}
}

// What tools write without escaping can still be read, and is told of.
func TestRepaired(t *testing.T) {
	t.Parallel()
	e := parse(t, []byte(`<Environment><PropertySection><Property oe:key="a.b" oe:value="x&y z"/></PropertySection></Environment>`))
	if e.Properties["a.b"] != "x&y z" || !e.Repaired {
		t.Errorf("got %+v", e)
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	e := parse(t, document(t, "a.b", "1", "c.d", "same", "a.b", "2", "c.d", "same", "a.b", "3"))
	if e.Properties["a.b"] != "3" || !slices.Equal(e.Duplicates, []string{"a.b"}) {
		t.Errorf("got %+v", e)
	}
}

func TestInstancesDoNotHideTheName(t *testing.T) {
	t.Parallel()
	e := parse(t, document(t, "a.b", "own", "a.b.1", "instance", "c.d.1", "alone"))
	if e.Properties["a.b"] != "own" || e.Properties["c.d"] != "alone" || e.Properties["c.d.1"] != "alone" {
		t.Errorf("got %+v", e)
	}
}

// What cannot be read is refused in words, and without a value in them.
func TestBroken(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]string{
		"empty": "", "white": " \n", "a NUL": "\x00", "truncated": vcenter[:len(vcenter)/2] + `s3cret`, "another document": "<html>s3cret</html>", "text": "s3cret",
		"an unclosed value": `<Environment><PropertySection><Property oe:key="a" oe:value="s3cret`, "deep": strings.Repeat("<Environment>", 100),
		"an encoding that nobody knows": `<?xml version="1.0" encoding="s3cret"?><Environment/>`,
		"many":                          "<Environment><PropertySection>" + strings.Repeat(`<Property key="a" value="s3cret"/>`, 1001) + "</PropertySection></Environment>",
		"large":                         "<Environment>" + strings.Repeat(" ", ovfenv.MaxSize) + "</Environment>",
	} {
		_, err := ovfenv.Parse([]byte(b))
		if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBlank(t *testing.T) {
	t.Parallel()
	b, err := ovfenv.Blank([]byte(vcenter), []string{"appliance.root_password", "vami.loglevel"})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`a&amp;b&lt;c&gt;d&quot;e&apos;f$%\g&#10;h`, "", `oe:value="debug"`, `oe:value=""`, `<?xml version="1.0" encoding="UTF-8"?>`, "").Replace(vcenter)
	if strings.TrimSpace(string(b)) != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
	b, err = ovfenv.Blank([]byte(`<Environment><PropertySection><Property oe:key="a.b" oe:value="x&y z"/><Property oe:key="a.c" oe:value="1&2"/></PropertySection></Environment>`), []string{"a.b"})
	if err != nil {
		t.Fatal(err)
	}
	if e := parse(t, b); e.Repaired || e.Properties["a.b"] != "" || e.Properties["a.c"] != "1&2" {
		t.Errorf("got %+v from %s", e, b)
	}
}

// Sources are asked in their order; an absent one is passed over, a broken one too,
// but not in silence if it was the only one.
func TestSources(t *testing.T) { // not in parallel: it writes programs, and a fork elsewhere would keep them busy
	dir := t.TempDir()
	write := func(name string, b []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, broken, none := ovfenv.File(write("good.xml", document(t, "a.b", "file"), 0o600)), ovfenv.File(write("broken.xml", []byte("<x"), 0o600)), ovfenv.File(filepath.Join(dir, "none.xml"))
	write("env.xml", document(t, "a.b", "guestinfo"), 0o600)
	tool := ovfenv.GuestInfo(guestinfo.New(write("vmware-rpctool", []byte("#!/bin/sh\n[ \"$1\" = 'info-get guestinfo.ovfEnv' ] && exec cat "+dir+"/env.xml\n"), 0o700)))
	noTool := ovfenv.GuestInfo(guestinfo.New(filepath.Join(dir, "no-tool")))
	unset := ovfenv.GuestInfo(guestinfo.New(write("unset", []byte("#!/bin/sh\necho 'No value found' >&2\nexit 1\n"), 0o700)))
	refused := ovfenv.GuestInfo(guestinfo.New(write("refused", []byte("#!/bin/sh\necho 'must be run inside a virtual machine' >&2\nexit 255\n"), 0o700)))
	for _, test := range []struct {
		name    string
		sources []ovfenv.Source
		value   string
		from    string
		kind    fault.Kind
	}{
		{"guestinfo first", []ovfenv.Source{tool, good}, "guestinfo", "guestinfo", 0},
		{"guestinfo absent", []ovfenv.Source{noTool, unset, refused, none, good}, "file", good.Name(), 0},
		{"broken first", []ovfenv.Source{broken, good}, "file", good.Name(), 0},
		{"none", []ovfenv.Source{noTool, unset, refused, none}, "", "", fault.NotFound},
		{"only a broken one", []ovfenv.Source{none, broken}, "", "", fault.Invalid},
		{"a directory", []ovfenv.Source{ovfenv.File(dir)}, "", "", fault.Invalid},
	} {
		found, err := ovfenv.Read(t.Context(), test.sources...)
		if test.value == "" {
			if !fault.Is(err, test.kind) {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil || found.Environment.Properties["a.b"] != test.value || found.Source.Name() != test.from {
			t.Errorf("%s: %+v, %v", test.name, found.Environment, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(vcenter), "network.mode")
	f.Add(document(f, "a.b", `&<>"'`), "a.b")
	f.Add([]byte(`<Environment><PropertySection><Property oe:key="a.b" oe:value="x&y z"/></PropertySection></Environment>`), "a")
	f.Add(utf16of(vcenter, true), "a.b")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		e, err := ovfenv.Parse(b)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v is no fault of the document", err)
			}
			return
		}
		blank, err := ovfenv.Blank(b, []string{name})
		if err != nil {
			return // a document that Go's decoder reads in one way and not in the other
		}
		after, err := ovfenv.Parse(blank)
		if err != nil {
			t.Fatalf("%v in %q from %q", err, blank, b)
		}
		for k, v := range after.Properties {
			if covered := k == name || strings.HasPrefix(k, name+"."); covered && v != "" {
				t.Errorf("%s still has a value in %q", k, blank)
			} else if !covered && v != e.Properties[k] && e.Properties[name] == "" {
				t.Errorf("%s was %q and is %q", k, e.Properties[k], v)
			}
		}
	})
}
