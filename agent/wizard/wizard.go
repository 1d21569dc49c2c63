// Package wizard has the questions of the appliance's setup: which properties are
// asked on which page, in which order, and what has been answered so far.
//
// The text screen on the VM's console and the web pages at :5480 are two faces of
// it. A question is an OVF property (appliance/property), so that what vCenter's
// form, a Terraform file and the two wizards call a thing is the same, an answer
// that came with the OVF environment is filled in already, and a fault that the
// check finds names the page to mend it on.
package wizard

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/property"
)

// A Page is a group of questions.
type Page struct {
	Name  string // in URLs
	Title string
	Text  string // what to know before answering
	// Fields are the names of properties, class.key.
	Fields []string
}

// The pages that have more on them than questions.
const (
	Certificate = "certificate"
	Storage     = "storage"
	TimePage    = "time"
	NetworkPage = "network"
)

// Pages are the setup's pages in their order.
func Pages() []Page {
	return []Page{
		{NetworkPage, "Network", "How this appliance is reached. Most of it may be left to DHCP; a registry that others rely on is better given a fixed address.",
			[]string{"network.mode", "network.ip4", "network.gateway4", "network.ip6", "network.gateway6", "network.dns", "network.search"}},
		{"names", "Names", "The names go into the certificate. Clients use the host name, or the external one if that is another.",
			[]string{"network.hostname", "registry.external_fqdn"}},
		{TimePage, "Time", "Certificates and tokens need the right time.",
			[]string{"appliance.timezone", "network.ntp"}},
		{Certificate, "Certificate", "The certificate that registry and console show. Without one from you, the appliance makes an authority of its own, which clients have to trust once.",
			[]string{"tls.certificate", "tls.private_key", "tls.ca_chain", "tls.key_passphrase"}},
		{"passwords", "Passwords", "There are no default passwords. Each has 8 to 128 characters with an upper-case letter, a lower-case letter and a digit among them; all others may be in it, too.",
			[]string{"appliance.root_password", "appliance.console_password", "registry.admin_password", "appliance.ssh_enabled", "appliance.ssh_authorized_keys"}},
		{Storage, "Storage", "Disks are known by what is on them. A disk that this appliance has marked or used is taken without asking; others only if they are chosen here.", nil},
		{"directory", "Users", "Where the registry's users come from. Address and filters of a directory are set in the registry afterwards.",
			[]string{"registry.auth_mode"}},
		{"vcenter", "vCenter", "Optional: the registry runs without vCenter. The link to it comes with a later version and begins with what is typed here; vCenter is contacted only if the thumbprint of its certificate is known.",
			[]string{"vcenter.address", "vcenter.vcenter_username", "vcenter.vcenter_password", "vcenter.thumbprint", "vcenter.register"}},
		{"proxy", "Proxy", "Only if connections to the outside need one. The registry itself needs no outside.",
			[]string{"proxy.http", "proxy.https", "proxy.no_proxy", "proxy.proxy_username", "proxy.proxy_password"}},
		{"syslog", "Remote syslog", "Optional: log messages are kept here and can be sent to collectors too.",
			[]string{"syslog.targets", "syslog.ca"}},
	}
}

// Find gives the page of a name.
func Find(name string) (Page, bool) {
	for _, p := range Pages() {
		if p.Name == name {
			return p, true
		}
	}
	return Page{}, false
}

// PageOf gives the page on which a fault is mended. The field is a property's
// name, or that of a setting which a property became; the first page takes what
// is on none.
func PageOf(field string) Page {
	pages := Pages()
	for _, p := range pages {
		if slices.Contains(p.Fields, field) {
			return p
		}
	}
	class, _, _ := strings.Cut(field, ".")
	switch class {
	case "disks", "storage":
		class = Storage
	case "tls":
		class = Certificate
	case "time":
		class = TimePage
	case "ssh", "appliance":
		class = "passwords"
	case "registry":
		class = "directory"
	case "install":
		class = NetworkPage
	}
	if p, ok := Find(class); ok {
		return p
	}
	return pages[0]
}

// Answers are what has been answered: texts by the names of properties, and the
// devices of blank disks that were chosen, by role. Nothing in it is checked.
type Answers struct {
	Values map[string]string        `json:"values"`
	Disks  map[diskrole.Role]string `json:"disks"`
}

// Copy gives the same answers in maps of their own.
func (a Answers) Copy() Answers { return Answers{maps.Clone(a.Values), maps.Clone(a.Disks)} }

// Set answers a question. An empty answer to a password keeps the one that was
// given before: it was not shown, so it could not be left standing. Values that are
// too long for a property, no text, or of no question are refused.
func (a *Answers) Set(name, value string) error {
	p, ok := property.Find(name)
	if !ok {
		return fault.New(fault.Invalid, "there is no such question").On(name)
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return fault.New(fault.Invalid, "it is not text").On(name)
	}
	if !p.Password && !many(name) {
		value = strings.TrimSpace(value)
	}
	if p.Choices != nil {
		value = strings.ToLower(value)
	}
	if p.Password && value == "" {
		return nil
	}
	if err := p.Check(value); err != nil && len(value) > property.MaxLen {
		return err
	}
	if a.Values == nil {
		a.Values = map[string]string{}
	}
	a.Values[name] = value
	return nil
}

// Final are the answers as the agent takes them: every question is answered, since
// what is not named stays as it was known, and nothing is left of a choice that was
// not made (the fields of a static address, if it comes by DHCP).
func (a Answers) Final() Answers {
	out := a.Copy()
	if out.Values == nil {
		out.Values = map[string]string{}
	}
	for _, page := range Pages() {
		for _, name := range page.Fields {
			if p, ok := property.Find(name); ok && !p.Password {
				out.Values[name] = a.Shown(name)
			}
		}
	}
	if out.Values["network.mode"] != "static" {
		out.Forget("network.ip4")
		out.Forget("network.gateway4")
	}
	return out
}

// Forget takes an answer back, a password's too, also one that the agent knows.
func (a *Answers) Forget(name string) {
	if a.Values == nil {
		a.Values = map[string]string{}
	}
	a.Values[name] = ""
}

// Shown is the answer as a face may show it: never a password's.
func (a Answers) Shown(name string) string {
	p, ok := property.Find(name)
	if !ok || p.Password {
		return ""
	}
	if v, ok := a.Values[name]; ok {
		return v
	}
	return p.Default
}

// Given reports whether the question has been answered.
func (a Answers) Given(name string) bool { return a.Values[name] != "" }

// Choose takes a blank disk for a role; an empty device takes the choice back.
func (a *Answers) Choose(role diskrole.Role, device string) {
	if a.Disks == nil {
		a.Disks = map[diskrole.Role]string{}
	}
	if device == "" {
		delete(a.Disks, role)
		return
	}
	a.Disks[role] = device
}

// Help is what a face says about a question: the property's description without
// what only concerns vCenter's form.
func Help(p property.Property) string {
	if p.Name() == "network.ip4" {
		return "For static, with its prefix length: 192.0.2.10/24."
	}
	text := strings.TrimSuffix(p.Description, " Empty: the wizard asks.")
	text = strings.ReplaceAll(text, " "+property.PasswordRule, "") // the page has it
	return strings.TrimSpace(strings.ReplaceAll(text, " Used at the first boot alone.", ""))
}

// Many reports whether an answer may have several lines.
func Many(name string) bool { return many(name) }

func many(name string) bool {
	return slices.Contains([]string{"tls.certificate", "tls.private_key", "tls.ca_chain", "syslog.ca", "appliance.ssh_authorized_keys"}, name)
}
