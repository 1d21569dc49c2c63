package image_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

// What is in an image is on every machine that is made of it, and can be read by whoever has the OVA. The tree is
// dist/rootfs (make rootfs), or the one that BERTH_TREE names: make test-ova takes it out of the OVA's disk.
func TestTreeHoldsNothingToShare(t *testing.T) {
	t.Parallel()
	tree := os.Getenv("BERTH_TREE")
	if tree == "" {
		tree = filepath.Join(root(t), "dist/rootfs")
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/bin/berth")); err != nil {
		t.Skipf("there is no tree at %s (make rootfs)", tree)
	}
	for _, fault := range berthtest.TreeFaults(tree) {
		t.Error(fault)
	}
}

// The check finds what it is for.
func TestTreeFaultsAreFound(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"etc/machine-id": "", "etc/passwd": "root:x:0:0::/root:/bin/bash\nberth:x:862:862::/:/usr/sbin/nologin\n",
		"etc/shadow":          "root:!*:19000:0:99999:7:::\nberth:!*:19000::::::\n",
		"usr/bin/ssh-keygen":  "\x00-----BEGIN OPENSSH PRIVATE KEY-----\n\x00-----END",
		"etc/berth/some.yaml": "https: :443\n",
	}
	for name, bad := range map[string]map[string]string{
		"nothing":             {},
		"SSH host key":        {"etc/ssh/ssh_host_rsa_key": "x"},
		"machine-id":          {"etc/machine-id": "0123456789abcdef0123456789abcdef\n"},
		"has a password":      {"etc/shadow": "root:$y$j9T$x:19000:0:99999:7:::\n"},
		"may log in":          {"root/.ssh/authorized_keys": "ssh-ed25519 AAAA build\n"},
		"private key":         {"opt/key.pem": "-----BEGIN EC PRIVATE KEY-----\n" + strings.Repeat("M", 64) + "\n"},
		"is root":             {"etc/passwd": "root:x:0:0::/root:/bin/bash\ntoor:x:0:0::/:/bin/bash\n"},
		"PostgreSQL cluster":  {"var/lib/postgresql/15/main/PG_VERSION": "15"},
		"log":                 {"var/log/dpkg.log": "x"},
		"random seed":         {"var/lib/systemd/random-seed": "x"},
		"a secret of Berth's": {"etc/berth/secrets/console-password": "x"},
		"shell's history":     {"root/.bash_history": "ls"},
		"package lists":       {"var/lib/apt/lists/deb_InRelease": "x"},
		"the build's":         {"root/payload.tar": "x"},
	} {
		tree := t.TempDir()
		for _, files := range []map[string]string{good, bad} {
			for path, text := range files {
				path = filepath.Join(tree, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		faults := berthtest.TreeFaults(tree)
		if name == "nothing" {
			if len(faults) > 0 {
				t.Errorf("a good tree: %v", faults)
			}
		} else if len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), name) {
			t.Errorf("%s was not found: %v", name, faults)
		}
	}
}
