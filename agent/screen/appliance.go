package screen

import (
	"context"
	"time"

	"berth/appliance/secret"
	"berth/appliance/setting"
)

// Appliance is what the screen shows and changes: the agent, asked over its unix
// socket. Every call is bounded by its context; faults carry words for the person
// at the console.
type Appliance interface {
	// Status is what the front shows.
	Status(ctx context.Context) (Status, error)
	// Login says whether the password is root's or the console's; after too many
	// wrong ones it is refused for a while (fault.TooMany, the hint says how long).
	Login(ctx context.Context, account string, password secret.Text) error

	// Network gives the state of the interface and the settings it came from.
	Network(ctx context.Context) (Network, error)
	// ChangeNetwork applies settings that are taken back after a while unless
	// they are confirmed.
	ChangeNetwork(ctx context.Context, n setting.Network) (Pending, error)
	ConfirmNetwork(ctx context.Context, id string) error
	RevertNetwork(ctx context.Context) error
	// RestoreAccess gives the network back to DHCP and opens the firewall for the
	// console.
	RestoreAccess(ctx context.Context) error

	// SetPassword sets the password of "root" or "admin" (the console's).
	SetPassword(ctx context.Context, account string, password secret.Text) error
	SSH(ctx context.Context) (setting.SSH, error)
	SetSSH(ctx context.Context, s setting.SSH) error

	Services(ctx context.Context) ([]Service, error)
	// Act starts, stops or restarts a service.
	Act(ctx context.Context, service, verb string) error
	// Logs gives the newest lines of the journal or of the log service, oldest first.
	Logs(ctx context.Context, source string, lines int) ([]string, error)

	Certificate(ctx context.Context) (Certificate, error)
	RenewCertificate(ctx context.Context) error
	// SupportBundle makes a bundle and gives the file's name when it is there.
	SupportBundle(ctx context.Context) (string, error)
	// Power is "reboot" or "shutdown".
	Power(ctx context.Context, verb string) error

	// BeginProof gives the code that has to be set as guestinfo.berth.reset, and
	// Proved says whether it is.
	BeginProof(ctx context.Context) (string, error)
	Proved(ctx context.Context) (bool, error)

	// Check gives everything that is wrong with the answers of the setup, Apply
	// begins the first boot with them.
	Check(ctx context.Context, a Answers) ([]Fault, error)
	Apply(ctx context.Context, a Answers) error
	// Disks are those that the setup can choose from.
	Disks(ctx context.Context) ([]Disk, error)
}

// The phases of the first boot.
const (
	Waiting = "waiting" // for answers
	Running = "running"
	Failed  = "failed"
	Ready   = "ready"
)

// Status is what the front shows.
type Status struct {
	Version    string
	Hostname   string
	Processor  string // its model
	Processors int
	Memory     uint64 // bytes
	Addresses  []string
	Registry   []string // URLs, the one to tell users first
	Console    []string
	// Fingerprint is the SHA-256 of the served certificate, AA:BB:…
	Fingerprint string
	Phase       string
	Steps       []Step
	// Problems are what is wrong, root causes first.
	Problems []Problem
	// Code lets a browser into the setup; empty unless Phase is Waiting.
	Code string
	// Missing are the properties without which the setup cannot go on.
	Missing []string
}

// A Step is one of the first boot.
type Step struct{ Name, Title, Status, Text, Hint string }

// A Problem is what is wrong and what to do about it.
type Problem struct{ Text, Hint string }

// A Fault is what is wrong with an answer; Field is the property's name.
type Fault struct{ Field, Text, Hint string }

// Network is how the machine is reached now, and what was set.
type Network struct {
	Interface, MAC string
	Up             bool
	Addresses      []string
	Gateways       []string
	DNS, Search    []string
	Hostname       string
	Settings       setting.Network
	Pending        *Pending
}

// Pending is a change of the network that waits for its confirmation.
type Pending struct {
	ID    string
	Until time.Time
}

// A Service is one of the appliance's units.
type Service struct {
	Name, Title, State, Text string
	Memory                   uint64
	Since                    time.Time
}

// Certificate is the one that is served.
type Certificate struct {
	Subject, Issuer, Fingerprint string
	Names                        []string
	From, Until                  time.Time
	Supplied                     bool // by an administrator
}

// A Disk is one that the setup found.
type Disk struct {
	Device string
	Bytes  uint64
	Role   string
	State  string // "marked", "ours", "blank", "foreign", "system"
}

// Answers are what the setup asks for: values by the names of the OVF properties,
// and the blank disks that were chosen, by role.
type Answers struct {
	Values map[string]string
	Disks  map[string]string
}
