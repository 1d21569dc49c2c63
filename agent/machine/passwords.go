package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"berth/agent/session"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// Verify reports whether a password is that of admin (the console's) or of root.
func (m *Machine) Verify(ctx context.Context, user string, password secret.Text) (bool, error) {
	stored := secret.Decoy()
	if user == session.Admin {
		b, err := os.ReadFile(m.path(setting.SecretFile(setting.ConsolePassword)))
		switch {
		case err == nil:
			stored = strings.TrimSpace(string(b))
		case !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	ok, err := secret.Matches(stored, password)
	return ok && stored != secret.Decoy(), err
}
