package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// The times after which silence is an answer.
const (
	gatewayTime = 3 * time.Second
	dnsTime     = 5 * time.Second
	probeTime   = 300 * time.Millisecond // between two of probes
	probes      = 3
)

// TestGateway finds out whether a gateway, or any machine of the local network, is
// there: whether it answers the question for its hardware address (ARP, or neighbour
// discovery). A firewall does not hide it, and it need not answer a ping.
func TestGateway(ctx context.Context, gateway netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	absent := fault.New(fault.Unavailable, "the gateway %s does not answer", gateway).
		WithHint("is the address right, and is the VM in the right port group?")
	routes, err := netlink.RouteGet(gateway.AsSlice())
	if err != nil || len(routes) == 0 {
		return fault.Wrap(fault.Unavailable, err, "there is no way to the gateway %s", gateway).WithHint("it must be in the network of the machine's address")
	}
	if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok && !gw.IsUnspecified() {
		return fault.New(fault.Unavailable, "the gateway %s is not in the local network", gateway).WithHint("it must be in the network of the machine's address")
	}
	// What the kernel knows from before may be old: it is forgotten, and anything
	// that is sent makes the kernel ask anew.
	known := func() (netlink.Neigh, bool) {
		list, err := netlink.NeighList(routes[0].LinkIndex, 0)
		for _, n := range list {
			if a, ok := netip.AddrFromSlice(n.IP); err == nil && ok && a.Unmap() == gateway.Unmap() {
				return n, true
			}
		}
		return netlink.Neigh{}, false
	}
	if n, ok := known(); ok && n.State&netlink.NUD_PERMANENT == 0 {
		_ = netlink.NeighDel(&n) // if it is gone meanwhile, so much the better
	}
	c, err := new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(gateway, 9).String())
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "there is no way to the gateway %s", gateway)
	}
	defer c.Close()
	answered := until(ctx, func() bool {
		_, _ = c.Write([]byte{0}) // refused, when whoever is there has no such port
		n, ok := known()
		return ok && n.State&(netlink.NUD_REACHABLE|netlink.NUD_PERMANENT) != 0
	})
	if !answered {
		return absent
	}
	return nil
}

// A DNSAnswer is what a DNS server said.
type DNSAnswer struct {
	Server    netip.Addr    `json:"server"`
	Addresses []string      `json:"addresses"` // of the name that was asked for
	Took      time.Duration `json:"took"`
}

// TestDNS asks one server for the addresses of a name. That a server answers that
// there is no such name is NotFound; that it does not answer is Unavailable.
func TestDNS(ctx context.Context, server netip.Addr, name string) (DNSAnswer, error) {
	return testDNS(ctx, netip.AddrPortFrom(server, 53), name)
}

func testDNS(ctx context.Context, server netip.AddrPort, name string) (DNSAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTime)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}}
	begun := time.Now()
	if len(name) > 0 && name[len(name)-1] != '.' {
		name += "." // no search domains
	}
	addresses, err := resolver.LookupHost(ctx, name)
	a := DNSAnswer{Server: server.Addr(), Addresses: addresses, Took: time.Since(begun)}
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return a, fault.Wrap(fault.NotFound, err, "the DNS server %s answers, but knows no %s", server.Addr(), name[:len(name)-1])
	}
	if errors.Is(err, context.DeadlineExceeded) || err != nil && ctx.Err() != nil {
		return a, fault.Wrap(fault.Unavailable, err, "the DNS server %s does not answer", server.Addr()).WithHint("is its address right, and may this machine ask it?")
	}
	if err != nil {
		return a, fault.Wrap(fault.Unavailable, err, "the DNS server %s gives no usable answer", server.Addr()).WithHint("is there a DNS server at that address?")
	}
	return a, nil
}

// InUse asks the local network whether another machine has an IPv4 address (RFC
// 5227, section 2.1.1), and gives its hardware address; nil if nobody answers
// within a second. IPv6 has its own detection in the kernel, which State shows.
func InUse(ctx context.Context, device string, a netip.Addr) (net.HardwareAddr, error) {
	cannot := func(err error) (net.HardwareAddr, error) {
		return nil, fmt.Errorf("cannot find out whether %s is in use: %w", a, err)
	}
	card, err := net.InterfaceByName(device)
	if err != nil {
		return cannot(err)
	}
	if !a.Is4() || len(card.HardwareAddr) != 6 {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ARP)))
	if err != nil {
		return cannot(err)
	}
	defer unix.Close(fd)
	all := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: card.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: card.Index}); err != nil {
		return cannot(err)
	}
	tick := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		return cannot(err)
	}
	question := arpProbe(card.HardwareAddr, a)
	answer := make([]byte, 64)
	for range probes {
		if err := unix.Sendto(fd, question, 0, all); err != nil {
			return cannot(err)
		}
		for end := time.Now().Add(probeTime); time.Now().Before(end); {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			n, _, err := unix.Recvfrom(fd, answer, 0)
			if err != nil {
				continue // the time of one look is over
			}
			if mac := arpSender(answer[:n], a); mac != nil && mac.String() != card.HardwareAddr.String() {
				return mac, nil
			}
		}
	}
	return nil, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// arpProbe is a question that changes nobody's table: the sender has no address (RFC
// 826, RFC 5227).
func arpProbe(mac net.HardwareAddr, a netip.Addr) []byte {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint16(b, 1)      // ethernet
	b = binary.BigEndian.AppendUint16(b, 0x0800) // IPv4
	b = append(b, 6, 4, 0, 1)                    // lengths; request
	b = append(append(b, mac...), 0, 0, 0, 0)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, a.AsSlice()...)
}

// arpSender is the hardware address of whoever says that it has an address.
func arpSender(b []byte, a netip.Addr) net.HardwareAddr {
	if len(b) < 28 || binary.BigEndian.Uint16(b[6:]) > 2 || b[4] != 6 || b[5] != 4 {
		return nil
	}
	if from, _ := netip.AddrFromSlice(b[14:18]); from != a {
		return nil
	}
	return net.HardwareAddr(append([]byte(nil), b[8:14]...))
}
