package api

// Answers are what the first boot asks for.
type Answers struct {
	// Values are by the names of the OVF properties, class.key: network.hostname,
	// appliance.root_password … A file that is uploaded is a value, too.
	Values map[string]string `json:"values"`
	// Disks are the blank disks without a mark that somebody has chosen, by role:
	// data, database, log. Nothing else makes the first boot write to such a disk.
	// "system" in place of a device leaves the role's files on the system disk.
	Disks map[string]string `json:"disks,omitempty"`
}

// Setup is where the first boot stands.
type Setup struct {
	Phase string `json:"phase"`
	Text  string `json:"text,omitempty"` // why it waits or has failed
	Hint  string `json:"hint,omitempty"`
	Steps []Step `json:"steps"`
	// Answers are what is known so far, without secrets.
	Answers Answers `json:"answers"`
	// Secrets are the names of those that are there already and need not be given
	// again.
	Secrets  []string    `json:"secrets"`
	Missing  []string    `json:"missing"`
	Faults   []Fault     `json:"faults"`
	Warnings []string    `json:"warnings"`
	Disks    []SetupDisk `json:"disks"`
	Network  NetworkNow  `json:"network"`
	// Registry, Console and Fingerprint are where the appliance is, once it is ready.
	Registry    []string `json:"registry"`
	Console     []string `json:"console"`
	Fingerprint string   `json:"fingerprint"`
}

// SetupDisk is a disk that was found.
type SetupDisk struct {
	Device string `json:"device"`
	Bytes  uint64 `json:"bytes"`
	Role   string `json:"role,omitempty"`
	State  string `json:"state"` // marked, ours, blank, foreign, system
}
