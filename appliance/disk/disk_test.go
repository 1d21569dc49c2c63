package disk_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/disk"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
)

// loop gives a loop device over a sparse file of the size, with some bytes at some
// places. It is gone when the test ends.
func loop(t *testing.T, size int64, at map[int64][]byte) (device, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: loop devices need root")
	}
	file = filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(size)
	}
	for offset, b := range at {
		if err == nil {
			if offset < 0 {
				offset += size
			}
			_, err = f.WriteAt(b, offset)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("skipped: no loop devices here: %s", bytes.TrimSpace(out))
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %s", out)
		}
	})
	return device, file
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func probe(t *testing.T, device string) disk.Disk {
	t.Helper()
	d, err := disk.Probe(device)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const size = 64 << 20

func TestMarkedDiskBecomesOurs(t *testing.T) {
	device, file := loop(t, size, map[int64][]byte{0: diskrole.Data.Mark()})
	if d := probe(t, device); d.State != disk.Marked || d.Role != diskrole.Data || d.Bytes != size {
		t.Fatalf("got %+v", d)
	}
	if err := disk.Format(t.Context(), device, diskrole.Log); !fault.Is(err, fault.Precondition) {
		t.Errorf("for another role: %v", err)
	}
	if err := disk.Format(t.Context(), device, diskrole.Data); err != nil {
		t.Fatal(err)
	}
	d := probe(t, device)
	if d.State != disk.Ours || d.Role != diskrole.Data || d.Label != "berth-data" || len(d.UUID) != 36 {
		t.Fatalf("got %+v", d)
	}
	if out := tool(t, "e2fsck", "-f", "-n", device); !strings.Contains(out, "berth-data") {
		t.Errorf("e2fsck says %s", out)
	}
	b, err := os.ReadFile(file)
	if err != nil || bytes.Contains(b[size-4096:], []byte("BERTH")) {
		t.Errorf("the mark is still in the last sector, %v", err)
	}
	if err := disk.Format(t.Context(), device, diskrole.Data); !fault.Is(err, fault.Precondition) {
		t.Errorf("formatting it again: %v", err)
	}
}

// A disk with anything on it is left alone, to the byte.
func TestForeignDisksAreLeftAlone(t *testing.T) {
	for name, at := range map[string]map[int64][]byte{
		"GPT": {512: []byte("EFI PART")}, "partition table": {510: {0x55, 0xaa}}, "XFS": {0: []byte("XFSB")}, "LVM": {512: []byte("LABELONE")},
		"unknown data": {5000: {1}}, "a byte at the end": {-1: {1}}, "a mark and more": {0: diskrole.Data.Mark(), 600: {1}},
		"a damaged mark": {0: []byte("BERTH BLANK DISK 1\nrole=dat")}, "GPT after a cut": {512: []byte("EFI PART"), -512: diskrole.Data.Mark()},
	} {
		t.Run(name, func(t *testing.T) {
			device, file := loop(t, size, at)
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := probe(t, device); d.State != disk.Foreign || d.Kind == "" {
				t.Errorf("got %+v", d)
			}
			if err := disk.Format(t.Context(), device, diskrole.Data); !fault.Is(err, fault.Precondition) {
				t.Errorf("got %v", err)
			}
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
				t.Errorf("it was written to, %v", err)
			}
		})
	}
	t.Run("another ext4", func(t *testing.T) {
		device, _ := loop(t, size, nil)
		tool(t, "mke2fs", "-q", "-t", "ext4", "-L", "precious", device)
		if d := probe(t, device); d.State != disk.Foreign || d.Kind != "ext4" || d.Label != "precious" {
			t.Errorf("got %+v", d)
		}
		if err := disk.Format(t.Context(), device, diskrole.Data); !fault.Is(err, fault.Precondition) {
			t.Errorf("got %v", err)
		}
	})
}

func TestBlankDiskIsNotGuessed(t *testing.T) {
	device, _ := loop(t, size, nil)
	if d := probe(t, device); d.State != disk.Blank || d.Role != "" {
		t.Fatalf("got %+v", d)
	}
	if err := disk.Format(t.Context(), device, diskrole.System); !fault.Is(err, fault.Invalid) {
		t.Errorf("as the system disk: %v", err)
	}
	if err := disk.Format(t.Context(), device, diskrole.Database); err != nil {
		t.Fatal(err)
	}
	if d := probe(t, device); d.State != disk.Ours || d.Role != diskrole.Database {
		t.Errorf("got %+v", d)
	}
}

// However far a Format has come when it is killed, the disk is marked still, and the
// next one succeeds; or the label had been written, and all is there.
func TestFormatCutOff(t *testing.T) {
	cut := 0
	for limit := time.Millisecond; limit < 200*time.Millisecond; limit = limit * 3 / 2 {
		device, _ := loop(t, 1<<30, map[int64][]byte{0: diskrole.Log.Mark()})
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := disk.Format(ctx, device, diskrole.Log)
		cancel()
		if err == nil {
			break
		}
		cut++
		d := probe(t, device)
		if d.Role != diskrole.Log || d.State != disk.Marked && d.State != disk.Ours {
			t.Fatalf("cut off after %v: %+v", limit, d)
		}
		if d.State == disk.Marked {
			if err := disk.Format(t.Context(), device, diskrole.Log); err != nil {
				t.Fatalf("cut off after %v, then: %v", limit, err)
			}
			if d = probe(t, device); d.State != disk.Ours {
				t.Fatalf("cut off after %v, then: %+v", limit, d)
			}
		}
		tool(t, "e2fsck", "-f", "-n", device)
	}
	if cut == 0 {
		t.Error("no Format was cut off")
	}
}

