package upkeep

import (
	"encoding/json"
	"testing"

	"berth/appliance/fault"
)

// Parameters that are accepted are accepted again as they are stored, and what is
// refused is refused as the caller's mistake.
func FuzzParams(f *testing.F) {
	f.Add(`{"delete_untagged":true,"workers":3}`)
	f.Add(`{"audit_retention_hour":24,"include_event_types":"create_user,pull_artifact"}`)
	f.Add(`{"include_operations":"pull","dry_run":true}`)
	f.Add(`[1]`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, text string) {
		for _, w := range []Work{Collection, AuditPurge} {
			stored, err := w.check(json.RawMessage(text))
			if err != nil {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("%q: %v", text, err)
				}
				continue
			}
			if again, err := w.check(stored); err != nil || string(again) != string(stored) {
				t.Errorf("%q: stored as %s, then %s, %v", text, stored, again, err)
			}
		}
	})
}
