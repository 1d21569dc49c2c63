package lint_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"berth/ova/descriptor"
)

const (
	passwordProperty = `<Property ovf:key="root_password" ovf:type="string" ovf:password="true" ovf:userConfigurable="true" ovf:value="">`
	sshProperty      = `<Property ovf:key="ssh_enabled" ovf:type="boolean" ovf:userConfigurable="true" ovf:value="False">`
)

// breakages are, for each rule, ways to break a good OVA. A way that must break
// another rule, too, says so.
var breakages = []struct {
	rule string
	also string
	how  func(p *pack)
}{
	{"tar", "file-missing manifest-files", func(p *pack) { // a lying header: the last disk's size
		p.after = func(b []byte) []byte { return lie(p.t, b, "berth-log.vmdk", 1<<40) }
	}},
	{"tar", "file-missing manifest-files tar-order", func(p *pack) { p.after = func(b []byte) []byte { return b[:len(b)/2] } }},
	{"tar", "xml manifest", func(p *pack) { p.after = func([]byte) []byte { return []byte("this is no archive at all") } }},
	{"tar-end", "", func(p *pack) { p.after = func(b []byte) []byte { return b[:len(b)-1024] } }},
	{"tar-form", "", func(p *pack) {
		p.file("berth.ovf").header = tar.Header{Format: tar.FormatPAX, PAXRecords: map[string]string{"BERTH.x": "y"}}
	}},
	{"tar-form", "file-size disk-damaged manifest-digest", func(p *pack) {
		p.file("berth-log.vmdk").header = tar.Header{Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}
	}},
	{"tar-gnu", "", func(p *pack) { p.file("berth.ovf").header = tar.Header{Format: tar.FormatGNU} }},
	{"tar-order", "", func(p *pack) { p.files[0], p.files[1] = p.files[1], p.files[0] }},
	{"tar-order", "", func(p *pack) { p.files[4], p.files[5] = p.files[5], p.files[4] }},
	{"tar-name", "manifest-files", func(p *pack) { p.files = append(p.files, p.files[3]) }},
	{"tar-name", "tar-extra", func(p *pack) { p.files = append(p.files, &file{name: "../../etc/cron.d/x", content: []byte("x")}) }},
	{"tar-extra", "", func(p *pack) { p.files = append(p.files, &file{name: "readme.txt", content: []byte("x")}) }},

	{"manifest", "", func(p *pack) { p.remove("berth.mf"); p.remove("berth.cert") }},
	{"manifest-form", "manifest-files", func(p *pack) { p.stale = true; p.file("berth.mf").content = []byte("nonsense\n") }},
	{"manifest-form", "", func(p *pack) { p.stale = true; p.sub("berth.mf", "SHA256(berth.ovf)= ", "SHA256 (berth.ovf) = ") }},
	{"manifest-form", "", func(p *pack) { p.stale = true; p.sub("berth.mf", "SHA256(berth.ovf)= ", "SHA2-256(berth.ovf)= ") }},
	{"manifest-sha1", "", func(p *pack) {
		p.stale = true
		f := p.file("berth.mf")
		_, rest, _ := bytes.Cut(f.content, []byte("\n"))
		f.content = append(fmt.Appendf(nil, "SHA1(berth.ovf)= %x\n", sha1.Sum(p.file("berth.ovf").content)), rest...)
	}},
	{"manifest-digest", "", func(p *pack) { p.stale = true; p.ovf("some dozens of users", "some dozens of people") }},
	{"manifest-files", "", func(p *pack) {
		p.stale = true
		f := p.file("berth.mf")
		_, f.content, _ = bytes.Cut(f.content, []byte("\n"))
	}},
	{"manifest-files", "", func(p *pack) {
		p.stale = true
		f := p.file("berth.mf")
		f.content = fmt.Appendf(f.content, "SHA256(other.vmdk)= %x\n", sha256.Sum256(nil))
	}},
	{"certificate", "", func(p *pack) {
		p.file("berth.cert").header.Uname = "unsigned"
		p.sub("berth.cert", "SHA256(", "SHA512(")
	}},
	{"certificate", "", func(p *pack) { p.file("berth.cert").header.Uname = "unsigned"; p.ovf("dozens", "hundreds") }},
	{"certificate-time", "", func(p *pack) { p.file("berth.cert").header.Uname = "expired" }},

	{"xml", "", func(p *pack) { p.ovf("</Envelope>", "") }},
	{"xml", "", func(p *pack) {
		p.ovf("?>\n", "?>\n<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;&lol;&lol;\">]>\n")
	}},
	{"xml", "", func(p *pack) { p.ovf("<Name>Berth</Name>", strings.Repeat("<a>", 100)+strings.Repeat("</a>", 100)) }},
	{"xml", "", func(p *pack) { p.ovf("<Name>Berth</Name>", strings.Repeat("<Name/>", 60_000)) }},
	{"xml", "", func(p *pack) {
		f := p.file("berth.ovf")
		f.content = append(f.content, make([]byte, descriptor.MaxBytes)...)
	}},
	{"schema", "", func(p *pack) { p.ovf("<Info>The product</Info>", "") }},
	{"schema", "", func(p *pack) {
		p.ovf("<rasd:Address>0</rasd:Address>\n", "<rasd:Weight>1</rasd:Weight><rasd:Address>0</rasd:Address>\n")
	}},
	{"schema", "", func(p *pack) { p.ovf(`<System>`, `<Nonsense/><System>`) }},
	{"schema", "", func(p *pack) { p.ovf(`<System>`, `<vmw:Config vmw:key="firmware" vmw:value="efi"/><System>`) }},
	{"schema", "", func(p *pack) { // OVF 2.0
		f := p.file("berth.ovf")
		f.content = bytes.ReplaceAll(f.content, []byte("ovf/envelope/1"), []byte("ovf/envelope/2"))
	}},

	{"file-size", "", func(p *pack) {
		p.ovf(fmt.Sprintf(`ovf:size="%d"`, len(p.file("berth-log.vmdk").content)), `ovf:size="12345678901"`)
	}},
	{"file-missing", "manifest-files", func(p *pack) { p.remove("berth-log.vmdk") }},
	{"file-missing", "manifest-files tar-extra", func(p *pack) { p.ovf(`ovf:href="berth-log.vmdk"`, `ovf:href="../berth-log.vmdk"`) }},
	{"disk-file", "", func(p *pack) { p.ovf(` ovf:fileRef="file-log"`, "") }},
	{"disk-ref", "", func(p *pack) { p.ovf(`ovf:fileRef="file-log"`, `ovf:fileRef="file-logs"`) }},
	{"disk-ref", "disk-unused", func(p *pack) { p.ovf("ovf:/disk/log", "ovf:/disk/logs") }},
	{"disk-ref", "", func(p *pack) {
		p.ovf(`ovf:id="file-log"`, `ovf:id="file-data"`)
		p.ovf(`ovf:fileRef="file-log"`, `ovf:fileRef="file-data"`)
	}},
	{"disk-unused", "", func(p *pack) {
		p.ovf(`<Disk ovf:capacity="8388608" ovf:capacityAllocationUnits="byte" ovf:diskId="log"`,
			`<Disk ovf:capacity="8388608" ovf:diskId="spare" ovf:fileRef="file-log" ovf:format="x#streamOptimized"/><Disk ovf:capacity="8388608" ovf:capacityAllocationUnits="byte" ovf:diskId="log"`)
	}},
	{"disk-id", "", func(p *pack) {
		p.ovf(`ovf:diskId="database"`, `ovf:diskId="metadata"`)
		p.ovf("ovf:/disk/database", "ovf:/disk/metadata")
	}},
	{"disk-format", "", func(p *pack) { p.ovf("vmdk.html#streamOptimized", "vmdk.html#sparse") }},
	{"disk-format", "", func(p *pack) {
		p.sub("berth-log.vmdk", `createType="streamOptimized"`, `createType="monolithicSpars"`)
	}},
	{"disk-damaged", "", func(p *pack) { p.file("berth-system.vmdk").content[128*512+100] ^= 1 }},
	{"disk-damaged", "", func(p *pack) {
		p.file("berth-system.vmdk").content = make([]byte, len(p.file("berth-system.vmdk").content))
	}},
	{"disk-capacity", "", func(p *pack) { p.ovf(`ovf:capacity="8388608"`, `ovf:capacity="8388609"`) }},
	{"disk-capacity", "", func(p *pack) {
		p.ovf(`ovf:capacity="8388608" ovf:capacityAllocationUnits="byte"`, `ovf:capacity="9" ovf:capacityAllocationUnits="byte * 2^20"`)
	}},
	{"disk-tools", "", func(p *pack) { p.sub("berth-log.vmdk", `"2147483647"`, `"0000000000"`) }},

	{"hardware-version", "", func(p *pack) { p.ovf("vmx-17", "vmx-21") }},
	{"hardware-version", "", func(p *pack) { p.ovf("vmx-17", "vmx-10") }},
	{"hardware-version", "", func(p *pack) { p.ovf("vmx-17", "virtualbox-2.2") }},
	{"hardware-old-new", "", func(p *pack) { p.ovf("vmx-17", "vmx-19") }},
	{"resource-type", "controller", func(p *pack) {
		p.ovf("<rasd:ResourceType>6</rasd:ResourceType>", "<rasd:ResourceType>20</rasd:ResourceType>")
	}},
	{"item-id", "", func(p *pack) { p.ovf("<rasd:InstanceID>6</rasd:InstanceID>", "<rasd:InstanceID>7</rasd:InstanceID>") }},
	{"parent", "", func(p *pack) { p.ovf("<rasd:Parent>3</rasd:Parent>", "") }},
	{"parent", "", func(p *pack) { p.ovf("<rasd:Parent>3</rasd:Parent>", "<rasd:Parent>6</rasd:Parent>") }},
	{"address", "", func(p *pack) { p.ovf("<rasd:AddressOnParent>3<", "<rasd:AddressOnParent>2<") }},
	{"address", "", func(p *pack) { p.ovf("<rasd:AddressOnParent>3<", "<rasd:AddressOnParent>7<") }},
	{"controller", "", func(p *pack) { p.ovf("VirtualSCSI", "lsilogic") }},
	{"cdrom", "address", func(p *pack) { p.ovf("<rasd:Parent>4</rasd:Parent>", "<rasd:Parent>3</rasd:Parent>") }},
	{"ethernet", "", func(p *pack) { p.ovf("VmxNet3</rasd:ResourceSubType>", "E1000</rasd:ResourceSubType>") }},
	{"network", "", func(p *pack) { p.ovf("<rasd:Connection>VM Network<", "<rasd:Connection>bridged<") }},
	{"element-name", "", func(p *pack) { p.ovf("8192 MB of memory", "4096 MB of memory") }},
	{"guest-os", "", func(p *pack) { p.ovf("debian11_64Guest", "debian12_64Guest") }},
	{"firmware", "", func(p *pack) { p.ovf(`vmw:value="efi"`, `vmw:value="uefi"`) }},
	{"firmware", "", func(p *pack) {
		p.ovf(`vmw:key="firmware" vmw:value="efi"/>`, `vmw:key="firmware" vmw:value="bios"/><vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>`)
	}},
	{"extra-config", "", func(p *pack) {
		p.ovf("</VirtualHardwareSection>", `<vmw:ExtraConfig vmw:key="nvram" vmw:value="x.nvram"/></VirtualHardwareSection>`)
	}},

	{"transport", "", func(p *pack) { p.ovf(` ovf:transport="com.vmware.guestInfo iso"`, "") }},
	{"transport-one", "", func(p *pack) { p.ovf(`com.vmware.guestInfo iso`, "iso") }},
	{"transport", "", func(p *pack) { p.ovf("<rasd:ResourceType>15<", "<rasd:ResourceType>14<") }},
	{"property-key", "property-table", func(p *pack) { p.ovf(`ovf:key="ssh_enabled"`, `ovf:key="guestinfo.ssh_enabled"`) }},
	{"property-twice", "property-table", func(p *pack) { p.ovf(`ovf:key="timezone"`, `ovf:key="ssh_authorized_keys"`) }},
	{"property-boolean", "property-table", func(p *pack) { p.ovf(sshProperty, strings.Replace(sshProperty, "False", "true", 1)) }},
	{"property-type", "property-table", func(p *pack) { p.ovf(sshProperty, strings.Replace(sshProperty, "False", "yes", 1)) }},
	{"property-type", "property-table", func(p *pack) { p.ovf(sshProperty, strings.Replace(sshProperty, "boolean", "bool", 1)) }},
	{"property-type", "property-table", func(p *pack) { p.ovf(`ovf:value="dhcp"`, `ovf:value="auto"`) }},
	{"property-type", "", func(p *pack) { p.ovf(`ValueMap{&quot;dhcp&quot;,`, `ValueMap{dhcp,`) }},
	{"property-type", "", func(p *pack) { p.ovf(`ovf:key="timezone"`, `ovf:key="timezone" ovf:qualifiers="MaxLen(100000)"`) }},
	{"property-minlen", "", func(p *pack) {
		p.ovf(`ovf:key="timezone"`, `ovf:key="timezone" ovf:qualifiers="MinLen(0),MaxLen(128)"`)
	}},
	{"property-secret", "property-table", func(p *pack) {
		p.ovf(passwordProperty, strings.Replace(passwordProperty, ` ovf:password="true"`, "", 1))
	}},
	{"property-secret", "property-table", func(p *pack) {
		p.ovf(passwordProperty, strings.Replace(passwordProperty, `ovf:value=""`, `ovf:value="changeme"`, 1))
	}},
	{"property-text", "", func(p *pack) { p.ovf("<Label>Host name</Label>", "") }},
	{"property-text", "", func(p *pack) { p.ovf(`ovf:userConfigurable="true"`, "") }},
	{"property-ip0", "property-table", func(p *pack) { p.ovf(`ovf:key="ip4"`, `ovf:key="ip0"`) }},
	{"property-table", "", func(p *pack) { p.ovf(`ovf:key="ip4"`, `ovf:key="address4"`) }},
	{"deployment-default", "", func(p *pack) { p.ovf(` ovf:default="true"`, "") }},
	{"deployment", "", func(p *pack) {
		p.ovf(`<Configuration ovf:id="medium"`, `<Configuration ovf:id="medium" ovf:default="true"`)
	}},
	{"deployment", "", func(p *pack) { p.ovf(`<Item ovf:configuration="large"`, `<Item ovf:configuration="huge"`) }},
	{"deployment", "", func(p *pack) { p.ovf(`<rasd:VirtualQuantity>2<`, `<rasd:VirtualQuantity>two<`) }},
	{"deployment-list", "deployment item-id", func(p *pack) { p.ovf(`<Item ovf:configuration="small"`, `<Item ovf:configuration="small medium"`) }},
	{"deployment-list", "", func(p *pack) { p.ovf(`<Item ovf:configuration="small"`, `<Item`) }},
	{"app-url", "", func(p *pack) {
		p.ovf("</FullVersion>", "</FullVersion><AppUrl>https://${network.ip0}/</AppUrl>")
	}},
	{"eula", "", func(p *pack) {
		f := p.file("berth.ovf")
		a, z := bytes.Index(f.content, []byte("<License>")), bytes.Index(f.content, []byte("</License>"))
		f.content = slices.Concat(f.content[:a+9], f.content[z:])
	}},
	{"product", "", func(p *pack) { p.ovf("<Vendor>Berth</Vendor>", "") }},
}
