package command

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/project"
)

func (a *app) projectList() *cobra.Command {
	var asJSON bool
	c := a.onNode(&cobra.Command{Use: "list", Short: "List projects", Args: cobra.NoArgs}, func(ctx context.Context, n *node, _ []string) error {
		page, err := n.projects.List(ctx, console, all())
		if err != nil {
			return err
		}
		return a.table(asJSON, page.Items, "ID\tNAME\tPUBLIC\tREPOSITORIES\tSINCE", func(w io.Writer) {
			for _, p := range page.Items {
				fmt.Fprintf(w, "%d\t%s\t%v\t%d\t%s\n", p.ID, p.Name, p.Public, p.Repositories, p.Created.Format(time.DateOnly))
			}
		})
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) projectCreate() *cobra.Command {
	var public bool
	c := a.onNode(&cobra.Command{Use: "create NAME", Short: "Make a project", Args: cobra.ExactArgs(1)}, func(ctx context.Context, n *node, args []string) error {
		id, err := n.projects.Create(ctx, console, args[0], project.Settings{Metadata: map[string]string{"public": strconv.FormatBool(public)}})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "project %s made, id %d\n", args[0], id)
		return err
	})
	c.Flags().BoolVar(&public, "public", false, "let everybody pull from it")
	return c
}

func (a *app) projectRename() *cobra.Command {
	return a.onNode(&cobra.Command{Use: "rename OLD NEW", Short: "Rename a project, and its repositories and robots with it", Args: cobra.ExactArgs(2)},
		func(ctx context.Context, n *node, args []string) error {
			t, err := n.projects.Target(ctx, console, args[0])
			if err != nil {
				return err
			}
			if err := n.projects.Rename(ctx, t.ProjectID, args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "project %s is now %s\n", args[0], args[1])
			return err
		})
}

func (a *app) projectDelete() *cobra.Command {
	return a.onNode(&cobra.Command{Use: "delete NAME", Short: "Delete a project that has no repositories", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, n *node, args []string) error {
			t, err := n.projects.Target(ctx, console, args[0])
			if err != nil {
				return err
			}
			if err := n.projects.Delete(ctx, t.ProjectID); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "project %s deleted\n", args[0])
			return err
		})
}

var roleNames = map[string]access.Role{"admin": access.ProjectAdmin, "maintainer": access.Maintainer, "developer": access.Developer,
	"guest": access.Guest, "limited-guest": access.LimitedGuest}

func (a *app) projectMember() *cobra.Command {
	return a.onNode(&cobra.Command{Use: "member PROJECT USER ROLE", Short: "Give a user a role in a project", Args: cobra.ExactArgs(3),
		Long: "ROLE is admin, maintainer, developer, guest or limited-guest."}, func(ctx context.Context, n *node, args []string) error {
		role, ok := roleNames[args[2]]
		if !ok {
			return fault.New(fault.Invalid, "%q is not a role", args[2]).WithHint("use admin, maintainer, developer, guest or limited-guest")
		}
		t, err := n.projects.Target(ctx, console, args[0])
		if err != nil {
			return err
		}
		if _, err := n.projects.AddMember(ctx, t, 0, args[1], role); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s is %s in %s\n", args[1], args[2], args[0])
		return err
	})
}
