package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"berth/services/artifact"
	"berth/services/quota"
)

// quotaCommand looks after what projects may take.
func (a *app) quotaCommand() *cobra.Command {
	c := &cobra.Command{Use: "quota", Short: "Storage quotas of projects: list them, set limits, count again", GroupID: "care"}
	c.AddCommand(a.quotaList(), a.quotaSet(), a.quotaRecompute())
	return c
}

func (a *app) quotaList() *cobra.Command {
	var asJSON bool
	c := a.onNode(&cobra.Command{Use: "list", Short: "List what projects use and may use", Args: cobra.NoArgs},
		func(ctx context.Context, n *node, _ []string) error {
			page, err := quota.New(n.pool, n.outbox).List(ctx, all())
			if err != nil {
				return err
			}
			return a.table(asJSON, page.Items, "PROJECT\tUSED\tLIMIT\tBYTES", func(w io.Writer) {
				for _, q := range page.Items {
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", q.Project, artifact.Size(q.Used), limitText(q.Limit), q.Used)
				}
			})
		})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func limitText(limit int64) string {
	if limit < 0 {
		return "none"
	}
	return artifact.Size(limit)
}

func (a *app) quotaSet() *cobra.Command {
	var bytes int64
	c := a.onNode(&cobra.Command{
		Use: "set PROJECT", Short: "Limit a project, or (with -1) do not", Args: cobra.ExactArgs(1),
		Example: "  berth quota set library --bytes 107374182400",
	}, func(ctx context.Context, n *node, args []string) error {
		t, err := n.projects.Target(ctx, console, args[0])
		if err != nil {
			return err
		}
		if err := quota.New(n.pool, n.outbox).Set(ctx, t.ProjectID, bytes); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "the limit of %s is %s\n", args[0], limitText(bytes))
		return err
	})
	c.Flags().Int64Var(&bytes, "bytes", 0, "the limit in `bytes`; -1 for none")
	must(c.MarkFlagRequired("bytes"))
	return c
}

func (a *app) quotaRecompute() *cobra.Command {
	var asJSON bool
	c := a.onNode(&cobra.Command{
		Use: "recompute [PROJECT]", Short: "Count again what projects hold", Args: cobra.MaximumNArgs(1),
		Long: "Counts blobs and manifests of one project or of all, and corrects the usage where it\n" +
			"differs. Pushes go on meanwhile. A difference means an error in Berth, or that\n" +
			"somebody has changed the database.",
	}, func(ctx context.Context, n *node, args []string) error {
		store := quota.New(n.pool, n.outbox)
		var projects []int64
		if len(args) == 1 {
			t, err := n.projects.Target(ctx, console, args[0])
			if err != nil {
				return err
			}
			projects = append(projects, t.ProjectID)
		} else {
			page, err := store.List(ctx, all())
			if err != nil {
				return err
			}
			for _, q := range page.Items {
				projects = append(projects, q.ID)
			}
		}
		found := make([]quota.Drift, 0, len(projects))
		for _, id := range projects {
			d, err := store.Recompute(ctx, id)
			if err != nil {
				return err
			}
			found = append(found, d)
		}
		return a.table(asJSON, found, "PROJECT\tUSED\tMISSING\tSTALE\tCORRECTED BY", func(w io.Writer) {
			for _, d := range found {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d bytes\n", d.Project, artifact.Size(d.Used), d.Missing, d.Stale, d.Bytes)
			}
		})
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
