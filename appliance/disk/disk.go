// Package disk finds the appliance's disks by what is on them, makes file systems
// on blank ones, mounts them and lets them grow.
//
// Nothing depends on device names, on the order at the controller, or on udev: the
// block devices that have a node in /dev are read themselves. The one rule that
// everything here keeps: a disk on which there is anything, be it a partition
// table, a file system or a few bytes that nobody knows, is never written to.
package disk

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/appliance/diskrole"
)

// A State is what may be done with a disk.
type State string

// The states.
const (
	Marked  State = "blank-marked" // blank, with the mark of a role: it may be formatted
	Blank   State = "blank"        // blank, without a mark: it may be formatted if somebody chooses it
	Ours    State = "ours"         // has the file system of a role
	Foreign State = "foreign"      // has something else, or cannot be read: hands off
	System  State = "system"       // the operating system runs from it
)

// A Disk is one whole block device.
type Disk struct {
	Device string        `json:"device"` // /dev/sdb
	Bytes  int64         `json:"bytes"`  // its size
	State  State         `json:"state"`
	Role   diskrole.Role `json:"role,omitempty"`  // of Marked and Ours
	Kind   string        `json:"kind,omitempty"`  // what is on it: "ext4", "GPT", "unknown data" …
	Label  string        `json:"label,omitempty"` // of the file system
	UUID   string        `json:"uuid,omitempty"`  // of the file system
	// FileSystemBytes is the size of the file system; less than Bytes if the disk
	// has grown.
	FileSystemBytes int64  `json:"file_system_bytes,omitempty"`
	Mounted         string `json:"mounted,omitempty"`    // where, if it is
	UsedBytes       int64  `json:"used_bytes,omitempty"` // if it is mounted
	number          uint64
}

// List gives the disks that have a node in /dev, sorted by it.
func List(ctx context.Context) ([]Disk, error) { return ListIn(ctx, "/dev") }

// ListIn gives the disks that have a node in a directory.
func ListIn(ctx context.Context, dir string) ([]Disk, error) {
	nodes, err := Nodes(dir)
	if err != nil {
		return nil, err
	}
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var list []Disk
	for _, device := range nodes {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		base := filepath.Base(device)
		if slices.ContainsFunc([]string{"sr", "fd", "ram", "zram", "nbd"}, func(p string) bool {
			return strings.HasPrefix(base, p) && strings.Trim(base[len(p):], "0123456789") == ""
		}) {
			continue
		}
		d, err := probe(device, mounts)
		if err != nil {
			return nil, err
		}
		if d.Bytes > 0 && !isPartition(d.number) && !slices.ContainsFunc(list, func(x Disk) bool { return x.number == d.number }) {
			list = append(list, d)
		}
	}
	return list, nil
}

// Nodes are the block devices that have a node in a directory, sorted, partitions
// and CD drives among them.
func Nodes(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot look for disks: %w", err)
	}
	var nodes []string
	for _, e := range entries {
		// The entry's own type says nothing where a node is bind-mounted.
		if info, err := e.Info(); err == nil && info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0 {
			nodes = append(nodes, filepath.Join(dir, e.Name()))
		}
	}
	return nodes, nil
}

// Probe looks at one device, again.
func Probe(device string) (Disk, error) {
	mounts, err := mountPoints()
	if err != nil {
		return Disk{}, err
	}
	return probe(device, mounts)
}

// probe looks at a device. One that cannot be opened or read is foreign; only that
// it is not there is an error.
func probe(device string, mounts map[uint64]string) (Disk, error) {
	d := Disk{Device: device, State: Foreign, Kind: "unreadable"}
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return d, fmt.Errorf("cannot look at %s: %w", device, err)
	}
	d.number = st.Rdev
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return d, nil
	}
	defer f.Close()
	if d.Bytes, err = f.Seek(0, io.SeekEnd); err != nil || d.Bytes < minBytes {
		return d, nil
	}
	c, err := look(f, d.Bytes)
	if err != nil {
		return d, nil
	}
	d.State, d.Role, d.Kind, d.Label, d.UUID, d.FileSystemBytes = c.state, c.role, c.kind, c.label, c.uuid, c.bytes
	for number, at := range mounts {
		switch {
		case number == d.number && d.State == Ours:
			d.Mounted = at
			if u, err := Usage(at); err == nil {
				d.UsedBytes = u.Used
			}
		case number == d.number || parent(number) == d.number:
			d.State, d.Mounted = System, at
		}
	}
	return d, nil
}

// sysfs is what the kernel says about a device, by its number.
func sysfs(number uint64) string {
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(number), unix.Minor(number))
}

func isPartition(number uint64) bool {
	_, err := os.Stat(filepath.Join(sysfs(number), "partition"))
	return err == nil
}

// parent gives the disk that a partition is on; 0 if the device is none.
func parent(number uint64) uint64 {
	if !isPartition(number) {
		return 0
	}
	dir, err := filepath.EvalSymlinks(sysfs(number))
	if err != nil {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "dev"))
	var major, minor uint32
	if _, serr := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil || serr != nil {
		return 0
	}
	return unix.Mkdev(major, minor)
}

// mountPoints gives where devices are mounted, by their numbers (proc(5), mountinfo).
func mountPoints() (map[uint64]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot see what is mounted: %w", err)
	}
	points := map[uint64]string{}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		var major, minor uint32
		if len(fields) < 5 {
			continue
		}
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil || major == 0 { // 0: no device
			continue
		}
		number := unix.Mkdev(major, minor)
		if _, ok := points[number]; !ok {
			points[number] = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		}
	}
	return points, nil
}

// Use is how full a file system is.
type Use struct {
	Total     int64 `json:"total"`     // bytes, without the file system's own
	Used      int64 `json:"used"`      // bytes
	Available int64 `json:"available"` // bytes, to programs that are not root
	Inodes    int64 `json:"inodes"`
	FreeNodes int64 `json:"free_inodes"`
}

// Percent is how much of what programs can have is used, rounded up as df does.
func (u Use) Percent() int {
	if u.Used+u.Available == 0 {
		return 0
	}
	return int((u.Used*100 + u.Used + u.Available - 1) / (u.Used + u.Available))
}

// Usage tells how full the file system at a path is.
func Usage(path string) (Use, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Use{}, fmt.Errorf("cannot see how full %s is: %w", path, err)
	}
	size := s.Frsize
	return Use{
		Total: int64(s.Blocks) * size, Used: int64(s.Blocks-s.Bfree) * size, Available: int64(s.Bavail) * size,
		Inodes: int64(s.Files), FreeNodes: int64(s.Ffree),
	}, nil
}
