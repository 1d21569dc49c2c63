package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// checkTime bounds the check of a file system: with a journal it takes a second,
// the whole one that follows damage may take long.
const checkTime = 30 * time.Minute

// Mount checks the file system of a disk of ours, repairs what can be repaired
// without a risk, and mounts it; nothing happens if it is mounted there already.
func Mount(ctx context.Context, d Disk, target string) error {
	if d.State != Ours {
		return fault.New(fault.Precondition, "the disk %s has no file system of the appliance", d.Device)
	}
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	if at, ok := mounts[d.number]; ok && at == target {
		return nil
	}
	for number, at := range mounts {
		if at == target {
			return fault.New(fault.Conflict, "another disk (%d:%d) is mounted at %s", unix.Major(number), unix.Minor(number), target)
		}
	}
	if err := dropMark(d.Device); err != nil { // Format may have been cut off there
		return err
	}
	if err := check(ctx, d); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("cannot make the directory %s: %w", target, err)
	}
	const flags = unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	if err := unix.Mount(d.Device, target, "ext4", flags, "errors=remount-ro"); err != nil {
		return fault.New(fault.Unavailable, "the disk %s cannot be mounted at %s: %v", d.Device, target, err)
	}
	return nil
}

// check runs e2fsck, which does nothing on a file system that was left in order
// (e2fsck(8), exit codes).
func check(ctx context.Context, d Disk, options ...string) error {
	err := run(ctx, checkTime, "e2fsck", append(options, "-p", d.Device)...)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err == nil || ok && exit.ExitCode() <= 3 { // 1, 2: mended
		return nil
	}
	return fault.Wrap(fault.Unavailable, err, "the file system on %s (%s) is damaged and was not mended", d.Device, d.Label).
		WithHint("take a snapshot of the virtual machine, then run e2fsck -f %s as root, or bring back a backup", d.Device)
}

// Grow lets the kernel look for a larger disk, and has the file system fill it; it
// stays mounted. The answer is the file system's size in bytes, and whether it has
// grown.
func Grow(ctx context.Context, device string) (bytes int64, grown bool, err error) {
	d, err := Probe(device)
	if err != nil {
		return 0, false, err
	}
	rescan(device, d.number)
	if d, err = Probe(device); err != nil {
		return 0, false, err
	}
	if d.State != Ours {
		return 0, false, fault.New(fault.Precondition, "the disk %s has no file system of the appliance", device)
	}
	// Less is not worth it: a new file system leaves some space by itself.
	if d.Bytes-d.FileSystemBytes < 8<<20 {
		return d.FileSystemBytes, false, nil
	}
	if d.Mounted == "" {
		// resize2fs wants a whole check before it touches an unmounted file system.
		if err := check(ctx, d, "-f"); err != nil {
			return 0, false, err
		}
	}
	if err := run(ctx, checkTime, "resize2fs", device); err != nil {
		return 0, false, fault.New(fault.Unavailable, "the file system on %s cannot grow: %v", device, err)
	}
	before := d.FileSystemBytes
	if d, err = Probe(device); err != nil {
		return 0, false, err
	}
	return d.FileSystemBytes, d.FileSystemBytes > before, nil
}

// rescan asks the controller for the size. Not every device can be asked, and then
// the kernel knows it by itself.
func rescan(device string, number uint64) {
	const loop = 7 // Documentation/admin-guide/devices.txt
	if unix.Major(number) == loop {
		if f, err := os.Open(device); err == nil {
			_ = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0)
			f.Close()
		}
		return
	}
	_ = os.WriteFile(filepath.Join(sysfs(number), "device", "rescan"), []byte("1"), 0)
}
