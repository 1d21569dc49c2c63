package setting

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Logs are the settings of the log service.
type Logs struct {
	// Off leaves the log service out: lines go to standard error alone.
	Off bool `yaml:"off,omitempty"`
	// Dir is where messages are kept. Empty: logs below Data.
	Dir string `yaml:"dir,omitempty"`
	// SizeMB is how many MiB they may take on the disk; 0 means 2048.
	SizeMB int `yaml:"size_mb,omitempty"`
	// Days is how long they are kept; 0 means 30.
	Days int `yaml:"days,omitempty"`
	// Listen is the loopback address for syslog by UDP and TCP, host:port.
	// Empty: 127.0.0.1:1514, and if another program has that port only a warning.
	// "off": the unix socket alone.
	Listen string `yaml:"listen,omitempty"`
	// Rate is how many messages a second one component may send for long; 0 means
	// 10,000. What is more is counted and dropped.
	Rate int `yaml:"rate,omitempty"`
	// Journal is whether systemd's journal is followed: auto (where this machine
	// has one and Berth runs as a unit of it), on or off. Empty means auto.
	Journal string `yaml:"journal,omitempty"`
	// Forward are the collectors that get a copy.
	Forward []Forward `yaml:"forward,omitempty"`
}

// Forward is a collector of log messages.
type Forward struct {
	// Name is how it is called in messages and metrics: letters, digits, "-" and "_".
	Name string `yaml:"name,omitempty" json:"name"`
	// To is udp://host:port, tcp://host:port or tls://host:port. Without a port:
	// 514, 601, 6514.
	To string `yaml:"to,omitempty" json:"to"`
	// Format is rfc5424 or json; empty means rfc5424.
	Format string `yaml:"format,omitempty" json:"format"`
	// Level is the least severe that is sent: debug, info, notice, warning, error …;
	// empty means everything.
	Level string `yaml:"level,omitempty" json:"level"`
	// Components are sent, and no others; empty means all.
	Components []string `yaml:"components,omitempty" json:"components"`
	// Without are components that are not sent.
	Without []string `yaml:"without,omitempty" json:"without"`
	// CA is a PEM file of authorities to trust instead of the system's.
	CA string `yaml:"ca,omitempty" json:"ca"`
	// Certificate and PrivateKey are PEM files by which Berth shows who it is.
	Certificate string `yaml:"certificate,omitempty" json:"certificate"`
	PrivateKey  string `yaml:"private_key,omitempty" json:"private_key"`
	// ServerName is the name in the collector's certificate, if it is not To's.
	ServerName string `yaml:"server_name,omitempty" json:"server_name"`
	// QueueMB is how many MiB of messages may wait while the collector is away,
	// before compression; 0 means 1024. Then the oldest are dropped, and counted.
	QueueMB int `yaml:"queue_mb,omitempty" json:"queue_mb"`
}

// Levels are the names of severities, the worst first (RFC 5424 section 6.2.1).
func Levels() []string {
	return []string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}
}

func (l *Logs) check(add func(field, format string, args ...any)) {
	for _, n := range []struct {
		field    string
		v, limit int
	}{{"logs.size_mb", l.SizeMB, 16 << 20}, {"logs.days", l.Days, 3650}, {"logs.rate", l.Rate, 1_000_000}} {
		if n.v < 0 || n.v > n.limit {
			add(n.field, "it must be between 0 and %d", n.limit)
		}
	}
	if l.SizeMB > 0 && l.SizeMB < 64 {
		add("logs.size_mb", "it must be 64 at least")
	}
	if err := checkLoopback(l.Listen); err != nil {
		add("logs.listen", "%v", err)
	}
	if !slices.Contains([]string{"", "auto", "on", "off"}, l.Journal) {
		add("logs.journal", "it must be auto, on or off, not %q", l.Journal)
	}
	seen := map[string]bool{}
	for i, f := range l.Forward {
		field := fmt.Sprintf("logs.forward[%d].", i)
		f.check(func(name, format string, args ...any) { add(field+name, format, args...) })
		if seen[f.Name] {
			add(field+"name", "another collector is called %q", f.Name)
		}
		seen[f.Name] = true
	}
}

func (f *Forward) check(add func(field, format string, args ...any)) {
	if f.Name == "" || len(f.Name) > 64 || strings.Trim(f.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		add("name", "it must have 1 to 64 letters, digits, \"-\" or \"_\"")
	}
	scheme, _, err := f.Target()
	if err != nil {
		add("to", "%v", err)
	}
	if !slices.Contains([]string{"", "rfc5424", "json"}, f.Format) {
		add("format", "it must be rfc5424 or json, not %q", f.Format)
	}
	if f.Level != "" && !slices.Contains(Levels(), f.Level) {
		add("level", "it must be one of %s, not %q", strings.Join(Levels(), ", "), f.Level)
	}
	if (f.Certificate == "") != (f.PrivateKey == "") {
		add("certificate", "certificate and private_key go together")
	}
	if err == nil && scheme != "tls" && f.CA+f.Certificate+f.ServerName != "" {
		add("to", "ca, certificate and server_name are for tls:// alone")
	}
	if f.QueueMB < 0 || f.QueueMB > 1<<20 {
		add("queue_mb", "it must be between 0 and %d", 1<<20)
	}
}

// Target splits To into udp, tcp or tls, and host:port.
func (f *Forward) Target() (scheme, address string, err error) {
	ports := map[string]string{"udp": "514", "tcp": "601", "tls": "6514"} // RFC 5426, 6587 (in use), 5425
	u, err := url.Parse(f.To)
	if err == nil && u.User != nil {
		return "", "", errors.New("a name or a password does not belong into it: collectors know a client by its certificate")
	}
	if err != nil || ports[u.Scheme] == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", "", fmt.Errorf("%q is not udp://HOST[:PORT], tcp://HOST[:PORT] or tls://HOST[:PORT]", f.To)
	}
	port := u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	address = net.JoinHostPort(u.Hostname(), port)
	if err := checkAddress(address); err != nil {
		return "", "", err
	}
	return u.Scheme, address, nil
}

// checkLoopback wants an address that only this machine can reach; "" and "off"
// are none.
func checkLoopback(a string) error {
	if a == "" || a == "off" {
		return nil
	}
	if err := checkAddress(a); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(a)
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is not a loopback address: there is no login on it", host)
	}
	return nil
}

// LogsDir is the directory of log messages.
func (s *Settings) LogsDir() string {
	if s.Logs.Dir != "" {
		return s.Logs.Dir
	}
	return filepath.Join(s.Data, "logs")
}

// Size, Age and PerSecond give the log service's limits with their defaults.

func (l *Logs) Size() int64 {
	if l.SizeMB == 0 {
		return 2048 << 20
	}
	return int64(l.SizeMB) << 20
}

func (l *Logs) Age() time.Duration {
	if l.Days == 0 {
		return 30 * 24 * time.Hour
	}
	return time.Duration(l.Days) * 24 * time.Hour
}

func (l *Logs) PerSecond() int {
	if l.Rate == 0 {
		return 10_000
	}
	return l.Rate
}

// Queue is QueueMB with its default, in bytes.
func (f *Forward) Queue() int64 {
	if f.QueueMB == 0 {
		return 1024 << 20
	}
	return int64(f.QueueMB) << 20
}

// MetricsPorts are the services in the order of their metrics' ports.
func MetricsPorts() []string { return []string{"registry", "token", "core", "jobs", "logs"} }
