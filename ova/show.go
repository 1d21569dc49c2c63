package ova

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"unicode"

	"berth/appliance/fault"
	"berth/ova/archive"
	"berth/ova/descriptor"
	"berth/ova/vmdk"
)

// Content is what is in an OVA, for people and programs.
type Content struct {
	Product     string            `json:"product"`
	Version     string            `json:"version"`
	Hardware    string            `json:"hardware"`
	GuestOS     string            `json:"guest_os"`
	Firmware    string            `json:"firmware"`
	Transport   string            `json:"transport"`
	Signed      bool              `json:"signed"`
	Networks    []string          `json:"networks"`
	Sizes       []descriptor.Size `json:"deployment_options"`
	DefaultSize string            `json:"default_deployment_option"`
	Disks       []ContentDisk     `json:"disks"`
	Properties  []ContentProperty `json:"properties"`
	Files       []ContentFile     `json:"files"`
}

// ContentDisk is a disk, with what its file says.
type ContentDisk struct {
	ID       string `json:"id"`
	File     string `json:"file"`
	Capacity int64  `json:"capacity"`
	Size     int64  `json:"size"`  // of the file
	Place    string `json:"place"` // on its controller
}

// ContentProperty is a property of the form.
type ContentProperty struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Label    string `json:"label"`
	Default  string `json:"default"`
	Password bool   `json:"password"`
}

// ContentFile is a file of the archive.
type ContentFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// open opens a package and reads its descriptor. Damage is an error here: whoever
// wants to know more asks the linter.
func open(path string) (*archive.Package, *descriptor.Document, error) {
	p, err := archive.Open(path)
	if err == nil {
		var d *descriptor.Document
		if d, err = read(p); err == nil {
			return p, d, nil
		}
	}
	if p != nil {
		p.Close()
	}
	return nil, nil, fault.Wrap(fault.Invalid, err, "cannot read the OVA").On(path).WithHint("ova lint says what is wrong with it")
}

func read(p *archive.Package) (*descriptor.Document, error) {
	e, ok := p.First(".ovf")
	if !ok {
		return nil, fmt.Errorf("%w: there is no .ovf file", descriptor.ErrXML)
	}
	b, err := e.Read(descriptor.MaxBytes)
	if err != nil {
		return nil, err
	}
	root, err := descriptor.Parse(b)
	if err != nil {
		return nil, err
	}
	return descriptor.Read(root), nil
}

// Show reads what is in an OVA, or in a descriptor and the files beside it.
func Show(path string) (Content, error) {
	p, d, err := open(path)
	if err != nil {
		return Content{}, err
	}
	defer p.Close()
	about := d.System.Child("ProductSection")
	c := Content{Product: about.Value("Product"), Version: about.Value("FullVersion"), Firmware: "bios",
		Hardware: d.Hardware.Child("System").Value("vssd:VirtualSystemType"), Transport: d.Hardware.Attr("ovf:transport"),
		GuestOS: d.System.Child("OperatingSystemSection").Attr("vmw:osType"), Networks: d.Networks}
	if c.Version == "" {
		c.Version = about.Value("Version")
	}
	for _, f := range d.Hardware.All("vmw:Config") {
		if f.Attr("vmw:key") == "firmware" {
			c.Firmware = f.Attr("vmw:value")
		}
	}
	_, c.Signed = p.First(".cert")
	c.Sizes, c.DefaultSize = sizes(d)
	for _, v := range d.Disks {
		disk := ContentDisk{ID: v.ID, Capacity: v.Capacity}
		if e, ok := fileOf(p, d, v); ok {
			disk.File, disk.Size = e.Name, e.Size
		}
		for _, i := range d.Items {
			if i.Type == descriptor.HardDisk && strings.HasSuffix(i.HostResource, "/"+v.ID) {
				disk.Place = i.Address
			}
		}
		c.Disks = append(c.Disks, disk)
	}
	for _, v := range d.Properties {
		c.Properties = append(c.Properties, ContentProperty{v.Name(), v.Type, v.Label, v.Value, v.Password})
	}
	for _, e := range p.Entries {
		c.Files = append(c.Files, ContentFile{e.Name, e.Size})
	}
	return c, nil
}

