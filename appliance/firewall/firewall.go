// Package firewall makes the packet filter's rules out of the settings: from where
// the registry, the console and SSH are reached.
//
// The image has a base that holds always (appliance/rootfs/usr/lib/berth/
// nftables.conf: what is answered, ICMP, DHCP, and the registry and the console for
// everybody); the file that this package writes replaces its chain "allow". Both
// are loaded in one transaction of the kernel, so that there is no moment without
// rules, and again at every boot by berth-firewall.service.
package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// The files of the rules, below the root directory.
const (
	baseFile  = "usr/lib/berth/nftables.conf"
	rulesDir  = "etc/berth/nftables.d"
	rulesFile = rulesDir + "/allow.nft"
)

// toolTime is how long nft may take.
const toolTime = 45 * time.Second

// Render gives the rules for nft(8). Networks that are in others of the same list
// are left out, for nft refuses such lists.
func Render(f setting.Firewall, ssh bool) (string, error) {
	type service struct {
		field, ports string
		from         []string
		on           bool
	}
	var b strings.Builder
	b.WriteString("# Written by Berth from the settings; changes here are lost.\nflush chain inet berth allow\n\ntable inet berth {\n\tchain allow {\n")
	for _, s := range []service{
		{"firewall.registry", "80, 443", f.Registry, true},
		{"firewall.console", fmt.Sprint(setting.ConsolePort), f.Console, true},
		{"firewall.ssh", "22", f.SSH, ssh},
	} {
		if !s.on {
			continue
		}
		networks, err := parse(s.field, s.from)
		if err != nil {
			return "", err
		}
		if len(networks) == 0 {
			fmt.Fprintf(&b, "\t\ttcp dport { %s } accept\n", s.ports)
		}
		for _, family := range []struct {
			word string
			has  func(netip.Addr) bool
		}{{"ip", netip.Addr.Is4}, {"ip6", netip.Addr.Is6}} {
			var list []string
			for _, n := range networks {
				if family.has(n.Addr()) {
					list = append(list, n.String())
				}
			}
			if len(list) > 0 {
				fmt.Fprintf(&b, "\t\t%s saddr { %s } tcp dport { %s } accept\n", family.word, strings.Join(list, ", "), s.ports)
			}
		}
	}
	b.WriteString("\t}\n}\n")
	return b.String(), nil
}

// parse reads networks and addresses, sorted, without those that are in another.
func parse(field string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(text); err == nil && a.Zone() == "" {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if !p.IsValid() {
			return nil, fault.New(fault.Invalid, "%q is neither a network nor an address", text).On(field).WithHint("such as 192.0.2.0/24 or 2001:db8::/32")
		}
		if p.Addr().Is4In6() {
			p = netip.PrefixFrom(p.Addr().Unmap(), max(p.Bits()-96, 0))
		}
		all = append(all, p.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { // the larger network first
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var kept []netip.Prefix
	for _, p := range all {
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// Allows reports whether a list of the settings lets an address in: a console that
// is about to shut out whoever asked for it can say so.
func Allows(list []string, a netip.Addr) bool {
	networks, err := parse("", list)
	a = a.Unmap().WithZone("")
	return err == nil && (len(networks) == 0 || slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) }))
}

// Write writes the rules below root ("" or "/" for this machine's), and reports
// whether they have changed. They are in force after Apply, or the next boot.
func Write(root string, f setting.Firewall, ssh bool) (changed bool, err error) {
	text, err := Render(f, ssh)
	if err != nil {
		return false, err
	}
	path := filepath.Join(filepath.Clean("/"+root), rulesFile)
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("cannot write the packet filter's rules: %w", err)
	}
	return true, durable.WriteFile(path, []byte(text), 0o644)
}

// Apply checks the rules, writes them and puts them in force, all at once. Rules
// that nft refuses change nothing. Connections that are open stay open.
func Apply(ctx context.Context, f setting.Firewall, ssh bool) error {
	return ApplyIn(ctx, "/", f, ssh)
}

// ApplyIn is Apply with the files below root. The rules are those of the network
// namespace in which it runs.
func ApplyIn(ctx context.Context, root string, f setting.Firewall, ssh bool) error {
	root = filepath.Clean("/" + root)
	text, err := Render(f, ssh)
	if err != nil {
		return err
	}
	base, err := os.ReadFile(filepath.Join(root, baseFile))
	if err != nil {
		return fmt.Errorf("cannot read the packet filter's base: %w", err)
	}
	if err := nft(ctx, string(base)+text, "--check"); err != nil {
		return fault.Wrap(fault.Internal, err, "the packet filter does not take the rules").WithHint("the rules before are still in force")
	}
	path := filepath.Join(root, rulesFile)
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the packet filter's rules: %w", err)
	}
	if _, err := Write(root, f, ssh); err != nil {
		return err
	}
	if err := load(ctx, root); err != nil {
		if werr := putBack(path, before); werr != nil {
			return errors.Join(err, werr)
		}
		return fault.Wrap(fault.Unavailable, err, "the packet filter did not take the rules").WithHint("the rules before are still in force")
	}
	return nil
}

func putBack(path string, before []byte) error {
	if before == nil {
		return os.Remove(path)
	}
	return durable.WriteFile(path, before, 0o644)
}

// load loads the base and all files of rules in one transaction, as
// /etc/berth/nftables.conf does.
func load(ctx context.Context, root string) error {
	base, err := os.ReadFile(filepath.Join(root, baseFile))
	if err != nil {
		return fmt.Errorf("cannot read the packet filter's base: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(root, rulesDir, "*.nft")) // sorted
	if err != nil {
		return err
	}
	all := bytes.NewBuffer(base)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("cannot read the packet filter's rules: %w", err)
		}
		all.WriteByte('\n')
		all.Write(b)
	}
	return nft(ctx, all.String())
}

// nft gives rules to nft on its standard input.
func nft(ctx context.Context, rules string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", append(args, "--file", "-")...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(rules)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("nft: %w: %.500s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}
