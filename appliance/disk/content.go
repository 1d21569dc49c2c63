package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"berth/appliance/diskrole"
)

const (
	minBytes = 4 << 20
	// margin is how much of a disk's beginning and end must be zero for it to be
	// blank: there is no partition table, file system or RAID that leaves both
	// alone.
	margin = 1 << 20
	// newLabel is that of a file system that is being made.
	newLabel = "berth-new"
	unknown  = "unknown data"
)

// content is what is on a disk.
type content struct {
	state       State
	role        diskrole.Role
	kind        string
	label, uuid string
	bytes       int64 // of the file system
	tail        bool  // the last sector has a mark
}

// look reads the beginning and the end of a disk.
//
// While a disk is being formatted its mark stands in the last sector, for mke2fs
// overwrites the first one long before the file system is whole, and a cut in
// between must not turn the disk into one that nobody dares to touch.
func look(r io.ReaderAt, size int64) (content, error) {
	n := min(margin, size/2)
	head, tail := make([]byte, n), make([]byte, n)
	if _, err := r.ReadAt(head, 0); err != nil {
		return content{}, err
	}
	if _, err := r.ReadAt(tail, size-n); err != nil && err != io.EOF {
		return content{}, err
	}
	forRole, inTail := diskrole.ReadMark(tail[n-diskrole.MarkSize:])
	c := content{tail: inTail}
	if c.ext4(head) {
		for _, r := range []diskrole.Role{diskrole.Data, diskrole.Database, diskrole.Log} {
			if c.label == r.Label() {
				c.state, c.role = Ours, r
				return c, nil
			}
		}
		if c.label != newLabel || !inTail {
			c.state = Foreign
			return c, nil
		}
		return content{state: Marked, role: forRole, tail: true}, nil
	}
	if inTail && kindOf(head) == unknown {
		return content{state: Marked, role: forRole, tail: true}, nil
	}
	role, marked := diskrole.ReadMark(head)
	if marked {
		clear(head[:diskrole.MarkSize])
	}
	if zero(head) && zero(tail) {
		c.state = Blank
		if marked {
			c.state, c.role = Marked, role
		}
		return c, nil
	}
	c.state, c.kind = Foreign, kindOf(head)
	return c, nil
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// ext4 reads the superblock of ext2, ext3 or ext4 (the kernel's
// Documentation/filesystems/ext4/super.rst).
func (c *content) ext4(head []byte) bool {
	const incompat64 = 0x80
	s := head[1024:2048]
	if binary.LittleEndian.Uint16(s[0x38:]) != 0xef53 {
		return false
	}
	blocks := uint64(binary.LittleEndian.Uint32(s[4:]))
	if binary.LittleEndian.Uint32(s[0x60:])&incompat64 != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(s[0x150:])) << 32
	}
	c.kind = "ext4"
	c.bytes = int64(blocks << (10 + binary.LittleEndian.Uint32(s[0x18:])%7))
	c.label = string(bytes.TrimRight(s[0x78:0x88], "\x00"))
	u := s[0x68:0x78]
	c.uuid = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	return true
}

// kindOf names what begins like this, for people; the list need not be whole.
func kindOf(head []byte) string {
	for _, k := range []struct {
		name, magic string
		at          int
	}{
		{"GPT", "EFI PART", 512}, {"LVM", "LABELONE", 512}, {"XFS", "XFSB", 0}, {"LUKS", "LUKS\xba\xbe", 0}, {"swap", "SWAPSPACE2", 4086},
		{"btrfs", "_BHRfS_M", 0x10040}, {"ISO 9660", "CD001", 32769}, {"Linux RAID", "\xfc\x4e\x2b\xa9", 4096}, {"NTFS", "NTFS    ", 3},
		{"partition table", "\x55\xaa", 510},
	} {
		if len(head) >= k.at+len(k.magic) && string(head[k.at:k.at+len(k.magic)]) == k.magic {
			return k.name
		}
	}
	return unknown
}
