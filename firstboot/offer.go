package firstboot

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"berth/appliance/setting"
)

// offered picks, of the properties that have changed, those whose values settings
// have. Certificate, keys and the mode of authentication have ways of their own.
func offered(changed []string, values map[string]string) map[string]string {
	const address, prefix = "network.ip4", "network.prefix_or_mask"
	names := slices.Clone(changed)
	if slices.Contains(names, address) || slices.Contains(names, prefix) { // the two are one setting
		names = append(names, address, prefix)
	}
	all := map[string]string{}
	for _, name := range names {
		class, _, _ := strings.Cut(name, ".")
		ours := slices.Contains([]string{"network", "proxy", "vcenter"}, class) ||
			slices.Contains([]string{"appliance.timezone", "appliance.ssh_enabled", "registry.external_fqdn", "syslog.targets"}, name)
		if v := strings.TrimSpace(values[name]); ours && v != "" {
			all[name] = v
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// changedWarning begins the warning that names what has changed.
const changedWarning = "changed in vCenter since the first boot and not applied (berth-agent firstboot offered, settle): "

// Settle takes the properties as they are at this boot for known, whether they were
// applied or not: only what changes from now on is offered.
func Settle(dir string) error {
	unlock, err := lock(filepath.Join(dir, "firstboot.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	s, err := ReadState(dir)
	if err != nil || s.Changed == nil {
		return err
	}
	if s.Imported == nil {
		s.Imported = map[string]string{}
	}
	maps.Copy(s.Imported, s.Seen)
	s.Changed, s.Offered = nil, nil
	s.Warnings = slices.DeleteFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, changedWarning) })
	return writeState(dir, s)
}

// Offer gives the present settings with the values that the OVF environment of this
// boot has and the import's had not: what somebody has typed into vCenter since.
// Nothing is changed; faults name properties.
func (s State) Offer(present setting.Settings) (setting.Settings, error) {
	before := present.Network
	if _, ok := s.Offered["network.mode"]; ok && !strings.EqualFold(s.Offered["network.mode"], "static") {
		present.Network.IP4, present.Network.Gateway4 = "", "" // they belong to static alone
	}
	a, err := over(Answers{Settings: present}, s.Offered)
	if err == nil {
		err = a.Check()
	}
	if err != nil {
		present.Network = before
		return present, err
	}
	return a.Settings, nil
}
