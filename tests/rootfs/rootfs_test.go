// Package rootfs checks the appliance's files, appliance/rootfs and install.sh, without starting anything: what systemd,
// nft and shellcheck say of them, and that they agree with each other and with the programs.
package rootfs

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"berth/services/command"
	"berth/tests/berthtest"
)

// units is where the unit files are.
const units = "usr/lib/systemd/system"

// privileged services change the machine itself, as root, or show what does: what can be kept from them is less, and how
// exposed each may be is here.
var privileged = map[string]float64{"berth-agent.service": 5.8, "berth-firstboot.service": 6.1, "berth-screen.service": 2.8}

// most is how exposed any other service may be, by systemd-analyze's figure from 0 to 10.
const most = 2.0

// tree is appliance/rootfs.
func tree(t *testing.T) string {
	t.Helper()
	root, err := berthtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "appliance", "rootfs")
}

// installed is a tree as systemd-analyze needs it: ours, what ours refers to of systemd's own, and programs that do
// nothing.
func installed(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(tree(t))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sysinit", "basic", "shutdown", "umount", "multi-user", "sockets", "getty", "network-pre", "local-fs", "timers", "paths"} {
		write(t, filepath.Join(root, units, name+".target"), "[Unit]\nDescription=stand-in\n", 0o644)
	}
	for _, name := range []string{"systemd-tmpfiles-setup", "systemd-networkd", "systemd-resolved", "dbus", "ssh", "sshd", "getty@"} {
		write(t, filepath.Join(root, units, name+".service"), "[Service]\nExecStart=/usr/bin/true\n", 0o644)
	}
	for _, name := range []string{"usr/bin/berth", "usr/bin/berth-agent", "usr/bin/ssh-keygen", "usr/bin/true", "usr/sbin/nft", "usr/lib/berth/postgresql/postgres", "bin/kill", "usr/bin/systemd-tmpfiles"} {
		write(t, filepath.Join(root, name), "#!/bin/sh\n", 0o755)
	}
	return root
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// ours are the names of the unit files with one of the endings.
func ours(t *testing.T, endings ...string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(tree(t), units))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "berth") && slices.Contains(endings, filepath.Ext(e.Name())) {
			list = append(list, e.Name())
		}
	}
	if len(list) == 0 {
		t.Fatalf("there are no unit files in %s", units)
	}
	return list
}

// values are those of one key in a unit file.
func values(t *testing.T, unit, key string) (list []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tree(t), units, unit))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			list = append(list, v)
		}
	}
	return list
}

// systemd understands every line of every unit, and finds what they name.
func TestUnitsAreValid(t *testing.T) {
	analyze := berthtest.Program(t, "systemd-analyze")
	root := installed(t)
	args := append([]string{"verify", "--man=no", "--root=" + root}, ours(t, ".service", ".socket", ".target", ".slice")...)
	if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

var overall = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// No service can do more than it must.
func TestServicesAreConfined(t *testing.T) {
	analyze := berthtest.Program(t, "systemd-analyze")
	root := installed(t)
	for _, name := range ours(t, ".service") {
		limit, ok := privileged[name]
		if !ok {
			limit = most
		}
		out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--root="+root, name).CombinedOutput()
		m := overall.FindSubmatch(out)
		if err != nil || m == nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		if figure, err := strconv.ParseFloat(string(m[1]), 64); err != nil || figure > limit {
			t.Errorf("%s is exposed by %s, and may be by %.1f:\n%s", name, m[1], limit, out)
		}
	}
}

// What runs for long is started again by systemd without an end, watched, bounded, and no user of its own but root's.
func TestServicesAreLookedAfter(t *testing.T) {
	for _, name := range ours(t, ".service") {
		if slices.Contains(values(t, name, "Type"), "oneshot") || name == "berth-screen.service" {
			continue
		}
		want := []string{"TasksMax", "OOMScoreAdjust"}
		if name != "berth-postgres.service" { // it does not speak systemd's watchdog, and is not to be cut off when busy
			want = append(want, "WatchdogSec", "MemoryMax", "MemoryHigh")
		}
		for _, key := range want {
			if len(values(t, name, key)) == 0 {
				t.Errorf("%s has no %s", name, key)
			}
		}
		if _, ok := privileged[name]; ok {
			continue
		}
		if target, err := os.Readlink(filepath.Join(tree(t), units, name+".d", "sandbox.conf")); err != nil || filepath.Base(target) != "sandbox.conf" {
			t.Errorf("%s has no link to sandbox.conf: %v", name, err)
		}
	}
}

// lists are keys of which every line counts. Of any other the sandbox's would be the one that counts, silently.
var lists = []string{"After", "Requisite", "PartOf", "SystemCallFilter", "RestrictAddressFamilies"}

func TestSandboxOverridesNothing(t *testing.T) {
	set := map[string]bool{}
	b, err := os.ReadFile(filepath.Join(tree(t), "usr/lib/berth/sandbox.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if key, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(key, "#") && !slices.Contains(lists, key) {
			set[key] = true
		}
	}
	for _, name := range ours(t, ".service") {
		if _, err := os.Lstat(filepath.Join(tree(t), units, name+".d", "sandbox.conf")); err != nil {
			continue
		}
		for key := range set {
			if v := values(t, name, key); len(v) > 0 {
				t.Errorf("%s has %s=%s, which the sandbox overrides", name, key, v[0])
			}
		}
	}
}

// The packet filter is not given up on a busy host, where it takes half a minute: the network would come up without it.
func TestPacketFilterHasTime(t *testing.T) {
	if got := values(t, "berth-firewall.service", "TimeoutStartSec"); !slices.Equal(got, []string{"5min"}) {
		t.Errorf("it has %v", got)
	}
}

// The users and groups that units name are made.
func TestUsersAreMade(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(tree(t), "usr/lib/sysusers.d/berth.conf"))
	if err != nil {
		t.Fatal(err)
	}
	known := []string{"postgres", "systemd-journal", "root"} // of the distribution
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && (f[0] == "u" || f[0] == "g") {
			known = append(known, f[1])
		}
	}
	for _, name := range ours(t, ".service", ".socket") {
		for _, key := range []string{"User", "Group", "SupplementaryGroups", "SocketUser", "SocketGroup"} {
			for _, v := range values(t, name, key) {
				for _, who := range strings.Fields(v) {
					if !slices.Contains(known, who) {
						t.Errorf("%s: %s=%s is made by nobody", name, key, who)
					}
				}
			}
		}
	}
}

