package descriptor

import (
	"fmt"
	"strconv"

	"berth/appliance/property"
)

// Machine is what the appliance's descriptor is made from.
type Machine struct {
	ID          string // of the VirtualSystem; the VM's name if none is given
	Product     string
	Vendor      string
	Version     string // such as 1.2.3
	FullVersion string // with the build
	URL         string // of the product; "" if there is none
	VendorURL   string
	Annotation  string // the VM's notes
	EULA        string
	OS          OS
	UEFI        bool   // firmware; false is BIOS
	Network     string // the name that the form maps to a port group
	Sizes       []Size // the first is the default
	Disks       []SourceDisk
}

// OS is a guest operating system, as CIM and as vSphere call it.
type OS struct {
	ID          int    // CIM_OperatingSystem.OsType
	Type        string // VirtualMachineGuestOsIdentifier
	Description string
}

// The bases that the appliance's image is made of.
var (
	// Debian is Debian 12 under the identifier of 11: that of 12 came with vSphere
	// 8.0.0.1, and hardware version 17 must be importable on 7.0.
	Debian = OS{96, "debian11_64Guest", "Debian GNU/Linux 12 (64-bit)"}
	// Photon is Photon OS 5. CIM has no number for it: 36 is Linux.
	Photon = OS{36, "vmwarePhoton64Guest", "VMware Photon OS 5 (64-bit)"}
)

// Size is a deployment option.
type Size struct {
	ID          string `json:"id"`
	Label       string `json:"label"`
	Description string `json:"description"`
	CPUs        int    `json:"cpus"`
	MemoryMB    int    `json:"memory_mb"`
}

// Sizes are the appliance's deployment options.
func Sizes() []Size {
	return []Size{
		{"small", "Small", "2 CPUs, 4 GiB of memory: some dozens of users, a few clusters.", 2, 4 << 10},
		{"medium", "Medium", "4 CPUs, 8 GiB of memory: hundreds of users, busy CI.", 4, 8 << 10},
		{"large", "Large", "8 CPUs, 16 GiB of memory: a company's registry, many clusters that pull at once.", 8, 16 << 10},
	}
}

// SourceDisk is a disk with its file in the OVA.
type SourceDisk struct {
	ID        string // the role
	File      string // its name
	Size      int64  // of the file, bytes
	Capacity  int64  // of the disk, bytes
	Populated int64  // bytes of the disk that are in the file
}

// HardwareVersion is the virtual hardware of ESXi 7.0: older ones are refused by new
// hosts, newer ones by hosts that are in use.
const HardwareVersion = "vmx-17"

// DiskFormat is the URI of streamOptimized VMDKs.
const DiskFormat = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

// Transport are the ways by which the VM gets its OVF environment.
const Transport = "com.vmware.guestInfo iso"

func element(name string, attrs []Attr, children ...*Node) *Node {
	return &Node{Name: name, Attrs: attrs, Children: children}
}

func text(name, value string) *Node { return &Node{Name: name, Text: value} }

// attrs makes attributes of OVF's namespace, or of another one that is named.
func attrs(pairs ...string) []Attr {
	var list []Attr
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, Attr{pairs[i], pairs[i+1]})
	}
	return list
}

