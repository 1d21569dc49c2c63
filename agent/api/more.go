package api

import (
	"time"

	"berth/appliance/setting"
)

// Certificates are the one that is served, and the authority behind it.
type Certificates struct {
	Server Certificate `json:"server"`
	// CA is the appliance's own authority; absent if it has none.
	CA *Certificate `json:"ca,omitempty"`
	// Supplied is whether an administrator has given the certificate. Then it is not
	// renewed by itself.
	Supplied bool `json:"supplied"`
	// Temporary is whether the console shows a certificate of its own for now, since
	// the appliance has none yet.
	Temporary bool `json:"temporary"`
	// Request is whether a key waits for the certificate that was requested for it.
	Request bool `json:"request"`
	// Warnings are what clients may stumble over.
	Warnings []string `json:"warnings"`
}

// Certificate is a certificate's content.
type Certificate struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Names       []string  `json:"names"`
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
	Fingerprint string    `json:"fingerprint"` // SHA-256, AA:BB:…
}

// UploadCertificate gives the appliance a certificate. Values may be mangled as
// clients do it: in one line, as base64 of PEM, with everything in one field.
type UploadCertificate struct {
	Certificate string `json:"certificate"`
	Chain       string `json:"chain,omitempty"`
	// Key may be absent if it was made here, by a request.
	Key        string `json:"key,omitempty"`
	Passphrase string `json:"passphrase,omitempty"`
}

// CertificateRequest asks for a request (PKCS #10) to take to a certification
// authority.
type CertificateRequest struct {
	// Names are for the certificate; none: those of the appliance.
	Names []string `json:"names,omitempty"`
}

// Disk is the file system of a role.
type Disk struct {
	Role    string `json:"role"`
	Mount   string `json:"mount"`
	Device  string `json:"device,omitempty"` // empty: a directory of the system disk
	Bytes   uint64 `json:"bytes"`            // of the file system
	Used    uint64 `json:"used_bytes"`
	Percent int    `json:"percent"` // of what can be used, rounded up
	// DeviceBytes is the size of the disk under it; more than Bytes: it can grow.
	DeviceBytes uint64 `json:"device_bytes"`
	State       string `json:"state"` // ok, warning, read-only, missing
	Text        string `json:"text,omitempty"`
}

// DiskReplacement is the disk that a role gets for its lost one.
type DiskReplacement struct {
	Device string `json:"device"` // such as /dev/sdd
}

// Disks are all, and the limits.
type Disks struct {
	Disks    []Disk        `json:"disks"`
	Settings setting.Disks `json:"settings"`
	ReadOnly string        `json:"read_only,omitempty"` // why the registry takes no pushes
}

// Proxy is the proxy for outgoing connections. The password is only sent; absent,
// it stays as it is.
type Proxy struct {
	setting.Proxy
	Password    *string `json:"password,omitempty"`
	HasPassword bool    `json:"has_password"`
}

// ProxyTest tries to reach a URL. Proxy is the one to try; absent: the one that is
// set.
type ProxyTest struct {
	URL   string `json:"url"`
	Proxy *Proxy `json:"proxy,omitempty"`
}

// Tested says how a test came out.
type Tested struct {
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// Syslog are the collectors that get all log messages.
type Syslog struct {
	Forward []Collector `json:"forward"`
	// Now is how they get on, as the log service says; absent if it does not answer.
	Now []CollectorState `json:"now,omitempty"`
}

// Collector is where log messages are sent.
type Collector struct {
	setting.Forward
	// CACertificate is PEM to trust instead of the system's authorities. It is
	// written to a file, whose name CA has.
	CACertificate string `json:"ca_certificate,omitempty"`
}

// CollectorState is how a collector gets on.
type CollectorState struct {
	Name    string `json:"name"`
	To      string `json:"to"`
	Waiting int64  `json:"waiting"`
	Error   string `json:"error,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// SyslogTest sends a test message to a collector of the settings.
type SyslogTest struct {
	Name string `json:"name"`
}

// Bundle is a support bundle.
type Bundle struct {
	ID    string    `json:"id"`
	State string    `json:"state"` // running, done, failed
	Begun time.Time `json:"begun"`
	Ended time.Time `json:"ended,omitzero"`
	Bytes int64     `json:"bytes"`
	Doing string    `json:"doing,omitempty"` // what is being collected
	Fault *Fault    `json:"fault,omitempty"`
}

// Applied says what applying a configuration changed, or would.
type Applied struct {
	// Changes are the fields that differ.
	Changes []Change `json:"changes"`
	// Actions are what follows, in words: what is written, applied, restarted.
	Actions []string `json:"actions"`
	// Pending is there if the network was changed.
	Pending *Pending `json:"pending,omitempty"`
	// Done is whether it was applied; false for a validation.
	Done bool `json:"done"`
}

// Change is one field of the settings.
type Change struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// Power asks for a reboot or a shutdown.
type Power struct {
	// Seconds until it begins; 0 to 86,400.
	Seconds int    `json:"seconds"`
	Reason  string `json:"reason,omitempty"`
}

// PowerState is what is planned.
type PowerState struct {
	Action string    `json:"action"` // reboot, shutdown
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by"`
}

// Login asks for a session: with name and password, or with the code that the
// VM's console shows during the first boot.
type Login struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	Code     string `json:"code,omitempty"`
}

// Session is one that has begun.
type Session struct {
	User  string    `json:"user"` // admin, root, setup
	CSRF  string    `json:"csrf"`
	Begun time.Time `json:"begun"`
	// Ends is when it ends without another request.
	Ends time.Time `json:"ends"`
}

// Line is a line of a log.
type Line struct {
	Time      time.Time `json:"time"`
	Component string    `json:"component"`
	Level     string    `json:"level"`
	Text      string    `json:"text"`
}

// Event is an entry of the audit trail.
type Event struct {
	Time   time.Time `json:"time"`
	User   string    `json:"user"`
	From   string    `json:"from"` // an address, or "unix socket"
	Action string    `json:"action"`
	Target string    `json:"target,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Result string    `json:"result"` // ok, or the fault's text
}
