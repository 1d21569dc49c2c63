package firstboot

import (
	"encoding/base64"
	"maps"
	"reflect"
	"slices"
	"strings"

	"berth/appliance/property"
	"berth/appliance/setting"
)

// Values are the answers as FromProperties reads them: what a wizard begins with.
// Secrets are among them (Property.Password says which). Settings that have no
// property of their own are in install.config_b64.
func (a *Answers) Values() map[string]string {
	s := &a.Settings
	values := map[string]string{
		"network.mode": s.Network.Mode, "network.hostname": s.Network.Hostname, "network.ip4": s.Network.IP4, "network.gateway4": s.Network.Gateway4,
		"network.ip6": s.Network.IP6, "network.gateway6": s.Network.Gateway6, "network.dns": strings.Join(s.Network.DNS, " "),
		"network.search": strings.Join(s.Network.Search, " "), "network.ntp": strings.Join(s.Time.NTP, " "),
		"appliance.timezone": s.Time.Zone, "appliance.ssh_enabled": truth(s.SSH.Enabled), "appliance.ssh_authorized_keys": strings.Join(a.SSHKeys, "\n"),
		"registry.auth_mode": a.AuthMode, "tls.certificate": a.Certificate, "tls.ca_chain": a.Chain,
		"proxy.http": s.Proxy.HTTP, "proxy.https": s.Proxy.HTTPS, "proxy.no_proxy": strings.Join(s.Proxy.NoProxy, " "), "proxy.proxy_username": s.Proxy.Username,
		"syslog.ca": a.SyslogCA, "vcenter.address": s.VCenter.Address, "vcenter.vcenter_username": s.VCenter.Username,
		"vcenter.thumbprint": s.VCenter.Thumbprint, "vcenter.register": truth(s.VCenter.Register),
		"install.unattended": truth(a.Unattended), "install.restore_url": a.RestoreURL,
	}
	if len(s.Hostnames) > 0 {
		values["registry.external_fqdn"] = s.Hostnames[0]
	}
	if plainForward(s.Logs.Forward, a.SyslogCA) {
		var targets []string
		for _, f := range s.Logs.Forward {
			targets = append(targets, f.To)
		}
		values["syslog.targets"] = strings.Join(targets, " ")
	}
	for name, text := range a.secrets() {
		values[name] = text.Reveal()
	}
	if rest := a.rest(); rest != nil {
		values["install.config_b64"] = base64.StdEncoding.EncodeToString(rest)
	}
	maps.DeleteFunc(values, func(_, v string) bool { return v == "" })
	return values
}

// truth is a boolean property's value; its default is left out.
func truth(b bool) string {
	if b {
		return "True"
	}
	return ""
}

// plainForward reports whether collectors are such as syslog.targets makes them.
func plainForward(list []setting.Forward, ca string) bool {
	for _, f := range list {
		plain := setting.Forward{Name: f.Name, To: f.To}
		if strings.HasPrefix(f.To, "tls://") && ca != "" {
			plain.CA = SyslogCAFile
		}
		if !reflect.DeepEqual(f, plain) || !strings.HasPrefix(f.Name, "syslog") {
			return false
		}
	}
	return true
}

// rest are the settings that no other property can say, as YAML; nil: there are
// none.
func (a *Answers) rest() []byte {
	s, plain := a.Settings, setting.Appliance()
	s.Network, s.Time, s.SSH, s.Proxy, s.VCenter = plain.Network, plain.Time, setting.SSH{Until: s.SSH.Until}, plain.Proxy, plain.VCenter
	if len(s.Hostnames) > 0 {
		s.Hostnames = s.Hostnames[1:]
	}
	if plainForward(s.Logs.Forward, a.SyslogCA) {
		s.Logs.Forward = nil
	}
	b, err := setting.Encode(s)
	if err != nil {
		return nil // what was read from YAML is written as YAML
	}
	if p, err := setting.Encode(plain); err != nil || string(b) == string(p) {
		return nil
	}
	return b
}

// Given are the names of the secrets that are there.
func (a *Answers) Given() []string {
	names := []string{}
	for name, text := range a.secrets() {
		if p, ok := property.Find(name); ok && p.Password && *text != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
