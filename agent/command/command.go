// Package command is berth-agent's command line. It alone knows flags, signals and
// exit codes. All commands but serve are clients of the agent's API: what the
// command line can do, the console and a program can do, too, and each change is in
// the audit trail.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"berth/agent/client"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/appliance/version"
	firstboot "berth/firstboot/command"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it did not work, or something is wrong
	exitUsage  = 2 // the command line or what was given is wrong
)

// Main runs one command and gives its exit code. SIGINT and SIGTERM ask it to
// stop; a second one ends it at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // restores the default action for the second signal
	root := newRoot(&app{stdin: stdin, stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errUnwell) {
		return exitFailed
	}
	printError(stderr, err)
	if fault.Is(err, fault.Invalid) || errors.As(err, new(*usageError)) {
		return exitUsage
	}
	return exitFailed
}

// errUnwell makes the exit status 1; everything has been said.
var errUnwell = errors.New("not healthy")

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// printError shows what went wrong, then what to do about it. Joined errors come
// one to a line, each with its own hint.
func printError(w io.Writer, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			printError(w, e)
		}
		return
	}
	fmt.Fprintf(w, "berth-agent: %v\n", err)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Hint != "" {
		fmt.Fprintf(w, "  hint: %s\n", f.Hint)
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(w, "  hint: see berth-agent --help")
	}
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
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.Version,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			hint := "see berth-agent --help"
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				hint = "did you mean " + strings.Join(like, " or ") + "?"
			}
			return fault.New(fault.Invalid, "there is no command %q", args[0]).WithHint("%s", hint)
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
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
		countArgs(c)
	}
	return root
}

// countArgs makes a wrong number of arguments a mistake on the command line.
func countArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &usageError{fmt.Errorf("%s %w", c.CommandPath(), err)}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		countArgs(sub)
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

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// isTerminal reports whether people read f.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
