package machine

import (
	"strings"
	"testing"

	"berth/appliance/setting"
)

// Whatever somebody sends as a configuration is either settings that pass their check, or a fault; and the
// appliance's own places never move.
func FuzzMerge(f *testing.F) {
	for _, s := range []string{"", "time:\n  zone: UTC\n", "data: /x\n", "network: {mode: static}\n", "logs: {dir: /x, forward: [{name: a, to: 'udp://h'}]}", "[]", "a: &a [*a]", "trash_days: 1\ntrash_days: 2"} {
		f.Add(s)
	}
	now := setting.Appliance()
	f.Fuzz(func(t *testing.T, text string) {
		s, err := merge(now, text)
		if err != nil {
			return
		}
		done, err := plan(now, s)
		if err != nil {
			return
		}
		for _, c := range done.Changes {
			for _, name := range fixed {
				if c.Field == name {
					t.Errorf("%q moves %s", text, name)
				}
			}
		}
		b, err := setting.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := setting.DecodeOver(setting.Default(), strings.NewReader(string(b))); err != nil {
			t.Errorf("%q is accepted and cannot be read again: %v", text, err)
		}
	})
}

// The journal has lines of every program on the machine.
func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1","MESSAGE":"hello","PRIORITY":"6","_COMM":"x"}`))
	f.Add([]byte(`{"MESSAGE":[1,2,300],"PRIORITY":"99"}` + "\n{}\nnonsense"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, line := range parseJournal(b) {
			if line.Level == "" {
				t.Errorf("%q: no level", b)
			}
		}
	})
}

func TestPlain(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"berth-core": true, "ssh.service": true, "getty@tty1.service": true, "-x": false, "--unit": false, "a b": false, "a*": false, "": true, "a;b": false} {
		if got := plain(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
