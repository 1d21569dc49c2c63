package command

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/account"
	"berth/services/artifact"
	"berth/services/event"
	"berth/services/jobs"
	"berth/services/query"
)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// onNode makes a command that works on a node's data and database.
func (a *app) onNode(c *cobra.Command, f func(ctx context.Context, n *node, args []string) error) *cobra.Command {
	a.settingFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := a.settings(c)
		if err != nil {
			return err
		}
		ctx := event.With(c.Context(), event.Origin{User: "root@console", Source: "local"})
		return a.withNode(ctx, s, func(ctx context.Context, n *node) error { return f(ctx, n, args) })
	}
	return c
}

func (a *app) migrateCommand() *cobra.Command {
	var passwordFile string
	c := a.onNode(&cobra.Command{
		Use: "migrate", Short: "Bring the database's schema forward and make the first account", Args: cobra.NoArgs, GroupID: "care",
		Long: "Services do this themselves when they start. Run it alone to prepare an external\n" +
			"database, or to see that an update will work.",
	}, func(ctx context.Context, n *node, _ []string) error {
		if err := n.migrate(ctx); err != nil {
			return err
		}
		if passwordFile == "" {
			return nil
		}
		password, err := firstPassword(n.settings, passwordFile)
		if err != nil {
			return err
		}
		_, err = n.ensureFirstThings(ctx, password)
		return err
	})
	c.Flags().StringVar(&passwordFile, "admin-password-file", "", "make the administrator with the password in `file`, if there is none")
	return c
}

func (a *app) adminCommand() *cobra.Command {
	admin := &cobra.Command{Use: "admin", Short: "Look after accounts and projects from a shell on this machine", GroupID: "care"}
	user := &cobra.Command{Use: "user", Short: "Users"}
	user.AddCommand(a.userList(), a.userCreate(), a.userDelete(), a.userSysadmin())
	projects := &cobra.Command{Use: "project", Short: "Projects"}
	projects.AddCommand(a.projectList(), a.projectCreate(), a.projectRename(), a.projectDelete(), a.projectMember())
	admin.AddCommand(a.initCommand(), a.resetPassword(), user, projects)
	return admin
}

// input opens a file; - is standard input.
func input(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(file)
}

// readPassword takes a password from a file or from standard input, never from
// the command line, where others could read it.
func readPassword(file string) (secret.Text, error) {
	in, err := input(cmp.Or(file, "-"))
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "cannot read the password").On("--password-file")
	}
	defer in.Close()
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fault.Wrap(fault.Invalid, err, "cannot read the password").On("--password-file")
	}
	password := secret.Text(strings.TrimRight(line, "\r\n"))
	return password, account.CheckStrength(password.Reveal())
}

