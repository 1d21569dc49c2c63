// Package api is the JSON of the agent's REST API: what client and server share.
//
// Paths are below Prefix. A section of the settings has the same names here as in
// /etc/berth/appliance.yaml. Secrets are sent and never sent back.
package api

import (
	"net/url"
	"strings"
	"time"

	"berth/appliance/setting"
)

// Prefix is before all paths.
const Prefix = "/api/v1"

// CSRFHeader has the token of a browser's session in requests that change
// something. Programs that send a password with each request need none.
const CSRFHeader = "X-CSRF-Token"

// The phases of the first boot.
const (
	Waiting = "waiting" // for answers
	Running = "running"
	Failed  = "failed"
	Ready   = "ready"
)

// About is what strangers may know.
type About struct {
	Product string `json:"product"`
	Phase   string `json:"phase"`
	// Code is whether somebody with the code from the VM's console may answer the
	// questions of the first boot.
	Code bool `json:"code"`
}

// Status is the appliance at a glance.
type Status struct {
	Product  string `json:"product"`
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Hostname string `json:"hostname"`
	// Registry are the URLs of the registry, the one to tell users first.
	Registry []string `json:"registry"`
	// Console are the URLs of this API's console.
	Console   []string `json:"console"`
	Addresses []string `json:"addresses"` // without prefix lengths
	// Fingerprint is the SHA-256 of the certificate on 443 and 5480, AA:BB:…
	Fingerprint string `json:"fingerprint"`
	Phase       string `json:"phase"`
	// Installed is true once the first boot has ended; a later boot has steps, too.
	Installed bool      `json:"installed"`
	Steps     []Step    `json:"steps"`   // of the first boot, in their order
	Missing   []string  `json:"missing"` // properties without which the first boot cannot go on
	Health    string    `json:"health"`  // healthy, degraded, unhealthy
	Problems  []Problem `json:"problems"`
	Warnings  []string  `json:"warnings"` // of the first boot
	// Code lets a browser into the setup. Only root sees it, over the unix socket,
	// and only while the first boot waits.
	Code string `json:"code,omitempty"`
	// ReadOnly is why the registry takes no pushes; empty if it does.
	ReadOnly string      `json:"read_only,omitempty"`
	Pending  *Pending    `json:"pending,omitempty"` // a change of the network that is not confirmed
	Power    *PowerState `json:"power,omitempty"`   // what is planned
	Machine  Machine     `json:"machine"`
	Now      time.Time   `json:"now"`
	Booted   time.Time   `json:"booted"`
}

// Machine is what the VM has.
type Machine struct {
	Processor   string  `json:"processor"` // its model
	Processors  int     `json:"processors"`
	MemoryBytes uint64  `json:"memory_bytes"`
	FreeBytes   uint64  `json:"free_bytes"` // memory that programs could still have
	Load1       float64 `json:"load1"`
	System      string  `json:"system"` // the distribution, with its version
}

// A Step is one of the first boot.
type Step struct {
	Name   string    `json:"name"`
	Title  string    `json:"title"`
	Status string    `json:"status"` // pending, running, done, failed
	Text   string    `json:"text,omitempty"`
	Hint   string    `json:"hint,omitempty"`
	Begun  time.Time `json:"begun,omitzero"`
	Ended  time.Time `json:"ended,omitzero"`
}

// A Problem is something that is wrong by itself, and what to do about it.
type Problem struct {
	Name  string `json:"name"`
	State string `json:"state"` // degraded, unhealthy
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
	// Explains are the checks that fail because of it.
	Explains []string `json:"explains,omitempty"`
}

// Health is all checks, root causes first.
type Health struct {
	State  string  `json:"state"`
	Checks []Check `json:"checks"`
}

// A Check is one question and its answer.
type Check struct {
	Name     string   `json:"name"`
	About    string   `json:"about"`
	State    string   `json:"state"`
	Text     string   `json:"text,omitempty"`
	Hint     string   `json:"hint,omitempty"`
	Causes   []string `json:"causes,omitempty"` // none: it is one itself
	Explains []string `json:"explains,omitempty"`
	Millis   int64    `json:"ms"`
}

// A Service is a unit of the appliance.
type Service struct {
	Name        string    `json:"name"` // berth-core
	Title       string    `json:"title"`
	State       string    `json:"state"`  // active, activating, deactivating, inactive, failed
	Detail      string    `json:"detail"` // systemd's sub-state, or why it failed
	Status      string    `json:"status,omitempty"`
	Since       time.Time `json:"since,omitzero"`
	MemoryBytes uint64    `json:"memory_bytes"`
	PID         int       `json:"pid,omitempty"`
	Restarts    int       `json:"restarts"`
	// Actions are what may be done to it: start, stop, restart.
	Actions []string `json:"actions"`
}

