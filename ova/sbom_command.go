package ova

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/appliance/version"
	"berth/ova/sbom"
)

func sbomCommand() *cobra.Command {
	in := sbom.Input{Version: version.Version}
	var out string
	c := &cobra.Command{
		Use: "sbom --tree DIR --binary FILE --out DIR", Args: cobra.NoArgs,
		Short: "Write the bill of materials of an image, and the licences of all that is in it",
		Long: "sbom reads dpkg's database in the tree and the build information in the programs, and writes\n" +
			"OUT/sbom.cdx.json (CycloneDX 1.6) and OUT/licences. It fails if a licence is missing. The time\n" +
			"in it is that of SOURCE_DATE_EPOCH.",
		RunE: func(c *cobra.Command, _ []string) error {
			if in.Tree == "" || len(in.Binaries) == 0 || out == "" {
				return fault.New(fault.Invalid, "--tree, --binary and --out are needed")
			}
			epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
			if err != nil && os.Getenv("SOURCE_DATE_EPOCH") != "" {
				return fault.New(fault.Invalid, "SOURCE_DATE_EPOCH is no number of seconds")
			}
			in.Time = time.Unix(epoch, 0)
			if err := sbom.Available(in.Modules); err != nil {
				return err
			}
			doc, err := sbom.Make(in)
			if err != nil {
				return err
			}
			if err := doc.Write(out); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s  %d components, %d licence files\n",
				filepath.Join(out, "sbom.cdx.json"), len(*doc.BOM.Components), len(doc.Licences))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&in.Tree, "tree", "", "the root `directory` of the appliance's distribution")
	f.StringArrayVar(&in.Binaries, "binary", nil, "a program of Berth's (`file`)")
	f.StringVar(&in.Modules, "modules", "", "the Go module cache, a `directory` (go env GOMODCACHE)")
	f.StringVar(&in.Go, "go", "", "the Go distribution, a `directory` (go env GOROOT)")
	f.StringVar(&in.Commit, "commit", version.Commit(), "the `commit` that the programs are of")
	f.StringVar(&out, "out", "", "the `directory` to make")
	return c
}
