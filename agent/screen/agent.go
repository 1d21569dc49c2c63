package screen

import (
	"context"

	"berth/agent/api"
	"berth/agent/client"
	"berth/agent/proof"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// Agent is what the screen asks and changes; a *client.Client is one. Every call is
// bounded by its context, and faults carry words for the person at the console.
type Agent interface {
	Status(ctx context.Context) (api.Status, error)
	// Verify says whether a password is that of admin (the console's) or of root.
	Verify(ctx context.Context, user string, password secret.Text) error

	Network(ctx context.Context) (api.Network, error)
	ChangeNetwork(ctx context.Context, n setting.Network) (api.Pending, error)
	ConfirmNetwork(ctx context.Context, id string) error
	RevertNetwork(ctx context.Context) error
	RestoreAccess(ctx context.Context) error

	// SetPassword sets the password of root or of the console.
	SetPassword(ctx context.Context, account string, password secret.Text) error
	SSH(ctx context.Context) (api.SSH, error)
	SetSSH(ctx context.Context, s api.SetSSH) (api.SSH, error)

	Services(ctx context.Context) ([]api.Service, error)
	Act(ctx context.Context, service, action string) (api.Service, error)
	Logs(ctx context.Context, source, component string, lines int) ([]api.Line, error)

	Certificates(ctx context.Context) (api.Certificates, error)
	RenewCertificate(ctx context.Context) (api.Certificates, error)
	CreateBundle(ctx context.Context) (api.Bundle, error)
	Bundle(ctx context.Context, id string) (api.Bundle, error)
	Power(ctx context.Context, action string, p api.Power) (api.PowerState, error)

	Setup(ctx context.Context) (api.Setup, error)
	CheckSetup(ctx context.Context, a api.Answers) error
	ApplySetup(ctx context.Context, a api.Answers) error
}

// Proof shows that somebody administers the virtual machine; a *proof.Proof does.
type Proof interface {
	Begin(ctx context.Context) (secret.Text, error)
	Shown(ctx context.Context) (bool, error)
}

var (
	_ Agent = (*client.Client)(nil)
	_ Proof = (*proof.Proof)(nil)
)
