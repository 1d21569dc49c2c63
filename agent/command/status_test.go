package command

import (
	"strings"
	"testing"
	"time"

	"berth/agent/api"
)

// What people read of a machine with names and addresses: one URL a line, the cause
// of what is wrong with what to do, and no line that a terminal would break but that
// of the fingerprint, which is copied in one piece.
func TestStatusForPeople(t *testing.T) {
	s := api.Status{Version: "0.3.0", Hostname: "registry.example.com", Phase: api.Ready, Health: "degraded", Booted: time.Date(2026, 11, 21, 18, 0, 0, 0, time.Local),
		Registry: []string{"https://registry.example.com", "https://[2001:db8:1111:2222:3333:4444:5555:6666]"}, Console: []string{"https://registry.example.com:5480"},
		Problems: []api.Problem{{Name: "disks", Text: "the data disk is nearly full", Hint: "enlarge it", Explains: []string{"registry"}}},
		Warnings: []string{"there is no disk for the log"}}
	var b strings.Builder
	if err := writeStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	zone, _ := s.Booted.Zone()
	want := `version      0.3.0
host name    registry.example.com
registry     https://registry.example.com
             https://[2001:db8:1111:2222:3333:4444:5555:6666]
console      https://registry.example.com:5480
up since     2026-11-21 18:00:00 ` + zone + `
first boot   ready
health       degraded

disks: the data disk is nearly full
  do: enlarge it
  because of it: registry

warning: there is no disk for the log
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s", got)
	}
}
