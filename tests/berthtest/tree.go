package berthtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// privateKey is a PEM private key with a body; programs that write such keys only have the first line in them.
var privateKey = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n(?:[A-Za-z-]+: .*\n|\r?\n)*[A-Za-z0-9+/=]{32}`)

// notInTrees are files that an image must not have, by patterns of path.Match over the whole path and over the name.
var notInTrees = []struct{ pattern, what string }{
	{"etc/ssh/ssh_host_*", "an SSH host key"},
	{"var/lib/systemd/random-seed", "a random seed"},
	{"var/lib/systemd/credential.secret", "systemd's secret for credentials"},
	{"authorized_keys*", "somebody may log in"},
	{".bash_history", "a shell's history"},
	{"PG_VERSION", "a PostgreSQL cluster"},
	{"ssl-cert-snakeoil.key", "the example's private key"},
	{"etc/berth/secrets/*", "a secret of Berth's"},
	{"var/lib/berth-agent/*", "what first boot makes"},
	{"var/lib/apt/lists/*", "package lists"},
	{"root/payload*", "the build's"},
	{"etc/systemd/network/00-build.network", "the build's network"},
}

// TreeFaults looks through an image's tree for what two machines must not share, or must not come with at all: host
// keys, a machine-id, private keys, passwords, authorized keys, logs and remains of the build. It gives each with its place.
func TreeFaults(tree string) []string {
	var faults []string
	fault := func(place, form string, args ...any) { faults = append(faults, place+": "+fmt.Sprintf(form, args...)) }
	err := filepath.WalkDir(tree, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(tree, file)
		if err != nil {
			return err
		}
		for _, n := range notInTrees {
			whole, _ := path.Match(n.pattern, rel)
			name, _ := path.Match(n.pattern, path.Base(rel))
			if whole || name {
				fault(rel, "%s", n.what)
			}
		}
		if strings.HasPrefix(rel, "var/log/") {
			fault(rel, "a log")
		}
		if strings.HasPrefix(rel, "storage/") {
			fault(rel, "a file where the disks are mounted")
		}
		text, err := os.ReadFile(file)
		// Some libraries have keys in them for testing themselves.
		if !bytes.HasPrefix(text, []byte("\x7fELF")) && privateKey.Match(text) {
			fault(rel, "a private key")
		}
		return err
	})
	if err != nil {
		fault(tree, "%v", err)
	}
	if b, err := os.ReadFile(filepath.Join(tree, "etc/machine-id")); err != nil || len(b) > 0 && string(b) != "uninitialized\n" {
		fault("etc/machine-id", "the machine-id is %q, %v: it must be there and empty", b, err)
	}
	for _, f := range fields(tree, "etc/shadow", fault) {
		if len(f) < 2 || f[1] == "" || !strings.ContainsAny(f[1][:1], "!*") {
			fault("etc/shadow", "%s has a password, or none is needed", f[0])
		}
	}
	for _, f := range fields(tree, "etc/passwd", fault) {
		if len(f) < 3 || f[2] == "0" && f[0] != "root" {
			fault("etc/passwd", "%s is root", f[0])
		}
	}
	slices.Sort(faults)
	return faults
}

func fields(tree, name string, fault func(place, form string, args ...any)) [][]string {
	b, err := os.ReadFile(filepath.Join(tree, name))
	if err != nil {
		fault(name, "%v", err)
	}
	var all [][]string
	for line := range strings.Lines(string(b)) {
		all = append(all, strings.Split(strings.TrimSpace(line), ":"))
	}
	return all
}
