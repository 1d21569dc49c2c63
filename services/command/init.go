package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// initCommand is what first boot runs before any service.
func (a *app) initCommand() *cobra.Command {
	var file string
	c := a.onNode(&cobra.Command{
		Use: "init", Short: "Make the keys, the schema, the administrator and the project library, those that are missing", Args: cobra.NoArgs,
		Long: "Makes a new Berth on an empty database, so that its services can start. What is there\n" +
			"already stays as it is: run it again after it was interrupted, or to bring the schema\n" +
			"forward. The password is that of the user admin, and is needed only if there are no\n" +
			"users yet.",
		Example: "  berth admin init --password-file - < password",
	}, nil)
	c.RunE = func(c *cobra.Command, _ []string) error {
		var password secret.Text
		if file != "" {
			var err error
			if password, err = readPassword(file); err != nil {
				return err
			}
		}
		s, err := a.settings(c)
		if err != nil {
			return err
		}
		fresh := missingKeys(s) // before openNode makes one
		return a.withNode(c.Context(), s, func(ctx context.Context, n *node) error { return a.initialise(ctx, n, password, fresh) })
	}
	c.Flags().StringVar(&file, "password-file", "", "take the administrator's password from `file` (- is standard input)")
	must(c.MarkFlagFilename("password-file"))
	return c
}

// missingKeys are the paths of the key files that are not there.
func missingKeys(s setting.Settings) (list []string) {
	for _, name := range []string{berthKey, tokenKey} {
		if _, err := os.Stat(keyFile(s, name)); errors.Is(err, fs.ErrNotExist) {
			list = append(list, keyFile(s, name))
		}
	}
	return list
}

// initialise makes what is missing. fresh are the key files that were not there
// a moment ago.
func (a *app) initialise(ctx context.Context, n *node, password secret.Text, fresh []string) error {
	if err := n.migrate(ctx); err != nil {
		return err
	}
	empty, err := n.accounts.Empty(ctx)
	if err != nil {
		return err
	}
	switch {
	case !empty && len(fresh) > 0:
		// What is in the database was sealed with another key: a new one would only
		// hide that the old one is lost.
		for _, path := range fresh {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot remove the key that was just made: %w", err)
			}
		}
		return fault.New(fault.Precondition, "the database is of a Berth whose keys are not here: %s", strings.Join(fresh, ", ")).
			WithHint("bring them back (with that Berth's data disk, or from a backup), or give this one an empty database")
	case empty && password == "":
		return fault.New(fault.Invalid, "there are no users yet, so the administrator needs a password").On("--password-file")
	}
	if _, err := secret.LoadKey(keyFile(n.settings, tokenKey)); err != nil {
		return err
	}
	made, err := n.ensureFirstThings(ctx, password)
	if err != nil {
		return err
	}
	said := "the schema is up to date; users were there already"
	if made {
		said = "made the administrator admin and the project library"
	}
	_, err = fmt.Fprintln(a.stdout, said)
	return err
}
