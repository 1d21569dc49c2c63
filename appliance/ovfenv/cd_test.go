package ovfenv_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/ovfenv"
)

// iso makes a CD with a file, by xorriso.
func iso(t testing.TB, name string, content []byte, options ...string) string {
	t.Helper()
	xorriso, err := exec.LookPath("xorriso")
	if err != nil {
		t.Skip("skipped: xorriso is not installed")
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "cd.iso")
	if err := os.MkdirAll(filepath.Join(dir, "root", "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string][]byte{name: content, "other/ovf-env.xml": []byte("not this one"), "a.txt": []byte("x")} {
		if err := os.WriteFile(filepath.Join(dir, "root", file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-as", "mkisofs", "-quiet", "-o", out}, options...)
	if b, err := exec.Command(xorriso, append(args, filepath.Join(dir, "root"))...).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %s", b)
	}
	return out
}

func TestReadISO(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("certificate\n"), 100_000)
	for name, options := range map[string][]string{
		"plain": nil, "Joliet": {"-J"}, "Rock Ridge": {"-r"}, "both": {"-J", "-r", "-V", "OVF ENV"}, "level 3": {"-iso-level", "3"}, "level 4": {"-iso-level", "4"},
	} {
		f, err := os.Open(iso(t, "ovf-env.xml", large, options...))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if b, err := ovfenv.ReadISO(f, "ovf-env.xml", ovfenv.MaxSize); err != nil || !bytes.Equal(b, large) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		if _, err := ovfenv.ReadISO(f, "ovf-env.xml", 1000); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: over the limit: %v", name, err)
		}
		if _, err := ovfenv.ReadISO(f, "none.xml", 1000); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: a file that is not there: %v", name, err)
		}
	}
	for _, b := range []string{"", strings.Repeat("\x00", 64<<10), "CD001"} {
		if _, err := ovfenv.ReadISO(strings.NewReader(b), "ovf-env.xml", 1000); !fault.Is(err, fault.NotFound) {
			t.Errorf("%d bytes that are no CD: %v", len(b), err)
		}
	}
}

// The device is known by what is on it, whatever it is called.
func TestCD(t *testing.T) {
	file := iso(t, "ovf-env.xml", document(t, "a.b", "from the CD"), "-J")
	out, err := exec.Command("losetup", "--find", "--show", "--read-only", file).CombinedOutput()
	if err != nil {
		t.Skipf("skipped: no loop devices here: %s", bytes.TrimSpace(out))
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", device).Run() })
	dir := t.TempDir()
	var st unix.Stat_t
	if err = unix.Stat(device, &st); err == nil {
		err = unix.Mknod(filepath.Join(dir, "sdq"), unix.S_IFBLK|0o600, int(st.Rdev))
	}
	if err != nil {
		t.Skipf("skipped: no device nodes here: %v", err)
	}
	found, err := ovfenv.Read(t.Context(), ovfenv.CD(dir))
	if err != nil || found.Environment.Properties["a.b"] != "from the CD" || found.Source.Name() != "CD "+filepath.Join(dir, "sdq") {
		t.Errorf("got %+v, %v", found.Environment, err)
	}
	if _, err := ovfenv.Read(t.Context(), ovfenv.CD(t.TempDir())); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a drive: %v", err)
	}
}

// image is a CD by hand: a primary descriptor, a root directory, one file.
func image(content string) []byte {
	b := make([]byte, 20*2048)
	copy(b[16*2048:], "\x01CD001\x01")
	root := b[16*2048+156:]
	binary.LittleEndian.PutUint32(root[2:], 18)
	binary.LittleEndian.PutUint32(root[10:], 2048)
	copy(b[17*2048:], "\xffCD001\x01")
	entry := b[18*2048:]
	const name = "OVF_ENV.XML;1"
	entry[0], entry[32] = byte(33+len(name)), byte(len(name))
	binary.LittleEndian.PutUint32(entry[2:], 19)
	binary.LittleEndian.PutUint32(entry[10:], uint32(len(content)))
	copy(entry[33:], name)
	copy(b[19*2048:], content)
	return b
}

func FuzzReadISO(f *testing.F) {
	if b, err := ovfenv.ReadISO(bytes.NewReader(image("hello")), "ovf-env.xml", 100); err != nil || string(b) != "hello" {
		f.Fatalf("got %q, %v", b, err)
	}
	f.Add(image("hello")[16*2048:])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(make([]byte, 16*2048), b...)
		got, err := ovfenv.ReadISO(bytes.NewReader(b), "ovf-env.xml", 4096)
		if err == nil && len(got) > 4096 || err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}
