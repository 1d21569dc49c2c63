package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/services/project"
	"berth/services/tree"
)

func (a *app) importCommand() *cobra.Command {
	var from, into string
	var verify, asJSON bool
	c := a.onStores(&cobra.Command{
		Use: "import --from DIR", Short: "Take over the storage of a CNCF registry or of Harbor, in place", Args: cobra.NoArgs, GroupID: "care",
		Long: "Reads the storage directory of another registry and makes its repositories Berth's.\n" +
			"No blob is copied: Berth serves the files where they lie, and from then on owns\n" +
			"them. Stop the other registry first. Projects that do not exist are made, private.\n" +
			"Run it again to go on after an interruption, or to add what is new.\n" +
			"Exit code 1 if something could not be read; the rest is imported all the same.",
		Example: "  berth import --from /var/lib/registry\n  berth import --from /data/registry --verify",
	}, func(ctx context.Context, n *node, s stores, _ []string) error {
		t, err := tree.Open(from)
		if err != nil {
			return err
		}
		result, err := t.Import(ctx, tree.Options{
			Artifacts: s.artifacts, Blobs: s.blobs, Project: into, Verify: verify,
			EnsureProject: n.ensureProject, Report: a.importProgress,
		})
		if err != nil {
			return err
		}
		return a.importDone(result, asJSON)
	})
	c.Flags().StringVar(&from, "from", "", "storage `directory` of the other registry")
	c.Flags().StringVar(&into, "project", "library", "`project` for repositories whose names have none")
	c.Flags().BoolVar(&verify, "verify", false, "re-hash every blob first")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	must(c.MarkFlagRequired("from"))
	must(c.MarkFlagDirname("from"))
	return c
}

func (a *app) importProgress(p tree.Progress) {
	if p.Problem != nil {
		fmt.Fprintf(a.stderr, "problem  %s: %s: %s\n", p.Problem.Repository, p.Problem.What, p.Problem.Reason)
		return
	}
	fmt.Fprintf(a.stderr, "%d of %d repositories, %d manifests, %d blobs with %.1f GiB\n",
		p.Repositories, p.AllRepositories, p.Manifests+p.Present, p.Blobs, float64(p.Bytes)/(1<<30))
}

func (a *app) importDone(r tree.Result, asJSON bool) error {
	var err error
	if asJSON {
		err = writeJSON(a.stdout, map[string]any{"repositories": r.Repositories, "manifests": r.Manifests, "present": r.Present,
			"tags": r.Tags, "blobs": r.Blobs, "bytes": r.Bytes, "problems": r.Problems})
	} else {
		_, err = fmt.Fprintf(a.stdout, "imported %d manifests and %d tags in %d repositories (%d were here already), %d problems\n",
			r.Manifests, r.Tags, r.Repositories, r.Present, len(r.Problems))
	}
	if err == nil && len(r.Problems) > 0 {
		return fault.New(fault.Precondition, "%d things could not be imported", len(r.Problems))
	}
	return err
}

// ensureProject makes a private project if there is none of that name.
func (n *node) ensureProject(ctx context.Context, name string) error {
	_, err := n.projects.Target(ctx, console, name)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	_, err = n.projects.Create(ctx, console, name, project.Settings{Metadata: map[string]string{"public": "false"}})
	if fault.Is(err, fault.Conflict) {
		return nil
	}
	return err
}
