// Package reach tests what can be reached from this machine, for whoever repairs
// its network: it pings by ICMP without an external program, and looks names up
// with the servers that the machine uses.
package reach

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"berth/appliance/fault"
)

const (
	pings   = 3
	perPing = time.Second
	perName = 5 * time.Second
)

// Lookup says which addresses a name has, or for an address which names.
func Lookup(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, perName)
	defer cancel()
	if _, err := netip.ParseAddr(name); err == nil {
		names, err := net.DefaultResolver.LookupAddr(ctx, name)
		if err != nil {
			return "", unknown(name, err)
		}
		return fmt.Sprintf("%s is %s", name, strings.Join(names, ", ")), nil
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return "", unknown(name, err)
	}
	slices.Sort(addresses)
	return fmt.Sprintf("%s has %s", name, strings.Join(slices.Compact(addresses), ", ")), nil
}

func unknown(name string, err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return fault.Wrap(fault.NotFound, err, "%s is not known to the DNS servers", name)
	}
	return fault.Wrap(fault.Unavailable, err, "cannot look up %s: no DNS server has answered", name).
		WithHint("see whether the DNS servers are right, and whether they answer a ping")
}

// Ping sends three echo requests (RFC 792, RFC 4443) to a name or address, and
// says how many were answered. None is a fault. It needs the right to raw sockets.
func Ping(ctx context.Context, target string) (string, error) {
	addr, err := netip.ParseAddr(target)
	if err != nil {
		named, cancel := context.WithTimeout(ctx, perName)
		defer cancel()
		found, err := net.DefaultResolver.LookupNetIP(named, "ip", target)
		if err != nil {
			return "", unknown(target, err)
		}
		addr = found[0].Unmap()
	}
	conn, err := listen(addr)
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "cannot send a ping")
	}
	defer conn.Close()
	answered, fastest := 0, time.Duration(0)
	var last error
	for i := range pings {
		if ctx.Err() != nil {
			break
		}
		took, err := echo(conn, addr, uint16(os.Getpid()), uint16(i))
		if err != nil {
			last = err
			continue
		}
		if answered == 0 || took < fastest {
			fastest = took
		}
		answered++
	}
	if answered == 0 {
		return "", fault.Wrap(fault.Unavailable, last, "%s does not answer", addr).
			WithHint("see whether the address, the prefix and the gateway are right; some machines never answer pings")
	}
	return fmt.Sprintf("%s answered %d of %d, the fastest in %s", addr, answered, pings, fastest.Round(10*time.Microsecond)), nil
}

func listen(addr netip.Addr) (net.PacketConn, error) {
	if addr.Is4() {
		return net.ListenPacket("ip4:icmp", "0.0.0.0")
	}
	return net.ListenPacket("ip6:ipv6-icmp", "::")
}

// echo sends one request and waits for its reply. Others' ICMP messages come in
// on the same socket and are passed over until the time is up.
func echo(conn net.PacketConn, addr netip.Addr, id, seq uint16) (time.Duration, error) {
	request, reply := byte(8), byte(0)
	if addr.Is6() {
		request, reply = 128, 129
	}
	msg := make([]byte, 8, 16)
	msg[0] = request
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	msg = append(msg, "berth..."...)
	if addr.Is4() { // ICMPv6's is made by the kernel, which knows the addresses in it
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	begun := time.Now()
	if err := conn.SetDeadline(begun.Add(perPing)); err != nil {
		return 0, err
	}
	if _, err := conn.WriteTo(msg, &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		ip, ok := from.(*net.IPAddr)
		if ok && ip.IP.Equal(net.IP(addr.AsSlice())) && n >= 8 && buf[0] == reply &&
			binary.BigEndian.Uint16(buf[4:]) == id && binary.BigEndian.Uint16(buf[6:]) == seq {
			return time.Since(begun), nil
		}
	}
}

// checksum is that of RFC 1071 over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
