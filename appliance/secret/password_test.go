package secret

import (
	"strings"
	"testing"
)

func TestHash(t *testing.T) {
	t.Parallel()
	stored := Hash("Harbor12345")
	if !strings.HasPrefix(stored, "$argon2id$v=19$m=19456,t=2,p=1$") || stored == Hash("Harbor12345") {
		t.Errorf("not PHC, or not salted: %s", stored)
	}
	for password, want := range map[Text]bool{"Harbor12345": true, "harbor12345": false, "": false} {
		if got, err := Matches(stored, password); err != nil || got != want {
			t.Errorf("%q: %v, %v", password.Reveal(), got, err)
		}
	}
	for _, bad := range []string{"x", "$argon2i$v=19$m=1,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=0,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA"} {
		if _, err := Matches(bad, "x"); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// The decoy must cost what a real hash costs, or timing tells users from others.
func TestDecoyCostsTheSame(t *testing.T) {
	t.Parallel()
	p, err := parsePHC(Decoy())
	if err != nil || p.memory != memoryKiB || p.passes != passes || p.threads != threads || len(p.sum) != 32 {
		t.Errorf("decoy %+v, %v", p, err)
	}
}

func FuzzMatches(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, stored string) {
		if p, err := parsePHC(stored); err == nil && (p.memory > 256*1024 || p.passes > 16) {
			t.Errorf("%q costs too much", stored)
		}
	})
}
