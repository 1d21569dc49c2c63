package descriptor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Document is what a descriptor says, as values. What is missing is empty, what is no
// number is -1: judging is the linter's.
type Document struct {
	Root           *Node // Envelope
	System         *Node // VirtualSystem; nil if there is none
	Hardware       *Node // VirtualHardwareSection; nil if there is none
	Files          []File
	Disks          []Disk
	Networks       []string
	Configurations []Configuration
	Items          []Item
	Properties     []Property
}

// File is an entry of References.
type File struct {
	ID, Href string
	Size     int64
	Line     int
}

// Disk is an entry of DiskSection.
type Disk struct {
	ID, FileRef, Format string
	Capacity            int64 // bytes
	Populated           int64 // bytes
	Line                int
}

// Configuration is a deployment option.
type Configuration struct {
	ID, Label, Description string
	Default                bool
	Line                   int
}

// Item is a device or a resource of the virtual hardware.
type Item struct {
	Node           *Node
	ID             string
	Type           int // CIM's ResourceType: 3 CPU, 4 memory, 6 SCSI, 10 Ethernet, 17 disk …
	SubType        string
	Name           string
	Parent         string
	Address        string // on its parent
	Quantity       int64
	Connection     string // the network's name
	HostResource   string // ovf:/disk/ID
	Configurations []string
	Line           int
}

// The values of Item.Type that are used here.
const (
	CPU      = 3
	Memory   = 4
	IDE      = 5
	SCSI     = 6
	Ethernet = 10
	CDROM    = 15
	HardDisk = 17
)

// In says whether the item is part of a configuration.
func (i Item) In(configuration string) bool {
	if len(i.Configurations) == 0 {
		return true
	}
	for _, c := range i.Configurations {
		if c == configuration {
			return true
		}
	}
	return false
}

// Property is an entry of a ProductSection.
type Property struct {
	Class, Instance, Key    string
	Category                string
	Type, Qualifiers, Value string
	Label, Description      string
	Password, Configurable  bool
	Line                    int
}

// Name is the property's key in the OVF environment (DSP0243 section 9.5.1).
func (p Property) Name() string {
	name := p.Key
	if p.Class != "" {
		name = p.Class + "." + name
	}
	if p.Instance != "" {
		name += "." + p.Instance
	}
	return name
}

// Read takes the values out of a tree.
func Read(root *Node) *Document {
	d := &Document{Root: root, System: root.Child("VirtualSystem")}
	d.Hardware = d.System.Child("VirtualHardwareSection")
	for _, f := range root.Child("References").All("File") {
		d.Files = append(d.Files, File{ID: f.Attr("ovf:id"), Href: f.Attr("ovf:href"), Size: number(f.Attr("ovf:size")), Line: f.Line})
	}
	for _, n := range root.Child("DiskSection").All("Disk") {
		d.Disks = append(d.Disks, Disk{ID: n.Attr("ovf:diskId"), FileRef: n.Attr("ovf:fileRef"), Format: n.Attr("ovf:format"),
			Capacity:  capacity(n.Attr("ovf:capacity"), n.Attr("ovf:capacityAllocationUnits")),
			Populated: number(n.Attr("ovf:populatedSize")), Line: n.Line})
	}
	for _, n := range root.Child("NetworkSection").All("Network") {
		d.Networks = append(d.Networks, n.Attr("ovf:name"))
	}
	for _, n := range root.Child("DeploymentOptionSection").All("Configuration") {
		d.Configurations = append(d.Configurations, Configuration{ID: n.Attr("ovf:id"), Label: n.Value("Label"),
			Description: n.Value("Description"), Default: truth(n.Attr("ovf:default")), Line: n.Line})
	}
	for _, n := range d.Hardware.All("Item") {
		d.Items = append(d.Items, item(n))
	}
	for _, n := range d.System.All("ProductSection") {
		d.Properties = append(d.Properties, properties(n)...)
	}
	return d
}

func item(n *Node) Item {
	return Item{Node: n, ID: n.Value("rasd:InstanceID"), Type: int(number(n.Value("rasd:ResourceType"))),
		SubType: n.Value("rasd:ResourceSubType"), Name: n.Value("rasd:ElementName"), Parent: n.Value("rasd:Parent"),
		Address: n.Value("rasd:AddressOnParent"), Quantity: number(n.Value("rasd:VirtualQuantity")),
		Connection: n.Value("rasd:Connection"), HostResource: n.Value("rasd:HostResource"),
		Configurations: strings.Fields(n.Attr("ovf:configuration")), Line: n.Line}
}

func properties(section *Node) []Property {
	var list []Property
	category := ""
	for _, n := range section.Children {
		switch n.Name {
		case "Category":
			category = n.Text
		case "Property":
			p := Property{Class: section.Attr("ovf:class"), Instance: section.Attr("ovf:instance"), Key: n.Attr("ovf:key"),
				Category: category, Type: n.Attr("ovf:type"), Qualifiers: n.Attr("ovf:qualifiers"), Value: n.Attr("ovf:value"),
				Label: n.Value("Label"), Description: n.Value("Description"), Password: truth(n.Attr("ovf:password")),
				Configurable: truth(n.Attr("ovf:userConfigurable")), Line: n.Line}
			if p.Qualifiers == "" {
				p.Qualifiers = n.Attr("vmw:qualifiers")
			}
			list = append(list, p)
		}
	}
	return list
}

func truth(s string) bool { return s == "true" || s == "1" } // xs:boolean

func number(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// capacity is a number in a unit such as "byte * 2^30" (DSP0243 section 9.1).
func capacity(value, unit string) int64 {
	n := number(value)
	base, factor, ok := strings.Cut(strings.ReplaceAll(unit, " ", ""), "*")
	if n < 0 || unit != "" && base != "byte" {
		return -1
	}
	if !ok {
		return n
	}
	x, power, ok := strings.Cut(factor, "^")
	m := number(x)
	if ok {
		m = int64(math.Pow(float64(m), float64(number(power))))
	}
	if m <= 0 || n > math.MaxInt64/m {
		return -1
	}
	return n * m
}

// String is for errors and test failures.
func (i Item) String() string { return fmt.Sprintf("item %s (%s)", i.ID, i.Name) }
