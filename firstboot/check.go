package firstboot

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// authModes are the values of auth_mode.
var authModes = []string{"", "db_auth", "ldap_auth", "oidc_auth"}

// Check reports every fault of the answers, joined; each is a fault.Invalid on the
// name of a property (class.key), and repeats no secret. What is empty and must not
// be is Missing's to tell.
func (a *Answers) Check() error {
	c := checker{}
	for _, f := range Faults(a.Settings.Check()) {
		c.add(propertyOf(f.Field), "%s", f.Text).Hint = f.Hint
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
		if device := a.UseDisks[role]; role == diskrole.System || !slices.Contains(diskrole.All(), role) || !strings.HasPrefix(device, "/dev/") {
			c.add("disks."+string(role), "%.60q is not a disk for this role", device)
		}
	}
	return errors.Join(c.faults...)
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
		if err := checkStrength(p); err != nil {
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

// checkStrength is the one rule for the passwords of people.
func checkStrength(p secret.Text) error {
	s := p.Reveal()
	if len(s) >= 8 && len(s) <= 128 && strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") &&
		strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz") && strings.ContainsAny(s, "0123456789") {
		return nil
	}
	return fault.New(fault.Invalid, "a password has 8 to 128 characters, with at least one upper-case letter, one lower-case letter and one digit")
}

func (c *checker) keys(keys []string) {
	for i, k := range keys {
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(k)); err != nil || len(rest) > 0 {
			c.add("appliance.ssh_authorized_keys", "the key in place %d is not a public key as in authorized_keys", i+1).
				WithHint("paste the one line of a file that ends with .pub")
		}
	}
}

// certificate checks what can be told without looking into it.
func (c *checker) certificate(a *Answers) {
	switch {
	case a.Certificate != "" && a.PrivateKey == "":
		c.add("tls.private_key", "the certificate's private key is missing")
	case a.Certificate == "" && a.PrivateKey != "":
		c.add("tls.certificate", "there is a private key without its certificate")
	case a.Certificate == "" && a.Chain != "":
		c.add("tls.certificate", "there is a chain without a certificate")
	}
	if a.KeyPassphrase != "" && a.PrivateKey == "" {
		c.add("tls.key_passphrase", "there is no private key that it belongs to")
	}
	tls := slices.ContainsFunc(a.Settings.Logs.Forward, func(f setting.Forward) bool { return strings.HasPrefix(f.To, "tls://") })
	if a.SyslogCA != "" && !tls {
		c.add("syslog.ca", "no collector is reached by tls://")
	}
}
