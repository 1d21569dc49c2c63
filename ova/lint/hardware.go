package lint

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"berth/ova/descriptor"
)

func (l *linter) hardware() {
	hw := l.doc.Hardware
	if hw == nil {
		return // schema has said so
	}
	system := hw.Child("System")
	version, isVMX := strings.CutPrefix(system.Value("vssd:VirtualSystemType"), "vmx-")
	n, err := strconv.Atoi(version)
	switch where := l.line(hw.Line); {
	case !isVMX || err != nil || n <= 10 || n >= 20:
		l.add("hardware-version", where, "it is %q", system.Value("vssd:VirtualSystemType"))
	case n < 13 || n > 17:
		l.add("hardware-old-new", where, "it is vmx-%d", n)
	}
	l.transport(hw)
	efi, secure := false, false
	for _, c := range hw.All("vmw:Config") {
		value := c.Attr("vmw:value")
		switch c.Attr("vmw:key") {
		case "firmware":
			if efi = value == "efi"; !efi && value != "bios" {
				l.add("firmware", l.line(c.Line), "firmware is %q", value)
			}
		case "bootOptions.efiSecureBootEnabled":
			secure = value == "true"
		}
	}
	if secure && !efi {
		l.add("firmware", l.line(hw.Line), "secure boot is on, and the firmware is not efi")
	}
	for _, c := range hw.All("vmw:ExtraConfig") {
		l.add("extra-config", l.line(c.Line), "it sets %s", c.Attr("vmw:key"))
	}
}

func (l *linter) transport(hw *descriptor.Node) {
	list := strings.Fields(hw.Attr("ovf:transport"))
	where := l.line(hw.Line)
	var missing []string
	for _, want := range strings.Fields(descriptor.Transport) {
		if !slices.Contains(list, want) {
			missing = append(missing, want)
		}
	}
	switch len(missing) {
	case 1:
		l.add("transport-one", where, "there is %q, and not %s", list, missing[0])
	case 2:
		l.add("transport", where, "there is none, or none that vSphere knows: %q", list)
	}
	cd := slices.ContainsFunc(l.doc.Items, func(i descriptor.Item) bool { return i.Type == descriptor.CDROM })
	if slices.Contains(list, "iso") && !cd {
		l.add("transport", where, "there is no CD-ROM for the transport iso")
	}
}

// devices looks at the items, those of each deployment option together.
func (l *linter) devices() {
	options := []string{""}
	if len(l.doc.Configurations) > 0 {
		options = options[:0]
		for _, c := range l.doc.Configurations {
			options = append(options, c.ID)
		}
	}
	said := map[string]bool{} // a fault that all options have is one
	once := func(rule string, i descriptor.Item, format string, args ...any) {
		if key := rule + " " + strconv.Itoa(i.Line); !said[key] {
			said[key] = true
			l.add(rule, l.line(i.Line), format, args...)
		}
	}
	for _, option := range options {
		byID, places := map[string]descriptor.Item{}, map[string]bool{}
		var items []descriptor.Item
		for _, i := range l.doc.Items {
			if option != "" && !i.In(option) {
				continue
			}
			if _, twice := byID[i.ID]; twice || i.ID == "" {
				once("item-id", i, "%s: the InstanceID %q is empty, or there twice", i, i.ID)
			}
			byID[i.ID] = i
			items = append(items, i)
		}
		for _, i := range items {
			l.device(i, byID, places, func(rule, format string, args ...any) { once(rule, i, format, args...) })
		}
	}
}

// known are the resource types that vSphere and its simulator import: VMCI, floppy,
// USB and video beside those that have names in package descriptor.
var known = []int{1, descriptor.CPU, descriptor.Memory, descriptor.IDE, descriptor.SCSI, descriptor.Ethernet, 14, descriptor.CDROM, descriptor.HardDisk, 23, 24}

var digits = regexp.MustCompile(`\d+`)

func (l *linter) device(i descriptor.Item, byID map[string]descriptor.Item, places map[string]bool, add func(rule, format string, args ...any)) {
	if !slices.Contains(known, i.Type) {
		add("resource-type", "%s has the type %q", i, i.Node.Value("rasd:ResourceType"))
		return
	}
	switch i.Type {
	case descriptor.CPU, descriptor.Memory:
		if i.Quantity <= 0 {
			add("deployment", "%s: the quantity is %q", i, i.Node.Value("rasd:VirtualQuantity"))
		} else if n := digits.FindString(i.Name); n != "" && n != strconv.FormatInt(i.Quantity, 10) {
			add("element-name", "the name is %q, and the quantity %d", i.Name, i.Quantity)
		}
	case descriptor.SCSI:
		if !strings.EqualFold(i.SubType, "VirtualSCSI") {
			add("controller", "%s is of the kind %q", i, i.SubType)
		}
	case descriptor.Ethernet:
		if !strings.EqualFold(i.SubType, "VmxNet3") {
			add("ethernet", "%s is of the kind %q", i, i.SubType)
		}
		if !slices.Contains(l.doc.Networks, i.Connection) {
			add("network", "%s is at %q, which is not in NetworkSection", i, i.Connection)
		}
	case descriptor.CDROM, descriptor.HardDisk:
		parent, ok := byID[i.Parent]
		switch {
		case !ok || parent.Type != descriptor.IDE && parent.Type != descriptor.SCSI:
			add("parent", "%s has the parent %q, which is no controller", i, i.Parent)
			return
		case i.Type == descriptor.CDROM && parent.Type != descriptor.IDE:
			add("cdrom", "%s is not at an IDE controller", i)
		case i.Type == descriptor.HardDisk && parent.Type != descriptor.SCSI:
			add("controller", "%s is not at a SCSI controller", i)
		}
		place := i.Parent + "/" + i.Address
		if places[place] || i.Address == "" || parent.Type == descriptor.SCSI && i.Address == "7" {
			add("address", "%s is at place %q of controller %s", i, i.Address, i.Parent)
		}
		places[place] = true
	}
}

// young are guest identifiers that came after ESXi 7.0 (vSphere's API reference).
var young = map[string]string{
	"debian12_64Guest": "8.0.0.1", "debian12Guest": "8.0.0.1", "debian13_64Guest": "9.0", "debian13Guest": "9.0",
	"rhel9_64Guest": "7.0.1", "rhel10_64Guest": "9.0", "oracleLinux9_64Guest": "7.0.1", "oracleLinux10_64Guest": "9.0",
	"rockylinux_64Guest": "7.0.1", "almalinux_64Guest": "7.0.1", "sles16_64Guest": "7.0.1",
	"other6xLinux64Guest": "8.0", "other7xLinux64Guest": "9.0",
}

func (l *linter) system() {
	os := l.doc.System.Child("OperatingSystemSection")
	switch id := os.Attr("vmw:osType"); {
	case os == nil:
		l.add("guest-os", l.ovf, "there is no OperatingSystemSection")
	case id == "":
		l.add("guest-os", l.line(os.Line), "it has no vmw:osType")
	case young[id] != "":
		l.add("guest-os", l.line(os.Line), "%s came with vSphere %s", id, young[id])
	}
	eula := l.doc.System.Child("EulaSection")
	if strings.TrimSpace(eula.Value("License")) == "" {
		l.add("eula", l.ovf, "there is no licence")
	}
}
