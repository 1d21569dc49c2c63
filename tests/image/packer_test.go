// Package image_test checks how the image is made, without making it: the Packer templates, the kickstart file, the
// scripts and the list of packages; and, if there is one, what is in the image: nothing that two machines must not share.
package image_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := berthtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Debian's Packer, 1.6.6, takes the templates: every option by its name and type.
func TestPackerTakesTheTemplates(t *testing.T) {
	t.Parallel()
	berthtest.Program(t, "packer")
	dir := filepath.Join(root(t), "packer")
	sh := berthtest.NewShell(t, "CHECKPOINT_DISABLE=1")
	key := filepath.Join(sh.Dir, "key")
	sh.Run(t, berthtest.Program(t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key)
	common := []string{"validate", "-var=payload=/etc/hosts", "-var=key=" + key, "-var=version=1.2.3"}
	for name, vars := range map[string][]string{
		"debian": {"-var=disk=/etc/hosts", "-var=tree=" + filepath.Join(sh.Dir, "tree"), "-var=output=" + filepath.Join(sh.Dir, "d")},
		"photon": {"-var=iso=[datastore] photon.iso", "-var=http=" + sh.Dir, "-var=vcenter_password=x", "-var=output=" + filepath.Join(sh.Dir, "p")},
	} {
		sh.Run(t, "packer", slices.Concat(common, vars, []string{filepath.Join(dir, name)})...)
		sh.Run(t, "packer", "fmt", "-check", filepath.Join(dir, name))
		sh.Refused(t, []string{"no_such_variable"}, "packer", slices.Concat(common, vars, []string{"-var=no_such_variable=1", filepath.Join(dir, name)})...)
	}
	sh.Run(t, "packer", "fmt", "-check", filepath.Join(dir, "plugins"))
}

// kickstartKeys are what Photon's installer knows at the top of a kickstart file (photon-os-installer, installer.py,
// known_keys), those of them that 4 and 5 have in common.
var kickstartKeys = []string{"additional_packages", "bootmode", "disk", "disks", "eject_cdrom", "hostname", "linux_flavor", "live", "network",
	"packagelist_file", "packages", "partitions", "password", "postinstall", "postinstallscripts", "preinstall", "public_key", "search_path", "ui"}

func TestKickstart(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root(t), "packer/photon/ks.json"))
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		if !slices.Contains(kickstartKeys, k) {
			t.Errorf("Photon's installer does not know %q", k)
		}
	}
	var ks struct {
		Password struct {
			Crypted bool
			Text    string
		}
		PublicKey   string `json:"public_key"`
		LinuxFlavor string `json:"linux_flavor"`
		BootMode    string
		Packages    []string
		PostInstall []string
	}
	if err := json.Unmarshal(b, &ks); err != nil {
		t.Fatal(err)
	}
	if !ks.Password.Crypted || ks.Password.Text != "*" {
		t.Error("root has a password")
	}
	if ks.PublicKey != "@PUBLIC_KEY@" {
		t.Errorf("the key is %q: build.sh puts in one of its own", ks.PublicKey)
	}
	if !slices.Contains([]string{"linux", "linux-esx", "linux-aws", "linux-secure", "linux-rt"}, ks.LinuxFlavor) || !slices.Contains(ks.Packages, ks.LinuxFlavor) {
		t.Errorf("the kernel is %q", ks.LinuxFlavor)
	}
	if !slices.Contains([]string{"bios", "efi", "dualboot"}, ks.BootMode) {
		t.Errorf("bootmode is %q", ks.BootMode)
	}
	sh := berthtest.NewShell(t)
	script := filepath.Join(sh.Dir, "postinstall.sh")
	if err := os.WriteFile(script, []byte(strings.Join(ks.PostInstall, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.Run(t, "bash", "-n", script)
	sh.Run(t, berthtest.Program(t, "shellcheck"), script)
}

func TestShellcheck(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob(filepath.Join(root(t), "packer/*/*.sh"))
	if err != nil || len(scripts) < 8 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	sh := berthtest.NewShell(t)
	for _, s := range scripts {
		sh.Run(t, "bash", "-n", s)
		if st, err := os.Stat(s); err != nil || st.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be run", s)
		}
	}
	sh.Run(t, berthtest.Program(t, "shellcheck"), scripts...)
}

// The lock file has every package once, in order, and all that the list asks for.
func TestPackagesAreLocked(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(root(t), "packer/debian")
	locked := map[string]string{}
	last := ""
	for _, line := range lines(t, filepath.Join(dir, "packages.lock")) {
		name, version, ok := strings.Cut(line, " ")
		if !ok || version == "" || locked[name] != "" || line <= last {
			t.Errorf("%q is not a package and its version, once and in order", line)
		}
		locked[name], last = version, line
	}
	list := lines(t, filepath.Join(dir, "packages.list"))
	for _, name := range list {
		if locked[name] == "" {
			t.Errorf("%s is not locked (make lock)", name)
		}
	}
	if len(list) < 10 || len(locked) < 100 {
		t.Errorf("%d packages asked for, %d locked", len(list), len(locked))
	}
}

// lines are the lines of a file without comments and what is empty.
func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}
