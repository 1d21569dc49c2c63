// Package outbound connects to addresses that users have typed in: webhooks'
// targets, other registries, directories, OIDC providers.
//
// Whoever may name a target can make Berth send requests from where Berth
// stands, which is inside: to services on this machine's loopback, to a cloud's
// metadata service, to what trusts its link. So every connection goes through
// Dialer, which looks at the address that is really connected to, at the moment
// of the connection, after all resolving: names that resolve to something else
// the second time, redirects, and unusual spellings (0x7f.1, ::ffff:127.0.0.1)
// change nothing. What an administrator does want is allowed by network, in the
// setting allow_targets.
//
// HTTP goes through the web proxy where an administrator has set one. Then the proxy
// resolves the target's name and connects, and may find another address than this
// machine does, or one where this machine finds none: that it refuses its own
// loopback and what must not be reached from where it stands is up to its rules. What
// this machine can see it still refuses: literal addresses in any spelling, and names
// that resolve here to what may not be reached.
//
// Private networks (RFC 1918, RFC 4193) are not refused: they are where a
// registry of this kind has its targets.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"berth/appliance/fault"
)

// Dialer makes connections to targets that users name. The zero Dialer allows
// nothing beyond what everybody may reach.
type Dialer struct {
	// Allow are networks that may be connected to whatever is there.
	Allow []netip.Prefix
	// OwnPorts are where this machine's own addresses may be connected to: the
	// front door, whose guests are strangers anyway.
	OwnPorts []uint16
	// Proxy finds the web proxy for a request of a Client (webproxy.Choose); nil is
	// none. DialContext knows no proxy.
	Proxy func(*http.Request) (*url.URL, error)
	// Resolver looks names up; nil is the system's.
	Resolver *net.Resolver
	// Interfaces gives this machine's own addresses; nil asks the system.
	Interfaces func() ([]net.Addr, error)
}

// connectTimeout bounds one attempt to connect.
const connectTimeout = 10 * time.Second

// DialContext connects to address, host:port, over tcp, tcp4 or tcp6. Errors:
// Precondition if the target is refused.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fault.New(fault.Precondition, "cannot connect to %s: only TCP is allowed, not %s", address, network)
	}
	var own []netip.Addr
	dialer := net.Dialer{Timeout: connectTimeout, Resolver: d.Resolver, ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return err
		}
		if own == nil {
			if own, err = d.own(); err != nil {
				return err
			}
		}
		if why := d.refuse(to, own); why != "" {
			return refused(address, to.Addr(), why)
		}
		return nil
	}}
	c, err := dialer.DialContext(ctx, network, address)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return nil, f
	}
	return c, err
}

// refused is what whoever named the target is told.
func refused(target string, a netip.Addr, why string) *fault.Error {
	return fault.New(fault.Precondition, "cannot connect to %s: %s is %s", target, a, why).
		WithHint("if that is meant, an administrator can add the network to allow_targets in the settings")
}

// Check says why an address may not be connected to: a Precondition fault, or
// nil.
func (d *Dialer) Check(to netip.AddrPort) error {
	own, err := d.own()
	if err != nil {
		return err
	}
	if why := d.refuse(to, own); why != "" {
		return refused(to.String(), to.Addr(), why)
	}
	return nil
}

func (d *Dialer) own() ([]netip.Addr, error) {
	list := d.Interfaces
	if list == nil {
		list = net.InterfaceAddrs
	}
	all, err := list()
	if err != nil {
		return nil, fmt.Errorf("cannot list this machine's addresses: %w", err)
	}
	own := []netip.Addr{} // not nil: asked for
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own, nil
}

// special are networks that no target of ours is in, and why. RFC 6890 has the
// registry of special addresses.
var special = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this machine itself"},
	{netip.MustParsePrefix("::/128"), "this machine itself"},
	{netip.MustParsePrefix("127.0.0.0/8"), "this machine itself"},
	{netip.MustParsePrefix("::1/128"), "this machine itself"},
	{netip.MustParsePrefix("169.254.0.0/16"), "an address of the local link, where clouds have their metadata"},
	{netip.MustParsePrefix("fe80::/10"), "an address of the local link"},
	{netip.MustParsePrefix("fec0::/10"), "a site-local address"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "a cloud's metadata service"}, // Amazon
	{netip.MustParsePrefix("fd20:ce::254/128"), "a cloud's metadata service"},
	{netip.MustParsePrefix("100.100.100.200/32"), "a cloud's metadata service"}, // Alibaba
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's metadata service"},   // Azure
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved address"},               // 192.0.0.192 is Oracle's metadata
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"}, // with the broadcast address
}

// translated are the IPv6 networks whose addresses stand for IPv4 addresses,
// and where in the sixteen bytes those are.
var translated = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, RFC 4291 section 2.5.5.1
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // SIIT, RFC 2765
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64, local use, RFC 8215
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
}

// refuse says what speaks against connecting to an address; "" is nothing.
func (d *Dialer) refuse(to netip.AddrPort, own []netip.Addr) string {
	a := to.Addr().Unmap().WithZone("")
	for _, p := range d.Allow {
		if p.Contains(a) {
			return ""
		}
	}
	if !a.IsValid() {
		return "no address"
	}
	for _, s := range special {
		if s.prefix.Contains(a) {
			return s.why
		}
	}
	if slices.Contains(own, a) && !slices.Contains(d.OwnPorts, to.Port()) {
		return "this machine itself"
	}
	for _, t := range translated {
		if t.prefix.Contains(a) {
			b := a.As16()
			return d.refuse(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[t.at:t.at+4])), to.Port()), own)
		}
	}
	return ""
}

// CheckURL says what is wrong with a target that a user has typed in: it must be
// an absolute http or https URL with a host and without a password. It resolves
// nothing: Dialer decides when it connects. Errors: Invalid.
func CheckURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || len(text) > 2048 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return nil, fault.New(fault.Invalid, "%.200q is not a URL", text)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(fault.Invalid, "%.200q must begin with http:// or https://", text)
	case u.Hostname() == "":
		return nil, fault.New(fault.Invalid, "%.200q names no host", text)
	case u.User != nil:
		return nil, fault.New(fault.Invalid, "the URL must not have a user and a password in it")
	}
	return u, nil
}
