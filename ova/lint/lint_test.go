package lint_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/ova"
	"berth/ova/archive"
	"berth/ova/descriptor"
	"berth/ova/lint"
)

// file is one of an OVA that is taken apart.
type file struct {
	name    string
	content []byte
	header  tar.Header // what differs from a good one
}

// pack is an OVA in pieces, to be broken.
type pack struct {
	t     *testing.T
	files []*file
	// after changes the finished archive.
	after func([]byte) []byte
	// stale leaves the manifest as it is.
	stale bool
}

// goodOVA builds one with all that an OVA can have, once for all tests.
func goodOVA(t *testing.T) (path string, key *rsa.PrivateKey) {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "system.raw")
	content := make([]byte, 3<<20)
	copy(content[1<<20:], bytes.Repeat([]byte("words and words "), 20_000))
	if err := os.WriteFile(image, content, 0o644); err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small := map[diskrole.Role]int64{diskrole.Data: 8 << 20, diskrole.Database: 8 << 20, diskrole.Log: 8 << 20}
	b := ova.Build{Out: filepath.Join(dir, "berth.ova"), Disks: map[diskrole.Role]string{diskrole.System: image}, Blank: small,
		Version: "1.2.3", OS: descriptor.Debian, UEFI: true, Key: key, Certificate: certificate(t, key, time.Hour)}
	if _, err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Out, key
}

func certificate(t *testing.T, key *rsa.PrivateKey, valid time.Duration) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Berth test"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(valid)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func takeApart(t *testing.T, path string) []*file {
	t.Helper()
	p, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var list []*file
	for _, e := range p.Entries {
		b, err := e.Read(10 << 20)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, &file{name: e.Name, content: b})
	}
	return list
}

func (p *pack) file(name string) *file {
	for _, f := range p.files {
		if f.name == name {
			return f
		}
	}
	p.t.Fatalf("there is no %s", name)
	return nil
}

// sub changes a piece of text, which must be there.
func (p *pack) sub(name, old, new string) {
	f := p.file(name)
	if !bytes.Contains(f.content, []byte(old)) {
		p.t.Fatalf("%s does not contain %q", name, old)
	}
	f.content = bytes.Replace(f.content, []byte(old), []byte(new), 1)
}

func (p *pack) ovf(old, new string) { p.sub("berth.ovf", old, new) }

func (p *pack) remove(name string) {
	p.file(name)
	p.files = slices.DeleteFunc(p.files, func(f *file) bool { return f.name == name })
}

