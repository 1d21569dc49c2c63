package lint

import (
	"strings"

	"berth/ova/archive"
	"berth/ova/descriptor"
	"berth/ova/vmdk"
)

const prefix = "ovf:/disk/"

// disks follows each disk from its item to its file, and reads the file.
func (l *linter) disks() {
	attached := map[string]bool{}
	for _, i := range l.doc.Items {
		if i.Type == descriptor.HardDisk {
			attached[strings.TrimPrefix(i.HostResource, prefix)] = true
		}
	}
	files := map[string]descriptor.File{}
	for _, f := range l.doc.Files {
		files[f.ID] = f
	}
	seen := map[string]bool{}
	for _, d := range l.doc.Disks {
		where := l.line(d.Line)
		if d.ID == "" || seen[d.ID] {
			l.add("disk-ref", where, "the id %q of a disk is empty, or there twice", d.ID)
		}
		seen[d.ID] = true
		if !attached[d.ID] {
			l.add("disk-unused", where, "no item has the disk %q", d.ID)
		}
		for _, o := range l.doc.Disks {
			if o.ID != d.ID && d.ID != "" && strings.HasSuffix(o.ID, d.ID) {
				l.add("disk-id", where, "the id %q is the end of %q", d.ID, o.ID)
			}
		}
		if !strings.HasSuffix(strings.ToLower(d.Format), "#streamoptimized") {
			l.add("disk-format", where, "ovf:format is %q", d.Format)
		}
		f, ok := files[d.FileRef]
		switch {
		case d.FileRef == "":
			l.add("disk-file", where, "the disk %q has no file", d.ID)
		case !ok:
			l.add("disk-ref", where, "there is no file %q in References", d.FileRef)
		default:
			if e, ok := l.pkg.Find(f.Href); ok && archive.PlainName(f.Href) {
				l.disk(d, e)
			}
		}
	}
	for _, i := range l.doc.Items {
		if i.Type == descriptor.HardDisk && !seen[strings.TrimPrefix(i.HostResource, prefix)] {
			l.add("disk-ref", l.line(i.Line), "%s is of %q, which is not in DiskSection", i, i.HostResource)
		}
	}
}

func (l *linter) disk(d descriptor.Disk, e archive.Entry) {
	m, err := vmdk.Open(e.Reader(), e.Size)
	if err != nil {
		l.add("disk-damaged", e.Name, "%v", err)
		return
	}
	if kind := m.Description["createType"]; kind != "streamOptimized" {
		l.add("disk-format", e.Name, "its createType is %q", kind)
	}
	if m.Capacity != d.Capacity {
		l.add("disk-capacity", l.line(d.Line), "the disk in %s has %d bytes, and the descriptor says %d", e.Name, m.Capacity, d.Capacity)
	}
	if v := m.Description["ddb.toolsVersion"]; v != "2147483647" {
		l.add("disk-tools", e.Name, "its ddb.toolsVersion is %q", v)
	}
	if l.checked[e.Name] {
		return
	}
	l.checked[e.Name] = true
	if _, err := m.Check(l.ctx); err != nil && l.ctx.Err() == nil {
		l.add("disk-damaged", e.Name, "%v", err)
	}
}