// Cut off between the file system and its label, a Format is done again.
func TestFormatCutOffBeforeTheLabel(t *testing.T) {
	device, _ := loop(t, size, map[int64][]byte{-512: diskrole.Data.Mark()})
	tool(t, "mke2fs", "-q", "-t", "ext4", "-L", "berth-new", device, "60000k")
	if d := probe(t, device); d.State != disk.Marked || d.Role != diskrole.Data {
		t.Errorf("got %+v", d)
	}
	if err := disk.Format(t.Context(), device, diskrole.Data); err != nil {
		t.Error(err)
	}
}

// Cut off between the label and the end, all is there but the mark, which would make
// the disk look blank if its superblock got lost one day: Mount clears it.
func TestFormatCutOffAfterTheLabel(t *testing.T) {
	device, file := loop(t, size, map[int64][]byte{-512: diskrole.Data.Mark()})
	tool(t, "mke2fs", "-q", "-t", "ext4", "-L", "berth-data", device, "60000k")
	if d := probe(t, device); d.State != disk.Ours || d.Role != diskrole.Data {
		t.Fatalf("got %+v", d)
	}
	mount(t, device)
	if b, err := os.ReadFile(file); err != nil || bytes.Contains(b[size-512:], []byte("BERTH")) {
		t.Errorf("the mark is still in the last sector, %v", err)
	}
}

// mount mounts a disk of ours and unmounts it when the test ends.
func mount(t *testing.T, device string) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "mnt")
	if err := disk.Mount(t.Context(), probe(t, device), target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return target
}

func TestGrowUnmounted(t *testing.T) {
	device, file := loop(t, size, map[int64][]byte{0: diskrole.Data.Mark()})
	if err := disk.Format(t.Context(), device, diskrole.Data); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 4*size); err != nil {
		t.Fatal(err)
	}
	if n, grown, err := disk.Grow(t.Context(), device); err != nil || !grown || n < 4*size-1<<20 {
		t.Fatalf("it has %d bytes, grown %v, %v", n, grown, err)
	}
	tool(t, "e2fsck", "-f", "-n", device)
}

func TestMountAndGrow(t *testing.T) {
	device, file := loop(t, size, map[int64][]byte{0: diskrole.Data.Mark()})
	if err := disk.Format(t.Context(), device, diskrole.Data); err != nil {
		t.Fatal(err)
	}
	at := mount(t, device)
	if err := disk.Mount(t.Context(), probe(t, device), at); err != nil {
		t.Errorf("the second time: %v", err)
	}
	d := probe(t, device)
	if d.State != disk.Ours || d.Mounted != at {
		t.Errorf("got %+v", d)
	}
	if err := disk.Format(t.Context(), device, diskrole.Data); err == nil {
		t.Error("a mounted disk was formatted")
	}
	if err := os.WriteFile(filepath.Join(at, "x"), bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := disk.Usage(at)
	if err != nil || u.Total < 40<<20 || u.Used < 1<<20 || u.Percent() < 1 || u.Percent() > 20 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if n, grown, err := disk.Grow(t.Context(), device); err != nil || grown || n == 0 {
		t.Errorf("with nothing to grow into: %d, %v, %v", n, grown, err)
	}
	if err := os.Truncate(file, 4*size); err != nil {
		t.Fatal(err)
	}
	n, grown, err := disk.Grow(t.Context(), device)
	if err != nil && strings.Contains(err.Error(), "Permission denied") {
		t.Skip("skipped: growing a mounted file system needs CAP_SYS_RESOURCE, which this machine does not give")
	}
	if err != nil || !grown || n < 4*size-1<<20 {
		t.Fatalf("it has %d bytes, grown %v, %v", n, grown, err)
	}
	after, err := disk.Usage(at)
	if err != nil || after.Total < 3*size {
		t.Errorf("usage %+v, %v", after, err)
	}
	if b, err := os.ReadFile(filepath.Join(at, "x")); err != nil || len(b) != 1<<20 {
		t.Errorf("the file has %d bytes, %v", len(b), err)
	}
}

func TestList(t *testing.T) {
	a, _ := loop(t, size, map[int64][]byte{0: diskrole.Data.Mark()})
	b, _ := loop(t, size, map[int64][]byte{0: []byte("XFSB")})
	dir := t.TempDir()
	for name, of := range map[string]string{"sdb": a, "sdc": b, "sdz": a, "sr0": b} {
		var st unix.Stat_t
		err := unix.Stat(of, &st)
		if err == nil {
			err = unix.Mknod(filepath.Join(dir, name), unix.S_IFBLK|0o600, int(st.Rdev))
		}
		if err != nil {
			t.Skipf("skipped: no device nodes here: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sdd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := disk.ListIn(t.Context(), dir)
	if err != nil || len(list) != 2 || list[0].Device != filepath.Join(dir, "sdb") || list[0].State != disk.Marked || list[1].State != disk.Foreign {
		t.Errorf("got %+v, %v", list, err)
	}
}