// Network is what was set, and how it is.
type Network struct {
	Settings setting.Network `json:"settings"`
	Now      NetworkNow      `json:"now"`
	Pending  *Pending        `json:"pending,omitempty"`
}

// NetworkNow is how the machine is reached now.
type NetworkNow struct {
	Interface string   `json:"interface"`
	MAC       string   `json:"mac"`
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses"` // with prefix lengths
	Gateway4  string   `json:"gateway4"`
	Gateway6  string   `json:"gateway6"`
	DNS       []string `json:"dns"`
	Search    []string `json:"search"`
	Hostname  string   `json:"hostname"`
	Source4   string   `json:"source4"` // dhcp, static
}

// Pending is a change of the network that is taken back at Until, unless it is
// confirmed over the new address.
type Pending struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
	// Applied is whether it is in force; it cannot be confirmed before.
	Applied bool `json:"applied"`
	// Addresses are where to confirm it, if they are known.
	Addresses []string `json:"addresses"`
}

// Confirm keeps a change of the network. An empty id is the one that is pending.
type Confirm struct {
	ID string `json:"id"`
}

// Names are what clients call the appliance.
type Names struct {
	// Hostname is the machine's own name; it is changed with the network.
	Hostname string `json:"hostname"`
	// Names are more names and addresses for the certificate; the first is the one
	// that users are told.
	Names []string `json:"names"`
	// Certificate are the names in the certificate that is served.
	Certificate []string `json:"certificate"`
	// Missing are names that the certificate has not; only with a supplied one.
	Missing []string `json:"missing,omitempty"`
}

// Time is what was set, and how it is.
type Time struct {
	Settings     setting.Time `json:"settings"`
	Now          time.Time    `json:"now"`
	Zone         string       `json:"zone"`
	Synchronized bool         `json:"synchronized"`
	Server       string       `json:"server"`
	Text         string       `json:"text"` // all of it in words
}

// TimeTest asks a server for the time. Without one: those of the settings.
type TimeTest struct {
	Server string `json:"server"`
}

// TimeAnswer is what a time server said, or why it did not.
type TimeAnswer struct {
	Server       string  `json:"server"`
	OffsetMillis float64 `json:"offset_ms"`
	RTTMillis    float64 `json:"rtt_ms"`
	Stratum      int     `json:"stratum"`
	Fault        *Fault  `json:"fault,omitempty"`
}

// SSH is whether sshd runs, and for whom.
type SSH struct {
	Enabled bool      `json:"enabled"`
	Until   time.Time `json:"until,omitzero"`
	// Keys are root's authorized keys, as in authorized_keys; absent in a request:
	// they stay as they are.
	Keys []string `json:"keys"`
	// Fingerprints are those of the machine's own keys.
	Fingerprints []string `json:"fingerprints"`
}

// SetSSH changes SSH. What is absent stays as it is.
type SetSSH struct {
	Enabled *bool      `json:"enabled,omitempty"`
	Until   *time.Time `json:"until,omitempty"`
	// Hours from now until it is turned off again; instead of Until. 0: it stays.
	Hours *float64  `json:"hours,omitempty"`
	Keys  *[]string `json:"keys,omitempty"`
}

// SetPassword changes a password. Current is the caller's own, which a browser's
// session has to show again.
type SetPassword struct {
	Password string `json:"password"`
	Current  string `json:"current,omitempty"`
}

// Fault is one of the things that are wrong.
type Fault struct {
	Kind  string `json:"kind"`            // invalid, not found, conflict … (package fault)
	Field string `json:"field,omitempty"` // what is wrong: network.ip4
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // what to do
}

// Errors is the body of every answer that is no success.
type Errors struct {
	Errors []Fault `json:"errors"`
}

// DockerHost is what docker login is given for the registry at one of the URLs: its
// host, and the port if it is not 443. A name without a dot is none for Docker, which
// would look for it on Docker Hub.
func DockerHost(urls []string) string {
	found := ""
	for _, s := range urls {
		u, err := url.Parse(s)
		switch {
		case err != nil:
			continue
		case strings.ContainsAny(u.Host, ".:"):
			return u.Host
		case found == "":
			found = u.Host
		}
	}
	return found
}