func (a *app) resetPassword() *cobra.Command {
	var file string
	var random bool
	c := a.onNode(&cobra.Command{
		Use: "reset-password [USER]", Short: "Give a user a new password (default: admin)", Args: cobra.MaximumNArgs(1),
		Example: "  berth admin reset-password --random\n  berth admin reset-password eve --password-file /root/pw",
	}, func(ctx context.Context, n *node, args []string) error {
		name := "admin"
		if len(args) > 0 {
			name = args[0]
		}
		u, err := n.accounts.UserByName(ctx, name)
		if err != nil {
			return err
		}
		password := secret.Random(20)
		if !random {
			if file == "" {
				fmt.Fprintf(a.stderr, "new password of %s (8 to 128 characters, with upper case, lower case and a digit): ", name)
			}
			if password, err = readPassword(file); err != nil {
				return err
			}
		}
		changed, err := n.accounts.EnsurePassword(ctx, u.ID, password.Reveal())
		if err != nil {
			return err
		}
		if u.Username == "admin" {
			// The file holds the first password, which is nobody's any more.
			if err := os.Remove(n.settings.AdminPassword()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if random {
			_, err = fmt.Fprintln(a.stdout, password.Reveal())
			return err
		}
		said := "has a new password"
		if !changed {
			said = "had that password already"
		}
		_, err = fmt.Fprintln(a.stdout, name, said)
		return err
	})
	c.Flags().StringVar(&file, "password-file", "", "take the password from `file` (default: standard input)")
	c.Flags().BoolVar(&random, "random", false, "make a random password and print it")
	return c
}

// table prints rows for people, or values as JSON for programs.
func (a *app) table(asJSON bool, values any, head string, rows func(w io.Writer)) error {
	if asJSON {
		return writeJSON(a.stdout, values)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(w)
	return w.Flush()
}

func all() query.Query { return query.Query{} }

func (a *app) userList() *cobra.Command {
	var asJSON bool
	c := a.onNode(&cobra.Command{Use: "list", Short: "List users", Args: cobra.NoArgs}, func(ctx context.Context, n *node, _ []string) error {
		page, err := n.accounts.ListUsers(ctx, all())
		if err != nil {
			return err
		}
		return a.table(asJSON, page.Items, "ID\tNAME\tE-MAIL\tFROM\tADMINISTRATOR\tSINCE", func(w io.Writer) {
			for _, u := range page.Items {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%v\t%s\n", u.ID, u.Username, u.Email, u.Source, u.Sysadmin || u.AdminByGroup, u.Created.Format(time.DateOnly))
			}
		})
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) userCreate() *cobra.Command {
	var email, realname, file string
	var sysadmin bool
	c := a.onNode(&cobra.Command{Use: "create NAME", Short: "Make a user; its password comes from standard input or a file", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, n *node, args []string) error {
			password, err := readPassword(file)
			if err != nil {
				return err
			}
			if email == "" {
				email = args[0] + "@localhost.localdomain"
			}
			id, err := n.accounts.CreateUser(ctx, account.NewUser{Username: args[0], Password: password.Reveal(), Profile: account.Profile{Email: email, Realname: realname}})
			if err != nil {
				return err
			}
			if sysadmin {
				if err := n.accounts.SetSysadmin(ctx, id, true); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(a.stdout, "user %s made, id %d\n", args[0], id)
			return err
		})
	c.Flags().StringVar(&email, "email", "", "e-mail `address`")
	c.Flags().StringVar(&realname, "realname", "", "the person's `name`")
	c.Flags().StringVar(&file, "password-file", "", "take the password from `file` (default: standard input)")
	c.Flags().BoolVar(&sysadmin, "sysadmin", false, "make it a system administrator")
	return c
}

func (a *app) userDelete() *cobra.Command {
	return a.onNode(&cobra.Command{Use: "delete NAME", Short: "Delete a user", Args: cobra.ExactArgs(1)}, func(ctx context.Context, n *node, args []string) error {
		u, err := n.accounts.UserByName(ctx, args[0])
		if err != nil {
			return err
		}
		if err := n.accounts.DeleteUser(ctx, u.ID); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "user %s deleted\n", args[0])
		return err
	})
}

func (a *app) userSysadmin() *cobra.Command {
	return a.onNode(&cobra.Command{Use: "sysadmin NAME true|false", Short: "Make a user a system administrator, or no longer one", Args: cobra.ExactArgs(2),
		ValidArgs: []string{"true", "false"}}, func(ctx context.Context, n *node, args []string) error {
		if args[1] != "true" && args[1] != "false" {
			return fault.New(fault.Invalid, "say true or false, not %q", args[1])
		}
		u, err := n.accounts.UserByName(ctx, args[0])
		if err != nil {
			return err
		}
		if err := n.accounts.SetSysadmin(ctx, u.ID, args[1] == "true"); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "user %s: system administrator %s\n", args[0], args[1])
		return err
	})
}

// console is who acts when an administrator works on the machine itself.
var console = access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}

// onStores is onNode for commands that need blobs as well.
func (a *app) onStores(c *cobra.Command, f func(ctx context.Context, n *node, s stores, args []string) error) *cobra.Command {
	return a.onNode(c, func(ctx context.Context, n *node, args []string) error {
		s, err := n.stores(ctx)
		if err != nil {
			return err
		}
		defer s.blobs.Close()
		return f(ctx, n, s, args)
	})
}

func (a *app) verifyCommand() *cobra.Command {
	var asJSON bool
	c := a.onStores(&cobra.Command{
		Use: "verify", Short: "Re-hash all blobs and name the damaged ones", Args: cobra.NoArgs, GroupID: "care",
		Long: "Reads every blob and compares it with its digest. A damaged one counts as absent\n" +
			"from then on, so that pushing an image that has it heals it. Exit code 1 if any is damaged.",
	}, func(ctx context.Context, n *node, s stores, _ []string) error {
		started, checked := time.Now(), 0
		var last time.Time
		for {
			done, err := s.artifacts.Verify(ctx, 100, started, jobs.Hash(s.blobs), jobs.Missing, func(c artifact.Check) {
				checked++
				if c.Damaged {
					fmt.Fprintf(a.stderr, "damaged  %s  %s\n", c.Digest, c.Reason)
				}
			})
			if err != nil {
				return err
			}
			if done == 0 {
				break
			}
			if time.Since(last) > 2*time.Second {
				last = time.Now()
				fmt.Fprintf(a.stderr, "%d blobs verified\n", checked)
			}
		}
		return a.reportDamaged(ctx, s.artifacts, checked, asJSON)
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) reportDamaged(ctx context.Context, artifacts *artifact.Store, checked int, asJSON bool) error {
	damaged, err := artifacts.Damaged(ctx, 1000)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(a.stdout, map[string]any{"verified": checked, "damaged": damaged})
	} else {
		for _, d := range damaged {
			fmt.Fprintf(a.stdout, "%s  in %s  at %s\n", d.Digest, strings.Join(d.Repositories, ", "), d.Key)
		}
		_, err = fmt.Fprintf(a.stdout, "%d blobs verified, %d damaged\n", checked, len(damaged))
	}
	if err == nil && len(damaged) > 0 {
		return fault.New(fault.Precondition, "%d blobs are damaged", len(damaged)).WithHint("push the images that have them again")
	}
	return err
}

func (a *app) collectCommand() *cobra.Command {
	return a.onStores(&cobra.Command{
		Use: "gc", Short: "Collect garbage now, instead of within the next half minute", Args: cobra.NoArgs, GroupID: "care",
		Long: "Removes what the recycle bin no longer keeps and blobs that nothing has referred\n" +
			"to for the grace time. Pushes and pulls go on meanwhile. The jobs service does the same all the time.",
	}, func(ctx context.Context, n *node, s stores, _ []string) error {
		var sum artifact.Collected
		for {
			c, err := s.artifacts.Collect(ctx, 1000, s.blobs.Delete)
			if err != nil {
				return err
			}
			sum.Manifests += c.Manifests
			sum.Blobs += c.Blobs
			sum.Objects += c.Objects
			sum.Bytes += c.Bytes
			if c.Manifests+c.Blobs+c.Objects == 0 {
				break
			}
		}
		_, err := fmt.Fprintf(a.stdout, "%d manifests purged, %d blobs dropped, %d objects removed, %d bytes freed\n", sum.Manifests, sum.Blobs, sum.Objects, sum.Bytes)
		return err
	})
}

func (a *app) trashCommand() *cobra.Command {
	trash := &cobra.Command{Use: "trash", Short: "The recycle bin: list deleted artifacts and tags, restore them", GroupID: "care"}
	var asJSON bool
	list := a.onStores(&cobra.Command{Use: "list PROJECT", Short: "List what can be restored", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, n *node, s stores, args []string) error {
			t, err := n.projects.Target(ctx, console, args[0])
			if err != nil {
				return err
			}
			entries, err := s.artifacts.Trash(ctx, t.ProjectID, 1000)
			if err != nil {
				return err
			}
			return a.table(asJSON, entries, "KIND\tID\tREPOSITORY\tDIGEST\tTAGS\tDELETED\tBY", func(w io.Writer) {
				for _, e := range entries {
					fmt.Fprintf(w, "%s\t%d\t%s\t%.19s\t%s\t%s\t%s\n", e.Kind, e.ID, e.Repository, e.Digest, strings.Join(e.Tags, ","), e.DeletedAt.Format(time.DateTime), e.DeletedBy)
				}
			})
		})
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	restore := a.onStores(&cobra.Command{Use: "restore PROJECT artifact|tag ID", Short: "Bring something back", Args: cobra.ExactArgs(3)},
		func(ctx context.Context, n *node, s stores, args []string) error {
			t, err := n.projects.Target(ctx, console, args[0])
			if err != nil {
				return err
			}
			var id int64
			if _, err := fmt.Sscan(args[2], &id); err != nil {
				return fault.New(fault.Invalid, "%q is not an id of berth trash list", args[2])
			}
			if err := s.artifacts.Restore(ctx, t.ProjectID, args[1], id); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s %d restored\n", args[1], id)
			return err
		})
	trash.AddCommand(list, restore)
	return trash
}
