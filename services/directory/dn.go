package directory

import (
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/fault"
)

// maxDN bounds a distinguished name that somebody types in.
const maxDN = 4096

// NormalDN gives a distinguished name (RFC 4514) in the one form that all its
// spellings share: lower case, no blanks that mean nothing, values escaped one
// way, and the parts of an RDN with several in order. Names are compared in this
// form. Lower case holds for every attribute that directories use in names.
func NormalDN(dn string) (string, error) {
	parsed, err := parseDN(dn)
	if err != nil {
		return "", err
	}
	rdns := make([]string, len(parsed.RDNs))
	for i, rdn := range parsed.RDNs {
		parts := make([]string, len(rdn.Attributes))
		for j, a := range rdn.Attributes {
			// Blanks inside of a value that are repeated count as one (RFC 4518 §2.6.1).
			value := strings.Join(strings.Fields(a.Value), " ")
			parts[j] = strings.ToLower(strings.TrimSpace(a.Type)) + "=" + ldap.EscapeDN(strings.ToLower(value))
		}
		slices.Sort(parts)
		rdns[i] = strings.Join(parts, "+")
	}
	return strings.Join(rdns, ","), nil
}

func parseDN(dn string) (*ldap.DN, error) {
	if strings.TrimSpace(dn) == "" || len(dn) > maxDN {
		return nil, fault.New(fault.Invalid, "a distinguished name has 1 to %d characters", maxDN).WithHint("it looks like cn=developers,ou=groups,dc=example,dc=com")
	}
	parsed, err := ldap.ParseDN(dn)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "%q is not a distinguished name", dn).WithHint("it looks like cn=developers,ou=groups,dc=example,dc=com")
	}
	for _, rdn := range parsed.RDNs {
		for _, a := range rdn.Attributes {
			if !attributeType(strings.TrimSpace(a.Type)) || strings.TrimSpace(a.Value) == "" {
				return nil, fault.New(fault.Invalid, "%q is not a distinguished name: each part is attribute=value", dn)
			}
		}
	}
	return parsed, nil
}

// attributeType accepts a short name or an OID (RFC 4512 §1.4).
func attributeType(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return s != ""
}

// FirstValue gives the value of a name's first part: developers for
// cn=developers,ou=groups,dc=example,dc=com.
func FirstValue(dn string) string {
	parsed, err := parseDN(dn)
	if err != nil || len(parsed.RDNs) == 0 || len(parsed.RDNs[0].Attributes) == 0 {
		return dn
	}
	return parsed.RDNs[0].Attributes[0].Value
}

// below reports whether a name is base or an entry somewhere below it; both are
// normal.
func below(dn, base string) bool {
	return dn == base || strings.HasSuffix(dn, ","+base)
}
