package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// fixed are settings that are the appliance's own places: other programs and units
// rely on them.
var fixed = []string{"data", "run", "certificate", "private_key", "logs.dir"}

// change changes the settings: f gets a copy of the present ones. Everything that
// is wrong with the result is reported, and then nothing has changed. What follows
// from the difference is applied; if that fails, the settings are as before, and so
// is the system as far as it can be.
//
// A difference of the network is not written here: the system keeps it for a while,
// and Confirm writes it.
func (m *Machine) change(ctx context.Context, f func(*setting.Settings) error) (api.Applied, error) {
	m.settings.Lock()
	defer m.settings.Unlock()
	old, err := m.Settings()
	if err != nil {
		return api.Applied{}, broken(err)
	}
	wanted := clone(old)
	if err := f(&wanted); err != nil {
		return api.Applied{}, err
	}
	done, err := plan(old, wanted)
	if err != nil || len(done.Changes) == 0 {
		done.Done = err == nil
		return done, err
	}
	if touches(done.Changes, "network") {
		if err := m.noPending(); err != nil { // before anything is done, not after half of it
			return api.Applied{}, err
		}
	}
	written := wanted
	written.Network = old.Network
	if err := m.write(written); err != nil {
		return api.Applied{}, err
	}
	if err := m.follow(ctx, done.Changes, old, written); err != nil {
		return api.Applied{}, err
	}
	if touches(done.Changes, "network") {
		pending, err := m.o.System.ChangeNetwork(ctx, old.Network, wanted.Network, confirmWithin)
		if err != nil {
			return api.Applied{}, err
		}
		done.Pending = &pending
	}
	done.Done = true
	return done, nil
}

func broken(err error) error {
	return fault.Wrap(fault.Precondition, err, "the settings in %s cannot be used", setting.File).
		WithHint("berth check-config names every fault in them; mend the file as root, or apply a configuration that was exported (berth-agent config apply FILE)")
}

// plan compares settings, and says what would follow. Its errors are all that is
// wrong with the new ones.
func plan(old, wanted setting.Settings) (api.Applied, error) {
	done := api.Applied{Changes: []api.Change{}, Actions: []string{}}
	if err := wanted.Check(); err != nil {
		return done, err
	}
	var err error
	if done.Changes, err = differences(old, wanted); err != nil {
		return done, err
	}
	var all []error
	for _, c := range done.Changes {
		if slices.Contains(fixed, c.Field) {
			all = append(all, fault.New(fault.Invalid, "it cannot be changed on the appliance").On(c.Field).WithHint("leave it out, or as it is"))
		}
	}
	if touches(done.Changes, "database") {
		all = append(all, wanted.CheckOpen())
	}
	if err := errors.Join(all...); err != nil {
		return done, err
	}
	for _, s := range steps {
		if touches(done.Changes, s.of...) {
			done.Actions = append(done.Actions, s.title)
		}
	}
	if units := restarts(done.Changes, wanted); units != nil {
		done.Actions = append(done.Actions, "restart "+strings.Join(units, ", "))
	}
	if touches(done.Changes, "network") {
		done.Actions = append(done.Actions, fmt.Sprintf("change the network, and take that back after %s unless it is confirmed", confirmWithin))
	}
	return done, nil
}

// step is something that follows from settings, and how it is made so.
type step struct {
	title string
	of    []string // the fields that it follows from
	do    func(m *Machine, ctx context.Context, s setting.Settings) error
}

var steps = []step{
	{"set the time zone and the time servers", []string{"time"}, func(m *Machine, ctx context.Context, s setting.Settings) error {
		return m.o.System.ApplyTime(ctx, s.Time)
	}},
	{"switch SSH", []string{"ssh"}, func(m *Machine, ctx context.Context, s setting.Settings) error {
		return m.o.System.ApplySSH(ctx, s.SSH)
	}},
	{"set the firewall", []string{"ssh", "firewall"}, func(m *Machine, ctx context.Context, s setting.Settings) error {
		return m.o.System.ApplyFirewall(ctx, s.Firewall, s.SSH.Enabled)
	}},
	{"see whether the certificate has all names", []string{"hostnames"}, func(m *Machine, ctx context.Context, s setting.Settings) error {
		_, err := m.ensureCertificate(ctx, s)
		return err
	}},
}

