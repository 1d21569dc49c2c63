package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/fault"
)

// stageError says during what a thing failed, which its cause does not tell.
type stageError struct {
	stage string // connect, tls, starttls, bind, base, group base, filter
	err   error
}

func (e *stageError) Error() string { return e.stage + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// explain turns whatever went wrong into words that name the one thing to mend.
// They are for administrators: they hold host names and DNs.
func (s Settings) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	host, address, _, endpointErr := s.endpoint()
	if endpointErr != nil {
		return endpointErr
	}
	stage, _ := errors.AsType[*stageError](err)
	if stage == nil {
		stage = &stageError{"search", err}
	}
	switch stage.stage {
	case "connect":
		return s.explainConnect(stage.err, host, address)
	case "tls", "starttls":
		return explainTLS(stage, host, address)
	case "bind":
		return s.explainBind(stage.err, address)
	}
	return s.explainSearch(stage, address)
}

func (s Settings) explainConnect(err error, host, address string) error {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fault.Wrap(fault.Unavailable, e, "the name %s cannot be resolved", host).On("ldap_url").WithHint("check the name, and the DNS servers of this machine")
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fault.Wrap(fault.Unavailable, err, "%s refuses connections", address).On("ldap_url").WithHint("check the port, and whether the directory runs")
	}
	if timedOut(err) {
		return s.noAnswer(err, address)
	}
	return fault.Wrap(fault.Unavailable, err, "cannot connect to %s", address).On("ldap_url").WithHint("check the route and the firewall")
}

func (s Settings) noAnswer(err error, address string) error {
	return fault.Wrap(fault.Unavailable, err, "%s does not answer within %v", address, s.Timeout).On("ldap_url").
		WithHint("check the firewall; ldaps:// has another port (636) than ldap:// (389); or raise ldap_timeout")
}

func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || strings.Contains(err.Error(), "timed out")
}

func explainTLS(stage *stageError, host, address string) error {
	err := stage.err
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fault.Wrap(fault.Unavailable, e, "the certificate of %s is for other names (%s)", address, names(e.Certificate)).On("ldap_url").
			WithHint("use one of these names in ldap_url")
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fault.Wrap(fault.Unavailable, e, "the certificate of %s is signed by an authority that is not trusted", address).On("ldap_ca_certificate").
			WithHint("put the authority's certificate into ldap_ca_certificate")
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return fault.Wrap(fault.Unavailable, e, "the certificate of %s cannot be accepted: %v", address, e).On("ldap_verify_cert")
	}
	if stage.stage == "starttls" {
		if e, ok := errors.AsType[*ldap.Error](err); ok && !broken(err) {
			return fault.Wrap(fault.Unavailable, e, "%s refuses StartTLS", address).On("ldap_start_tls").WithHint("use ldaps://, or turn ldap_start_tls off if the way to the directory is safe")
		}
	}
	if timedOut(err) {
		return fault.Wrap(fault.Unavailable, err, "%s does not begin TLS", address).On("ldap_url").WithHint("ldaps:// needs the TLS port, usually 636")
	}
	return fault.Wrap(fault.Unavailable, err, "cannot agree on TLS with %s", address).On("ldap_url").WithHint("ldaps:// needs the TLS port, usually 636, and TLS 1.2 or newer")
}

func names(c *x509.Certificate) string {
	if c == nil {
		return "none"
	}
	all := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func (s Settings) explainBind(err error, address string) error {
	switch code(err) {
	case ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject:
		return fault.Wrap(fault.Invalid, err, "the search DN or its password is wrong").On("ldap_search_dn")
	case ldap.LDAPResultInvalidDNSyntax:
		return fault.Wrap(fault.Invalid, err, "the directory cannot read the search DN %q", s.SearchDN).On("ldap_search_dn")
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultUnwillingToPerform:
		return fault.Wrap(fault.Invalid, err, "the directory takes no password without encryption").On("ldap_url").WithHint("use ldaps://, or ldap_start_tls")
	case ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultAuthMethodNotSupported:
		return fault.Wrap(fault.Invalid, err, "the directory does not let this search DN log in with a password").On("ldap_search_dn").
			WithHint("many directories let nobody search anonymously: give a search DN")
	}
	if timedOut(err) {
		return s.noAnswer(err, address)
	}
	return fault.Wrap(fault.Unavailable, err, "%s ended the connection before a login", address).On("ldap_url").
		WithHint("a TLS port closes connections without TLS: use ldaps://")
}

func (s Settings) explainSearch(stage *stageError, address string) error {
	field, dn := "ldap_base_dn", s.BaseDN
	if stage.stage == "group base" {
		field, dn = "ldap_group_base_dn", s.GroupBaseDN
	}
	switch code(stage.err) {
	case ldap.LDAPResultNoSuchObject:
		return fault.Wrap(fault.Invalid, stage.err, "the base DN %q does not exist, or the search account may not see it", dn).On(field)
	case ldap.LDAPResultReferral:
		return fault.Wrap(fault.Invalid, stage.err, "the base DN %q belongs to another directory", dn).On(field).WithHint("Berth follows no referrals: name that directory in ldap_url")
	case ldap.LDAPResultInvalidDNSyntax:
		return fault.Wrap(fault.Invalid, stage.err, "the directory cannot read the base DN %q", dn).On(field)
	case ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultOperationsError, ldap.LDAPResultInappropriateAuthentication:
		// Active Directory says "operations error" to who searches anonymously.
		return fault.Wrap(fault.Invalid, stage.err, "the search account may not search below %q", dn).On("ldap_search_dn").
			WithHint("many directories let nobody search anonymously: give a search DN")
	case ldap.ErrorFilterCompile, ldap.LDAPResultFilterError:
		return fault.Wrap(fault.Invalid, stage.err, "the filter cannot be read").On("ldap_filter").WithHint("it looks like (objectClass=person), RFC 4515")
	}
	if timedOut(stage.err) {
		return s.noAnswer(stage.err, address)
	}
	if broken(stage.err) {
		return fault.Wrap(fault.Unavailable, stage.err, "%s ended the connection", address).On("ldap_url")
	}
	return fault.Wrap(fault.Unavailable, stage.err, "the directory refused a search: %s", ldap.LDAPResultCodeMap[code(stage.err)]).On(field)
}

func code(err error) uint16 {
	if e, ok := errors.AsType[*ldap.Error](err); ok {
		return e.ResultCode
	}
	return ldap.ErrorNetwork
}

// Message gives a fault with its hint as one sentence, as the API shows it.
func Message(err error) string {
	f := fault.Of(err)
	text := f.Text
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	if f.Hint != "" {
		text = fmt.Sprintf("%s; %s", text, f.Hint)
	}
	return text
}
