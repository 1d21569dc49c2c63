package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/services/configuration"
)

// configurationCommand is GET and PUT /configurations for who has a shell: also
// when nobody can log in.
func (a *app) configurationCommand() *cobra.Command {
	c := &cobra.Command{Use: "configuration", Short: "Show and change the settings that count at once", GroupID: "care",
		Long: "The settings of GET and PUT /api/v2.0/configurations, under the same names, for\nwho has a shell on this machine. Changes count at once, on every node."}
	c.AddCommand(a.configurationList(), a.configurationSet())
	return c
}

func (a *app) configurationList() *cobra.Command {
	var asJSON bool
	c := a.onNode(&cobra.Command{Use: "list [KEY...]", Short: "Show all settings, or some; secrets never", ValidArgsFunction: completeKeys("")},
		func(ctx context.Context, n *node, args []string) error {
			settings, err := n.configuration.Current(ctx)
			if err != nil {
				return err
			}
			mode, err := n.configuration.ModeEditable(ctx)
			if err != nil {
				return err
			}
			items, names := settings.Items(mode), configuration.Names()
			for _, key := range args {
				if !slices.Contains(names, key) {
					return fault.New(fault.Invalid, "there is no setting %q", key).WithHint("berth configuration list shows all")
				}
			}
			shown := map[string]any{}
			for name, item := range items {
				if len(args) == 0 || slices.Contains(args, name) {
					shown[name] = item.Value
				}
			}
			return a.table(asJSON, shown, "KEY\tVALUE", func(w io.Writer) {
				for _, name := range names {
					if value, ok := shown[name]; ok {
						fmt.Fprintf(w, "%s\t%v\n", name, value)
					}
				}
			})
		})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) configurationSet() *cobra.Command {
	return a.onNode(&cobra.Command{Use: "set KEY=VALUE...", Short: "Change settings: all of them, or none", Args: cobra.MinimumNArgs(1),
		Long: "A value that begins with @ is the name of a file that holds it, @- is standard input.\n" +
			"Secrets are taken from files only: others can read a command line.",
		Example: "  berth configuration set token_expiration=15 self_registration=false\n" +
			"  berth configuration set ldap_url=ldaps://dc1.example.org ldap_search_password=@/root/ldap-password",
		ValidArgsFunction: completeKeys("="),
	}, func(ctx context.Context, n *node, args []string) error {
		change := configuration.Change{}
		for _, arg := range args {
			key, value, ok := strings.Cut(arg, "=")
			if !ok {
				return fault.New(fault.Invalid, "%q is not KEY=VALUE", arg)
			}
			if file, ok := strings.CutPrefix(value, "@"); ok {
				text, err := readValue(file)
				if err != nil {
					return fault.Wrap(fault.Invalid, err, "cannot read the value").On(key)
				}
				value = text
			} else if configuration.Secret(key) && value != "" {
				return fault.New(fault.Invalid, "a secret does not belong on a command line").On(key).WithHint("put it into a file: %s=@FILE", key)
			}
			if err := change.Set(key, value); err != nil {
				return err
			}
		}
		if err := n.configuration.Update(ctx, change); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%d settings are as they should be\n", len(change))
		return err
	})
}

// readValue reads a file, or standard input, without the line's end.
func readValue(file string) (string, error) {
	in, err := input(file)
	if err != nil {
		return "", err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, 64<<10))
	return strings.TrimRight(string(b), "\r\n"), err
}

// completeKeys offers the names of settings to the shell.
func completeKeys(suffix string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var found []cobra.Completion
		for _, name := range configuration.Names() {
			if strings.HasPrefix(name, begun) {
				found = append(found, name+suffix)
			}
		}
		return found, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
}
