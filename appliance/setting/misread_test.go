package setting_test

import (
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/appliance/setting"
)

// What cannot be read is said in words, line by line, and little of it is repeated: it may be the wrong file.
func TestMisread(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"nosuch: 1\n":                              `line 1: there is no setting "nosuch"`,
		"time:\n  zone: [a]\n":                     "line 2: it must be a text, not a list",
		"time: Europe/Berlin\n":                    `line 1: it must be a section with settings of its own, not "Euro`,
		"hostnames: {a: 1}\n":                      "line 1: it must be a list, not a section",
		"disks: {warn_percent: many}\n":            `line 1: it must be a number, not "many"`,
		"ssh: {enabled: perhaps}\n":                `line 1: it must be true or false, not "perhaps"`,
		"ssh: {until: tomorrow}\n":                 `parsing time "tomorrow"`,
		"root:" + strings.Repeat("s", 100) + ": 1": `line 1: there is no setting "root:`,
	} {
		_, err := setting.Decode(strings.NewReader(text))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), strings.Repeat("s", 70)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
