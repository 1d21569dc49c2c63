package machine

import (
	"encoding/json"
	"os"

	"berth/agent/api"
	"berth/appliance/setting"
)

// Phase is how far the first boot is. A state that cannot be read counts as
// failed; none at all as one that is about to begin.
func (m *Machine) Phase() string {
	b, err := os.ReadFile(m.path(setting.StateDir, "state.json"))
	if os.IsNotExist(err) {
		return api.Running
	}
	var s struct{ Phase string }
	if err != nil || json.Unmarshal(b, &s) != nil || s.Phase == "" {
		return api.Failed
	}
	return s.Phase
}
