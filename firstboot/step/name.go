package step

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/appliance/network"
	"berth/firstboot"
)

// nameTime is how long the network is asked what it calls this machine.
const nameTime = 4 * time.Second

// leases are networkd's notes of what DHCP servers have said.
const leases = "/run/systemd/netif/leases/*"

// nameFor is what the network calls this machine, if nobody else has named it: the
// DHCP server's name if that has a domain, else what DNS says of one of its
// addresses, else the DHCP server's short name, else "".
func nameFor(ctx context.Context) string {
	dhcp := ""
	files, _ := filepath.Glob(leases)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && dhcp == "" {
			dhcp = leaseName(string(b))
		}
	}
	if strings.Contains(dhcp, ".") {
		return dhcp
	}
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	for {
		now, err := network.Current(ctx)
		if name := fromDNS(ctx, now); err == nil && name != "" {
			return name
		}
		if err == nil && len(now.DNS) > 0 { // asked, and told no
			return dhcp
		}
		select {
		case <-ctx.Done():
			return dhcp
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// leaseName reads the name, with the domain if there is one, out of a lease.
func leaseName(lease string) string {
	name, domain := "", ""
	for line := range strings.Lines(lease) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "HOSTNAME":
			name = value
		case "DOMAINNAME":
			domain, _, _ = strings.Cut(value, " ")
		}
	}
	if name != "" && domain != "" && !strings.Contains(name, ".") {
		name += "." + domain
	}
	return usable(name)
}

// usable gives a name in the form that settings have, "" if it is not one.
func usable(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	first, _, _ := strings.Cut(name, ".")
	if first == "localhost" || firstboot.CheckHostname(name) != nil {
		return ""
	}
	return name
}

// fromDNS asks the network's own servers, since systemd-resolved answers such
// questions itself while it knows no server. A name counts if it has a domain and
// leads back to the address.
func fromDNS(ctx context.Context, now network.State) string {
	for _, server := range now.DNS {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, transport, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, transport, net.JoinHostPort(server, "53"))
		}}
		for _, a := range addresses(now) {
			names, err := r.LookupAddr(ctx, a.String())
			if err != nil {
				continue
			}
			for _, name := range names {
				if name = usable(name); !strings.Contains(name, ".") {
					continue
				}
				back, err := r.LookupNetIP(ctx, "ip", name)
				if err == nil && slices.ContainsFunc(back, func(b netip.Addr) bool { return b.Unmap() == a }) {
					return name
				}
			}
		}
	}
	return ""
}
