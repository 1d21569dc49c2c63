package setting

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"berth/appliance/durable"
	"berth/appliance/fault"
)

// The appliance's fixed places.
const (
	// ConsolePort is where the agent serves its console and API, by TLS.
	ConsolePort = 5480
	// SecretsDir has a file for each secret of the settings (SecretFile), mode 0700.
	SecretsDir = "/etc/berth/secrets"
	// StateDir is what the agent and the first boot remember.
	StateDir = "/var/lib/berth-agent"
	// RunDir has the sockets of the services and of the agent.
	RunDir = "/run/berth"
	// AgentRunDir is what the agent remembers until the machine is off.
	AgentRunDir = "/run/berth-agent"
	// AgentSocket is the agent's API for root.
	AgentSocket = RunDir + "/agent.sock"
)

// The secrets that belong to the settings and are not in their file.
const (
	ConsolePassword = "console-password" // argon2id, PHC string format
	ProxyPassword   = "proxy-password"
	VCenterPassword = "vcenter-password"
)

// SecretFile is where a secret is, below SecretsDir.
func SecretFile(name string) string { return path.Join(SecretsDir, name) }

// Where the disks are mounted.
const (
	DataMount     = "/storage/data"
	DatabaseMount = "/storage/database"
	LogMount      = "/storage/log"
)

// Appliance are the settings of the appliance before anybody has chosen anything.
func Appliance() Settings {
	return Settings{
		Data: DataMount, Run: RunDir, HTTPS: ":443", HTTP: ":80", RedirectHTTP: true,
		Certificate: path.Join(DataMount, "tls/server.crt"), PrivateKey: path.Join(DataMount, "tls/server.key"),
		Database: "host=/run/postgresql user=berth dbname=berth",
		Logs:     Logs{Dir: path.Join(LogMount, "berth"), Journal: "on"},
	}
}

// Network is how the machine is reached. Addresses that are left out come from
// DHCP, or for IPv6 from router advertisements.
type Network struct {
	// Hostname is the machine's name, fully qualified if it has a domain.
	Hostname string `yaml:"hostname,omitempty" json:"hostname"`
	// Mode is dhcp or static, for IPv4; empty means dhcp.
	Mode string `yaml:"mode,omitempty" json:"mode"`
	// IP4 is an address with its prefix length, 192.0.2.10/24; for static alone.
	IP4 string `yaml:"ip4,omitempty" json:"ip4"`
	// Gateway4 is the default route for IPv4; for static alone.
	Gateway4 string `yaml:"gateway4,omitempty" json:"gateway4"`
	// IP6 is an address with its prefix length. Empty: router advertisements and DHCPv6.
	IP6 string `yaml:"ip6,omitempty" json:"ip6"`
	// Gateway6 is the default route for IPv6. Empty: from router advertisements.
	Gateway6 string `yaml:"gateway6,omitempty" json:"gateway6"`
	// DNS are the servers' addresses. Empty: from DHCP.
	DNS []string `yaml:"dns,omitempty" json:"dns"`
	// Search are the domains that are tried behind short names.
	Search []string `yaml:"search,omitempty" json:"search"`
}

// Static reports whether the IPv4 address is in the settings.
func (n Network) Static() bool { return n.Mode == "static" }

// Time is the time zone, and where the time comes from.
type Time struct {
	// Zone is a name of the tz database; empty means UTC.
	Zone string `yaml:"zone,omitempty" json:"zone"`
	// NTP are names or addresses of servers. Empty: from DHCP, or none.
	NTP []string `yaml:"ntp,omitempty" json:"ntp"`
}

// SSH is whether sshd runs.
type SSH struct {
	// Enabled starts it.
	Enabled bool `yaml:"enabled,omitempty" json:"enabled"`
	// Until is when it is stopped again; zero: it stays.
	Until time.Time `yaml:"until,omitempty" json:"until,omitzero"`
}

// Firewall has the networks or addresses from which the ports of the registry
// (80, 443), the console (5480) and SSH (22) are reached; none means from everywhere.
type Firewall struct {
	Registry []string `yaml:"registry,omitempty" json:"registry"`
	Console  []string `yaml:"console,omitempty" json:"console"`
	SSH      []string `yaml:"ssh,omitempty" json:"ssh"`
}

// Proxy is for outgoing HTTP. Its password is the secret ProxyPassword; off the
// appliance, the file of that name with the keys.
type Proxy struct {
	// HTTP is the proxy for http: http://HOST:PORT, without name and password.
	HTTP string `yaml:"http,omitempty" json:"http"`
	// HTTPS is the one for https. Empty: HTTP's.
	HTTPS string `yaml:"https,omitempty" json:"https"`
	// NoProxy are names, domains (.example.com), addresses and networks that are
	// connected to directly.
	NoProxy []string `yaml:"no_proxy,omitempty" json:"no_proxy"`
	// Username is for the proxy; empty: it wants none.
	Username string `yaml:"username,omitempty" json:"username"`
}

