package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"berth/appliance/cli"
	"berth/appliance/fault"
)

// How a command ends is told by its exit code, and why by a line with a hint.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		said string
	}{
		{"", cli.OK, ""},
		{"fine", cli.OK, ""},
		{"fien", cli.Usage, `there is no command "fien"` + "\n  hint: did you mean fine?"},
		{"fine more", cli.Usage, "hint: see tool fine --help"},
		{"fine --nosuch", cli.Usage, "unknown flag: --nosuch\n  hint: see tool fine --help"},
		{"needs", cli.Usage, `required flag(s) "file"`},
		{"broken", cli.Failed, "tool: it is broken"},
		{"unwell", cli.Failed, ""},
		{"invalid", cli.Usage, "tool: a: one\n  hint: do this\ntool: b: two\n"},
		{"mistake", cli.Usage, "tool: no\n  hint: see tool --help"},
		{"interrupted", cli.Failed, "tool: interrupted\n"},
	} {
		var out, errs bytes.Buffer
		root := &cobra.Command{Use: "tool"}
		root.SetOut(&out)
		root.SetErr(&errs)
		command := func(name string, err error) *cobra.Command {
			return &cobra.Command{Use: name, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return err }}
		}
		needs := command("needs", nil)
		needs.Flags().String("file", "", "a `file`")
		if err := needs.MarkFlagRequired("file"); err != nil {
			t.Fatal(err)
		}
		root.AddCommand(command("fine", nil), needs, command("broken", errors.New("it is broken")), command("unwell", fmt.Errorf("said: %w", cli.ErrUnwell)),
			command("invalid", errors.Join(fault.New(fault.Invalid, "one").On("a").WithHint("do this"), fault.New(fault.Invalid, "two").On("b"))),
			command("mistake", cli.Mistake(errors.New("no"))))
		root.AddCommand(&cobra.Command{Use: "interrupted", RunE: func(c *cobra.Command, _ []string) error {
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				return err
			}
			<-c.Context().Done()
			return c.Context().Err()
		}})
		code := cli.Run(root, strings.Fields(c.args), &errs)
		if code != c.code || !strings.Contains(errs.String(), c.said) || c.said == "" && errs.Len() > 0 {
			t.Errorf("%q: %d, %q", c.args, code, errs.String())
		}
	}
}
