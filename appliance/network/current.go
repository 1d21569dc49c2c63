package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// State is the network as it is, wherever that came from.
type State struct {
	Interface string         `json:"interface"`
	MAC       string         `json:"mac"`
	Up        bool           `json:"up"`        // it has a link
	Addresses []netip.Prefix `json:"addresses"` // those that can be used, without link-local ones
	Gateway4  string         `json:"gateway4"`
	Gateway6  string         `json:"gateway6"`
	DNS       []string       `json:"dns"`
	Search    []string       `json:"search"`
	Hostname  string         `json:"hostname"`
	// Source4 is where the IPv4 address comes from: dhcp or static; "" if there is none.
	Source4 string `json:"source4"`
	// Duplicates are addresses that another machine has, too (IPv6's own detection).
	Duplicates []netip.Prefix `json:"duplicates,omitempty"`
}

// Address is the address that people should use: IPv4 first; invalid if there is none.
func (s State) Address() netip.Addr {
	for _, want4 := range []bool{true, false} {
		for _, p := range s.Addresses {
			if p.Addr().Is4() == want4 {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

// Has reports whether the machine has an address.
func (s State) Has(a netip.Addr) bool {
	return slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr() == a.Unmap() })
}

// Current looks at the first ethernet card. No card is NotFound.
func Current(ctx context.Context) (State, error) {
	list, err := devices()
	if err != nil {
		return State{}, err
	}
	if len(list) == 0 {
		return State{}, fault.New(fault.NotFound, "the machine has no network card").WithHint("add one in vSphere, of the type VMXNET 3")
	}
	return currentOf(list[0])
}

func currentOf(device string) (State, error) {
	cannot := func(err error) (State, error) {
		return State{}, fmt.Errorf("cannot look at the network card %s: %w", device, err)
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return cannot(err)
	}
	a := link.Attrs()
	s := State{Interface: a.Name, MAC: a.HardwareAddr.String(), Up: a.RawFlags&unix.IFF_LOWER_UP != 0 && a.RawFlags&unix.IFF_UP != 0}
	if s.Hostname, err = os.Hostname(); err != nil {
		return cannot(err)
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return cannot(err)
	}
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || ip.Unmap().IsLinkLocalUnicast() {
			continue
		}
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(ip.Unmap(), ones)
		switch {
		case a.Flags&unix.IFA_F_DADFAILED != 0:
			s.Duplicates = append(s.Duplicates, p)
			continue
		case a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0:
			continue // for a second, until it is known that nobody else has it
		}
		s.Addresses = append(s.Addresses, p)
		if p.Addr().Is4() && s.Source4 == "" {
			s.Source4 = "static"
			if a.Flags&unix.IFA_F_PERMANENT == 0 {
				s.Source4 = "dhcp" // it has an end: a lease's
			}
		}
	}
	if err := s.routes(link); err != nil {
		return cannot(err)
	}
	s.DNS, s.Search = resolvers("/run/systemd/resolve/resolv.conf")
	return s, nil
}

// routes takes the default gateways out of the card's routes.
func (s *State) routes(link netlink.Link) error {
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 || !r.Dst.IP.IsUnspecified() {
				continue
			}
		}
		gateways := []netip.Addr{}
		if gw, ok := netip.AddrFromSlice(r.Gw); ok {
			gateways = append(gateways, gw.Unmap())
		}
		for _, hop := range r.MultiPath {
			if gw, ok := netip.AddrFromSlice(hop.Gw); ok {
				gateways = append(gateways, gw.Unmap())
			}
		}
		for _, gw := range gateways {
			if gw.Is4() && s.Gateway4 == "" {
				s.Gateway4 = gw.String()
			} else if gw.Is6() && s.Gateway6 == "" {
				s.Gateway6 = gw.String()
			}
		}
	}
	return nil
}

// resolvers reads the servers and domains that systemd-resolved uses; none if it
// does not run.
func resolvers(path string) (servers, search []string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "nameserver":
			server, _, _ := strings.Cut(f[1], "%")
			if _, err := netip.ParseAddr(server); err == nil && !slices.Contains(servers, server) {
				servers = append(servers, server)
			}
		case f[0] == "search" || f[0] == "domain":
			search = slices.DeleteFunc(f[1:], func(d string) bool { return d == "." })
		}
	}
	return servers, search
}

// poll is how often something that is waited for is looked at.
const poll = 100 * time.Millisecond

// until looks again and again until done or ctx ends; it reports which.
func until(ctx context.Context, done func() bool) bool {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
