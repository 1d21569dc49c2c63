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
	l.version(hw)
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

// version looks at the hardware's versions: usually one, perhaps some, of which a host
// takes one that it knows.
func (l *linter) version(hw *descriptor.Node) {
	text := hw.Child("System").Value("vssd:VirtualSystemType")
	taken, good := false, false
	for _, v := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		number, isVMX := strings.CutPrefix(v, "vmx-")
		n, err := strconv.Atoi(number)
		if isVMX && err == nil {
			taken = taken || n > 10 && n < 20
			good = good || n >= 13 && n <= 17
		}
	}
	switch {
	case !taken:
		l.add("hardware-version", l.line(hw.Line), "it is %q", text)
	case !good:
		l.add("hardware-old-new", l.line(hw.Line), "it is %q", text)
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
		items := l.itemsOf(option, func(i descriptor.Item, how string) {
			if how == replaces {
				once("deployment-list", i, "%s replaces the item of all options with its InstanceID", i)
			} else {
				once("item-id", i, "%s: the InstanceID %q is empty, or there twice", i, i.ID)
			}
		})
		for _, i := range items {
			byID[i.ID] = i
		}
		for _, i := range items {
			l.device(i, byID, places, func(rule, format string, args ...any) { once(rule, i, format, args...) })
		}
	}
}

// How an item meets another one with its InstanceID.
const (
	replaces = "replaces" // an item of one option takes the place of one of all options
	collides = "collides"
)

// itemsOf gives what a VM of a deployment option gets, and tells of items that meet.
func (l *linter) itemsOf(option string, met func(i descriptor.Item, how string)) []descriptor.Item {
	var items []descriptor.Item
	at := map[string]int{}
	for _, i := range l.doc.Items {
		if option != "" && !i.In(option) {
			continue
		}
		k, twice := at[i.ID]
		switch {
		case !twice && i.ID != "":
		case twice && len(i.Configurations) > 0 && len(items[k].Configurations) == 0:
			met(i, replaces)
			items[k] = i
			continue
		case twice && len(i.Configurations) == 0 && len(items[k].Configurations) > 0:
			met(items[k], replaces)
			continue
		default:
			met(i, collides)
		}
		at[i.ID] = len(items)
		items = append(items, i)
	}
	return items
}

// known are the resource types that vSphere and its simulator import: VMCI, floppy,
// USB and video beside those that have names in package descriptor.
var known = []int{1, descriptor.CPU, descriptor.Memory, descriptor.IDE, descriptor.SCSI, descriptor.Ethernet, 14, descriptor.CDROM, descriptor.HardDisk, 23, 24}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// sata is the type of SATA and other controllers, which is a finding by itself.
const sata = 20

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
		} else if n := digits.FindString(i.Name); n != "" && n != decimal(i.Quantity) && (i.Type == descriptor.CPU || n != decimal(i.Quantity>>10)) {
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
		case !ok || !slices.Contains([]int{descriptor.IDE, descriptor.SCSI, sata}, parent.Type):
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