func sizes(d *descriptor.Document) (list []descriptor.Size, first string) {
	for _, o := range d.Configurations {
		s := descriptor.Size{ID: o.ID, Label: o.Label, Description: o.Description}
		for _, i := range d.Items {
			switch {
			case !i.In(o.ID):
			case i.Type == descriptor.CPU:
				s.CPUs = int(i.Quantity)
			case i.Type == descriptor.Memory:
				s.MemoryMB = int(i.Quantity)
			}
		}
		if o.Default {
			first = o.ID
		}
		list = append(list, s)
	}
	return list, first
}

func fileOf(p *archive.Package, d *descriptor.Document, disk descriptor.Disk) (archive.Entry, bool) {
	for _, f := range d.Files {
		if f.ID == disk.FileRef && archive.PlainName(f.Href) {
			return p.Find(f.Href)
		}
	}
	return archive.Entry{}, false
}

// Print writes the content for people. Control characters of a stranger's file do not
// get to the terminal.
func (c Content) Print(w io.Writer) error {
	var b strings.Builder
	if err := c.print(&b); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, b.String()))
	return err
}

func (c Content) print(w io.Writer) error {
	signed := "not signed"
	if c.Signed {
		signed = "signed"
	}
	fmt.Fprintf(w, "%s %s, %s, %s, %s, %s\n", c.Product, c.Version, c.Hardware, c.GuestOS, c.Firmware, signed)
	fmt.Fprintf(w, "transport %s\nnetworks  %s\n\n", c.Transport, strings.Join(c.Networks, ", "))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEPLOYMENT OPTION\tCPUS\tMEMORY\t")
	for _, s := range c.Sizes {
		mark := ""
		if s.ID == c.DefaultSize {
			mark = "default"
		}
		fmt.Fprintf(t, "%s\t%d\t%d MiB\t%s\n", s.ID, s.CPUs, s.MemoryMB, mark)
	}
	fmt.Fprintln(t, "\t\t\t\nDISK\tCAPACITY\tFILE\tSIZE")
	for _, d := range c.Disks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", d.ID, bytesText(d.Capacity), d.File, bytesText(d.Size))
	}
	fmt.Fprintln(t, "\t\t\t\nPROPERTY\tTYPE\tDEFAULT\tLABEL")
	for _, p := range c.Properties {
		kind := p.Type
		if p.Password {
			kind = "password"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, kind, p.Default, p.Label)
	}
	return t.Flush()
}

func bytesText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.size)), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// Extract writes a disk of an OVA, or a VMDK, as a sparse raw file, which must not
// exist. It gives the disk's capacity.
func Extract(ctx context.Context, path, id, out string) (capacity int64, err error) {
	e, closer, err := diskEntry(path, id)
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	m, err := vmdk.Open(e.Reader(), e.Size)
	if err != nil {
		return 0, fault.Wrap(fault.Invalid, err, "cannot read the disk").On(e.Name)
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fault.Wrap(fault.Invalid, err, "cannot make the file").On("--out")
	}
	_, err = m.Extract(ctx, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(out)
		return 0, fmt.Errorf("cannot extract %s: %w", e.Name, err)
	}
	return m.Capacity, nil
}

func diskEntry(path, id string) (archive.Entry, io.Closer, error) {
	if strings.EqualFold(filepath.Ext(path), ".vmdk") {
		e, f, err := archive.OpenFile(path)
		if err != nil {
			return e, nil, fault.Wrap(fault.Invalid, err, "cannot read the disk").On(path)
		}
		return e, f, nil
	}
	p, d, err := open(path)
	if err != nil {
		return archive.Entry{}, nil, err
	}
	var ids []string
	for _, v := range d.Disks {
		if e, ok := fileOf(p, d, v); ok && v.ID == id {
			return e, p, nil
		}
		ids = append(ids, v.ID)
	}
	p.Close()
	return archive.Entry{}, nil, fault.New(fault.Invalid, "there is no disk %q", id).On(path).WithHint("it has %s", strings.Join(ids, ", "))
}
