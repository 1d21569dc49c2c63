package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/ovfenv"
	"berth/appliance/setting"
)

// A Step is one part of the work. Check and Apply may be called any number of
// times; a cut at any instant leaves what the next Check recognises or the next
// Apply overwrites.
type Step struct {
	Name  string // for programs: "disks"
	Title string // for people: "Prepare the disks"
	// EveryBoot is true for what is gone after a reboot, and must be quick.
	EveryBoot bool
	// Limit is how long it may take.
	Limit time.Duration
	// Check reports whether there is nothing to do. May be nil: never.
	Check func(context.Context, *Work) (bool, error)
	// Apply does it. The text says what was done or found, in a few words.
	Apply func(context.Context, *Work) (text string, err error)
}

// Work is what the steps are given, and where they note what they have found.
type Work struct {
	Answers Answers // at a later boot the settings alone
	First   bool    // the first boot has not ended yet
	Log     *slog.Logger
	// Disks are the places of the roles, as far as they are known from earlier
	// boots; Place records one.
	Disks map[diskrole.Role]DiskState
	// Replace are devices that somebody wants in place of the disks in Disks. What is
	// refused is to be removed.
	Replace map[diskrole.Role]string
	state   *State
	save    func() error
}

// Place records where a role's files are, durably: from now on it must be there at
// every boot.
func (w *Work) Place(role diskrole.Role, d DiskState) error {
	delete(w.Replace, role)
	if have, ok := w.Disks[role]; ok && have == d {
		return nil
	}
	w.Disks[role] = d
	return w.save()
}

// Warn notes what an administrator should know although nothing has failed.
func (w *Work) Warn(format string, args ...any) {
	w.state.warn(fmt.Sprintf(format, args...))
}

func (s *State) warn(text string) {
	for _, have := range s.Warnings {
		if have == text {
			return
		}
	}
	s.Warnings = append(s.Warnings, text)
}

// Options are what Run works with.
type Options struct {
	Dir      string          // of the state; empty: setting.StateDir
	Settings string          // the settings file; empty: setting.File
	Sources  []ovfenv.Source // of the OVF environment, in their order
	Steps    []Step
	Log      *slog.Logger
	// Reach is called before it waits for the wizard, with network settings that
	// came with the environment and are right: or the wizard could not be reached in
	// a network without DHCP. May be nil.
	Reach func(context.Context, setting.Network) error
}

// Run does what this boot needs: the first boot, or what is left of it; at later
// boots only the steps that every boot needs. It gives nil when the appliance is
// ready and when it waits for the wizard; a step that fails is an error, which the
// state has too. Run may be killed at any instant and called again.
func Run(ctx context.Context, o Options) error {
	if o.Dir == "" {
		o.Dir = setting.StateDir
	}
	if o.Settings == "" {
		o.Settings = setting.File
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the state directory: %w", err)
	}
	unlock, err := lock(filepath.Join(o.Dir, "firstboot.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	e := &engine{Options: o}
	if e.state, err = ReadState(o.Dir); err != nil {
		return err
	}
	e.begin()
	if e.state.Done() {
		return e.laterBoot(ctx)
	}
	ready, err := e.gather(ctx)
	if err != nil || !ready {
		return err
	}
	return e.firstBoot(ctx)
}

// lock keeps a second Run out, for as long as the first lives.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the first boot's state: %w", err)
	}
	// A program that another thread is about to start has the file open for an
	// instant, and the lock with it.
	for range 20 {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Conflict, err, "the first boot is running already").WithHint("see berth-agent firstboot status")
	}
	return func() { f.Close() }, nil
}

type engine struct {
	Options
	state   State
	answers Answers
	id      string // of the answers
}

// begin forgets what counted for an earlier run.
func (e *engine) begin() {
	s := &e.state
	s.Phase, s.Text, s.Hint, s.Missing, s.Faults, s.Warnings = Running, "", "", nil, nil, nil
	s.Changed, s.Offered, s.Seen = nil, nil, nil
	if now := bootID(); s.Boot != now {
		s.Boot, s.Replace = now, nil // a device has its name for one boot
	}
	old := map[string]StepState{}
	for _, step := range s.Steps {
		old[step.Name] = step
	}
	s.Steps = nil
	for _, step := range e.Steps {
		state, ok := old[step.Name]
		if !ok || state.Status != StepDone || step.EveryBoot {
			state = StepState{Name: step.Name, Status: StepPending}
		}
		state.Title = step.Title
		s.Steps = append(s.Steps, state)
	}
}

func (e *engine) save() error { return writeState(e.Dir, e.state) }

