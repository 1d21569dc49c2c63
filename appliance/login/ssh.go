package login

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// Units is what SSH needs of systemd; *systemd.Conn is one.
type Units interface {
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Reload(ctx context.Context, unit string) error // starts it if it does not run
	Enable(ctx context.Context, units ...string) error
	Disable(ctx context.Context, units ...string) error
	Load(ctx context.Context) error
}

// SSH switches sshd on and off.
type SSH struct {
	Accounts
	units Units
	now   func() time.Time
}

// NewSSH is for the system below root, "/" for this machine.
func NewSSH(root string, units Units) *SSH { return &SSH{In(root), units, time.Now} }

// The files that SSH writes. The timer lives in /run: what ends at a time is not
// started at the next boot by systemd but by Apply, which looks at the time first.
const (
	dropIn    = "etc/ssh/sshd_config.d/10-berth.conf"
	config    = "etc/ssh/sshd_config"
	timerUnit = "berth-ssh-end.timer"
	timedUnit = "berth-ssh-end.service"
	runUnits  = "run/systemd/system"
)

// Apply makes sshd run as the settings say; it is called at every start of the
// agent and after every change of settings or keys.
//
// Enabled for ever means that systemd starts it at every boot, with or without
// us. Enabled until a time means that systemd has a timer that stops it, so that
// it ends in time even if the agent does not live to see it. Sessions that are
// open when it ends stay open.
func (s *SSH) Apply(ctx context.Context, want setting.SSH) error {
	unit, err := s.unit()
	if err != nil {
		return err
	}
	if !want.Enabled || !want.Until.IsZero() && !want.Until.After(s.now()) {
		return s.off(ctx, unit)
	}
	if err := s.MakeHostKeys(ctx); err != nil {
		return err
	}
	changed, err := s.WriteConfig()
	if err != nil {
		return err
	}
	if want.Until.IsZero() {
		err = s.forEver(ctx, unit)
	} else {
		err = s.until(ctx, unit, want.Until)
	}
	switch {
	case err != nil:
		return err
	case changed:
		return s.units.Reload(ctx, unit) // starts it if it does not run
	}
	return s.units.Start(ctx, unit)
}

func (s *SSH) off(ctx context.Context, unit string) error {
	err := s.endTimer(ctx)
	return errors.Join(err, s.units.Disable(ctx, unit), s.units.Stop(ctx, unit))
}

func (s *SSH) forEver(ctx context.Context, unit string) error {
	if err := s.endTimer(ctx); err != nil {
		return err
	}
	return s.units.Enable(ctx, unit)
}

// until sets the timer before sshd runs: it never runs without its end.
func (s *SSH) until(ctx context.Context, unit string, end time.Time) error {
	if err := s.endTimer(ctx); err != nil {
		return err
	}
	if err := s.units.Disable(ctx, unit); err != nil {
		return err
	}
	end = end.Add(time.Second - 1).Truncate(time.Second) // a timer has whole seconds
	dir := filepath.Join(s.root, runUnits)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot set the end of SSH: %w", err)
	}
	for name, text := range map[string]string{
		timedUnit: "[Unit]\nDescription=End of SSH\n[Service]\nType=oneshot\nExecStart=systemctl stop " + unit + "\n",
		timerUnit: "[Unit]\nDescription=End of SSH\n[Timer]\nOnCalendar=" + end.UTC().Format("2006-01-02 15:04:05") + " UTC\nAccuracySec=1s\nUnit=" +
			timedUnit + "\n",
	} {
		if err := durable.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := s.units.Load(ctx); err != nil {
		return err
	}
	return s.units.Start(ctx, timerUnit)
}

// endTimer takes the timer away, if there is one.
func (s *SSH) endTimer(ctx context.Context) error {
	path := filepath.Join(s.root, runUnits, timerUnit)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.units.Stop(ctx, timerUnit); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	for _, f := range []string{path, filepath.Join(s.root, runUnits, timedUnit)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot take back the end of SSH: %w", err)
		}
	}
	return s.units.Load(ctx)
}

// unit finds what the distribution calls sshd's unit.
func (s *SSH) unit() (string, error) {
	for _, dir := range []string{"usr/lib/systemd/system", "lib/systemd/system"} {
		for _, name := range []string{"ssh.service", "sshd.service"} { // Debian, Photon
			if info, err := os.Lstat(filepath.Join(s.root, dir, name)); err == nil && info.Mode().IsRegular() {
				return name, nil
			}
		}
	}
	return "", fault.New(fault.Unsupported, "there is no SSH server on this machine")
}

// WriteConfig writes our part of sshd's settings: root logs in with keys if there
// are any, and only else with a password. It reports whether anything changed.
func (s *SSH) WriteConfig() (changed bool, err error) {
	keys, others, err := s.AuthorizedKeys()
	if err != nil {
		return false, err
	}
	text := "# Written by berth-agent at every change of keys; do not edit.\nKbdInteractiveAuthentication no\nX11Forwarding no\nMaxAuthTries 4\n"
	if len(keys)+others > 0 {
		text += "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
	} else {
		text += "PermitRootLogin yes\nPasswordAuthentication yes\n"
	}
	path := filepath.Join(s.root, dropIn)
	if err := s.include(); err != nil {
		return false, err
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("cannot write sshd's settings: %w", err)
	}
	return true, durable.WriteFile(path, []byte(text), 0o644)
}

// include makes sshd's main file read the directory of our part. Debian's does;
// not every distribution's. The first value of a setting counts, so it stands first.
func (s *SSH) include() error {
	path := filepath.Join(s.root, config)
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read sshd's settings: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 1 && strings.EqualFold(f[0], "include") && strings.Contains(line, "/etc/ssh/sshd_config.d/") {
			return nil
		}
	}
	return durable.WriteFile(path, append([]byte("Include /etc/ssh/sshd_config.d/*.conf\n"), b...), 0o644)
}

// MakeHostKeys makes the machine's keys if it has none: never in the image, for
// all machines would have the same. A power cut may have left an empty file, with
// which sshd would not start: that counts as none.
func (s *SSH) MakeHostKeys(ctx context.Context) error {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		if err := s.makeHostKey(ctx, kind); err != nil {
			return fmt.Errorf("cannot make the machine's SSH keys: %w", err)
		}
	}
	return nil
}

func (s *SSH) makeHostKey(ctx context.Context, kind string) error {
	inside := "/etc/ssh/ssh_host_" + kind + "_key"
	path := filepath.Join(s.root, inside)
	if filled(path) && filled(path+".pub") {
		return nil
	}
	draft := path + ".new"
	defer os.Remove(draft)
	defer os.Remove(draft + ".pub")
	os.Remove(draft) // ssh-keygen would ask whether to overwrite it
	args := []string{"-q", "-t", kind, "-N", "", "-C", "", "-f", inside + ".new"}
	if kind == "rsa" {
		args = append(args, "-b", "3072")
	}
	if err := s.run(ctx, nil, "/usr/bin/ssh-keygen", args...); err != nil {
		return err
	}
	for _, f := range []struct {
		suffix string
		mode   os.FileMode
	}{{"", 0o600}, {".pub", 0o644}} {
		b, err := os.ReadFile(draft + f.suffix)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(path+f.suffix, b, f.mode); err != nil {
			return err
		}
	}
	return nil
}

func filled(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}
