package firstboot

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// SyslogCAFile is where the collectors' authority is kept.
const SyslogCAFile = "/etc/berth/syslog-ca.crt"

// FromProperties reads the values of an OVF environment, by their properties'
// names. It is tolerant where vSphere's clients and tools are not exact: booleans
// in any case, "24" or "255.255.255.0", lists with any separators, certificates
// without their line breaks, and a value of spaces alone, which Terraform gives to
// what nobody has filled in. What cannot be understood is left out of the answers
// and comes as a fault.Invalid on its property's name; all of them at once, joined.
func FromProperties(values map[string]string) (Answers, error) { return over(NewAnswers(), values) }

// over puts the values over answers that are known.
func over(known Answers, values map[string]string) (Answers, error) {
	r := reader{values: map[string]string{}, answers: known}
	for _, p := range property.All() {
		v := values[p.Name()]
		if strings.TrimSpace(v) == "" {
			continue
		}
		if !p.Password {
			v = strings.TrimSpace(v)
		}
		if err := p.Check(v); err != nil {
			r.faults = append(r.faults, err)
			continue
		}
		r.values[p.Name()] = v
	}
	r.whole()
	r.network()
	r.machine()
	r.outward()
	for name, field := range r.answers.secrets() {
		*field = secret.Text(r.values[name])
	}
	return r.answers, errors.Join(r.faults...)
}

