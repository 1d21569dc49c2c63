package lint

import (
	"slices"
	"strings"

	"berth/ova/descriptor"
)

// shape is what the schema of OVF 1.1 (DSP8023) says about an element, as far as
// importers insist on it.
type shape struct {
	order []string // children in their order; those of one string may be mixed
	need  []string // children that must be there
	attrs []string // attributes that must be there
}

const sections = "*Section"

// shapes are the elements that have rules. An Item's parts are those of CIM's class,
// in the order of their names.
var shapes = map[string]shape{
	"Envelope":                {order: []string{"References", sections, "VirtualSystem VirtualSystemCollection", "Strings"}, need: []string{"References", "VirtualSystem"}},
	"References":              {order: []string{"File"}},
	"File":                    {attrs: []string{"ovf:id", "ovf:href"}},
	"DiskSection":             {order: []string{"Info", "Disk"}, need: []string{"Info"}},
	"Disk":                    {attrs: []string{"ovf:diskId", "ovf:capacity"}},
	"NetworkSection":          {order: []string{"Info", "Network"}, need: []string{"Info"}},
	"Network":                 {order: []string{"Description"}, attrs: []string{"ovf:name"}},
	"DeploymentOptionSection": {order: []string{"Info", "Configuration"}, need: []string{"Info"}},
	"Configuration":           {order: []string{"Label", "Description"}, need: []string{"Label", "Description"}, attrs: []string{"ovf:id"}},
	"VirtualSystem":           {order: []string{"Info", "Name", sections}, need: []string{"Info", "VirtualHardwareSection"}, attrs: []string{"ovf:id"}},
	"OperatingSystemSection":  {order: []string{"Info", "Description"}, need: []string{"Info"}, attrs: []string{"ovf:id"}},
	"VirtualHardwareSection":  {order: []string{"Info", "System", "Item"}, need: []string{"Info", "System"}},
	"ProductSection": {order: []string{"Info", "Product", "Vendor", "Version", "FullVersion", "ProductUrl", "VendorUrl", "AppUrl", "Icon", "Category Property"},
		need: []string{"Info"}},
	"Property":          {order: []string{"Label", "Description", "Value"}, attrs: []string{"ovf:key", "ovf:type"}},
	"EulaSection":       {order: []string{"Info", "License"}, need: []string{"Info", "License"}},
	"AnnotationSection": {order: []string{"Info", "Annotation"}, need: []string{"Info", "Annotation"}},
	"System": {order: cim("vssd:", "AutomaticRecoveryAction", "AutomaticShutdownAction", "AutomaticStartupAction", "AutomaticStartupActionDelay",
		"AutomaticStartupActionSequenceNumber", "Caption", "ConfigurationDataRoot", "ConfigurationFile", "ConfigurationID", "CreationTime", "Description",
		"ElementName", "InstanceID", "LogDataRoot", "Notes", "RecoveryFile", "SnapshotDataRoot", "SuspendDataRoot", "SwapFileDataRoot",
		"VirtualSystemIdentifier", "VirtualSystemType"), need: []string{"vssd:ElementName", "vssd:InstanceID", "vssd:VirtualSystemType"}},
	"Item": {order: cim("rasd:", "Address", "AddressOnParent", "AllocationUnits", "AutomaticAllocation", "AutomaticDeallocation", "Caption", "Connection",
		"ConsumerVisibility", "Description", "ElementName", "HostResource", "InstanceID", "Limit", "MappingBehavior", "OtherResourceType", "Parent", "PoolID",
		"Reservation", "ResourceSubType", "ResourceType", "VirtualQuantity", "VirtualQuantityUnits", "Weight"),
		need: []string{"rasd:ElementName", "rasd:InstanceID", "rasd:ResourceType"}},
}

func cim(prefix string, names ...string) []string {
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names
}

// The largest numbers of things that a descriptor may have here; vSphere's limits
// for one VM are lower.
const (
	maxDisks   = 256
	maxItems   = 1000
	maxOptions = 64
	maxFiles   = 256
)

// schema looks at the whole tree. It also cuts what is too long to be looked at, so
// that the other checks end.
func (l *linter) schema() {
	d := l.doc
	l.element(d.Root)
	if n := len(d.Root.All("VirtualSystem")); n > 1 {
		l.add("schema", l.ovf, "there are %d virtual systems, and an appliance is one", n)
	}
	if len(d.Disks) > maxDisks || len(d.Items) > maxItems || len(d.Configurations) > maxOptions || len(d.Files) > maxFiles {
		l.add("schema", l.ovf, "more disks, items, deployment options or files than vSphere takes")
		d.Disks = d.Disks[:min(len(d.Disks), maxDisks)]
		d.Items = d.Items[:min(len(d.Items), maxItems)]
		d.Configurations = d.Configurations[:min(len(d.Configurations), maxOptions)]
		d.Files = d.Files[:min(len(d.Files), maxFiles)]
	}
}

func (l *linter) element(n *descriptor.Node) {
	s, known := shapes[n.Name]
	if !known && strings.HasSuffix(n.Name, "Section") && !strings.HasPrefix(n.Name, "{") {
		s, known = shape{need: []string{"Info"}}, true
	}
	for _, a := range s.attrs {
		if _, ok := n.Lookup(a); !ok {
			l.add("schema", l.line(n.Line), "%s has no %s", n.Name, a)
		}
	}
	for _, c := range s.need {
		if n.Child(c) == nil {
			l.add("schema", l.line(n.Line), "%s has no %s", n.Name, c)
		}
	}
	last, before := 0, ""
	for _, c := range n.Children {
		extension := strings.HasPrefix(c.Name, "vmw:") || foreign(c.Name)
		switch at := slices.IndexFunc(s.order, func(group string) bool { return holds(group, c.Name) }); {
		case s.order == nil || extension && strings.HasSuffix(c.Name, "Section"):
		case extension: // xs:any, the last of every sequence
			last, before = len(s.order), c.Name
		case at < 0:
			l.add("schema", l.line(c.Line), "%s may not have %s", n.Name, c.Name)
		case at < last:
			l.add("schema", l.line(c.Line), "%s must come before %s", c.Name, before)
		default:
			last, before = at, c.Name
		}
		l.element(c)
	}
}

// foreign are elements of namespaces that extend the schema. One without a namespace
// is a mistake, and so is a prefix that is not declared, which has no colon.
func foreign(name string) bool {
	space, ok := strings.CutPrefix(name, "{")
	return ok && strings.Contains(strings.SplitN(space, "}", 2)[0], ":")
}

func holds(group, name string) bool {
	if group == sections {
		return strings.HasSuffix(name, "Section") && !strings.HasPrefix(name, "{")
	}
	return slices.Contains(strings.Fields(group), name)
}
