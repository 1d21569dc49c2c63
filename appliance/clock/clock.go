// Package clock is the machine's time: its zone, the servers that it is taken from,
// whether it is right, and a test of a server before it is relied on.
//
// systemd-timesyncd keeps the time. In a container it does not run, for the time is
// the host's there; State says so.
package clock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/network"
	"berth/appliance/setting"
	"berth/appliance/systemd"
)

// The files that Write keeps, below the root directory.
const (
	serversFile = "etc/systemd/timesyncd.conf.d/60-berth.conf"
	// linkFile goes with networkd's file (package network): servers that a DHCP
	// server names would be preferred to those of the settings.
	linkFile  = "etc/systemd/network/10-berth.network.d/60-time.conf"
	localtime = "etc/localtime"
	zoneFile  = "etc/timezone" // Debian's, beside localtime
	zoneDir   = "usr/share/zoneinfo"
)

const timesyncd = "systemd-timesyncd.service"

// Write writes what the settings say into the system's files below root ("" or "/"
// for this machine's), and reports whether any of them has changed.
func Write(root string, t setting.Time) (changed bool, err error) {
	root = filepath.Clean("/" + root)
	zone := t.Zone
	if zone == "" {
		zone = "UTC"
	}
	if err := CheckZone(root, zone); err != nil {
		return false, err
	}
	for _, s := range t.NTP {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return false, fault.New(fault.Invalid, "%q is not the name or the address of a server", s).On("time.ntp")
		}
	}
	const head = "# Written by Berth from the settings; changes here are lost.\n"
	files := map[string]string{serversFile: "", linkFile: "", zoneFile: zone + "\n"}
	if len(t.NTP) > 0 {
		files[serversFile] = head + "[Time]\nNTP=" + strings.Join(t.NTP, " ") + "\n"
		files[linkFile] = head + "[DHCPv4]\nUseNTP=no\n\n[DHCPv6]\nUseNTP=no\n"
	}
	for name, text := range files {
		now, err := keep(filepath.Join(root, name), text)
		if err != nil {
			return changed, err
		}
		changed = changed || now
	}
	now, err := setZone(root, zone)
	return changed || now, err
}

// keep makes a file have a text; none if that is empty.
func keep(path, text string) (changed bool, err error) {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && text == "" || err == nil && text != "" && string(old) == text {
		return false, nil
	}
	if text == "" {
		if err := os.Remove(path); err != nil {
			return false, fmt.Errorf("cannot write the settings of the time: %w", err)
		}
		return true, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("cannot write the settings of the time: %w", err)
	}
	return true, durable.WriteFile(path, []byte(text), 0o644)
}

// setZone lets /etc/localtime lead to a zone, in one step.
func setZone(root, zone string) (changed bool, err error) {
	path := filepath.Join(root, localtime)
	target := "../" + zoneDir + "/" + zone
	if now, err := os.Readlink(path); err == nil && now == target {
		return false, nil
	}
	draft := path + ".berth"
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot set the time zone: %w", err)
	}
	if err := os.Symlink(target, draft); err != nil {
		return false, fmt.Errorf("cannot set the time zone: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		return false, fmt.Errorf("cannot set the time zone: %w", err)
	}
	return true, durable.SyncDir(filepath.Dir(path))
}

// CheckZone reports whether a system has a time zone: a file of the tz database.
func CheckZone(root, zone string) error {
	wrong := fault.New(fault.Invalid, "%q is not a time zone", zone).On("time.zone").WithHint("such as Europe/Berlin or UTC")
	if !filepath.IsLocal(zone) || filepath.Clean(zone) != zone || strings.ContainsFunc(zone, strange) {
		return wrong
	}
	f, err := os.Open(filepath.Join(filepath.Clean("/"+root), zoneDir, zone))
	if err != nil {
		return wrong
	}
	defer f.Close()
	magic := make([]byte, 4)
	if n, err := f.Read(magic); err != nil || n != 4 || string(magic) != "TZif" { // RFC 8536, section 3.1
		return wrong
	}
	return nil
}

// strange is true of characters that no zone's name has.
func strange(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/_+-", r)
}

