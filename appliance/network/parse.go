package network

import (
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"berth/appliance/fault"
)

// ParseIPv4 reads an address and its prefix length as forms have them: 192.0.2.10/24
// alone, or 192.0.2.10 with 24, /24 or 255.255.255.0 beside it. Both is right only
// if they agree. Faults are on ip4 or prefix_or_mask, the names of the properties.
//
// It says nothing of whether a machine can have the address: setting does.
func ParseIPv4(address, mask string) (netip.Prefix, error) {
	address, mask = strings.TrimSpace(address), strings.TrimSpace(mask)
	address, inside, slash := strings.Cut(address, "/")
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is4() {
		return netip.Prefix{}, fault.New(fault.Invalid, "%q is not an IPv4 address", address).On("ip4").WithHint("such as 192.0.2.10/24")
	}
	if !slash && mask == "" {
		return netip.Prefix{}, fault.New(fault.Invalid, "the prefix length of %s is missing", a).On("prefix_or_mask").WithHint("such as 24 or 255.255.255.0")
	}
	length := -1
	for _, m := range []struct {
		field, text string
		given       bool
	}{{"ip4", inside, slash}, {"prefix_or_mask", strings.TrimPrefix(mask, "/"), mask != ""}} {
		if !m.given {
			continue
		}
		n, err := parseMask(m.text)
		if err != nil {
			return netip.Prefix{}, err.On(m.field)
		}
		if length >= 0 && n != length {
			return netip.Prefix{}, fault.New(fault.Invalid, "the address says /%d, and this says /%d", length, n).On(m.field)
		}
		length = n
	}
	return netip.PrefixFrom(a, length), nil
}

// parseMask reads 24 or 255.255.255.0.
func parseMask(s string) (int, *fault.Error) {
	wrong := func() (int, *fault.Error) {
		return 0, fault.New(fault.Invalid, "%q is neither a prefix length (1 to 32) nor a netmask", s).WithHint("such as 24 or 255.255.255.0")
	}
	if !strings.Contains(s, ".") {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n < 1 || n > 32 || strings.HasPrefix(s, "0") {
			return wrong()
		}
		return int(n), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return wrong()
	}
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n := bits.LeadingZeros32(^v)
	if n == 0 || v<<n != 0 {
		return wrong()
	}
	return n, nil
}

// ParseIPv6 reads an IPv6 address with its prefix length. Faults are on ip6.
func ParseIPv6(address string) (netip.Prefix, error) {
	address = strings.TrimSpace(address)
	p, err := netip.ParsePrefix(address)
	if err == nil && p.Addr().Is6() && !p.Addr().Is4In6() {
		return p, nil
	}
	if a, err := netip.ParseAddr(address); err == nil && a.Is6() {
		return netip.Prefix{}, fault.New(fault.Invalid, "the prefix length of %s is missing", a).On("ip6").WithHint("such as %s/64", a)
	}
	return netip.Prefix{}, fault.New(fault.Invalid, "%q is not an IPv6 address", address).On("ip6").WithHint("such as 2001:db8::10/64")
}
