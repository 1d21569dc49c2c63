package firstboot

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/appliance/diskrole"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// The phases of a boot.
const (
	Waiting = "waiting" // for answers, from the wizard
	Running = "running"
	Failed  = "failed" // a step, or an unattended first boot with something missing
	Ready   = "ready"
)

// The states of a step.
const (
	StepPending = "pending"
	StepRunning = "running"
	StepDone    = "done"
	StepFailed  = "failed"
)

// The files below the state directory.
const (
	stateFile      = "state.json"
	answersFile    = "answers.json"    // from the wizard, with secrets
	propertiesFile = "properties.json" // from the OVF environment, with secrets
)

// A StepState is how far one step is.
type StepState struct {
	Name   string    `json:"name"`
	Title  string    `json:"title"`
	Status string    `json:"status"`         // pending, running, done, failed
	Text   string    `json:"text,omitempty"` // what was found or done, or why it failed
	Hint   string    `json:"hint,omitempty"` // what to do about it
	Begun  time.Time `json:"begun,omitzero"`
	Ended  time.Time `json:"ended,omitzero"`
}

// A DiskState is what is known of a role's disk from earlier boots.
type DiskState struct {
	// UUID is the file system's; empty: the role has a directory on the system disk.
	UUID string `json:"uuid,omitempty"`
	// TakenOver is true if the disk came with the files of an earlier appliance.
	TakenOver bool `json:"taken_over,omitempty"`
}

// State is what the first boot has done and how this boot goes. It has no secrets.
type State struct {
	Phase string      `json:"phase"`
	Text  string      `json:"text,omitempty"` // why it waits or has failed, in a line
	Hint  string      `json:"hint,omitempty"`
	Steps []StepState `json:"steps"`
	// Source is where the OVF environment was at the import; empty: nowhere.
	Source string `json:"source,omitempty"`
	// Missing are properties without which it cannot go on, Faults what is wrong
	// with the others.
	Missing []string `json:"missing,omitempty"`
	Faults  []Fault  `json:"faults,omitempty"`
	// Changed are properties that have other values at this boot than at the
	// import; none of them has been applied.
	Changed []string `json:"changed,omitempty"`
	// Offered are the values of those of them that settings can have: see Offer.
	Offered  map[string]string `json:"offered,omitempty"`
	Warnings []string          `json:"warnings,omitempty"`
	// Installed is when the first boot ended; zero: not yet.
	Installed time.Time `json:"installed,omitzero"`
	// Boot is the kernel's boot id, so that one boot is told from the next.
	Boot string `json:"boot,omitempty"`

	// Imported are the SHA-256 sums of the properties' values at the import,
	// without passwords.
	Imported map[string]string `json:"imported,omitempty"`
	// Seen are those at this boot's end; Settle makes them the imported ones.
	Seen map[string]string `json:"seen,omitempty"`
	// Disks are the roles that have a place, and must have it again.
	Disks map[diskrole.Role]DiskState `json:"disks,omitempty"`
	// Replace are devices that shall be the disks of roles from the next run on,
	// because those that they had are lost; see Replace.
	Replace map[diskrole.Role]string `json:"replace,omitempty"`
	// Answers is the id of the answers that the steps were done with.
	Answers string `json:"answers,omitempty"`
}

// Done reports whether the first boot has ended, at this boot or earlier.
func (s State) Done() bool { return !s.Installed.IsZero() }

// Failure gives the step that has failed.
func (s State) Failure() (StepState, bool) {
	for _, step := range s.Steps {
		if step.Status == StepFailed {
			return step, true
		}
	}
	return StepState{}, false
}

// ReadState reads the state in dir. Before the first boot there is none, and after
// that there is an earlier boot's until the engine has begun: the phase is Running
// then, for the machine has just been switched on.
func ReadState(dir string) (State, error) {
	s := State{Phase: Running}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("cannot read the first boot's state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fault.Wrap(fault.Precondition, err, "cannot use the first boot's state in %s: the file is damaged", filepath.Join(dir, stateFile)).
			WithHint("remove it and restart berth-firstboot: it asks for passwords and network anew, and takes over what is on the disks")
	}
	if now := bootID(); s.Boot != "" && now != "" && s.Boot != now {
		s.Phase, s.Text, s.Hint = Running, "", ""
	}
	return s, nil
}

// bootID tells one boot of the machine from the next; "" where the kernel does not.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func writeState(dir string, s State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, stateFile), append(b, '\n'), 0o600)
}

// stored is the answers' file. The secrets stand beside them, for they marshal as
// "redacted".
type stored struct {
	ID      string            `json:"id"`
	Answers Answers           `json:"answers"`
	Secrets map[string]string `json:"secrets"`
}

// SaveAnswers keeps the answers, which should be complete and checked, for the
// next Run, which does every step with them. Once the first boot has ended it is a
// fault.Precondition.
func SaveAnswers(dir string, a Answers) error {
	s, err := ReadState(dir)
	if err != nil {
		return err
	}
	if s.Done() {
		return fault.New(fault.Precondition, "the first boot has ended").WithHint("change the settings in the appliance console")
	}
	f := stored{ID: rand.Text(), Answers: a, Secrets: map[string]string{}}
	for name, s := range a.secrets() {
		if *s != "" {
			f.Secrets[name] = s.Reveal()
		}
	}
	return writeSecretFile(filepath.Join(dir, answersFile), f)
}

// LoadAnswers gives the answers that were saved, or else those that came with the
// OVF environment, as far as they could be understood: a wizard begins with them.
// found is false if there are none; the answers are then NewAnswers.
func LoadAnswers(dir string) (a Answers, found bool, err error) {
	f, err := loadAnswers(dir)
	if err == nil {
		return f.Answers, true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return NewAnswers(), false, err
	}
	properties, err := loadImported(dir)
	if err != nil || len(properties.Values) == 0 {
		return NewAnswers(), false, err
	}
	a, _ = FromProperties(properties.Values) // the faults are in the state
	return a, true, nil
}

func loadAnswers(dir string) (stored, error) {
	f := stored{Answers: NewAnswers()}
	b, err := os.ReadFile(filepath.Join(dir, answersFile))
	if err != nil {
		return f, fmt.Errorf("cannot read the answers: %w", err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, damaged(dir, answersFile)
	}
	for name, s := range f.Answers.secrets() {
		*s = secret.Text(f.Secrets[name])
	}
	return f, nil
}

func writeSecretFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o600)
}