func (p *pack) write(path string, key *rsa.PrivateKey, cert []byte) {
	p.t.Helper()
	var mf *file
	for _, f := range p.files {
		if f.name == "berth.mf" {
			mf = f
		}
	}
	if mf != nil && !p.stale {
		var sums []archive.Sum
		for _, f := range p.files {
			if ext := filepath.Ext(f.name); ext == ".ovf" || ext == ".vmdk" {
				sums = append(sums, archive.Sum{Name: f.name, Hex: fmt.Sprintf("%x", sha256.Sum256(f.content))})
			}
		}
		mf.content = archive.Manifest(sums...)
	}
	for _, f := range p.files {
		if f.name == "berth.cert" && mf != nil && cert != nil {
			var err error
			if f.content, err = archive.Sign("berth.mf", mf.content, key, cert); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range p.files {
		h := f.header
		h.Name, h.Size, h.Mode = f.name, int64(len(f.content)), 0o644
		if h.Format == 0 {
			h.Format = tar.FormatUSTAR
		}
		if h.Typeflag == tar.TypeSymlink {
			h.Size, f.content = 0, nil
		}
		if err := w.WriteHeader(&h); err != nil {
			p.t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		p.t.Fatal(err)
	}
	out := b.Bytes()
	if p.after != nil {
		out = p.after(out)
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

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
	{"resource-type", "parent", func(p *pack) {
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
	{"transport", "", func(p *pack) { p.ovf(`com.vmware.guestInfo iso`, "iso") }},
	{"transport", "", func(p *pack) { p.ovf("<rasd:ResourceType>15<", "<rasd:ResourceType>14<") }},
	{"property-key", "property-table", func(p *pack) { p.ovf(`ovf:key="ssh_enabled"`, `ovf:key="guestinfo.ssh_enabled"`) }},
	{"property-twice", "property-table", func(p *pack) { p.ovf(`ovf:key="timezone"`, `ovf:key="ssh_authorized_keys"`) }},
	{"property-type", "property-table", func(p *pack) { p.ovf(sshProperty, strings.Replace(sshProperty, "False", "true", 1)) }},
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
	{"deployment", "", func(p *pack) { p.ovf(` ovf:default="true"`, "") }},
	{"deployment", "", func(p *pack) {
		p.ovf(`<Configuration ovf:id="medium"`, `<Configuration ovf:id="medium" ovf:default="true"`)
	}},
	{"deployment", "", func(p *pack) { p.ovf(`<Item ovf:configuration="large"`, `<Item ovf:configuration="huge"`) }},
	{"deployment", "", func(p *pack) { p.ovf(`<rasd:VirtualQuantity>2<`, `<rasd:VirtualQuantity>two<`) }},
	{"deployment-list", "deployment item-id", func(p *pack) { p.ovf(`<Item ovf:configuration="small"`, `<Item ovf:configuration="small medium"`) }},
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

// lie changes the size in a header, and mends the header's checksum.
func lie(t *testing.T, b []byte, name string, size int64) []byte {
	at := bytes.LastIndex(b, append([]byte(name), 0))
	if at < 0 || at%512 != 0 {
		t.Fatalf("no header of %s", name)
	}
	h := b[at : at+512]
	h[124] = 0x80 // base 256
	binary.BigEndian.PutUint64(h[128:], uint64(size))
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestRules(t *testing.T) {
	good, key := goodOVA(t)
	if findings, err := lint.Check(t.Context(), good, time.Now()); err != nil || len(findings) > 0 {
		t.Fatalf("a good OVA: %v %+v", err, findings)
	}
	valid, expired := certificate(t, key, time.Hour), certificate(t, key, -time.Hour)
	tested := map[string]bool{}
	for i, c := range breakages {
		tested[c.rule] = true
		t.Run(fmt.Sprintf("%s/%d", c.rule, i), func(t *testing.T) {
			p := &pack{t: t, files: takeApart(t, good)}
			c.how(p)
			cert := valid
			for _, f := range p.files {
				if f.name == "berth.cert" && f.header.Uname != "" {
					cert = map[string][]byte{"expired": expired}[f.header.Uname]
				}
			}
			path := filepath.Join(t.TempDir(), "berth.ova")
			p.write(path, key, cert)
			findings, err := lint.Check(t.Context(), path, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range findings {
				found = found || f.Rule == c.rule
				if f.Rule != c.rule && !slices.Contains(strings.Fields(c.also), f.Rule) {
					t.Errorf("also found %s: %s: %s", f.Rule, f.Where, f.What)
				}
				if f.What == "" || f.Why == "" || f.Do == "" || len(f.What) > 1000 {
					t.Errorf("a finding that says nothing, or too much: %+v", f)
				}
			}
			if !found {
				t.Error("not found")
			}
		})
	}
	for _, r := range lint.Rules() {
		if !tested[r.ID] {
			t.Errorf("nothing breaks the rule %s", r.ID)
		}
	}
}

// A descriptor with its files beside it is checked as an OVA is, but for the tar.
func TestFolder(t *testing.T) {
	good, _ := goodOVA(t)
	dir := t.TempDir()
	for _, f := range takeApart(t, good) {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "berth.ovf")
	if findings, err := lint.Check(t.Context(), path, time.Now()); err != nil || len(findings) > 0 {
		t.Fatalf("%v %+v", err, findings)
	}
	if err := os.Truncate(filepath.Join(dir, "berth-log.vmdk"), 1000); err != nil {
		t.Fatal(err)
	}
	findings, err := lint.Check(t.Context(), path, time.Now())
	var rules []string
	for _, f := range findings {
		rules = append(rules, f.Rule)
	}
	if err != nil || !slices.Equal(rules, []string{"file-size", "disk-damaged", "manifest-digest"}) {
		t.Errorf("%v %v", err, rules)
	}
	for _, no := range []string{filepath.Join(dir, "none.ova"), dir, "/dev/zero"} {
		if _, err := lint.Check(t.Context(), no, time.Now()); err == nil {
			t.Errorf("%s was checked", no)
		}
	}
}

// FuzzCheck gives the linter archives of all kinds: it must end, and say something
// about every one that is not the good one.
func FuzzCheck(f *testing.F) {
	var b bytes.Buffer
	m := descriptor.Machine{ID: "berth", Product: "Berth", Vendor: "Berth", Version: "1", OS: descriptor.Debian, Network: "VM Network", Sizes: descriptor.Sizes()}
	ovf := descriptor.New(m).Render()
	mf := archive.Manifest(archive.Sum{Name: "a.ovf", Hex: fmt.Sprintf("%x", sha256.Sum256(ovf))})
	if err := archive.Write(&b, time.Unix(0, 0), archive.File{Name: "a.ovf", Size: int64(len(ovf)), Content: bytes.NewReader(ovf)},
		archive.File{Name: "a.mf", Size: int64(len(mf)), Content: bytes.NewReader(mf)}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:2000])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := os.CreateTemp(dir, "*.ova")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(out.Name())
		defer out.Close()
		if _, err := io.Copy(out, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		findings, err := lint.Check(t.Context(), out.Name(), time.Now())
		if err == nil && len(findings) == 0 {
			t.Error("an OVA without disks has no findings")
		}
	})
}
