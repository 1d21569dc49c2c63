// Package command is berth's command line. It alone knows flags, signals and
// exit codes; each command hands its settings to a package that does the work.
package command

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"berth/appliance/cli"
	"berth/appliance/logger"
	"berth/appliance/setting"
	"berth/appliance/version"
)

// Main runs one command and gives its exit code. SIGINT and SIGTERM ask it to
// stop; a second one ends it at once.
func Main(args []string, stdout, stderr io.Writer) int {
	if os.Getenv("GOGC") == "" {
		// Most of what we hold are buffers of transfers under way: collecting
		// twice as often costs little and keeps a busy server small.
		debug.SetGCPercent(50)
	}
	return cli.Run(newRoot(stdout, stderr), args, stderr)
}

// app is what all commands share.
type app struct {
	stdout, stderr io.Writer
	appliance      string // settings file that is read if there is one and nothing else is said
	config         string // --config
	flags          setting.Settings
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	a := &app{stdout: stdout, stderr: stderr, appliance: setting.File}
	root := &cobra.Command{
		Use:   "berth",
		Short: "A container registry",
		Long: "Berth is a container registry for vSphere and for anywhere else: it speaks the OCI\n" +
			"Distribution API and Harbor's REST API, and keeps everything in PostgreSQL and a\n" +
			"directory or an S3 bucket.",
		Version: version.Version,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run it:"}, &cobra.Group{ID: "care", Title: "Look after it:"})
	root.AddCommand(a.upCommand())
	root.AddCommand(append(a.serviceCommands(), a.logsCommand())...)
	root.AddCommand(a.adminCommand(), a.configurationCommand(), a.importCommand(), a.verifyCommand(), a.collectCommand(), a.trashCommand(), a.auditCommand(), a.quotaCommand(),
		a.statusCommand(), a.debugCommand(), a.migrateCommand(), a.checkCommand(), a.versionCommand())
	return root
}

// settingFlags adds the flags that every command on a Berth's data has.
func (a *app) settingFlags(c *cobra.Command) {
	f := c.Flags()
	a.flags = setting.Default()
	f.StringVar(&a.config, "config", "", "settings `file`; flags go over what it says (default, without --data: "+setting.File+", where there is one)")
	f.StringVar(&a.flags.Data, "data", a.flags.Data, "`directory` of everything that must survive")
	f.StringVar(&a.flags.Database, "database", "", "`URL` of an external PostgreSQL (default: a private one below --data)")
	f.StringVar(&a.flags.Storage, "storage", "", "where blobs are: a `directory`, or s3://BUCKET[/PREFIX]?settings=FILE (default: storage below --data)")
	f.StringVar(&a.flags.LogLevel, "log-level", "", "debug, info, warn or error (default info)")
	must(c.MarkFlagDirname("data"))
	must(c.MarkFlagFilename("config", "yaml"))
}

func must(err error) {
	if err != nil {
		panic(err) // a flag's name is misspelt in this package
	}
}

// settings puts flags over the file over the defaults, and checks the result.
func (a *app) settings(c *cobra.Command) (setting.Settings, error) {
	s := setting.Default()
	if file := a.settingsFile(c); file != "" {
		var err error
		if s, err = setting.Read(file); err != nil {
			return s, err
		}
	}
	over := map[string]func(){
		"data":      func() { s.Data = a.flags.Data },
		"database":  func() { s.Database = a.flags.Database },
		"storage":   func() { s.Storage = a.flags.Storage },
		"log-level": func() { s.LogLevel = a.flags.LogLevel },
		"https":     func() { s.HTTPS = a.flags.HTTPS },
		"http":      func() { s.HTTP = a.flags.HTTP },
		"metrics":   func() { s.Metrics = a.flags.Metrics },
		"hostname":  func() { s.Hostnames = append(s.Hostnames, a.flags.Hostnames...) },
	}
	for name, set := range over {
		if c.Flags().Changed(name) {
			set()
		}
	}
	if err := s.Check(); err != nil {
		return s, err
	}
	err := resolve(&s)
	return s, err
}

// settingsFile is the file to read; "" = none. At the appliance's console nobody
// has to say which. `berth up` is the laptop's, and has nothing to do with it.
func (a *app) settingsFile(c *cobra.Command) string {
	if a.config != "" || c.Flags().Changed("data") || c.Name() == "up" {
		return a.config
	}
	if _, err := os.Stat(a.appliance); err != nil {
		return ""
	}
	return a.appliance
}

// quietly is the log of a command that does one thing: to standard error alone.
func quietly(w io.Writer, s setting.Settings) *slog.Logger {
	l, _ := logger.Level(s.LogLevel) // checked by Settings.Check
	return logger.New(logger.Options{Stderr: w, Level: l})
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Say which Berth this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return writeJSON(a.stdout, map[string]string{"version": version.Version, "commit": version.Commit()})
			}
			_, err := fmt.Fprintf(a.stdout, "berth %s (commit %s)\n", version.Version, version.Commit())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "check-config [FILE]", Short: "Report every fault in a settings file", Args: cobra.MaximumNArgs(1), GroupID: "care",
		RunE: func(c *cobra.Command, args []string) error {
			file := setting.File
			if len(args) > 0 {
				file = args[0]
			}
			s, err := setting.Read(file)
			if err == nil {
				err = checkStorage(s)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s: no faults\n", file)
			return err
		},
	}
	return c
}

// isTerminal reports whether people read f.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
