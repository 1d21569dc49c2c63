package machine

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/api"
	"berth/appliance/setting"
	"berth/appliance/version"
)

// Status is the appliance at a glance. What cannot be found out is left empty, and
// is a problem of its health.
func (m *Machine) Status(ctx context.Context) (api.Status, error) {
	now := m.o.Now()
	boot := m.state()
	s := api.Status{Product: product, Version: version.Version, Commit: version.Commit(), Phase: boot.Phase,
		Addresses: addresses(), Machine: m.hardware(), Now: now, Booted: now.Add(-uptime()).Truncate(time.Second),
		Registry: []string{}, Console: []string{}, Installed: boot.Done(), Steps: wireSteps(boot.Steps), Missing: some(boot.Missing), Warnings: some(boot.Warnings)}
	if s.Hostname, _ = os.Hostname(); s.Hostname == "localhost" {
		s.Hostname = ""
	}
	settings, err := m.Settings()
	if err == nil {
		s.Registry, s.Console = urls(settings, s.Hostname, s.Addresses)
	}
	s.Fingerprint = m.fingerprint(settings)
	h := m.recentHealth(ctx, boot.Phase)
	s.Health, s.Problems = h.State, problems(h)
	s.ReadOnly, s.Power, s.Pending = m.watch.closed(), m.PowerPlan(), m.pending()
	if m.o.Code != nil {
		if code, err := m.o.Code.Read(); err == nil {
			s.Code = code.Reveal()
		}
	}
	return s, nil
}

// urls gives what to call the registry and the console by: the name that the
// settings put first, then the machine's, then its addresses.
func urls(s setting.Settings, hostname string, addresses []string) (registry, console []string) {
	names := slices.Clone(s.Hostnames)
	if hostname != "" {
		names = append(names, hostname)
	}
	names = append(names, addresses...)
	_, port, _ := net.SplitHostPort(s.HTTPS)
	seen := map[string]bool{}
	for _, n := range names {
		if seen[n] || strings.HasPrefix(n, "*.") {
			continue
		}
		seen[n] = true
		host := n
		if strings.Contains(n, ":") {
			host = "[" + n + "]"
		}
		if port == "" || port == "443" {
			registry = append(registry, "https://"+host)
		} else {
			registry = append(registry, "https://"+host+":"+port)
		}
		console = append(console, "https://"+host+":"+strconv.Itoa(setting.ConsolePort))
	}
	return registry, console
}

// addresses are those by which others reach the machine.
func addresses() []string {
	list := []string{}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return list
	}
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}

func uptime() time.Duration {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return time.Duration(info.Uptime) * time.Second
}

// hardware says what the VM has.
func (m *Machine) hardware() api.Machine {
	var h api.Machine
	for key, value := range pairs("/proc/cpuinfo", ":") {
		switch key {
		case "processor":
			h.Processors++
		case "model name":
			h.Processor = value
		}
	}
	for key, value := range pairs("/proc/meminfo", ":") {
		kib, _ := strconv.ParseUint(strings.TrimSuffix(value, " kB"), 10, 64)
		switch key {
		case "MemTotal":
			h.MemoryBytes = kib << 10
		case "MemAvailable":
			h.FreeBytes = kib << 10
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(b), " "); ok {
			h.Load1, _ = strconv.ParseFloat(first, 64)
		}
	}
	for key, value := range pairs(m.path("/etc/os-release"), "=") {
		if key == "PRETTY_NAME" {
			h.System = strings.Trim(value, `"`)
		}
	}
	return h
}

// pairs goes over the lines KEY separator VALUE of a file.
func pairs(path, separator string) func(yield func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		b, err := os.ReadFile(path)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b)) {
			key, value, ok := strings.Cut(line, separator)
			if ok && !yield(strings.TrimSpace(key), strings.TrimSpace(value)) {
				return
			}
		}
	}
}
