// Package cli is what Berth's command lines have in common: how they end, and how
// they say what went wrong.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
)

// The exit codes.
const (
	OK     = 0
	Failed = 1 // it did not work, or what was looked at is not well
	Usage  = 2 // the command line, or what it was given, is wrong
)

// ErrUnwell makes a command end with Failed when everything has been said already:
// it has looked at something that is not well.
var ErrUnwell = errors.New("not well")

// Run runs the command that args name and gives its exit code. What went wrong is
// written to stderr. SIGINT and SIGTERM ask it to stop; a second one ends it at once.
func Run(root *cobra.Command, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // restores the default action for the second signal
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return &usageError{err, c.CommandPath()} })
	if root.RunE == nil {
		root.Args, root.RunE = cobra.ArbitraryArgs, unknown
	}
	for _, c := range root.Commands() {
		countArgs(c)
	}
	ran := false                                                        // what fails before a command runs is the command line's fault
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { // before cobra does the same
		err := c.ValidateRequiredFlags()
		ran = err == nil
		return err
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return OK
	case errors.Is(err, ErrUnwell):
		return Failed
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintf(stderr, "%s: interrupted\n", root.Name())
		return Failed
	}
	printError(stderr, root.Name(), err)
	if !ran || fault.Is(err, fault.Invalid) || errors.As(err, new(*usageError)) {
		return Usage
	}
	return Failed
}

// unknown is the root's own action: help without arguments, a hint with some.
func unknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	hint := "see " + c.Name() + " --help"
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return fault.New(fault.Invalid, "there is no command %q", args[0]).WithHint("%s", hint)
}

// Mistake makes an error one on the command line: the exit code is Usage, and the
// hint is the help.
func Mistake(err error) error { return &usageError{err, ""} }

// usageError is a mistake on the command line.
type usageError struct {
	error
	command string // whose help has more; "": the program's
}

func (e *usageError) Unwrap() error { return e.error }

// countArgs makes a wrong number of arguments a mistake on the command line.
func countArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &usageError{fmt.Errorf("%s %w", c.CommandPath(), err), c.CommandPath()}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		countArgs(sub)
	}
}

// printError shows what went wrong, then what to do about it. Joined errors come
// one to a line, each with its own hint.
func printError(w io.Writer, program string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			printError(w, program, e)
		}
		return
	}
	fmt.Fprintf(w, "%s: %v\n", program, err)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Hint != "" {
		fmt.Fprintf(w, "  hint: %s\n", f.Hint)
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(w, "  hint: see %s --help\n", cmp.Or(u.command, program))
	}
}

// PrintJSON writes v for programs, indented for people who look at it.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
