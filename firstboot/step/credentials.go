package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"berth/appliance/cert"
	"berth/appliance/durable"
	"berth/appliance/login"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/firstboot"
)

// credentials sets the passwords and keys of people, and keeps those that the
// appliance needs towards others.
func (m Machine) credentials(ctx context.Context, w *firstboot.Work) (string, error) {
	if err := os.MkdirAll(setting.SecretsDir, 0o700); err != nil {
		return "", fmt.Errorf("cannot keep the passwords: %w", err)
	}
	a := w.Answers
	if err := login.SetPassword(ctx, "root", a.RootPassword); err != nil {
		return "", err
	}
	if err := login.WritePassword(setting.SecretFile(setting.ConsolePassword), a.ConsolePassword); err != nil {
		return "", err
	}
	for name, s := range map[string]secret.Text{setting.ProxyPassword: a.ProxyPassword, setting.VCenterPassword: a.VCenterPassword} {
		if err := keep(setting.SecretFile(name), s); err != nil {
			return "", err
		}
	}
	keys, err := login.In("/").SetAuthorizedKeys(a.SSHKeys)
	if err != nil {
		return "", err
	}
	if len(keys) > 0 {
		return fmt.Sprintf("set, with %d SSH keys", len(keys)), nil
	}
	return "set", nil
}

// keep writes a secret into its file; an empty one has none.
func keep(path string, s secret.Text) error {
	if s != "" {
		return durable.WriteFile(path, []byte(s.Reveal()), 0o600)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove an old secret: %w", err)
	}
	return nil
}

// settings writes the one settings file.
func (m Machine) settings(_ context.Context, w *firstboot.Work) (string, error) {
	if w.Answers.SyslogCA != "" {
		pem, err := cert.Repair(w.Answers.SyslogCA)
		if err != nil {
			return "", err
		}
		if err := durable.WriteFile(firstboot.SyslogCAFile, []byte(pem), 0o644); err != nil {
			return "", err
		}
	}
	if err := setting.Write(setting.File, w.Answers.Settings); err != nil {
		return "", err
	}
	if a := w.Answers.Settings.VCenter.Address; a != "" {
		return "written; vCenter " + strings.TrimSpace(a) + " is noted for later", nil
	}
	return "written", nil
}