// firstBoot does the steps that are not done with these answers, then forgets the
// answers.
func (e *engine) firstBoot(ctx context.Context) error {
	if e.state.Answers != e.id {
		e.state.Answers = e.id
		for i := range e.state.Steps {
			s := &e.state.Steps[i]
			*s = StepState{Name: s.Name, Title: s.Title, Status: StepPending}
		}
	}
	if err := e.save(); err != nil {
		return err
	}
	if err := e.run(ctx, func(StepState) bool { return true }); err != nil {
		return err
	}
	// What is written first decides: with the date there, the answers are rubbish.
	e.state.Phase, e.state.Installed, e.state.Answers = Ready, time.Now().UTC(), ""
	if err := e.save(); err != nil {
		return err
	}
	return e.forget()
}

// forget removes the files with secrets.
func (e *engine) forget() error {
	var all []error
	for _, name := range []string{answersFile, propertiesFile} {
		if err := os.Remove(filepath.Join(e.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, fmt.Errorf("cannot remove the answers: %w", err))
		}
	}
	return errors.Join(all...)
}

// laterBoot does the steps of every boot, and only then looks whether somebody has
// changed the properties: nothing waits for that.
func (e *engine) laterBoot(ctx context.Context) error {
	if err := e.forget(); err != nil { // the first boot may have been cut off there
		return err
	}
	s, err := setting.Read(e.Settings)
	if err != nil {
		return e.fail(nil, err)
	}
	e.answers = Answers{Settings: s}
	every := map[string]bool{}
	for _, step := range e.Steps {
		every[step.Name] = step.EveryBoot
	}
	if err := e.run(ctx, func(s StepState) bool { return every[s.Name] }); err != nil {
		return err
	}
	e.state.Phase = Ready
	if err := e.save(); err != nil {
		return err
	}
	e.compare(ctx)
	return e.save()
}

// run does the wanted steps that are not done, in their order, up to the first that
// fails.
func (e *engine) run(ctx context.Context, wanted func(StepState) bool) error {
	for i, step := range e.Steps {
		state := &e.state.Steps[i]
		if state.Status == StepDone || !wanted(*state) {
			continue
		}
		*state = StepState{Name: step.Name, Title: step.Title, Status: StepRunning, Begun: time.Now().UTC()}
		if err := e.save(); err != nil {
			return err
		}
		text, err := e.do(ctx, step)
		if ctx.Err() != nil {
			return ctx.Err() // asked to stop: nothing has failed, and the next run goes on here
		}
		state.Ended = time.Now().UTC()
		if err != nil {
			return e.fail(state, err)
		}
		state.Status, state.Text = StepDone, text
		e.Log.Info("step done", "step", step.Name, "what", text, "ms", state.Ended.Sub(state.Begun).Milliseconds())
		if err := e.save(); err != nil {
			return err
		}
	}
	return nil
}

// do checks and applies one step within its time.
func (e *engine) do(ctx context.Context, step Step) (text string, err error) {
	limited, cancel := context.WithTimeout(ctx, step.Limit)
	defer cancel()
	if e.state.Disks == nil {
		e.state.Disks = map[diskrole.Role]DiskState{}
	}
	w := &Work{Answers: e.answers, First: !e.state.Done(), Disks: e.state.Disks, Replace: e.state.Replace, Log: e.Log.With("step", step.Name), state: &e.state, save: e.save}
	if step.Check != nil {
		done, err := step.Check(limited, w)
		if err != nil || done {
			return "it was done already", err
		}
	}
	text, err = step.Apply(limited, w)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		hint := "the machine may be very slow just now: try again"
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Hint != "" {
			hint = f.Hint
		}
		err = fault.Wrap(fault.Unavailable, err, "it was not done within %v", step.Limit).WithHint("%s", hint)
	}
	return text, err
}

// fail notes why the boot has failed, in a step or outside of them.
func (e *engine) fail(step *StepState, err error) error {
	faults := Faults(err)
	var texts []string
	for _, f := range faults {
		text := f.Text
		if f.Field != "" {
			text = f.Field + ": " + text
		}
		texts = append(texts, text)
		if e.state.Hint == "" {
			e.state.Hint = f.Hint
		}
	}
	if e.state.Hint == "" {
		e.state.Hint = "look at the journal (journalctl -u berth-firstboot), and try again"
	}
	e.state.Phase, e.state.Text = Failed, strings.Join(texts, "; ")
	if step != nil {
		step.Status, step.Text, step.Hint = StepFailed, e.state.Text, e.state.Hint
		e.state.Text = step.Title + ": " + e.state.Text
		err = fmt.Errorf("%s: %w", step.Title, err)
	} else {
		e.state.Faults = faults
	}
	return errors.Join(err, e.save())
}
