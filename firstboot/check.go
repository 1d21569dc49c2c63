package firstboot

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"berth/appliance/cert"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/login"
	"berth/appliance/property"
	"berth/appliance/setting"
)

// authModes are the values of auth_mode.
var authModes = []string{"", "db_auth", "ldap_auth", "oidc_auth"}

// Check reports every fault of the answers, joined; each is a fault.Invalid on the
// name of a property (class.key), and repeats no secret. What is empty and must not
// be is Missing's to tell.
func (a *Answers) Check() error {
	c := checker{}
	for _, f := range Faults(errors.Join(a.Settings.Check(), a.Settings.CheckOpen())) {
		c.add(propertyOf(f.Field), "%s", f.Text).Hint = f.Hint
	}
	if n := a.Settings.Network.Hostname; len(n) > maxHostname {
		c.add("network.hostname", "it is longer than %d characters", maxHostname)
	}
	c.fixed(&a.Settings)
	c.passwords(a)
	c.keys(a.SSHKeys)
	c.certificate(a)
	if !slices.Contains(authModes, a.AuthMode) {
		c.add("registry.auth_mode", "it must be one of %s", strings.Join(authModes[1:], ", "))
	}
	const later = "restoring a backup is not available in this version"
	if a.RestoreURL != "" {
		c.add("install.restore_url", later).WithHint("leave it empty, and a new appliance is set up")
	}
	if a.RestoreSecret != "" {
		c.add("install.restore_secret", later).WithHint("leave it empty")
	}
	for _, role := range slices.Sorted(maps.Keys(a.UseDisks)) {
		if device := a.UseDisks[role]; role == diskrole.System || !slices.Contains(diskrole.All(), role) || device != OnSystemDisk && !strings.HasPrefix(device, "/dev/") {
			c.add("disks."+string(role), "%.60q is not a disk for this role", device)
		}
	}
	return errors.Join(c.faults...)
}

// maxHostname is how long a machine's name may be (gethostname(2), HOST_NAME_MAX).
const maxHostname = 64

// CheckHostname says what is wrong with a name for the machine.
func CheckHostname(name string) error {
	a := NewAnswers()
	a.Settings.Network.Hostname = name
	return a.Check()
}

type checker struct{ faults []error }

func (c *checker) add(field, format string, args ...any) *fault.Error {
	f := fault.New(fault.Invalid, format, args...).On(field)
	c.faults = append(c.faults, f)
	return f
}

// propertyOf gives the property whose value a settings field has.
func propertyOf(field string) string {
	base, _, _ := strings.Cut(field, "[")
	if base == "logs.forward" {
		return "syslog.targets"
	}
	name, ok := map[string]string{
		"time.zone": "appliance.timezone", "time.ntp": "network.ntp", "hostnames": "registry.external_fqdn",
		"proxy.username": "proxy.proxy_username", "vcenter.username": "vcenter.vcenter_username",
	}[base]
	if ok {
		return name
	}
	if _, ok := property.Find(base); !ok {
		return "install.config_b64" // only the whole file could have brought it
	}
	return base
}

// fixed refuses other places than the appliance's: units, mounts and permissions
// are made for these.
func (c *checker) fixed(s *setting.Settings) {
	ours := setting.Appliance()
	for _, f := range []struct{ field, have, want string }{
		{"data", s.Data, ours.Data}, {"run", s.Run, ours.Run}, {"https", s.HTTPS, ours.HTTPS}, {"http", s.HTTP, ours.HTTP},
		{"certificate", s.Certificate, ours.Certificate}, {"private_key", s.PrivateKey, ours.PrivateKey}, {"logs.dir", s.Logs.Dir, ours.Logs.Dir},
	} {
		if f.have != f.want {
			c.add("install.config_b64", "%s: on the appliance it is %s", f.field, f.want).WithHint("leave %s out", f.field)
		}
	}
}

func (c *checker) passwords(a *Answers) {
	for _, name := range []string{"appliance.root_password", "appliance.console_password", "registry.admin_password"} {
		p := *a.secrets()[name]
		if p == "" {
			continue
		}
		if err := login.CheckStrength(p); err != nil {
			f := fault.Of(err)
			c.add(name, "%s", f.Text).Hint = f.Hint
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.secrets())) {
		p := *a.secrets()[name]
		switch s := p.Reveal(); {
		case !utf8.ValidString(s):
			c.add(name, "it has bytes that are no characters")
		case strings.ContainsAny(s, "\r\n\x00") && name != "tls.private_key":
			c.add(name, "it has a line break in it")
		}
	}
	if a.ProxyPassword != "" && a.Settings.Proxy.Username == "" {
		c.add("proxy.proxy_password", "there is no user name that it belongs to")
	}
	if a.VCenterPassword != "" && a.Settings.VCenter.Username == "" {
		c.add("vcenter.vcenter_password", "there is no user name that it belongs to")
	}
}

func (c *checker) keys(keys []string) {
	_, err := login.ParseKeys(keys)
	for _, f := range Faults(err) {
		c.add("appliance.ssh_authorized_keys", "%s", f.Text).Hint = f.Hint
	}
}

// certificate looks whether certificate, chain and key would be taken, and the
// collectors' authority.
func (c *checker) certificate(a *Answers) {
	switch {
	case a.Certificate == "" && a.PrivateKey != "":
		c.add("tls.certificate", "there is a private key without its certificate")
	case a.Certificate == "" && a.Chain != "":
		c.add("tls.certificate", "there is a chain without a certificate")
	case a.Certificate != "" && a.PrivateKey == "" && !strings.Contains(a.Certificate+a.Chain, "PRIVATE KEY"):
		c.add("tls.private_key", "the certificate's private key is missing")
	case a.Certificate != "":
		// A directory that is not there has no key of its own to fall back to.
		_, err := cert.Inspect("/nonexistent", a.Certificate, a.Chain, a.PrivateKey.Reveal(), a.KeyPassphrase)
		for _, f := range Faults(err) {
			c.add(certificateField(f.Field), "%s", f.Text).Hint = f.Hint
		}
	}
	if a.KeyPassphrase != "" && a.PrivateKey == "" {
		c.add("tls.key_passphrase", "there is no private key that it belongs to")
	}
	tls := slices.ContainsFunc(a.Settings.Logs.Forward, func(f setting.Forward) bool { return strings.HasPrefix(f.To, "tls://") })
	if a.SyslogCA == "" {
		return
	}
	if !tls {
		c.add("syslog.ca", "no collector is reached by tls://")
	}
	pem, err := cert.Repair(a.SyslogCA)
	if err == nil && !strings.Contains(pem, "BEGIN CERTIFICATE") {
		err = fault.New(fault.Invalid, "there is no certificate in it")
	}
	for _, f := range Faults(err) {
		c.add("syslog.ca", "%s", f.Text).Hint = f.Hint
	}
}

// certificateField gives the property of a field of package cert.
func certificateField(field string) string {
	switch field {
	case "chain":
		return "tls.ca_chain"
	case "private_key", "key_passphrase":
		return "tls." + field
	}
	return "tls.certificate"
}
