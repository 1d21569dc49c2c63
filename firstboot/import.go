package firstboot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/ovfenv"
	"berth/appliance/property"
	"berth/appliance/setting"
)

// imported is the file of the properties, which lives as long as the first boot.
type imported struct {
	ID     string            `json:"id"`
	Values map[string]string `json:"values"`
}

// gather makes the answers out of what the wizard has saved, or else of the OVF
// environment. ready is false if something is missing or wrong and the wizard is to
// say it; where there is to be no wizard, that is an error.
func (e *engine) gather(ctx context.Context) (ready bool, err error) {
	var faults []Fault
	f, err := loadAnswers(e.Dir)
	switch {
	case err == nil:
		e.answers, e.id = f.Answers, f.ID
	case errors.Is(err, fs.ErrNotExist):
		if faults, err = e.properties(ctx); err != nil {
			return false, e.fail(nil, err)
		}
	default:
		return false, e.fail(nil, err)
	}
	understood := faults
	for _, f := range Faults(e.answers.Check()) {
		if !slices.ContainsFunc(understood, func(have Fault) bool { return have.Field == f.Field && f.Field != "" }) {
			faults = append(faults, f)
		}
	}
	e.state.Faults, e.state.Missing = faults, e.answers.Missing()
	if faults == nil && e.state.Missing == nil {
		return true, nil
	}
	return false, e.refuse(ctx)
}

// refuse waits for the wizard, or fails if there is to be none.
func (e *engine) refuse(ctx context.Context) error {
	var why, names []string
	if e.state.Missing != nil {
		why = append(why, strings.Join(e.state.Missing, ", ")+" missing")
	}
	for _, f := range e.state.Faults {
		names = append(names, f.Field+": "+f.Text)
	}
	e.state.Text = strings.Join(append(why, names...), "; ")
	if !e.answers.Unattended {
		e.state.Phase = Waiting
		e.state.Hint = fmt.Sprintf("finish the setup at https://ADDRESS:%d or on the VM console", setting.ConsolePort)
		if err := e.save(); err != nil {
			return err
		}
		return e.reach(ctx)
	}
	e.state.Phase = Failed
	e.state.Hint = "shut the virtual machine down, correct its vApp properties and power it on; or empty install.unattended, and the wizard asks"
	err := e.save()
	return errors.Join(fault.New(fault.Invalid, "the unattended first boot cannot begin: %s", e.state.Text).WithHint("%s", e.state.Hint), err)
}

// reach sets up the network for the wizard, if the environment has said how.
func (e *engine) reach(ctx context.Context) error {
	n := e.answers.Settings.Network
	wrong := slices.ContainsFunc(e.state.Faults, func(f Fault) bool { return strings.HasPrefix(f.Field, "network.") })
	if e.Reach == nil || wrong || n.Hostname == "" && !n.Static() && n.IP6 == "" {
		return nil
	}
	if err := e.Reach(ctx, n); err != nil && ctx.Err() == nil {
		e.state.warn("the network is not up: " + fault.Of(err).Text)
		return e.save()
	}
	return ctx.Err()
}

// properties imports the OVF environment and makes answers of it. Its faults are
// for people; the error is one of the machine's.
func (e *engine) properties(ctx context.Context) ([]Fault, error) {
	have, err := loadImported(e.Dir)
	if err != nil {
		return nil, err
	}
	found, err := ovfenv.Read(ctx, e.Sources...)
	switch {
	case err == nil:
		if have, err = e.keep(have, found); err != nil {
			return nil, err
		}
	case !fault.Is(err, fault.NotFound):
		e.state.warn(fault.Of(err).Text)
		e.Log.Warn("the OVF environment is passed over", "err", err)
	}
	answers, err := FromProperties(have.Values)
	e.answers, e.id = answers, have.ID
	return Faults(err), nil
}

// keep writes the values down durably, and only then takes the secrets away from
// where they were. A password that is empty now was taken away by an earlier run.
func (e *engine) keep(have imported, found ovfenv.Found) (imported, error) {
	e.state.Source = found.Source.Name()
	e.note(found.Environment)
	values := maps.Clone(found.Environment.Properties)
	for _, p := range property.All() {
		if p.Password && strings.TrimSpace(values[p.Name()]) == "" && have.Values[p.Name()] != "" {
			values[p.Name()] = have.Values[p.Name()]
		}
	}
	e.state.Imported = sums(values)
	if !maps.Equal(values, have.Values) {
		have = imported{rand.Text(), values}
		if err := writeSecretFile(filepath.Join(e.Dir, propertiesFile), have); err != nil {
			return have, err
		}
	}
	e.scrub(found)
	return have, nil
}