// What can be enabled is, by name, and what is enabled is there.
func TestPreset(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(tree(t), "usr/lib/systemd/system-preset/10-berth.preset"))
	if err != nil {
		t.Fatal(err)
	}
	var enabled []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "enable" && strings.HasPrefix(f[1], "berth") {
			enabled = append(enabled, f[1])
		}
	}
	var installable []string
	for _, name := range ours(t, ".service", ".socket", ".target") {
		if len(values(t, name, "WantedBy")) > 0 {
			installable = append(installable, name)
		}
	}
	slices.Sort(enabled)
	slices.Sort(installable)
	if !slices.Equal(enabled, installable) {
		t.Errorf("enabled are %v, and can be %v", enabled, installable)
	}
}

// The commands of the units exist.
func TestCommandsExist(t *testing.T) {
	for _, name := range ours(t, ".service") {
		for _, line := range values(t, name, "ExecStart") {
			f := strings.Fields(line)
			if f[0] != "/usr/bin/berth" {
				continue
			}
			if code := command.Main(append(f[1:], "--help"), io.Discard, io.Discard); code != 0 {
				t.Errorf("%s: %s: exit code %d", name, line, code)
			}
		}
	}
}

// The packet filter's rules are valid, and those that are generated have a place to go.
func TestPacketFilter(t *testing.T) {
	nft := berthtest.Program(t, "nft")
	if os.Geteuid() != 0 {
		t.Skip("nft checks rules for root alone")
	}
	base := filepath.Join(tree(t), "usr/lib/berth/nftables.conf")
	generated := filepath.Join(t.TempDir(), "rules.nft")
	write(t, generated, "include \""+base+"\"\nflush chain inet berth allow\nadd rule inet berth allow ip saddr 192.0.2.0/24 tcp dport 22 accept\n", 0o644)
	for _, file := range []string{base, generated} {
		if out, err := exec.CommandContext(t.Context(), nft, "-c", "-f", file).CombinedOutput(); err != nil {
			t.Errorf("nft -c -f %s: %v\n%s", file, err, out)
		}
	}
}

// The installer is a script that shellcheck finds nothing in.
func TestInstaller(t *testing.T) {
	shellcheck := berthtest.Program(t, "shellcheck")
	for _, file := range []string{filepath.Join(tree(t), "..", "install.sh"), filepath.Join(tree(t), "etc/profile.d/berth.sh")} {
		if out, err := exec.CommandContext(t.Context(), shellcheck, file).CombinedOutput(); err != nil {
			t.Errorf("shellcheck: %v\n%s", err, out)
		}
	}
}

