package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
)

const (
	blockSize = 4096
	// reserve is left free at the end by the new file system, for the mark.
	reserve    = 64 << 10
	formatTime = 10 * time.Minute
)

// Format makes the file system of a role on a disk that is marked for it, or on a
// blank one. Anything else is refused. If it is cut off, the disk counts as marked
// still, and Format can be called again; or its last steps had been reached, and it
// is [Ours], whole, which [Mount] finishes.
func Format(ctx context.Context, device string, role diskrole.Role) error {
	if role == diskrole.System || !slices.Contains(diskrole.All(), role) {
		return fault.New(fault.Invalid, "there is no disk for the role %q", role)
	}
	size, err := claim(device, role)
	if err != nil {
		return err
	}
	blocks := strconv.FormatInt((size-reserve)/blockSize, 10)
	// nodiscard: a blank disk has nothing to discard, and some storage takes minutes for it.
	if err := run(ctx, formatTime, "mke2fs", "-t", "ext4", "-F", "-q", "-b", strconv.Itoa(blockSize), "-m", "1", "-L", newLabel,
		"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", device, blocks); err != nil {
		return fmt.Errorf("cannot make a file system on %s: %w", device, err)
	}
	// The label is one write of one sector: before it there is a mark, after it a
	// whole file system.
	if err := sync(device); err != nil {
		return err
	}
	if err := run(ctx, time.Minute, "e2label", device, role.Label()); err != nil {
		return fmt.Errorf("cannot label the file system on %s: %w", device, err)
	}
	if err := sync(device); err != nil {
		return err
	}
	return dropMark(device)
}

// claim makes sure, with nobody else at it, that the disk may be formatted, and
// puts the mark into its last sector.
func claim(device string, role diskrole.Role) (size int64, err error) {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return 0, fault.Wrap(fault.Conflict, err, "the disk %s is in use", device)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot open the disk %s: %w", device, err)
	}
	defer f.Close()
	if size, err = f.Seek(0, 2); err != nil {
		return 0, fmt.Errorf("cannot tell the size of the disk %s: %w", device, err)
	}
	if size < 16<<20 {
		return 0, fault.New(fault.Precondition, "the disk %s has only %d MiB", device, size>>20)
	}
	c, err := look(f, size)
	if err != nil {
		return 0, fmt.Errorf("cannot read the disk %s: %w", device, err)
	}
	switch {
	case c.state == Marked && c.role != role:
		return 0, fault.New(fault.Precondition, "the disk %s is meant for %s, not for %s", device, c.role, role)
	case c.state != Marked && c.state != Blank:
		return 0, fault.New(fault.Precondition, "the disk %s is not blank: there is %s on it", device, c.kind).
			WithHint("attach another disk, or wipe this one if nobody needs what is on it (wipefs -a %s)", device)
	}
	if _, err = f.WriteAt(role.Mark(), size-diskrole.MarkSize); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return 0, fmt.Errorf("cannot write to the disk %s: %w", device, err)
	}
	return size, nil
}

// dropMark clears the mark in the last sector of a disk that has its file system.
// Left there it would make a disk whose superblock gets damaged look like a blank one.
func dropMark(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open the disk %s: %w", device, err)
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("cannot tell the size of the disk %s: %w", device, err)
	}
	c, err := look(f, size)
	if err != nil || !c.tail || c.state != Ours || c.bytes > size-diskrole.MarkSize {
		return err
	}
	if _, err = f.WriteAt(make([]byte, diskrole.MarkSize), size-diskrole.MarkSize); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("cannot write to the disk %s: %w", device, err)
	}
	return nil
}

// sync waits until what was written to a device is on it.
func sync(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open the disk %s: %w", device, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write to the disk %s: %w", device, err)
	}
	return nil
}

// run calls one of the distribution's programs. Its complaint becomes the error.
func run(ctx context.Context, limit time.Duration, name string, args ...string) error {
	path, err := program(name)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s was cut off: %w", name, ctx.Err())
	case limited.Err() != nil:
		return fmt.Errorf("%s took longer than %v", name, limit)
	}
	out = bytes.TrimSpace(out)
	return fmt.Errorf("%s: %w: %s", name, err, strings.ReplaceAll(string(out[max(0, len(out)-500):]), "\n", "; "))
}

// program finds one of the distribution's programs, whatever PATH says.
func program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.Precondition, "the program %s is not installed", name)
}
