package directory

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/configuration"
)

// Settings say where a directory is and how people and groups are found in it.
type Settings struct {
	URL      string // ldap://host[:port] or ldaps://
	StartTLS bool   // encrypt an ldap:// connection before anything is said on it
	Verify   bool   // believe a certificate only from an authority that is trusted
	CA       string // PEM of authorities to trust beside the system's

	SearchDN       string // who looks for entries; "" = anonymously
	SearchPassword secret.Text

	BaseDN string
	Filter string // that people must match; "" = none
	UID    string // the attribute that holds the login name
	Scope  int    // 0 base, 1 one level, 2 subtree (RFC 4511 §4.5.1.2)

	Timeout time.Duration // of each thing that is asked of the directory

	GroupBaseDN    string // "" = people have no groups
	GroupFilter    string
	GroupAttribute string // that holds a group's name; "" = the first part of its DN
	GroupScope     int
	Membership     string // the attribute of a person that lists groups; "" = none
	AdminDN        string // the group whose members are system administrators; "" = none
	Nested         Nesting
}

// Nesting says how groups in groups are followed.
type Nesting string

// The ways.
const (
	Direct  Nesting = ""         // not at all, as in Harbor
	InChain Nesting = "in_chain" // by Active Directory's matching rule
	Walk    Nesting = "walk"     // level by level, by asking
)

// From takes the settings of a directory out of all settings.
func From(s configuration.Settings) Settings {
	return Settings{
		URL: s.LDAPURL, StartTLS: s.LDAPStartTLS, Verify: s.LDAPVerifyCert, CA: s.LDAPCA,
		SearchDN: s.LDAPSearchDN, SearchPassword: s.LDAPSearchPassword,
		BaseDN: s.LDAPBaseDN, Filter: s.LDAPFilter, UID: s.LDAPUID, Scope: int(s.LDAPScope),
		Timeout:     time.Duration(s.LDAPTimeout) * time.Second,
		GroupBaseDN: s.LDAPGroupBaseDN, GroupFilter: s.LDAPGroupFilter, GroupAttribute: s.LDAPGroupAttribute, GroupScope: int(s.LDAPGroupScope),
		Membership: s.LDAPGroupMembership, AdminDN: s.LDAPGroupAdminDN, Nested: Nesting(s.LDAPGroupNested),
	}
}

// inChain is Active Directory's LDAP_MATCHING_RULE_IN_CHAIN ([MS-ADTS] §3.1.1.3.4.4.3).
const inChain = "1.2.840.113556.1.4.1941"

// endpoint is the directory's address, and whether it speaks TLS from the start.
func (s Settings) endpoint() (host, address string, overTLS bool, err error) {
	text := s.URL
	if !strings.Contains(text, "://") {
		text = "ldap://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" {
		return "", "", false, fault.New(fault.Invalid, "it must be ldap://HOST[:PORT] or ldaps://HOST[:PORT], not %q", s.URL).On("ldap_url")
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "ldaps":
		port = "636"
	default:
		port = "389"
	}
	return u.Hostname(), net.JoinHostPort(u.Hostname(), port), u.Scheme == "ldaps", nil
}

func (s Settings) tls(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: !s.Verify}
	if s.CA == "" {
		return c, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM([]byte(s.CA)) {
		return nil, fault.New(fault.Invalid, "it holds no certificate in PEM form").On("ldap_ca_certificate")
	}
	c.RootCAs = pool
	return c, nil
}

// check finds what cannot work whatever the directory says.
func (s Settings) check() error {
	if _, _, _, err := s.endpoint(); err != nil {
		return err
	}
	for _, dn := range []struct {
		field, value string
		required     bool
	}{{"ldap_base_dn", s.BaseDN, true}, {"ldap_search_dn", "", false}, {"ldap_group_base_dn", s.GroupBaseDN, false}, {"ldap_group_admin_dn", s.AdminDN, false}} {
		if dn.value == "" && !dn.required {
			continue
		}
		if _, err := NormalDN(dn.value); err != nil {
			return fault.Of(err).On(dn.field)
		}
	}
	for _, f := range []struct{ field, value string }{{"ldap_filter", s.Filter}, {"ldap_group_search_filter", s.GroupFilter}} {
		if _, err := ldap.CompileFilter(and(f.value)); err != nil {
			return fault.Wrap(fault.Invalid, err, "the filter %q cannot be read", f.value).On(f.field).WithHint("it looks like (objectClass=person), RFC 4515")
		}
	}
	if s.SearchDN != "" && s.SearchPassword == "" {
		// RFC 4513 §5.1.2: a bind with a name and no password succeeds on many
		// servers, and identifies nobody.
		return fault.New(fault.Invalid, "the search DN has no password").On("ldap_search_password")
	}
	return nil
}

// and joins filters, any of which may be empty or lack its parentheses.
func and(filters ...string) string {
	var b strings.Builder
	n := 0
	for _, f := range filters {
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		if !strings.HasPrefix(f, "(") {
			f = "(" + f + ")"
		}
		b.WriteString(f)
		n++
	}
	switch n {
	case 0:
		return "(objectClass=*)"
	case 1:
		return b.String()
	}
	return "(&" + b.String() + ")"
}

// or joins filters of which one must match.
func or(filters []string) string {
	if len(filters) == 1 {
		return filters[0]
	}
	return "(|" + strings.Join(filters, "") + ")"
}

// equal is the filter that compares an attribute with a value, whatever is in it.
func equal(attribute, value string) string {
	return fmt.Sprintf("(%s=%s)", attribute, ldap.EscapeFilter(value))
}
