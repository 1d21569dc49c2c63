package machine

import (
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
	"berth/appliance/version"
)

// Export gives all settings but those that cannot be changed, as YAML that Apply
// takes, here or on another appliance. Secrets are not in it.
func (m *Machine) Export(context.Context) (string, error) {
	s, err := m.Settings()
	if err != nil {
		return "", broken(err)
	}
	b, err := setting.Encode(s)
	if err != nil {
		return "", err
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return "", fmt.Errorf("cannot export the settings: %w", err)
	}
	for _, name := range fixed {
		remove(&tree, strings.Split(name, "."))
	}
	text, err := yaml.Marshal(&tree)
	if err != nil {
		return "", fmt.Errorf("cannot export the settings: %w", err)
	}
	head := fmt.Sprintf("# The settings of a Berth appliance, version %s. Passwords and keys are not in it.\n"+
		"# berth-agent config validate FILE says what applying it would change.\n", version.Version)
	return head + string(text), nil
}

// remove takes a key out of nested mappings.
func remove(n *yaml.Node, path []string) {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch {
		case n.Content[i].Value != path[0]:
		case len(path) > 1:
			remove(n.Content[i+1], path[1:])
			return
		default:
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

// maxConfiguration bounds what is read of a configuration.
const maxConfiguration = 1 << 20

// merge reads a configuration over the present settings. A section that it names
// is replaced as a whole; one that it does not name stays as it is, so that a file
// with a time section alone does not take the machine off the network.
func merge(now setting.Settings, text string) (setting.Settings, error) {
	var top map[string]yaml.Node
	if len(text) > maxConfiguration {
		return now, fault.New(fault.TooLarge, "a configuration has at most %d bytes", maxConfiguration)
	}
	if err := yaml.Unmarshal([]byte(text), &top); err != nil {
		return now, fault.Wrap(fault.Invalid, err, "it is no YAML with settings").WithHint("berth-agent config export shows the form")
	}
	base, defaults := clone(now), setting.Appliance()
	for i := range reflect.TypeFor[setting.Settings]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[setting.Settings]().Field(i).Tag.Get("yaml"), ",")
		if _, named := top[name]; named && !slices.Contains(fixed, name) {
			reflect.ValueOf(&base).Elem().Field(i).Set(reflect.ValueOf(defaults).Field(i))
		}
	}
	base.Logs.Dir = now.Logs.Dir
	return setting.DecodeOver(base, strings.NewReader(text))
}

// Validate says what applying a configuration would change, or all that is wrong
// with it.
func (m *Machine) Validate(_ context.Context, text string) (api.Applied, error) {
	now, err := m.Settings()
	if err != nil {
		now = setting.Appliance() // as mend begins
	}
	wanted, err := merge(now, text)
	if err != nil {
		return api.Applied{}, err
	}
	return plan(now, wanted)
}

// Apply applies what is different in a configuration, and nothing else. Where the
// present settings cannot be read any more, the configuration takes their place.
func (m *Machine) Apply(ctx context.Context, text string) (api.Applied, error) {
	if _, err := m.Settings(); err != nil {
		return m.mend(ctx, text)
	}
	return m.change(ctx, func(s *setting.Settings) error {
		wanted, err := merge(*s, text)
		if err != nil {
			return err
		}
		*s = wanted
		return nil
	})
}

// mend replaces settings that are broken. What follows from them is done as far as
// it can be; the network stays as it is until the next boot, for nobody knows from
// what it would be a change.
func (m *Machine) mend(ctx context.Context, text string) (api.Applied, error) {
	m.settings.Lock()
	defer m.settings.Unlock()
	base := setting.Appliance()
	wanted, err := merge(base, text)
	if err != nil {
		return api.Applied{}, err
	}
	done, err := plan(base, wanted)
	if err != nil {
		return done, err
	}
	if err := m.write(wanted); err != nil {
		return api.Applied{}, err
	}
	done.Actions = []string{"replace the settings, which could not be read"}
	var all []error
	for _, s := range steps {
		done.Actions = append(done.Actions, s.title)
		all = append(all, s.do(m, ctx, wanted))
	}
	done.Done = true
	return done, errors.Join(append(all, m.restart(ctx, restarts(done.Changes, wanted)))...)
}
