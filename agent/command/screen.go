package command

import (
	"github.com/spf13/cobra"

	"berth/agent/proof"
	"berth/agent/screen"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/setting"
)

func (a *app) screenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "screen", Short: "Show the text screen (berth-screen.service does, on the VM's console)", Args: cobra.NoArgs, GroupID: "run",
		RunE: func(c *cobra.Command, _ []string) error {
			if !isTerminal(a.stdin) || !isTerminal(a.stdout) {
				return fault.New(fault.Invalid, "the screen is for a terminal")
			}
			return screen.Run(c.Context(), a.agent(), proof.New(setting.StateDir, guestinfo.New(""), nil), a.stdin, a.stdout)
		},
	}
}