// VCenter is the vCenter Server that the appliance reports to, if it has one. The
// password is the secret VCenterPassword.
type VCenter struct {
	// Address is a name or an address, with :PORT if it is not 443.
	Address string `yaml:"address,omitempty" json:"address"`
	// Username is such as berth@vsphere.local.
	Username string `yaml:"username,omitempty" json:"username"`
	// Thumbprint is the SHA-256 of its certificate, AA:BB:… Empty: vCenter is not
	// contacted before somebody has confirmed its certificate.
	Thumbprint string `yaml:"thumbprint,omitempty" json:"thumbprint"`
	// Register makes the appliance an extension of vCenter.
	Register bool `yaml:"register,omitempty" json:"register"`
}

// Disks are the limits of the disks' use, in percent.
type Disks struct {
	// WarnPercent is when a disk counts as nearly full; 0 means 80.
	WarnPercent int `yaml:"warn_percent,omitempty" json:"warn_percent"`
	// ReadOnlyPercent is when the registry takes no more pushes, so that the disk
	// does not run full; 0 means 95.
	ReadOnlyPercent int `yaml:"read_only_percent,omitempty" json:"read_only_percent"`
}

// Warn and ReadOnly give the limits with their defaults.

func (d Disks) Warn() int {
	if d.WarnPercent == 0 {
		return 80
	}
	return d.WarnPercent
}

func (d Disks) ReadOnly() int {
	if d.ReadOnlyPercent == 0 {
		return 95
	}
	return d.ReadOnlyPercent
}

// Write replaces the file at path by the settings. What has its zero value, which
// is its default, is left out.
func Write(path string, s Settings) error {
	b, err := Encode(s)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o644)
}

// Encode gives the settings as the YAML that Decode reads.
func Encode(s Settings) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("cannot write the settings: %w", err)
	}
	return b.Bytes(), nil
}

func (s *Settings) checkMachine(add func(field, format string, args ...any)) {
	s.Network.check(add)
	if s.Time.Zone != "" {
		if _, err := time.LoadLocation(s.Time.Zone); err != nil || s.Time.Zone == "Local" {
			add("time.zone", "%q is not a time zone, such as Europe/Berlin", s.Time.Zone)
		}
	}
	checkHosts(add, "time.ntp", s.Time.NTP)
	for _, list := range []struct {
		field  string
		values []string
	}{{"firewall.registry", s.Firewall.Registry}, {"firewall.console", s.Firewall.Console}, {"firewall.ssh", s.Firewall.SSH}} {
		for _, v := range list.values {
			if _, err := network(v); err != nil {
				add(list.field, "%q is neither a network nor an address", v)
			}
		}
	}
	s.Proxy.check(add)
	s.VCenter.check(add)
	for _, p := range []struct {
		field string
		v     int
	}{{"disks.warn_percent", s.Disks.WarnPercent}, {"disks.read_only_percent", s.Disks.ReadOnlyPercent}} {
		if p.v != 0 && (p.v < 10 || p.v > 99) {
			add(p.field, "it must be between 10 and 99")
		}
	}
	if s.Disks.Warn() > s.Disks.ReadOnly() {
		add("disks.warn_percent", "it is above read_only_percent, so that the warning would come too late")
	}
}

func checkHosts(add func(field, format string, args ...any), field string, list []string) {
	for _, v := range list {
		if !hostname(v) || strings.Contains(v, "*") {
			add(field, "%q is neither a host name nor an address", v)
		}
	}
}

func (n *Network) check(add func(field, format string, args ...any)) {
	if n.Hostname != "" {
		_, err := netip.ParseAddr(n.Hostname)
		switch {
		case err == nil:
			add("network.hostname", "it is an address, not a name")
		case !hostname(n.Hostname) || strings.Contains(n.Hostname, "*"):
			add("network.hostname", "%q is not a host name: letters, digits, hyphens and dots", n.Hostname)
		case !strings.ContainsFunc(n.Hostname[strings.LastIndexByte(n.Hostname, '.')+1:], func(r rune) bool { return r < '0' || r > '9' }):
			add("network.hostname", "its last part must not be a number")
		}
	}
	if !slices.Contains([]string{"", "dhcp", "static"}, n.Mode) {
		add("network.mode", "it must be dhcp or static, not %q", n.Mode)
	}
	switch {
	case n.Static() && n.IP4 == "" && n.IP6 == "":
		add("network.ip4", "static needs an address")
	case !n.Static() && n.IP4 != "":
		add("network.ip4", "an address is for static alone")
	case !n.Static() && n.Gateway4 != "":
		add("network.gateway4", "a gateway is for static alone")
	}
	n.checkFamily(add, "4", n.IP4, n.Gateway4, netip.Addr.Is4)
	n.checkFamily(add, "6", n.IP6, n.Gateway6, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() })
	for _, d := range n.DNS {
		if a, err := netip.ParseAddr(d); err != nil || a.IsUnspecified() || a.IsMulticast() {
			add("network.dns", "%q is not the address of a server", d)
		}
	}
	for _, d := range n.Search {
		if _, err := netip.ParseAddr(d); err == nil || !hostname(d) || strings.Contains(d, "*") {
			add("network.search", "%q is not a domain", d)
		}
	}
}

