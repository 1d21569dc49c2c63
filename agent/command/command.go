// Package command is berth-agent's command line. It alone knows flags, signals and
// exit codes. All commands but serve are clients of the agent's API: what the
// command line can do, the console and a program can do, too, and each change is in
// the audit trail.
package command

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"berth/agent/client"
	"berth/appliance/cli"
	"berth/appliance/setting"
	"berth/appliance/version"
	firstboot "berth/firstboot/command"
)

// Main runs one command and gives its exit code. SIGINT and SIGTERM ask it to
// stop; a second one ends it at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return cli.Run(newRoot(&app{stdin: stdin, stdout: stdout, stderr: stderr}), args, stderr)
}

// app is what all commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	socket         string // --socket
	json           bool   // --json
}

// agent is the client of the running daemon.
func (a *app) agent() *client.Client { return client.New(a.socket) }

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "berth-agent",
		Short: "Look after a Berth appliance",
		Long: "berth-agent looks after a Berth appliance: its network, names, time, certificates,\n" +
			"disks, services, passwords and logs. It asks the agent, which runs as a service\n" +
			"(berth-agent.service), over a socket that only root may use. The same is on the\n" +
			"console, https://ADDRESS:5480, and in its REST API.",
		Version: version.Version,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", setting.AgentSocket, "the agent's unix `socket`")
	f.BoolVar(&a.json, "json", false, "print JSON for programs")
	root.AddGroup(&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "change", Title: "Change:"}, &cobra.Group{ID: "care", Title: "Look after it:"}, &cobra.Group{ID: "run", Title: "Run it:"})
	root.AddCommand(a.statusCommand(), a.healthCommand(), a.servicesCommand(), a.logsCommand(), a.auditCommand(), a.openAPICommand(),
		a.networkCommand(), a.namesCommand(), a.timeCommand(), a.firewallCommand(), a.sshCommand(), a.passwordCommand(), a.certificateCommand(),
		a.proxyCommand(), a.syslogCommand(), a.disksCommand(), a.supportCommand(), a.configCommand(), a.setupCommand(), a.serveCommand(), firstboot.New(), a.screenCommand(),
		a.versionCommand())
	root.AddCommand(a.powerCommands()...)
	for _, c := range root.Commands() {
		for _, sub := range c.Commands() {
			switch sub.Name() {
			case "set", "add", "remove":
				sub.RunE = a.alone(sub.RunE)
			}
		}
	}
	return root
}

// patience is how long a command waits for another one of its kind.
const patience = 10 * time.Second

// alone lets a command run that reads settings, changes what it was told, and sends
// them back whole: two at a time would undo each other's change. One that hangs for
// long does not keep the others from their work.
func (a *app) alone(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		dir, err := os.Open(filepath.Dir(a.socket))
		if err != nil {
			return run(c, args) // which says that the agent does not answer
		}
		defer dir.Close()
		for end := time.Now().Add(patience); time.Now().Before(end) && c.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
			if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				break
			}
		}
		return run(c, args)
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which Berth this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": version.Version, "commit": version.Commit()})
			}
			_, err := fmt.Fprintf(a.stdout, "berth-agent %s (commit %s)\n", version.Version, version.Commit())
			return err
		},
	}
}

func (a *app) printJSON(v any) error { return cli.PrintJSON(a.stdout, v) }

// isTerminal reports whether people read f.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
