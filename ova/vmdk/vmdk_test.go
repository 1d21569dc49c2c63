package vmdk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	govmdk "github.com/vmware/govmomi/vmdk"
	"golang.org/x/sys/unix"

	"berth/ova/vmdk"
)

const mib = 1 << 20

// rawDisk makes a sparse disk: some text, some noise, zeros that are written, holes,
// and something in its last sector.
func rawDisk(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{1})
	random := make([]byte, 3*mib+700)
	noise.Read(random)
	for _, w := range []struct {
		at int64
		b  []byte
	}{
		{0, []byte("first sector")},
		{5*mib + 300, random},
		{12 * mib, make([]byte, 2*mib)},
		{size / 2, bytes.Repeat([]byte("the same words again "), 100_000)},
		{size - 12, []byte("last sector.")},
	} {
		if _, err := f.WriteAt(w.b[:min(int64(len(w.b)), size-w.at)], w.at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func write(t testing.TB, raw io.ReaderAt, size int64, o vmdk.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := vmdk.Write(t.Context(), &b, raw, size, o)
	if err != nil {
		t.Fatal(err)
	}
	if w.Size != int64(b.Len()) || w.Capacity != size {
		t.Fatalf("%+v of a file with %d bytes", w, b.Len())
	}
	return b.Bytes()
}

func sum(t testing.TB, f *os.File) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int64{40*mib + 512, 64 * mib, 100*mib + 65536 - 512} {
		raw := rawDisk(t, size)
		file := write(t, raw, size, vmdk.Options{Name: "a.vmdk"})
		m, err := vmdk.Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if m.Capacity != size || m.Description["createType"] != "streamOptimized" || m.Description["ddb.toolsVersion"] != "2147483647" {
			t.Errorf("%d %v", m.Capacity, m.Description)
		}
		if _, err := m.Check(t.Context()); err != nil {
			t.Error(err)
		}
		back, err := os.Create(filepath.Join(t.TempDir(), "back.raw"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := m.Extract(t.Context(), back)
		if err != nil {
			t.Fatal(err)
		}
		if sum(t, raw) != sum(t, back) {
			t.Errorf("%d bytes came back different", size)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(back.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if n > 8*mib || st.Blocks*512 > 8*mib || st.Size != size {
			t.Errorf("of %d bytes %d were written, %d are on the disk", st.Size, n, st.Blocks*512)
		}
		back.Close()
	}
}

// What is made depends on nothing but the disk: not on the cores, not on holes.
func TestSameBytes(t *testing.T) {
	size := int64(70 * mib)
	raw := rawDisk(t, size)
	one := write(t, raw, size, vmdk.Options{Name: "a.vmdk", Workers: 1})
	for range 3 {
		if !bytes.Equal(one, write(t, raw, size, vmdk.Options{Name: "a.vmdk", Workers: 7})) {
			t.Fatal("another number of workers made another file")
		}
	}
	noHoles := io.NewSectionReader(raw, 0, size)
	if !bytes.Equal(one, write(t, noHoles, size, vmdk.Options{Name: "a.vmdk"})) {
		t.Error("holes and zeros make different files")
	}
}

// A blank disk of 10 TiB takes no time and little room.
func TestBlank(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "blank"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(10) << 40
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	file := write(t, f, size, vmdk.Options{Name: "blank.vmdk"})
	if len(file) > 2*mib {
		t.Errorf("%d bytes for nothing", len(file))
	}
	m, err := vmdk.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.Check(t.Context()); err != nil || n != 0 {
		t.Errorf("%d grains, %v", n, err)
	}
}

func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (make test-deps)")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// QEMU reads what we write, and we read what QEMU writes.
func TestWithQEMU(t *testing.T) {
	size := int64(96 * mib)
	raw := rawDisk(t, size)
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours.vmdk"), filepath.Join(dir, "theirs.vmdk")
	if err := os.WriteFile(ours, write(t, raw, size, vmdk.Options{Name: "ours.vmdk"}), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := qemuImg(t, "info", ours); !strings.Contains(out, "streamOptimized") || !strings.Contains(out, "100663296 bytes") {
		t.Error(out)
	}
	qemuImg(t, "check", ours)
	if out := qemuImg(t, "compare", "-f", "raw", "-F", "vmdk", raw.Name(), ours); !strings.Contains(out, "identical") {
		t.Error(out)
	}
	if info, err := govmdk.Stat(ours); err != nil || info.Capacity != size {
		t.Errorf("govmomi says %+v, %v", info, err)
	}

	qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw.Name(), theirs)
	f, err := os.Open(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	m, err := vmdk.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Check(t.Context()); err != nil {
		t.Error(err)
	}
	back, err := os.Create(filepath.Join(dir, "back.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := m.Extract(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if sum(t, raw) != sum(t, back) {
		t.Error("QEMU's disk came back different")
	}
}

// Every kind of damage is noticed.
func TestDamage(t *testing.T) {
	size := int64(40 * mib)
	good := write(t, rawDisk(t, size), size, vmdk.Options{Name: "a.vmdk"})
	end := len(good)
	cases := map[string]func(b []byte) []byte{
		"cut in the middle":       func(b []byte) []byte { return b[:end/2] },
		"cut by a byte":           func(b []byte) []byte { return b[:end-1] },
		"cut by the end marker":   func(b []byte) []byte { return b[:end-512] },
		"more behind the end":     func(b []byte) []byte { return append(b, make([]byte, 512)...) },
		"no magic":                func(b []byte) []byte { b[0]++; return b },
		"other capacity":          func(b []byte) []byte { b[12]++; return b },
		"huge capacity":           func(b []byte) []byte { b[18] = 0xff; return b },
		"not compressed":          func(b []byte) []byte { b[10] = 0; return b },
		"a bit in a grain":        func(b []byte) []byte { b[128*512+40] ^= 4; return b },
		"a grain's address":       func(b []byte) []byte { b[128*512+1]++; return b },
		"a grain's length":        func(b []byte) []byte { binary.LittleEndian.PutUint32(b[128*512+8:], 1<<31); return b },
		"directory elsewhere":     func(b []byte) []byte { b[end-1024+56] = 1; return b },
		"directory far away":      func(b []byte) []byte { b[end-1024+60] = 1; return b },
		"description far away":    func(b []byte) []byte { b[28+5] = 1; return b },
		"end marker overwritten":  func(b []byte) []byte { b[end-512+12] = 9; return b },
		"a footer of other grain": func(b []byte) []byte { b[end-1024+20] = 64; return b },
	}
	for name, breakIt := range cases {
		b := breakIt(bytes.Clone(good))
		m, err := vmdk.Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = m.Check(t.Context())
		}
		if !errors.Is(err, vmdk.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, size := range []int64{0, -512, 100, 63 << 40} {
		if _, err := vmdk.Write(t.Context(), io.Discard, bytes.NewReader(nil), size, vmdk.Options{}); err == nil {
			t.Errorf("a disk of %d bytes was taken", size)
		}
	}
	if _, err := vmdk.Write(t.Context(), io.Discard, bytes.NewReader(make([]byte, 512)), 1024, vmdk.Options{}); err == nil || !strings.Contains(err.Error(), "cannot read the disk at byte 512") {
		t.Errorf("a disk that is shorter than it should be: %v", err)
	}
	if _, err := vmdk.Write(t.Context(), io.Discard, bytes.NewReader(make([]byte, 512)), 512, vmdk.Options{Level: 10}); err == nil {
		t.Error("level 10 was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	raw := rawDisk(t, 40*mib)
	if _, err := vmdk.Write(ctx, io.Discard, raw, 40*mib, vmdk.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if _, err := vmdk.Write(t.Context(), failing{}, raw, 40*mib, vmdk.Options{}); !errors.Is(err, errFull) {
		t.Errorf("full: %v", err)
	}
}

var errFull = errors.New("the disk is full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

// memory takes an extracted disk, and keeps nothing of it.
type memory struct{}

func (m *memory) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

func FuzzOpen(f *testing.F) {
	for _, size := range []int64{512, 65536 + 512} {
		content := bytes.Repeat([]byte("berth "), int(size)/6+1)[:size]
		var b bytes.Buffer
		if _, err := vmdk.Write(f.Context(), &b, bytes.NewReader(content), size, vmdk.Options{Name: "f.vmdk"}); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
		f.Add(b.Bytes()[:b.Len()-512])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := vmdk.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		_, bad := m.Check(t.Context())
		_, err = m.Extract(t.Context(), new(memory))
		if bad == nil && err != nil {
			t.Errorf("a VMDK without fault cannot be extracted: %v", err)
		}
	})
}

// BenchmarkWrite answers how long the OVA's disk takes: MB of raw disk a second on
// all cores, and what is left of them, for content of which a third is incompressible.
func BenchmarkWrite(b *testing.B) {
	raw := benchmarkDisk(b)
	for _, level := range []int{1, 3, 5, 6, 7, 9} {
		b.Run(fmt.Sprintf("level%d", level), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			var last vmdk.Written
			for b.Loop() {
				var err error
				if last, err = vmdk.Write(b.Context(), io.Discard, bytes.NewReader(raw), int64(len(raw)), vmdk.Options{Level: level}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(100*float64(last.Size)/float64(len(raw)), "%size")
		})
	}
}

func BenchmarkExtract(b *testing.B) {
	raw := benchmarkDisk(b)
	file := write(b, bytes.NewReader(raw), int64(len(raw)), vmdk.Options{})
	m, err := vmdk.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := m.Extract(b.Context(), new(memory)); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkDisk is like a root file system: Go's own programs and sources, and noise
// for what is compressed there already.
func benchmarkDisk(b *testing.B) []byte {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		b.Fatal(err)
	}
	program = program[:min(len(program), 24*mib)]
	noise := make([]byte, len(program)/3)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	raw := append(program, noise...)
	return raw[:len(raw)/512*512]
}