// checkFamily checks the address and the gateway of IPv4 or IPv6.
func (n *Network) checkFamily(add func(field, format string, args ...any), version, address, gateway string, family func(netip.Addr) bool) {
	var p netip.Prefix
	if address != "" {
		var err error
		p, err = netip.ParsePrefix(address)
		a := p.Addr()
		switch field := "network.ip" + version; {
		case err != nil:
			add(field, "%q is not an IPv%s address with its prefix length", address, version)
		case !family(a):
			add(field, "%s is not an IPv%s address", a, version)
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast():
			add(field, "%s cannot be the address of a machine", a)
		case p.Bits() < a.BitLen()-1 && a == p.Masked().Addr():
			add(field, "%s is the network's own address", a)
		case a.Is4() && p.Bits() < 31 && a == broadcast(p):
			add(field, "%s is the network's broadcast address", a)
		}
	}
	if gateway == "" {
		return
	}
	g, err := netip.ParseAddr(gateway)
	switch field := "network.gateway" + version; {
	case err != nil || !family(g):
		add(field, "%q is not an IPv%s address", gateway, version)
	case g.IsUnspecified() || g.IsLoopback() || g.IsMulticast():
		add(field, "%s cannot be a gateway", g)
	case p.IsValid() && g == p.Addr():
		add(field, "it is the machine's own address")
	case p.IsValid() && !p.Contains(g) && !g.IsLinkLocalUnicast():
		add(field, "%s is not in the network %s", g, p.Masked())
	}
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (p *Proxy) check(add func(field, format string, args ...any)) {
	for _, v := range []struct{ field, value string }{{"proxy.http", p.HTTP}, {"proxy.https", p.HTTPS}} {
		if v.value == "" {
			continue
		}
		u, err := url.Parse(v.value)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
			add(v.field, "it must be http://HOST:PORT or https://HOST:PORT")
		case u.User != nil:
			add(v.field, "name and password do not belong into the URL: there are fields for them")
		}
	}
	for _, v := range p.NoProxy {
		if _, err := network(v); err != nil && v != "*" && !hostname(strings.TrimPrefix(v, ".")) {
			add("proxy.no_proxy", "%q is neither a name, a domain, an address nor a network", v)
		}
	}
	if strings.ContainsFunc(p.Username, func(r rune) bool { return r < ' ' || r == ':' || r == 0x7f }) {
		add("proxy.username", "it must not have a colon or control characters")
	}
	if p.Username != "" && p.HTTP == "" && p.HTTPS == "" {
		add("proxy.username", "there is no proxy to name it to")
	}
}

func (v *VCenter) check(add func(field, format string, args ...any)) {
	if v.Address != "" {
		host := v.Address
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
			if err := checkAddress(v.Address); err != nil {
				add("vcenter.address", "%v", err)
			}
		}
		if !hostname(strings.Trim(host, "[]")) || strings.Contains(host, "*") {
			add("vcenter.address", "%q is neither a host name nor an address", v.Address)
		}
	} else if v.Username != "" || v.Register {
		add("vcenter.address", "it is missing")
	}
	if v.Thumbprint != "" && !isThumbprint(v.Thumbprint) {
		add("vcenter.thumbprint", "it must be a SHA-256 fingerprint: 32 pairs of hexadecimal digits with colons between them")
	}
}

func isThumbprint(s string) bool {
	pairs := strings.Split(s, ":")
	return len(pairs) == 32 && !slices.ContainsFunc(pairs, func(p string) bool {
		return len(p) != 2 || strings.Trim(p, "0123456789abcdefABCDEF") != ""
	})
}

// dsnPassword finds a password in a string of keywords and values, or in a URL's
// query (PostgreSQL 15 documentation, section 34.1.1).
var dsnPassword = regexp.MustCompile(`(?i)(?:^|[\s?&])(?:ssl)?password\s*=`)

// CheckOpen refuses secrets in settings that everybody on the machine may read, and
// that are exported, as an appliance's are. Its error is a fault.Invalid and does not
// repeat the secret.
func (s *Settings) CheckOpen() error {
	inURL := false
	if u, err := url.Parse(s.Database); err == nil && u.User != nil {
		_, inURL = u.User.Password()
	}
	if !inURL && !dsnPassword.MatchString(s.Database) {
		return nil
	}
	return fault.New(fault.Invalid, "it has a password in it, and every program on the appliance can read the settings").On("database").
		WithHint("name a file that the services can read with passfile=FILE")
}