// note warns of what is odd about an environment.
func (e *engine) note(env ovfenv.Environment) {
	if env.Repaired {
		e.state.warn("the OVF environment was not well-formed: values with & were taken as they stand; check the passwords")
	}
	for _, name := range env.Duplicates {
		e.state.warn(name + " came more than once in the OVF environment; the last value counts")
	}
	if unknown := Unknown(env.Properties); unknown != nil {
		e.state.warn("not known and passed over: " + strings.Join(unknown[:min(len(unknown), 10)], ", "))
	}
}

// scrub takes the secrets away from where the whole guest can read them. It is done
// as well as the host allows: vCenter writes them anew at the next power-on.
func (e *engine) scrub(found ovfenv.Found) {
	var names []string
	for _, p := range property.All() {
		if v := found.Environment.Properties[p.Name()]; p.Password && strings.TrimSpace(v) != "" {
			names = append(names, p.Name())
		}
	}
	source, ok := found.Source.(ovfenv.Scrubber)
	if names == nil || !ok {
		return
	}
	// The boot's own end must not stop this half-way; it is bounded by itself.
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := source.Scrub(ctx, found.Raw, names); err != nil {
		e.state.warn(fmt.Sprintf("the passwords could not be removed from the OVF environment (%s): programs in this machine can read them until the next power-on", found.Source.Name()))
		e.Log.Warn("cannot scrub the OVF environment", "err", err)
		return
	}
	e.Log.Info("the OVF environment has no passwords any more", "source", found.Source.Name())
}

// compare looks whether the properties have other values than at the import. A
// value that is gone, or an environment that is, says nothing: the host does not
// keep it. Passwords count at the first boot alone.
func (e *engine) compare(ctx context.Context) {
	found, err := ovfenv.Read(ctx, e.Sources...)
	if err != nil {
		if !fault.Is(err, fault.NotFound) {
			e.state.warn(fault.Of(err).Text)
		}
		return
	}
	e.scrub(found)
	now := sums(found.Environment.Properties)
	for _, p := range property.All() {
		then, known := e.state.Imported[p.Name()]
		sum, there := now[p.Name()]
		if there && sum != then && (known || sum != sumOf(p, p.Default)) {
			e.state.Changed = append(e.state.Changed, p.Name())
		}
	}
	e.state.Seen = now
	e.state.Offered = offered(e.state.Changed, found.Environment.Properties)
	if e.state.Changed != nil {
		e.state.warn(changedWarning + strings.Join(e.state.Changed, ", "))
		e.Log.Info("properties have changed since the first boot and are not applied", "properties", e.state.Changed)
	}
}

// sums are the SHA-256 sums of our properties' values, without passwords and what
// is empty.
func sums(values map[string]string) map[string]string {
	all := map[string]string{}
	for _, p := range property.All() {
		if v := strings.TrimSpace(values[p.Name()]); v != "" && !p.Password {
			all[p.Name()] = sumOf(p, v)
		}
	}
	return all
}

// sumOf is the sum of a value; "True" and "true" have the same.
func sumOf(p property.Property, v string) string {
	if p.Type == property.Boolean || p.Choices != nil {
		v = strings.ToLower(v)
	}
	sum := sha256.Sum256([]byte(v))
	return hex.EncodeToString(sum[:])
}

// damaged says of a file with secrets that it cannot be read, and nothing of what is
// in it.
func damaged(dir, name string) error {
	path := filepath.Join(dir, name)
	return fault.New(fault.Internal, "cannot use %s: the file is damaged", path).WithHint("remove it, restart berth-firstboot, and give the answers again")
}

// loadImported gives the values of the import while the first boot lasts.
func loadImported(dir string) (imported, error) {
	var f imported
	b, err := os.ReadFile(filepath.Join(dir, propertiesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return imported{}, damaged(dir, propertiesFile) // its text has secrets in it
	}
	return f, nil
}
