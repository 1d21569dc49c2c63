// Package setting is the one place that reads configuration.
//
// The file is YAML; every field is documented where it is declared, has a sane
// zero value, and is checked by Check, which reports all faults at once. The
// command line's flags fill in the same struct, so `berth up` and the units of
// the appliance run the same code from the same settings.
package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"berth/appliance/fault"
)

// File is where the appliance keeps its settings.
const File = "/etc/berth/appliance.yaml"

// Settings are all that the services need to know before they start. What may
// change while they run is in the database.
type Settings struct {
	// Data is the directory of everything that must survive: keys, certificates,
	// the private database and, unless Storage says otherwise, blobs.
	Data string `yaml:"data"`
	// Run is the directory of the unix sockets. Empty: run below Data, or a
	// short path in /tmp where that is too long for a socket.
	Run string `yaml:"run,omitempty"`
	// HTTPS is the address of the front door, host:port.
	HTTPS string `yaml:"https"`
	// HTTP is an address without TLS, host:port; empty: none.
	HTTP string `yaml:"http,omitempty"`
	// RedirectHTTP makes HTTP answer with a redirect to HTTPS instead of serving.
	RedirectHTTP bool `yaml:"redirect_http,omitempty"`
	// Hostnames are more names and addresses for the certificate, beside this
	// machine's. The first is the one that users are told.
	Hostnames []string `yaml:"hostnames,omitempty"`
	// Certificate and PrivateKey are PEM files to use instead of Berth's own CA.
	Certificate string `yaml:"certificate,omitempty"`
	PrivateKey  string `yaml:"private_key,omitempty"`
	// Database is a PostgreSQL URL or key=value string. Empty: `berth up` runs a
	// private cluster in Data. Put a password into a passfile, not here.
	Database string `yaml:"database,omitempty"`
	// Storage is where blobs are: a directory (empty: storage below Data), or
	// s3://BUCKET[/PREFIX]?settings=FILE, where FILE has what else the S3 driver
	// needs (see docs/admin.md) and defaults to s3.yaml below Data.
	Storage string `yaml:"storage,omitempty"`
	// TrashDays is how long deleted tags and artifacts can be restored; 0 means
	// 7, and -1 turns the recycle bin off.
	TrashDays int `yaml:"trash_days,omitempty"`
	// GraceHours is how long a blob that nothing refers to is kept for pushes
	// that are under way; 0 means 24.
	GraceHours int `yaml:"grace_hours,omitempty"`
	// SparseIndexes accepts image indexes of which some manifests are missing.
	SparseIndexes bool `yaml:"sparse_indexes,omitempty"`
	// MaxConnections limits clients at the front door; 0 means 20,000.
	MaxConnections int `yaml:"max_connections,omitempty"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []string `yaml:"trusted_proxies,omitempty"`
	// AuditChain links the entries of the audit trail by keyed hashes, so that
	// changes by hand show. All nodes that share a database say the same.
	AuditChain bool `yaml:"audit_chain,omitempty"`
	// AllowTargets are networks that webhooks, replications and directories may
	// connect to although they are this machine's own, or the local link's.
	AllowTargets []string `yaml:"allow_targets,omitempty"`
	// LogLevel is debug, info, warn or error; empty means info.
	LogLevel string `yaml:"log_level,omitempty"`
	// AccessLog is a file for the front door's access log, beside the log service;
	// empty: the log service alone, "-": standard error, "off": none at all.
	AccessLog string `yaml:"access_log,omitempty"`
	// Logs say how the log service keeps and forwards messages.
	Logs Logs `yaml:"logs,omitempty"`
	// Metrics is the loopback address, host:port, where Prometheus finds the
	// metrics; services that run as processes of their own take the ports after
	// it, in the order of MetricsPorts. Empty: 127.0.0.1:9180, and if another
	// program has that port only a warning. "off": none.
	Metrics string `yaml:"metrics,omitempty"`
	// Traces is where spans go by OTLP over HTTP: http(s)://host:port. Empty: there
	// are none.
	Traces string `yaml:"traces,omitempty"`

	// Proxy is for outgoing HTTP: webhooks, OIDC providers, the collector of traces.
	Proxy Proxy `yaml:"proxy,omitempty"`

	// What follows is the machine's, and the agent's to apply: `berth up` and the
	// services leave it alone.

	// Network is how the machine is reached and reaches others.
	Network Network `yaml:"network,omitempty"`
	// Time is the time zone, and where the time comes from.
	Time Time `yaml:"time,omitempty"`
	// SSH is whether sshd runs.
	SSH SSH `yaml:"ssh,omitempty"`
	// Firewall says from where the open ports are reached.
	Firewall Firewall `yaml:"firewall,omitempty"`
	// VCenter is the vCenter Server that the appliance reports to.
	VCenter VCenter `yaml:"vcenter,omitempty"`
	// Disks are the limits of their use.
	Disks Disks `yaml:"disks,omitempty"`
}

// Default are the settings of `berth up` before its flags.
func Default() Settings {
	return Settings{Data: "./data", HTTPS: "127.0.0.1:8443"}
}

// Read decodes a settings file over the defaults and checks it. Unknown keys are
// refused. Errors are Invalid faults that name file and field.
func Read(path string) (Settings, error) {
	f, err := os.Open(path)
	if err != nil {
		return Settings{}, fault.Wrap(fault.Invalid, err, "cannot read the settings").On(path)
	}
	defer f.Close()
	s, err := Decode(f)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Decode reads settings from r over the defaults and checks them.
func Decode(r io.Reader) (Settings, error) { return DecodeOver(Default(), r) }

// DecodeOver reads settings from r over s and checks them.
func DecodeOver(s Settings, r io.Reader) (Settings, error) {
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return s, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		var typed *yaml.TypeError
		if errors.As(err, &typed) {
			var all []error
			for _, text := range typed.Errors {
				all = append(all, misread(text))
			}
			return s, errors.Join(append(all, s.Check())...)
		}
		return s, fault.Wrap(fault.Invalid, err, "not valid YAML")
	}
	return s, s.Check()
}

// Check reports every fault, joined.
func (s *Settings) Check() error {
	var all []error
	add := func(field, format string, args ...any) {
		all = append(all, fault.New(fault.Invalid, format, args...).On(field))
	}
	if s.Data == "" {
		add("data", "the directory is missing")
	}
	for _, a := range []struct{ field, value string }{{"https", s.HTTPS}, {"http", s.HTTP}} {
		if err := checkAddress(a.value); a.value != "" && err != nil {
			add(a.field, "%v", err)
		}
	}
	if s.HTTPS == "" && s.HTTP == "" {
		add("https", "there is no address to listen on")
	}
	if s.HTTPS != "" && s.HTTPS == s.HTTP {
		add("http", "it is the same address as https")
	}
	for _, h := range s.Hostnames {
		if !hostname(h) {
			add("hostnames", "%q is neither a host name nor an address", h)
		}
	}
	if (s.Certificate == "") != (s.PrivateKey == "") {
		add("certificate", "certificate and private_key go together")
	}
	s.checkRest(add)
	s.Logs.check(add)
	s.checkMachine(add)
	if err := checkLoopback(s.Metrics); err != nil {
		add("metrics", "%v", err)
	}
	if s.Traces != "" {
		if u, err := url.Parse(s.Traces); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			add("traces", "it must be http://HOST:PORT or https://HOST:PORT")
		} else if u.User != nil {
			add("traces", "a password does not belong into the URL")
		}
	}
	return errors.Join(all...)
}

func (s *Settings) checkRest(add func(field, format string, args ...any)) {
	for _, n := range []struct {
		field    string
		v, limit int
	}{{"grace_hours", s.GraceHours, 24 * 365}, {"max_connections", s.MaxConnections, 1_000_000}} {
		if n.v < 0 || n.v > n.limit {
			add(n.field, "it must be between 0 and %d", n.limit)
		}
	}
	if s.TrashDays < -1 || s.TrashDays > 3650 {
		add("trash_days", "it must be between -1 and 3650")
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"trusted_proxies", s.TrustedProxies}, {"allow_targets", s.AllowTargets}} {
		for _, p := range list.values {
			if _, err := network(p); err != nil {
				add(list.field, "%q is neither a network nor an address", p)
			}
		}
	}
	switch s.LogLevel {
	case "", "debug", "info", "warn", "error":
	default:
		add("log_level", "it must be debug, info, warn or error, not %q", s.LogLevel)
	}
	if strings.Contains(s.Storage, "://") {
		u, err := url.Parse(s.Storage)
		if err != nil || u.Scheme != "s3" || u.Host == "" {
			add("storage", "it must be a directory or s3://BUCKET[/PREFIX][?settings=FILE]")
		} else if u.User != nil {
			add("storage", "keys do not belong into the URL: put them into the settings file")
		}
	}
}

// network reads a network, or one address.
func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func checkAddress(a string) error {
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("%q is not host:port", a)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

func hostname(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	if h == "" || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(h, "*."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}

// The paths below Data.

func (s *Settings) Keys() string          { return filepath.Join(s.Data, "keys") }
func (s *Settings) TLS() string           { return filepath.Join(s.Data, "tls") }
func (s *Settings) Cluster() string       { return filepath.Join(s.Data, "postgres") }
func (s *Settings) AdminPassword() string { return filepath.Join(s.Data, "admin-password") }
func (s *Settings) CA() string            { return filepath.Join(s.Data, "ca.crt") }

// StorageDir is the directory of blobs; "" if they are in S3.
func (s *Settings) StorageDir() string {
	switch {
	case s.Storage == "":
		return filepath.Join(s.Data, "storage")
	case strings.Contains(s.Storage, "://"):
		return ""
	}
	return s.Storage
}

// S3 gives bucket, prefix and settings file of an S3 storage.
func (s *Settings) S3() (bucket, prefix, file string) {
	u, err := url.Parse(s.Storage)
	if err != nil {
		return "", "", ""
	}
	file = u.Query().Get("settings")
	if file == "" {
		file = filepath.Join(s.Data, "s3.yaml")
	}
	return u.Host, strings.Trim(u.Path, "/"), file
}

// Socket is the path of a service's unix socket.
func (s *Settings) Socket(service string) string { return filepath.Join(s.Run, service+".sock") }

// ReadOnlyFile is the path of a file whose being there makes the registry refuse
// pushes, for the reason that is written in it. The agent makes it when a disk
// gets full.
func (s *Settings) ReadOnlyFile() string { return filepath.Join(s.Run, "read-only") }

// Trash and Grace give durations with their defaults.

func (s *Settings) Trash() time.Duration {
	switch {
	case s.TrashDays < 0:
		return 0
	case s.TrashDays == 0:
		return 7 * 24 * time.Hour
	}
	return time.Duration(s.TrashDays) * 24 * time.Hour
}

func (s *Settings) Grace() time.Duration {
	if s.GraceHours == 0 {
		return 24 * time.Hour
	}
	return time.Duration(s.GraceHours) * time.Hour
}
