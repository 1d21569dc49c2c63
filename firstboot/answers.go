// Package firstboot turns an administrator's answers, from OVF properties or from
// the wizard, into a running appliance; and at every later boot it brings up what
// the services stand on, the disks first.
//
//	properties, wizard ──► Answers ──Check──► SaveAnswers ──► Run: the steps ──► State
//
// It is a list of steps. Each looks whether its work is done already, does it if
// not, and has its end written down durably before the next begins; so a boot that
// is cut off anywhere goes on from there at the next one, and a step that fails
// says why and is tried again when its cause is gone. What the services need is
// never taken from the OVF environment a second time: it is imported once, and a
// boot without it is a normal boot.
//
// The state is a file that everybody reads who shows it: the screen on the VM
// console, the web wizard, the API. The answers are a file too, with the passwords
// in it, readable by root alone and removed when the first boot has ended.
package firstboot

import (
	"errors"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// Answers are all that the first boot has to be told.
type Answers struct {
	// Settings become /etc/berth/appliance.yaml. They begin as setting.Appliance.
	Settings setting.Settings `json:"settings"`

	RootPassword     secret.Text `json:"root_password"`     // of root on the VM console and by SSH
	ConsolePassword  secret.Text `json:"console_password"`  // of admin at :5480
	RegistryPassword secret.Text `json:"registry_password"` // of admin in the registry

	// SSHKeys are root's, each as in authorized_keys.
	SSHKeys []string `json:"ssh_keys"`

	// Certificate, Chain and PrivateKey are PEM, also mangled or in base64. Empty:
	// the appliance makes its own.
	Certificate   string      `json:"certificate"`
	Chain         string      `json:"chain"`
	PrivateKey    secret.Text `json:"private_key"`
	KeyPassphrase secret.Text `json:"key_passphrase"`

	// AuthMode is where the registry's users come from: db_auth, ldap_auth or
	// oidc_auth; empty means db_auth.
	AuthMode string `json:"auth_mode"`

	ProxyPassword   secret.Text `json:"proxy_password"`
	VCenterPassword secret.Text `json:"vcenter_password"`

	// SyslogCA is PEM, for the collectors that are reached by TLS.
	SyslogCA string `json:"syslog_ca"`

	RestoreURL    string      `json:"restore_url"`
	RestoreSecret secret.Text `json:"restore_secret"`

	// Unattended makes a lack or a fault a failure, instead of a reason to wait for
	// the wizard.
	Unattended bool `json:"unattended"`

	// UseDisks are blank disks without a mark (device paths) that somebody has
	// chosen for a role, or OnSystemDisk; nothing else makes the first boot write to
	// such a disk.
	UseDisks map[diskrole.Role]string `json:"use_disks"`
}

// OnSystemDisk, in place of a device, leaves a role's files on the system disk.
const OnSystemDisk = "system"

// NewAnswers are the answers before anybody has said anything.
func NewAnswers() Answers { return Answers{Settings: setting.Appliance()} }

// Missing gives the names of the properties that the first boot cannot do without
// and that are empty.
func (a *Answers) Missing() []string {
	secrets := a.secrets()
	var names []string
	for _, p := range property.All() {
		if s, ok := secrets[p.Name()]; p.Unattended && ok && *s == "" {
			names = append(names, p.Name())
		}
	}
	return names
}

// secrets are the fields that must not be shown, by their properties' names.
func (a *Answers) secrets() map[string]*secret.Text {
	return map[string]*secret.Text{
		"appliance.root_password":    &a.RootPassword,
		"appliance.console_password": &a.ConsolePassword,
		"registry.admin_password":    &a.RegistryPassword,
		"tls.private_key":            &a.PrivateKey,
		"tls.key_passphrase":         &a.KeyPassphrase,
		"proxy.proxy_password":       &a.ProxyPassword,
		"vcenter.vcenter_password":   &a.VCenterPassword,
		"install.restore_secret":     &a.RestoreSecret,
	}
}

// A Fault is one mistake in the answers, or one reason of a failure, for people.
type Fault struct {
	Field string `json:"field,omitempty"` // the property's name (class.key); empty: none in particular
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// Faults parts a joined error into its faults; nil for nil.
func Faults(err error) []Fault {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []Fault
		for _, e := range joined.Unwrap() {
			all = append(all, Faults(e)...)
		}
		return all
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return []Fault{{Text: err.Error()}}
	}
	one := Fault{f.Field, f.Text, f.Hint}
	if _, direct := err.(*fault.Error); !direct {
		one.Text = err.Error() // somebody has said more about it
	}
	return []Fault{one}
}
