package machine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/cert"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/setting"
	"berth/firstboot"
)

const firstbootUnit = "berth-firstboot.service"

// state is the first boot's. One that cannot be read counts as failed.
func (m *Machine) state() firstboot.State {
	s, err := firstboot.ReadState(m.path(setting.StateDir))
	if err != nil {
		f := fault.Of(err)
		if f.Kind == fault.Internal {
			f = fault.New(fault.Internal, "the state of the first boot cannot be read").WithHint("look at the journal of %s", firstbootUnit)
		}
		return firstboot.State{Phase: firstboot.Failed, Text: f.Text, Hint: f.Hint}
	}
	return s
}

// Phase is how far the first boot is.
func (m *Machine) Phase() string { return m.state().Phase }

func wireSteps(list []firstboot.StepState) []api.Step {
	steps := []api.Step{}
	for _, s := range list {
		steps = append(steps, api.Step{Name: s.Name, Title: s.Title, Status: s.Status, Text: s.Text, Hint: s.Hint, Begun: s.Begun, Ended: s.Ended})
	}
	return steps
}

// Setup is where the first boot stands, and what it was told so far.
func (m *Machine) Setup(ctx context.Context) (api.Setup, error) {
	state := m.state()
	w := api.Setup{Phase: state.Phase, Text: state.Text, Hint: state.Hint, Steps: wireSteps(state.Steps), Missing: some(state.Missing),
		Faults: []api.Fault{}, Warnings: some(state.Warnings), Disks: []api.SetupDisk{}, Secrets: []string{}, Registry: []string{}, Console: []string{}}
	for _, f := range state.Faults {
		w.Faults = append(w.Faults, api.Fault{Kind: fault.Invalid.String(), Field: f.Field, Text: f.Text, Hint: f.Hint})
	}
	a, _, err := firstboot.LoadAnswers(m.path(setting.StateDir))
	if err != nil {
		m.o.Log.Error("the answers of the first boot cannot be read", "err", err)
	}
	w.Answers = api.Answers{Values: a.Values(), Disks: map[string]string{}}
	maps.DeleteFunc(w.Answers.Values, func(name, _ string) bool {
		p, ok := property.Find(name)
		return ok && p.Password
	})
	w.Secrets = a.Given()
	for role, device := range a.UseDisks {
		w.Answers.Disks[string(role)] = device
	}
	devices, err := m.o.System.ListDisks(ctx)
	if err != nil {
		w.Warnings = append(w.Warnings, "the disks cannot be listed: "+fault.Of(err).Text)
	}
	for _, d := range devices {
		w.Disks = append(w.Disks, api.SetupDisk{Device: d.Device, Bytes: d.Bytes, Role: d.Role, State: strings.TrimPrefix(d.State, "blank-")})
	}
	if w.Network, err = m.o.System.NetworkNow(ctx); err != nil {
		w.Warnings = append(w.Warnings, "the network cannot be looked at: "+fault.Of(err).Text)
	}
	if s, err := m.Settings(); err == nil {
		w.Registry, w.Console = urls(s, w.Network.Hostname, addresses())
		w.Fingerprint = m.fingerprint(s)
	}
	return w, nil
}

// answers makes the first boot's answers of what somebody has filled in. What is not
// named stays as it is known: secrets are never shown, and so not sent back.
func (m *Machine) answers(in api.Answers) (firstboot.Answers, error) {
	var all []error
	known, _, err := firstboot.LoadAnswers(m.path(setting.StateDir))
	if err != nil {
		m.o.Log.Error("the answers of the first boot cannot be read", "err", err)
	}
	values := known.Values()
	for name, value := range in.Values {
		if _, ok := property.Find(name); !ok {
			all = append(all, fault.New(fault.Invalid, "there is no such question").On(name))
		}
		values[name] = value
	}
	if values["tls.certificate"] != "" && values["tls.private_key"] == "" {
		if key, err := os.ReadFile(m.path(requestDir, cert.PendingKeyFile)); err == nil {
			values["tls.private_key"] = string(key) // it was made here, by SetupRequest
		}
	}
	a, err := firstboot.FromProperties(values)
	a.UseDisks = map[diskrole.Role]string{}
	for name, device := range in.Disks {
		role, ok := diskrole.Parse(name)
		if !ok || role == diskrole.System {
			all = append(all, fault.New(fault.Invalid, "there is no such role of a disk").On("disks."+name).WithHint("there are data, database and log"))
			continue
		}
		a.UseDisks[role] = device
	}
	all = append(all, err, a.Check())
	for _, name := range a.Missing() {
		all = append(all, fault.New(fault.Invalid, "it is missing").On(name))
	}
	return a, unique(errors.Join(all...))
}