// Nothing that must differ between two machines, and no secret, is in the files; all are text.
func TestNothingPrivateIsInTheFiles(t *testing.T) {
	bad := regexp.MustCompile(`PRIVATE KEY|ssh-(rsa|ed25519) AAAA|\$(6|y|argon2id)\$`)
	err := filepath.WalkDir(tree(t), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if m := bad.Find(b); m != nil {
			t.Errorf("%s has %q", path, m)
		}
		if slices.Contains([]string{"machine-id", "random-seed", "shadow"}, e.Name()) {
			t.Errorf("%s does not belong there", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// bare is what install.sh finds of a distribution: its name, its programs' files, a user of PostgreSQL.
func bare(t *testing.T, id, postgres string) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "usr/lib/os-release"), "NAME=\"Some Linux\"\nID="+id+"\n", 0o644)
	for _, name := range []string{"usr/lib/systemd/systemd-networkd", "usr/lib/systemd/systemd-resolved", "usr/lib/systemd/systemd-timesyncd", "usr/sbin/nft", "usr/sbin/sshd",
		"usr/bin/ssh-keygen", "usr/sbin/mkfs.ext4", "usr/sbin/resize2fs", "usr/bin/ip", postgres + "/postgres", postgres + "/initdb"} {
		write(t, filepath.Join(root, name), "", 0o755)
	}
	for _, name := range []string{"systemd-networkd", "systemd-resolved", "systemd-timesyncd"} {
		write(t, filepath.Join(root, units, name+".service"), "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n", 0o644)
	}
	write(t, filepath.Join(root, units, "multi-user.target"), "[Unit]\n", 0o644)
	for _, dir := range []string{"etc/systemd/system/sockets.target.wants", "etc/ssh", "var/lib/systemd", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\npostgres:x:101:101::/:/bin/sh\n", 0o644)
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\npostgres:x:101:\nsystemd-journal:x:190:\n", 0o644)
	write(t, filepath.Join(root, "etc/ssh/ssh_host_ed25519_key"), "somebody's", 0o600)
	if err := os.Symlink("/usr/lib/systemd/system/ssh.service", filepath.Join(root, "etc/systemd/system/sshd.service")); err != nil {
		t.Fatal(err)
	}
	return root
}

// The installer puts the same onto both distributions, a second time as the first, and nothing that two machines must not
// share.
func TestInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("install.sh needs root")
	}
	berthtest.Program(t, "systemd-sysusers")
	binaries := t.TempDir()
	for _, name := range []string{"berth", "berth-agent"} {
		write(t, filepath.Join(binaries, name), "#!/bin/sh\n", 0o755)
	}
	for id, postgres := range map[string]string{"debian": "/usr/lib/postgresql/15/bin", "photon": "/usr/pgsql/15/bin"} {
		t.Run(id, func(t *testing.T) {
			root := bare(t, id, postgres)
			for range 2 {
				if out, err := exec.CommandContext(t.Context(), filepath.Join(tree(t), "..", "install.sh"), root, binaries).CombinedOutput(); err != nil {
					t.Fatalf("install.sh: %v\n%s", err, out)
				}
			}
			check(t, root, postgres)
		})
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(tree(t), "..", "install.sh"), bare(t, "other", "/usr/bin"), binaries).CombinedOutput(); err == nil {
		t.Errorf("it installs onto any system: %s", out)
	}
}

// check looks at a tree that install.sh has been at.
func check(t *testing.T, root, postgres string) {
	t.Helper()
	for link, want := range map[string]string{
		"usr/lib/berth/postgresql": postgres, "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
		"etc/systemd/system/ctrl-alt-del.target": "/dev/null", "etc/systemd/system/getty@tty1.service": "/dev/null", "etc/systemd/system/nftables.service": "/dev/null",
		"etc/systemd/system/berth.target.wants/berth-registry.service": "/lib/systemd/system/berth-registry.service",
		"usr/lib/systemd/system/berth-core.service.d/sandbox.conf":     "../../../berth/sandbox.conf",
	} {
		if got, err := os.Readlink(filepath.Join(root, link)); strings.TrimPrefix(got, "/usr") != strings.TrimPrefix(want, "/usr") {
			t.Errorf("%s leads to %q, want %q (%v)", link, got, want, err)
		}
	}
	for _, name := range []string{"etc/ssh/ssh_host_ed25519_key", "etc/systemd/system/sshd.service", "var/lib/systemd/random-seed"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "etc/machine-id")); err != nil || info.Size() != 0 {
		t.Errorf("the machine id: %v %v", info, err)
	}
	for name, mode := range map[string]os.FileMode{"etc/berth/secrets": 0o700, "var/lib/berth-agent": 0o700, "etc/berth/postgres": 0o755, "usr/bin/berth": 0o755, "storage/data": 0o755, "etc/berth/postgres/pg_hba.conf": 0o644} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, want %v", name, err, mode)
		}
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || strings.Count(string(passwd), "\nberth-registry:x:862:862:") != 1 {
		t.Errorf("the users are %s (%v)", passwd, err)
	}
}
