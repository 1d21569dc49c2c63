package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/pause"
	"berth/appliance/setting"
)

const (
	toolTime = 45 * time.Second // for networkctl, also on a host that starts many machines at once
	// addressTime is how long an address is waited for: three tries of DHCP.
	addressTime = 25 * time.Second
	// beginTime is how long networkd may take to begin with what it has read: until
	// then the card has its old addresses.
	beginTime = 300 * time.Millisecond
	// finishTime is how long what comes after the address is waited for.
	finishTime = 2 * time.Second
)

// Apply writes the settings and puts them in force now: networkd reads its files
// again and configures the first card anew, the machine gets its name. It waits
// until there is an address, for at most 25 seconds, and says what is missing if
// there is none; the settings are in force all the same.
//
// An IPv4 address that another machine has is a Conflict, and changes nothing.
func Apply(ctx context.Context, n setting.Network) error {
	list, err := devices()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fault.New(fault.NotFound, "the machine has no network card").WithHint("add one in vSphere, of the type VMXNET 3")
	}
	if err := free(ctx, list[0], n.IP4); err != nil {
		return err
	}
	changed, err := Write("/", n)
	if err != nil {
		return err
	}
	if err := setHostname(n.Hostname); err != nil {
		return err
	}
	if err := networkctl(ctx, "reload"); err != nil {
		return err
	}
	if !changed {
		// networkd has read nothing new, and the card stays as it is. Unless it lacks
		// something: then it is tried once more.
		if now, err := currentOf(list[0]); err == nil && len(missing(now, n)) == 0 {
			return nil
		}
		if err := networkctl(ctx, "reconfigure", list[0]); err != nil {
			return err
		}
	}
	return wait(ctx, list[0], n)
}

// Reload lets networkd read its files again, and waits until the card is as they
// say, with an address if it had one before.
func Reload(ctx context.Context) error {
	before, err := Current(ctx)
	if err != nil {
		return err
	}
	if err := networkctl(ctx, "reload"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, addressTime)
	defer cancel()
	if !pause.For(ctx, beginTime) {
		return ctx.Err()
	}
	until(ctx, func() bool {
		now, err := currentOf(before.Interface)
		return err == nil && (now.Address().IsValid() || !before.Address().IsValid())
	})
	if before.Source4 != "static" {
		finish(ctx, before.Interface)
	}
	return nil
}

// free makes sure that nobody else has an address that this machine does not have
// yet. If it cannot be found out, as on a card without a link, it counts as free.
func free(ctx context.Context, device, address string) error {
	p, err := netip.ParsePrefix(address)
	if err != nil {
		return nil
	}
	if now, err := currentOf(device); err != nil || now.Has(p.Addr()) {
		return err
	}
	if mac, err := InUse(ctx, device, p.Addr()); err == nil && mac != nil {
		return fault.New(fault.Conflict, "another machine (%s) has the address %s", mac, p.Addr()).On("network.ip4").WithHint("choose another address")
	}
	return ctx.Err()
}

// setHostname names the running machine. Without a name in the settings, one that
// DHCP has given stays, but nobody is called localhost.
func setHostname(name string) error {
	if name == "" {
		now, err := os.Hostname()
		if err == nil && now != "" && now != "localhost" && now != "(none)" {
			return nil
		}
		name = defaultName
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("cannot name the machine %s: %w", name, err)
	}
	return nil
}

func networkctl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "networkctl", args...)
	cmd.WaitDelay = time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "systemd-networkd does not do what it is told (%s): %.200s", args[0], strings.TrimSpace(complaint.String())).
			WithHint("systemctl status systemd-networkd says more")
	}
	return nil
}

// wait waits for the addresses that the settings name, or for any by DHCP.
func wait(ctx context.Context, device string, n setting.Network) error {
	ctx, cancel := context.WithTimeout(ctx, addressTime)
	defer cancel()
	if !pause.For(ctx, beginTime) {
		return ctx.Err()
	}
	var state State
	var err error
	until(ctx, func() bool {
		state, err = currentOf(device)
		return err == nil && (len(missing(state, n)) == 0 || len(state.Duplicates) > 0)
	})
	if !n.Static() {
		finish(ctx, device)
	}
	switch {
	case err == nil && len(missing(state, n)) == 0 && len(state.Duplicates) == 0:
		return nil
	case err != nil:
		return err
	case len(state.Duplicates) > 0:
		return fault.New(fault.Conflict, "another machine has the address %s", state.Duplicates[0].Addr())
	case !state.Up:
		return fault.New(fault.Unavailable, "the network card has no link").WithHint("connect it in the VM's settings (Connected, and Connect At Power On)")
	}
	return fault.New(fault.Unavailable, "%s", strings.Join(missing(state, n), "; ")).WithHint("is it the right port group, and does its DHCP server answer?")
}

// finish waits until networkd has done all that it wants to do with a card that has
// DHCP. It must not be told anything new before: version 252, told twice within
// milliseconds, drops the address that it got first after it has got it again, and
// does not notice. Without a router it goes on asking for one: that is not waited for.
func finish(ctx context.Context, device string) {
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	until(ctx, func() bool { return settled(ctx, device) })
}

func settled(ctx context.Context, device string) bool {
	cmd := exec.CommandContext(ctx, "networkctl", "--json=short", "status", device)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var link struct{ AdministrativeState string }
	if err != nil || json.Unmarshal(out, &link) != nil {
		return true // it is not networkd that has the card
	}
	return link.AdministrativeState != "configuring" && link.AdministrativeState != "pending"
}

// missing says in words which addresses are not there yet.
func missing(s State, n setting.Network) []string {
	var all []string
	for _, want := range []string{n.IP4, n.IP6} {
		if p, err := netip.ParsePrefix(want); want != "" && err == nil && !s.Has(p.Addr()) {
			all = append(all, fmt.Sprintf("the card did not take the address %s", p.Addr()))
		}
	}
	// An IPv4 address without an end is one from before, which is about to go.
	if !n.Static() && s.Source4 != "dhcp" && !slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		all = append(all, "no DHCP server and no router has given an address")
	}
	return all
}