// Zones are the names of the time zones that a system has, sorted, UTC first.
func Zones(root string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Clean("/"+root), zoneDir, "tzdata.zi"))
	if err != nil {
		return nil, fmt.Errorf("cannot list the time zones: %w", err)
	}
	zones := []string{"UTC"}
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "Z" && strings.Contains(f[1], "/") {
			zones = append(zones, f[1])
		}
	}
	slices.Sort(zones[1:])
	return zones, nil
}

// Apply writes the settings and puts them in force now. It does not wait until the
// time is right, which may take a minute: Current tells.
func Apply(ctx context.Context, t setting.Time) error {
	link, err := os.ReadFile("/" + linkFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the settings of the time: %w", err)
	}
	changed, err := Write("/", t)
	if err != nil || !changed {
		return err
	}
	// networkd tells timesyncd which servers the network names.
	if now, err := os.ReadFile("/" + linkFile); (err == nil) != (link != nil) || !bytes.Equal(now, link) {
		if err := network.Reload(ctx); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	units := systemd.New(time.Minute)
	defer units.Close()
	return units.Restart(ctx, timesyncd)
}

// State is the time as it is.
type State struct {
	Now  time.Time `json:"now"`
	Zone string    `json:"zone"`
	// Synchronized is true if the kernel's clock follows a server, or was set by one.
	Synchronized bool `json:"synchronized"`
	// Server and Address are the one that is used now; "" if there is none.
	Server  string `json:"server,omitempty"`
	Address string `json:"address,omitempty"`
	// Servers are those that timesyncd knows of, from the settings or the network.
	Servers []string `json:"servers"`
	// Running is whether timesyncd runs. Without it, Text says why.
	Running bool   `json:"running"`
	Text    string `json:"text"` // the state in words
}

// Current looks at the clock.
func Current(ctx context.Context) (State, error) {
	s := State{Now: time.Now(), Zone: zoneOf("/")}
	var t unix.Timex // nothing is asked to change: Modes is 0
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return s, fmt.Errorf("cannot look at the clock: %w", err)
	}
	// As timedatectl has it: an error of more than 16 s means that nobody cares.
	s.Synchronized = state != unix.TIME_ERROR && t.Maxerror < 16_000_000
	s.Running = s.ask(ctx) == nil
	switch {
	case !s.Running && container():
		s.Text = "the time is the host's: this is a container"
	case !s.Running:
		s.Text = "the time service does not run"
	case s.Synchronized && s.Server != "":
		s.Text = "the time follows " + s.Server
	case s.Synchronized:
		s.Text = "the time was set, and no server is used now"
	case len(s.Servers) == 0:
		s.Text = "nobody sets the time: neither the settings nor the network name an NTP server"
	default:
		s.Text = "no NTP server has answered yet"
	}
	return s, nil
}

func container() bool {
	_, err := os.Stat("/run/systemd/container")
	return err == nil
}

// zoneOf reads the zone out of the link.
func zoneOf(root string) string {
	target, err := os.Readlink(filepath.Join(root, localtime))
	if _, zone, ok := strings.Cut(target, zoneDir+"/"); err == nil && ok {
		return zone
	}
	return "UTC"
}

// ask gets what timesyncd knows (org.freedesktop.timesync1(5)); an error means that
// it does not run.
func (s *State) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer bus.Close()
	p := map[string]dbus.Variant{}
	err = bus.Object("org.freedesktop.timesync1", "/org/freedesktop/timesync1").
		CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", dbus.FlagNoAutoStart, "org.freedesktop.timesync1.Manager").Store(&p)
	if err != nil {
		return err
	}
	s.Server, _ = p["ServerName"].Value().(string)
	if a, ok := p["ServerAddress"].Value().([]any); ok && len(a) == 2 {
		raw, _ := a[1].([]byte)
		if ip, ok := netip.AddrFromSlice(raw); ok {
			s.Address = ip.Unmap().String()
		}
	}
	for _, name := range []string{"SystemNTPServers", "LinkNTPServers", "FallbackNTPServers"} {
		list, _ := p[name].Value().([]string)
		s.Servers = append(s.Servers, list...)
	}
	return nil
}