// New makes the appliance's descriptor.
func New(m Machine) *Node {
	references, disks := element("References", nil), element("DiskSection", nil, text("Info", "The appliance's disks, by role"))
	for _, d := range m.Disks {
		references.Children = append(references.Children, element("File", attrs("ovf:id", "file-"+d.ID, "ovf:href", d.File, "ovf:size", decimal(d.Size))))
		disks.Children = append(disks.Children, element("Disk", attrs("ovf:capacity", decimal(d.Capacity), "ovf:capacityAllocationUnits", "byte",
			"ovf:diskId", d.ID, "ovf:fileRef", "file-"+d.ID, "ovf:format", DiskFormat, "ovf:populatedSize", decimal(d.Populated))))
	}
	network := element("NetworkSection", nil, text("Info", "The networks that the appliance needs"),
		element("Network", attrs("ovf:name", m.Network), text("Description", "Where clients reach the registry and administrators the appliance console")))
	options := element("DeploymentOptionSection", nil, text("Info", "The sizes that the appliance can have; they can be changed later"))
	for i, s := range m.Sizes {
		c := element("Configuration", attrs("ovf:id", s.ID), text("Label", s.Label), text("Description", s.Description))
		if i == 0 {
			c.Attrs = append(c.Attrs, Attr{"ovf:default", "true"})
		}
		options.Children = append(options.Children, c)
	}
	system := element("VirtualSystem", attrs("ovf:id", m.ID), text("Info", "The "+m.Product+" appliance"), text("Name", m.Product),
		element("OperatingSystemSection", attrs("ovf:id", strconv.Itoa(m.OS.ID), "vmw:osType", m.OS.Type),
			text("Info", "The operating system"), text("Description", m.OS.Description)),
		m.hardware())
	system.Children = append(system.Children, m.product()...)
	system.Children = append(system.Children,
		element("EulaSection", nil, text("Info", "The licence"), text("License", m.EULA)),
		element("AnnotationSection", nil, text("Info", "The notes of the VM"), text("Annotation", m.Annotation)))
	return element("Envelope", nil, references, disks, network, options, system)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// product makes a section for each class of properties: the class is an attribute of
// the section, so that the keys are short and have no dots, which DSP0243 forbids.
func (m Machine) product() []*Node {
	about := element("ProductSection", nil, text("Info", "The product"), text("Product", m.Product), text("Vendor", m.Vendor),
		text("Version", m.Version), text("FullVersion", m.FullVersion))
	for _, u := range []struct{ name, value string }{{"ProductUrl", m.URL}, {"VendorUrl", m.VendorURL}} {
		if u.value != "" {
			about.Children = append(about.Children, text(u.name, u.value))
		}
	}
	list := []*Node{about}
	for _, c := range property.Classes() {
		s := element("ProductSection", attrs("ovf:class", c.Name), text("Info", c.Category[3:]), text("Category", c.Category))
		for _, p := range property.Of(c.Name) {
			s.Children = append(s.Children, propertyNode(p))
		}
		list = append(list, s)
	}
	return list
}

func propertyNode(p property.Property) *Node {
	a := attrs("ovf:key", p.Key, "ovf:type", string(p.Type))
	if p.Choices != nil {
		q := "ValueMap{"
		for i, c := range p.Choices {
			if i > 0 {
				q += ","
			}
			q += strconv.Quote(c)
		}
		a = append(a, Attr{"ovf:qualifiers", q + "}"})
	}
	if p.Password {
		a = append(a, Attr{"ovf:password", "true"})
	}
	a = append(a, Attr{"ovf:userConfigurable", "true"}, Attr{"ovf:value", p.Default})
	return element("Property", a, text("Label", p.Label), text("Description", p.Description))
}

// The instance ids of the hardware's items.
const (
	idCPU = 1 + iota
	idMemory
	idSCSI
	idIDE
	idCDROM
	idNetwork
	idDisks // and those after it
)

func (m Machine) hardware() *Node {
	hw := element("VirtualHardwareSection", attrs("ovf:transport", Transport), text("Info", "The virtual hardware"),
		element("System", nil, text("vssd:ElementName", "Virtual Hardware Family"), text("vssd:InstanceID", "0"),
			text("vssd:VirtualSystemIdentifier", m.ID), text("vssd:VirtualSystemType", HardwareVersion)))
	for _, s := range m.Sizes {
		hw.Children = append(hw.Children, rasd(s.ID, "AllocationUnits", "hertz * 10^6", "Description", "Number of virtual CPUs",
			"ElementName", fmt.Sprintf("%d virtual CPUs", s.CPUs), "InstanceID", strconv.Itoa(idCPU), "ResourceType", "3", "VirtualQuantity", strconv.Itoa(s.CPUs)))
	}
	for _, s := range m.Sizes {
		hw.Children = append(hw.Children, rasd(s.ID, "AllocationUnits", "byte * 2^20", "Description", "Memory size",
			"ElementName", fmt.Sprintf("%d MB of memory", s.MemoryMB), "InstanceID", strconv.Itoa(idMemory), "ResourceType", "4", "VirtualQuantity", strconv.Itoa(s.MemoryMB)))
	}
	hw.Children = append(hw.Children,
		rasd("", "Address", "0", "Description", "SCSI controller", "ElementName", "SCSI controller 0",
			"InstanceID", strconv.Itoa(idSCSI), "ResourceSubType", "VirtualSCSI", "ResourceType", "6"),
		rasd("", "Address", "0", "Description", "IDE controller", "ElementName", "IDE controller 0",
			"InstanceID", strconv.Itoa(idIDE), "ResourceType", "5"),
		rasd("", "AddressOnParent", "0", "AutomaticAllocation", "false", "ElementName", "CD/DVD drive 1",
			"InstanceID", strconv.Itoa(idCDROM), "Parent", strconv.Itoa(idIDE), "ResourceSubType", "vmware.cdrom.remotepassthrough", "ResourceType", "15"),
		rasd("", "AddressOnParent", "7", "AutomaticAllocation", "true", "Connection", m.Network, "Description", "VmxNet3 Ethernet adapter",
			"ElementName", "Network adapter 1", "InstanceID", strconv.Itoa(idNetwork), "ResourceSubType", "VmxNet3", "ResourceType", "10"))
	for i, d := range m.Disks {
		hw.Children = append(hw.Children, rasd("", "AddressOnParent", strconv.Itoa(i), "Description", "The disk for: "+d.ID,
			"ElementName", fmt.Sprintf("Hard disk %d", i+1), "HostResource", "ovf:/disk/"+d.ID,
			"InstanceID", strconv.Itoa(idDisks+i), "Parent", strconv.Itoa(idSCSI), "ResourceType", "17"))
	}
	firmware := "bios"
	if m.UEFI {
		firmware = "efi"
	}
	// No vmw:ExtraConfig: the client would warn of "advanced configuration options".
	for _, c := range [][2]string{{"cpuHotAddEnabled", "true"}, {"memoryHotAddEnabled", "true"}, {"firmware", firmware}, {"tools.syncTimeWithHost", "false"}} {
		hw.Children = append(hw.Children, element("vmw:Config", attrs("ovf:required", "false", "vmw:key", c[0], "vmw:value", c[1])))
	}
	return hw
}

// rasd makes an Item; its parts must come in the order of their names.
func rasd(configuration string, pairs ...string) *Node {
	n := element("Item", nil)
	if configuration != "" {
		n.Attrs = attrs("ovf:configuration", configuration)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		n.Children = append(n.Children, text("rasd:"+pairs[i], pairs[i+1]))
	}
	return n
}
