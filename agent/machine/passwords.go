package machine

import (
	"context"

	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/login"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// The accounts whose passwords the agent changes.
const (
	Console  = "console"  // the user admin at port 5480
	Root     = "root"     // of the machine
	Registry = "registry" // the user admin of the registry
)

// Verify reports whether a password is that of admin (the console's) or of root.
func (m *Machine) Verify(ctx context.Context, user string, password secret.Text) (bool, error) {
	if user == session.Root {
		return m.o.System.VerifyRoot(ctx, password)
	}
	return login.VerifyPassword(m.path(setting.SecretFile(setting.ConsolePassword)), password)
}

// SetPassword changes a password: of Console, Root or Registry.
func (m *Machine) SetPassword(ctx context.Context, account string, password secret.Text) error {
	if account != Console && account != Root && account != Registry {
		return fault.New(fault.NotFound, "there is no account %.40q", account).WithHint("there are %s, %s and %s", Console, Root, Registry)
	}
	if err := login.CheckStrength(password); err != nil {
		return err
	}
	switch account {
	case Root:
		return m.o.System.SetRootPassword(ctx, password)
	case Registry:
		return m.o.System.SetRegistryPassword(ctx, password)
	}
	return login.WritePassword(m.path(setting.SecretFile(setting.ConsolePassword)), password)
}
