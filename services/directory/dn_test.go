package directory_test

import (
	"testing"

	"berth/appliance/fault"
	"berth/services/directory"
)

func TestNormalDN(t *testing.T) {
	t.Parallel()
	const want = "cn=developers,ou=groups,dc=example,dc=com"
	for _, dn := range []string{
		"cn=developers,ou=groups,dc=example,dc=com", "CN=Developers, OU=Groups , DC=example,DC=com",
		`cn=develo\70ers,ou=groups,dc=example,dc=com`, "cn=developers;ou=groups;dc=example;dc=com",
	} {
		if got, err := directory.NormalDN(dn); got != want || err != nil {
			t.Errorf("%s: %s, %v", dn, got, err)
		}
	}
	for a, b := range map[string]string{
		`cn=Smith\, John,dc=x`: `CN=smith\2c  john, DC=X`,
		"cn=a+uid=b,dc=x":      "UID=b+CN=a,dc=x",
		`cn=\#1,dc=x`:          `cn=\231,dc=x`,
	} {
		one, err := directory.NormalDN(a)
		other, err2 := directory.NormalDN(b)
		if one != other || err != nil || err2 != nil {
			t.Errorf("%s is %s (%v), %s is %s (%v)", a, one, err, b, other, err2)
		}
	}
	for _, dn := range []string{"", " ", "developers", "cn=", "=x", "cn=a,,dc=x", `cn=a\`, `cn=\zz`} {
		if got, err := directory.NormalDN(dn); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %s, %v", dn, got, err)
		}
	}
}

func FuzzNormalDN(f *testing.F) {
	for _, dn := range []string{"cn=a,dc=x", `cn=a\,b+uid=\20c ,DC=X`, "cn=#04024869", `cn=\c3\a4`, "a=b=c", "cn=ı,dc=İ"} {
		f.Add(dn)
	}
	f.Fuzz(func(t *testing.T, dn string) {
		once, err := directory.NormalDN(dn)
		if err != nil {
			return
		}
		twice, err := directory.NormalDN(once)
		if err != nil || twice != once {
			t.Errorf("%q becomes %q, and that %q (%v)", dn, once, twice, err)
		}
	})
}
