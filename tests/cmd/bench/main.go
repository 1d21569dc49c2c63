// Command bench measures Berth beside the CNCF registry on this machine: throughput, processor time and memory of
// pulls, pushes, lists and tokens, as a table, with the figures that the design asks for beside those that were reached.
//
// It starts all servers itself, on loopback, with their data in one temporary directory; drives them with the same
// client code and equal numbers of operations, in turns (Berth, CNCF, Berth, CNCF …); reports the median of the rounds;
// and stops the servers and removes the data, also when it is interrupted. The main figure is the processor time of a
// server and all its children for one operation: it holds still when the machine is busy, and throughput does not.
//
// It wants BERTH_TOOLS_DIR with the CNCF registry's program, and takes Berth's from BERTH_BIN: `make bench` sets both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"

	"berth/tests/cmd/bench/server"
)

// bareArg makes this program the bare file server.
const bareArg = "serve-bare"

func main() {
	// Servers are told to end when the thread that started them does.
	runtime.LockOSThread()
	if len(os.Args) > 1 && os.Args[1] == bareArg {
		if err := server.ServeBare(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	scenarios      *regexp.Regexp
	rounds         int
	quick          bool
	dir            string
	markdown, json string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	match := f.String("scenarios", "", "only those whose name matches this `regexp`")
	f.IntVar(&o.rounds, "rounds", 3, "how often each is measured; the median is reported")
	f.BoolVar(&o.quick, "quick", false, "few operations: to see that it works; the figures are rough")
	f.StringVar(&o.dir, "dir", "", "`directory` for the servers' data, which is removed at the end (default: the system's for temporary files)")
	f.StringVar(&o.markdown, "markdown", "", "write the table to a Markdown `file`; its preface stays as it is")
	f.StringVar(&o.json, "json", "", "write every round's figures to a `file`")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("bench takes no arguments but flags; %q is one too many", f.Arg(0))
	}
	if o.rounds < 1 || o.rounds > 20 {
		return o, errors.New("-rounds must be between 1 and 20")
	}
	if o.scenarios, err = regexp.Compile(*match); err != nil {
		return o, fmt.Errorf("-scenarios: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	// Not readable by us alone: PostgreSQL runs as its own user and must walk to its files.
	dir, err := os.MkdirTemp(o.dir, "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	r := &runner{options: o, dir: dir, progress: stderr, report: report{Args: args, Rounds: o.rounds, Quick: o.quick}}
	defer r.stop()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.measure(ctx); err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return err
	}
	r.report.Machine.LoadAfter = loadAverage()
	return r.report.write(stdout, o)
}