// follow does what follows from changes. When a step fails, those before it and
// the settings are made as they were.
func (m *Machine) follow(ctx context.Context, changes []api.Change, old, wanted setting.Settings) error {
	for i, s := range steps {
		if !touches(changes, s.of...) {
			continue
		}
		err := s.do(m, ctx, wanted)
		if err == nil {
			continue
		}
		back := context.WithoutCancel(ctx)
		undone := m.write(old)
		for _, before := range steps[:i+1] {
			if touches(changes, before.of...) {
				undone = errors.Join(undone, before.do(m, back, old))
			}
		}
		if undone != nil {
			m.o.Log.Error("cannot undo a change of the settings", "step", s.title, "err", undone)
		}
		return err
	}
	return m.restart(ctx, restarts(changes, wanted))
}

// restart restarts the units that run: one that does not will read the new settings
// when it is started.
func (m *Machine) restart(ctx context.Context, units []string) error {
	if len(units) == 0 {
		return nil
	}
	found, err := m.o.System.Units(ctx, units...)
	all := []error{err}
	for _, unit := range units { // in their order
		for _, u := range found {
			if u.Name == unit && (u.Active == "active" || u.Active == "activating" || u.Active == "failed") {
				all = append(all, m.o.System.Restart(ctx, unit))
			}
		}
	}
	return errors.Join(all...)
}

// restarts are the units that read changed settings only at their start; s are the
// settings with the changes. systemd holds their sockets: no connection is refused
// meanwhile.
func restarts(changes []api.Change, s setting.Settings) []string {
	var units []string
	add := func(names ...string) {
		for _, n := range names {
			if n += ".service"; !slices.Contains(units, n) {
				units = append(units, n)
			}
		}
	}
	for _, c := range changes {
		switch section, _, _ := strings.Cut(c.Field, "."); section {
		case "network", "time", "ssh", "firewall", "vcenter", "disks":
		case "logs":
			add("berth-logs")
		case "proxy":
			if s.Traces != "" { // they all send spans
				add("berth-token", "berth-core", "berth-jobs", "berth-registry")
			}
			add("berth-core", "berth-jobs") // OIDC, webhooks
		case "hostnames":
			add("berth-token", "berth-core", "berth-registry")
		default:
			add("berth-logs", "berth-token", "berth-core", "berth-jobs", "berth-registry")
		}
	}
	return units
}

func (m *Machine) write(s setting.Settings) error { return setting.Write(m.path(setting.File), s) }

// touches reports whether one of the changes is in one of the sections.
func touches(changes []api.Change, sections ...string) bool {
	return slices.ContainsFunc(changes, func(c api.Change) bool {
		top, _, _ := strings.Cut(c.Field, ".")
		return slices.Contains(sections, top)
	})
}

// clone copies settings, so that a change of a list changes one of them alone.
func clone(s setting.Settings) setting.Settings {
	b, err := yaml.Marshal(s)
	var c setting.Settings
	if err == nil {
		err = yaml.Unmarshal(b, &c)
	}
	if err != nil {
		return s // what was read from YAML is written as YAML
	}
	return c
}

// differences gives the fields that differ, in the order of their names.
func differences(old, wanted setting.Settings) ([]api.Change, error) {
	a, err := flat(old)
	if err != nil {
		return nil, err
	}
	b, err := flat(wanted)
	if err != nil {
		return nil, err
	}
	list := []api.Change{}
	for name, value := range a {
		if b[name] != value {
			list = append(list, api.Change{Field: name, From: value, To: b[name]})
		}
	}
	for name, value := range b {
		if _, both := a[name]; !both {
			list = append(list, api.Change{Field: name, To: value})
		}
	}
	slices.SortFunc(list, func(x, y api.Change) int { return strings.Compare(x.Field, y.Field) })
	return list, nil
}

// flat gives the settings as they are written, a line for each field.
func flat(s setting.Settings) (map[string]string, error) {
	b, err := setting.Encode(s)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&tree); err != nil {
		return nil, fmt.Errorf("cannot compare settings: %w", err)
	}
	lines := map[string]string{}
	flatten(lines, "", tree)
	return lines, nil
}

func flatten(lines map[string]string, prefix string, tree map[string]any) {
	for name, value := range tree {
		if inner, ok := value.(map[string]any); ok {
			flatten(lines, prefix+name+".", inner)
			continue
		}
		if v := reflect.ValueOf(value); v.Kind() == reflect.Slice && v.Len() == 0 {
			continue
		}
		text, err := yaml.Marshal(value)
		if err != nil {
			continue
		}
		lines[prefix+name] = strings.TrimSpace(string(text))
	}
}