// unique leaves out faults that come twice: a check may find what the reading has
// found.
func unique(err error) error {
	if err == nil {
		return nil
	}
	var all []error
	seen := map[string]bool{}
	for _, f := range firstboot.Faults(err) {
		b, _ := json.Marshal(f) // strings always marshal
		if !seen[string(b)] {
			seen[string(b)] = true
			all = append(all, fault.New(fault.Invalid, "%s", f.Text).On(f.Field).WithHint("%s", f.Hint))
		}
	}
	return errors.Join(all...)
}

// CheckSetup gives everything that is wrong with the answers.
func (m *Machine) CheckSetup(ctx context.Context, in api.Answers) error {
	a, err := m.answers(in)
	return errors.Join(err, m.checkDisks(ctx, a.UseDisks))
}

// checkDisks accepts blank disks, each for one role.
func (m *Machine) checkDisks(ctx context.Context, chosen map[diskrole.Role]string) error {
	if len(chosen) == 0 {
		return nil
	}
	devices, err := m.o.System.ListDisks(ctx)
	if err != nil {
		return err
	}
	var all []error
	var used []string
	for _, role := range diskrole.All() {
		device := chosen[role]
		if device == "" || device == firstboot.OnSystemDisk {
			continue
		}
		i := slices.IndexFunc(devices, func(d BlockDevice) bool { return d.Device == device })
		f := fault.New(fault.Invalid, "%.60s is not a blank disk", device).On("disks." + string(role)).WithHint("only a disk on which there is nothing can be chosen")
		switch {
		case i < 0 || devices[i].State != "blank" && devices[i].State != "blank-marked":
			all = append(all, f)
		case slices.Contains(used, device):
			f.Text, f.Hint = device+" was chosen for two roles", ""
			all = append(all, f)
		}
		used = append(used, device)
	}
	return errors.Join(all...)
}

// ApplySetup begins the first boot with the answers.
func (m *Machine) ApplySetup(ctx context.Context, in api.Answers) error {
	switch state := m.state(); {
	case state.Done():
		return fault.New(fault.Conflict, "the appliance is set up already").WithHint("change its settings instead")
	case state.Phase == firstboot.Running:
		return fault.New(fault.Conflict, "the first boot is under way").WithHint("wait for its end")
	}
	a, err := m.answers(in)
	if err := errors.Join(err, m.checkDisks(ctx, a.UseDisks)); err != nil {
		return err
	}
	if err := firstboot.SaveAnswers(m.path(setting.StateDir), a); err != nil {
		return err
	}
	// It is a oneshot: waiting for its job is waiting for the whole first boot, whose
	// progress its state shows.
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), setupTime)
		defer cancel()
		if err := m.o.System.Restart(ctx, firstbootUnit); err != nil {
			m.o.Log.Error("the first boot has failed", "err", err)
		}
	}()
	return nil
}

// requestDir has the key of a certificate that was requested during the first boot,
// when the data disk, where it belongs, may not be there yet.
const requestDir = setting.StateDir + "/request"

// SetupRequest makes a key, and a request for it (PKCS #10, PEM), during the first
// boot. The certificate is then given without a key.
func (m *Machine) SetupRequest(_ context.Context, names []string) (string, error) {
	if m.state().Done() {
		return "", fault.New(fault.Conflict, "the appliance is set up already").WithHint("request a certificate in the settings of the appliance")
	}
	if len(names) == 0 {
		return "", fault.New(fault.Invalid, "there is no name that it would be for").On("names")
	}
	if err := os.MkdirAll(m.path(requestDir), 0o700); err != nil {
		return "", err
	}
	return cert.Request(m.path(requestDir), names)
}

// setupTime is how long the first boot is waited for, for the log's sake.
const setupTime = 15 * time.Minute

// followCode keeps the code of the setup: there is one while the first boot waits
// for somebody, and none any more when the appliance is ready.
func (m *Machine) followCode(ctx context.Context) error {
	failed := ""
	return every(ctx, time.Second, func(context.Context) {
		state, err := firstboot.ReadState(m.path(setting.StateDir))
		switch {
		case err != nil: // nobody knows whether it is set up: it must not be open for another setup
		case state.Done(): // from here on there are passwords
			err = errors.Join(m.o.Code.Remove(), os.RemoveAll(m.path(requestDir)))
		case state.Phase == firstboot.Waiting, state.Phase == firstboot.Failed:
			err = m.o.Code.Ensure()
		}
		if err != nil && err.Error() != failed {
			failed = err.Error()
			m.o.Log.Error("cannot keep the code of the setup", "err", err)
		}
	})
}