// Unknown gives the names of an environment that are no properties of ours.
func Unknown(values map[string]string) []string {
	var names []string
	for name := range values {
		if _, ok := property.Find(name); ok {
			continue
		}
		// An instance of one that is.
		if class, rest, ok := strings.Cut(name, "."); ok {
			key, _, _ := strings.Cut(rest, ".")
			if _, ok := property.Find(class + "." + key); ok {
				continue
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

type reader struct {
	values  map[string]string
	answers Answers
	faults  []error
}

func (r *reader) fault(name, format string, args ...any) *fault.Error {
	f := fault.New(fault.Invalid, format, args...).On(name)
	r.faults = append(r.faults, f)
	return f
}

// text gives a value if somebody has filled it in.
func (r *reader) text(name string, to *string) {
	if v, ok := r.values[name]; ok {
		*to = v
	}
}

func (r *reader) list(name string, to *[]string) {
	if v, ok := r.values[name]; ok {
		*to = split(v)
	}
}

func (r *reader) boolean(name string, to *bool) {
	if v, ok := r.values[name]; ok {
		*to, _ = property.Bool(v) // Property.Check has seen to it
	}
}

func split(v string) []string {
	return strings.FieldsFunc(v, func(c rune) bool { return strings.ContainsRune(" ,;\t\r\n", c) })
}

// whole takes install.config_b64, over which the other properties go. vSphere
// fills in every default, so what equals its default was not filled in by anybody.
func (r *reader) whole() {
	text, ok := r.values["install.config_b64"]
	if !ok {
		return
	}
	for _, p := range property.All() {
		if p.Default != "" && strings.EqualFold(r.values[p.Name()], p.Default) {
			delete(r.values, p.Name())
		}
	}
	b, err := decode64(text)
	if err != nil {
		r.fault("install.config_b64", "it is not base64").WithHint("base64 -w0 appliance.yaml")
		return
	}
	s, err := setting.DecodeOver(setting.Appliance(), strings.NewReader(string(b)))
	for _, f := range Faults(err) {
		text := f.Text
		if f.Field != "" {
			text = f.Field + ": " + text
		}
		r.fault("install.config_b64", "%s", text)
	}
	if err == nil {
		r.answers.Settings = s
	}
}

// decode64 reads base64 in either alphabet, with or without padding and white space.
func decode64(v string) ([]byte, error) {
	v = strings.TrimRight(strings.Join(strings.Fields(v), ""), "=")
	if strings.ContainsAny(v, "-_") {
		return base64.RawURLEncoding.DecodeString(v)
	}
	return base64.RawStdEncoding.DecodeString(v)
}

func (r *reader) network() {
	n := &r.answers.Settings.Network
	r.text("network.mode", &n.Mode)
	n.Mode = strings.ToLower(n.Mode)
	r.text("network.hostname", &n.Hostname)
	n.Hostname = strings.ToLower(strings.TrimSuffix(n.Hostname, "."))
	r.text("network.ip4", &n.IP4)
	r.text("network.gateway4", &n.Gateway4)
	r.text("network.ip6", &n.IP6)
	r.text("network.gateway6", &n.Gateway6)
	r.list("network.dns", &n.DNS)
	r.list("network.search", &n.Search)
	r.list("network.ntp", &r.answers.Settings.Time.NTP)
	r.prefix(n)
}

// prefix puts network.prefix_or_mask behind the address.
func (r *reader) prefix(n *setting.Network) {
	const name = "network.prefix_or_mask"
	v, ok := r.values[name]
	_, given, slash := strings.Cut(n.IP4, "/")
	switch {
	case !ok && n.IP4 != "" && !slash && n.Static():
		r.fault(name, "the prefix length or netmask of %s is missing", n.IP4).WithHint("such as 24 or 255.255.255.0")
		return
	case !ok:
		return
	case n.IP4 == "":
		if n.Static() && n.IP6 != "" || !n.Static() {
			r.fault(name, "there is no IPv4 address that it belongs to")
		}
		return
	}
	bits, ok := prefixLength(v)
	if !ok {
		r.fault(name, "%.40q is neither a prefix length nor a netmask", v).WithHint("such as 24 or 255.255.255.0")
		return
	}
	if slash && given != strconv.Itoa(bits) {
		r.fault(name, "it says /%d, and the address says /%s", bits, given).WithHint("leave one of them out")
		return
	}
	if !slash {
		n.IP4 += "/" + strconv.Itoa(bits)
	}
}

// prefixLength reads "24", "/24", "255.255.255.0" and "24 (255.255.255.0)".
func prefixLength(v string) (bits int, ok bool) {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "/"), " ")
	if bits, err := strconv.Atoi(v); err == nil {
		return bits, bits >= 0 && bits <= 32
	}
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() {
		return 0, false
	}
	b := a.As4()
	ones, size := net.IPMask(b[:]).Size() // 0, 0 for a mask with holes
	return ones, size == 32
}

// machine takes what concerns the machine and its certificate.
func (r *reader) machine() {
	a := &r.answers
	r.boolean("appliance.ssh_enabled", &a.Settings.SSH.Enabled)
	if v, ok := r.values["appliance.ssh_authorized_keys"]; ok {
		a.SSHKeys = splitKeys(v)
	}
	r.text("appliance.timezone", &a.Settings.Time.Zone)
	r.text("registry.auth_mode", &a.AuthMode)
	a.AuthMode = strings.ToLower(a.AuthMode)
	if v, ok := r.values["registry.external_fqdn"]; ok {
		v = strings.ToLower(strings.TrimSuffix(v, "."))
		a.Settings.Hostnames = slices.DeleteFunc(a.Settings.Hostnames, func(h string) bool { return h == v })
		a.Settings.Hostnames = append([]string{v}, a.Settings.Hostnames...)
	}
	r.text("tls.certificate", &a.Certificate)
	r.text("tls.ca_chain", &a.Chain)
	r.boolean("install.unattended", &a.Unattended)
	r.text("install.restore_url", &a.RestoreURL)
}

// splitKeys parts public keys that stand in lines, with semicolons between them,
// or, where the line breaks were lost, one behind the other.
func splitKeys(v string) []string {
	if strings.Contains(v, "PRIVATE KEY") {
		return []string{v} // for the check to say so, once
	}
	var keys []string
	for _, line := range strings.FieldsFunc(v, func(c rune) bool { return strings.ContainsRune(";\r\n", c) }) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		begin := 0
		for i := 2; i+1 < len(words); i++ {
			if keyType(words[i]) && strings.HasPrefix(words[i+1], "AAAA") && slices.ContainsFunc(words[begin:i], keyType) {
				keys = append(keys, strings.Join(words[begin:i], " "))
				begin = i
			}
		}
		if begin == 0 {
			keys = append(keys, strings.TrimSpace(line)) // options may have spaces of their own
		} else {
			keys = append(keys, strings.Join(words[begin:], " "))
		}
	}
	return keys
}

func keyType(w string) bool {
	return strings.HasPrefix(w, "ssh-") || strings.HasPrefix(w, "ecdsa-sha2-") || strings.HasPrefix(w, "sk-ssh-") || strings.HasPrefix(w, "sk-ecdsa-")
}

// outward takes proxy, collectors of log messages and vCenter.
func (r *reader) outward() {
	s := &r.answers.Settings
	r.text("proxy.http", &s.Proxy.HTTP)
	r.text("proxy.https", &s.Proxy.HTTPS)
	r.list("proxy.no_proxy", &s.Proxy.NoProxy)
	r.text("proxy.proxy_username", &s.Proxy.Username)
	r.text("syslog.ca", &r.answers.SyslogCA)
	if v, ok := r.values["syslog.targets"]; ok {
		s.Logs.Forward = nil
		for i, to := range split(v) {
			s.Logs.Forward = append(s.Logs.Forward, setting.Forward{Name: fmt.Sprintf("syslog%d", i+1), To: to})
		}
	}
	if r.answers.SyslogCA != "" {
		for i := range s.Logs.Forward {
			if f := &s.Logs.Forward[i]; strings.HasPrefix(f.To, "tls://") && f.CA == "" {
				f.CA = SyslogCAFile
			}
		}
	}
	r.text("vcenter.address", &s.VCenter.Address)
	s.VCenter.Address = strings.TrimSuffix(strings.TrimPrefix(s.VCenter.Address, "https://"), "/")
	r.text("vcenter.vcenter_username", &s.VCenter.Username)
	r.boolean("vcenter.register", &s.VCenter.Register)
	if v, ok := r.values["vcenter.thumbprint"]; ok {
		s.VCenter.Thumbprint = thumbprint(v)
	}
}

// thumbprint brings a SHA-256 fingerprint into the form AA:BB:…, from what
// openssl, browsers and PowerCLI show; anything else stays as it is.
func thumbprint(v string) string {
	if _, after, ok := strings.Cut(v, "="); ok { // sha256 Fingerprint=AA:…
		v = after
	}
	b, err := hex.DecodeString(strings.Join(strings.FieldsFunc(v, func(c rune) bool { return strings.ContainsRune(": \t-", c) }), ""))
	if err != nil || len(b) == 0 {
		return v
	}
	pairs := make([]string, len(b))
	for i, x := range b {
		pairs[i] = fmt.Sprintf("%02X", x)
	}
	return strings.Join(pairs, ":")
}
