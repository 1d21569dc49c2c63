package step

import "testing"

func TestLeaseName(t *testing.T) {
	t.Parallel()
	for lease, want := range map[string]string{
		"ADDRESS=192.0.2.9\nHOSTNAME=Reg\nDOMAINNAME=example.com other.example\n": "reg.example.com",
		"HOSTNAME=reg.example.com.\nDOMAINNAME=other.example\n":                   "reg.example.com",
		"HOSTNAME=reg\n": "reg", "DOMAINNAME=example.com\n": "", "HOSTNAME=localhost\nDOMAINNAME=x\n": "", "HOSTNAME=a b;$(id)\n": "", "": "",
	} {
		if got := leaseName(lease); got != want {
			t.Errorf("%q: got %q, want %q", lease, got, want)
		}
	}
}
