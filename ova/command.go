package ova

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/appliance/cli"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/version"
	"berth/ova/descriptor"
	"berth/ova/lint"
)

// Main runs one command and gives its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "ova",
		Short: "Make, check and take apart the appliance's OVA",
		Long: "ova makes the appliance's OVA from disk images, with neither ovftool nor vSphere; checks\n" +
			"any OVA for what vSphere and the tools around it refuse; shows what is in one; and\n" +
			"takes disks out of it.",
		Version: version.Version,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(buildCommand(), lintCommand(), showCommand(), extractCommand(), propertiesCommand(), sbomCommand())
	return cli.Run(root, args, stderr)
}

func buildCommand() *cobra.Command {
	var o buildFlags
	c := &cobra.Command{
		Use:   "build --disk system=FILE --out FILE.ova",
		Short: "Make an OVA from raw disk images",
		Long: "build makes an OVA from raw disk images, whose holes and zeros take no time. A role without an\n" +
			"image (data, database, log) gets a blank disk, marked with its role for the first boot. The result\n" +
			"is checked by all rules of ova lint before it gets its name. The same images, version and time make\n" +
			"the same bytes.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := o.build()
			if err != nil {
				return err
			}
			start := time.Now()
			made, err := b.Run(c.Context())
			if err != nil {
				return err
			}
			if o.json {
				return cli.PrintJSON(c.OutOrStdout(), made)
			}
			for _, d := range made.Disks {
				fmt.Fprintf(c.OutOrStdout(), "%-9s %9s, %s of data in %s\n", d.Role, bytesText(d.Capacity), bytesText(d.Data), bytesText(d.Size))
			}
			fmt.Fprintf(c.OutOrStdout(), "%s  %s  sha256:%s  (%.1fs)\n", made.File, bytesText(made.Size), made.SHA256, time.Since(start).Seconds())
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "the `file` to make, ending in .ova")
	f.StringArrayVar(&o.disks, "disk", nil, "`ROLE=FILE`, a raw image; ROLE is system, data, database or log")
	f.StringArrayVar(&o.blank, "blank", nil, "`ROLE=SIZE` of a blank disk, such as data=200GiB (default data=100GiB, database=20GiB, log=10GiB)")
	f.StringVar(&o.version, "version", version.Version, "the product's `version`")
	f.StringVar(&o.full, "full-version", "", "the `version` with its build (default: the version and the commit)")
	f.StringVar(&o.base, "base", "debian", "what the image is made of: debian or photon")
	f.StringVar(&o.firmware, "firmware", "efi", "efi or bios")
	f.StringVar(&o.network, "network", "VM Network", "how the form calls the `network`")
	f.StringVar(&o.eula, "eula", "", "a `file` with the licence, instead of the one built in")
	f.StringVar(&o.annotation, "annotation", "", "the `text` of the VM's notes, instead of the one built in")
	f.IntVar(&o.level, "level", 6, "of compression, 1 (fast) to 9 (small)")
	f.StringVar(&o.key, "sign-key", "", "a `file` with an RSA key (PEM): sign the manifest")
	f.StringVar(&o.cert, "sign-cert", "", "a `file` with its certificate (PEM), perhaps with the chain")
	f.BoolVar(&o.json, "json", false, "say what was made as JSON")
	return c
}

type buildFlags struct {
	out, version, full, base, firmware, network, eula, annotation, key, cert string
	disks, blank                                                             []string
	level                                                                    int
	json                                                                     bool
}

func (o buildFlags) build() (Build, error) {
	b := Build{Out: o.out, Version: o.version, FullVersion: o.full, Network: o.network, Annotation: o.annotation, Level: o.level,
		Disks: map[diskrole.Role]string{}, Blank: map[diskrole.Role]int64{}}
	if b.FullVersion == "" && version.Revision != "" {
		b.FullVersion = b.Version + " " + version.Revision
	}
	if o.level < 1 || o.level > 9 {
		return b, fault.New(fault.Invalid, "it must be between 1 and 9").On("--level")
	}
	var ok bool
	if b.OS, ok = map[string]descriptor.OS{"debian": descriptor.Debian, "photon": descriptor.Photon}[o.base]; !ok {
		return b, fault.New(fault.Invalid, "it must be debian or photon, not %q", o.base).On("--base")
	}
	if b.UEFI = o.firmware == "efi"; !b.UEFI && o.firmware != "bios" {
		return b, fault.New(fault.Invalid, "it must be efi or bios, not %q", o.firmware).On("--firmware")
	}
	for _, v := range o.disks {
		role, file, err := roleValue("--disk", v)
		if err != nil {
			return b, err
		}
		if b.Disks[role] != "" {
			return b, fault.New(fault.Invalid, "the %s disk is there twice", role).On("--disk")
		}
		b.Disks[role] = file
	}
	for _, v := range o.blank {
		role, size, err := roleValue("--blank", v)
		if err != nil {
			return b, err
		}
		if b.Blank[role], ok = parseSize(size); !ok || role == diskrole.System || b.Disks[role] != "" {
			return b, fault.New(fault.Invalid, "%q: it must be the role of a disk that has no image, and a size such as 200GiB", v).On("--blank")
		}
	}
	return b, o.files(&b)
}

// files reads the licence, the key, the certificate, and the time.
func (o buildFlags) files(b *Build) error {
	for _, f := range []struct {
		flag, path string
		take       func(content []byte)
	}{{"--eula", o.eula, func(c []byte) { b.EULA = string(c) }}, {"--sign-cert", o.cert, func(c []byte) { b.Certificate = c }}} {
		if f.path == "" {
			continue
		}
		content, err := os.ReadFile(f.path)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "cannot read the file").On(f.flag)
		}
		f.take(content)
	}
	if o.key != "" {
		var err error
		if b.Key, err = ReadKey(o.key); err != nil {
			return err
		}
	}
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" { // reproducible-builds.org
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n >= 1<<33 {
			return fault.New(fault.Invalid, "%q is no time in seconds since 1970", s).On("SOURCE_DATE_EPOCH")
		}
		b.Time = time.Unix(n, 0)
	}
	return nil
}

func roleValue(flag, s string) (diskrole.Role, string, error) {
	name, value, _ := strings.Cut(s, "=")
	role, ok := diskrole.Parse(name)
	if !ok || value == "" {
		return "", "", fault.New(fault.Invalid, "%q is not ROLE=VALUE with the role system, data, database or log", s).On(flag)
	}
	return role, value, nil
}

// parseSize reads 200GiB, 200G, 512MiB, 2T.
func parseSize(s string) (int64, bool) {
	digits := strings.TrimRight(s, "KMGTiB")
	shift, ok := map[string]int{"": 0, "B": 0, "M": 20, "MiB": 20, "G": 30, "GiB": 30, "T": 40, "TiB": 40}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n <= 0 || n > 62<<40>>shift {
		return 0, false
	}
	return n << shift, true
}

func lintCommand() *cobra.Command {
	var asJSON, strict, rules bool
	c := &cobra.Command{
		Use:   "lint FILE",
		Short: "Check an OVA, or a descriptor with its files, for what vSphere and its tools refuse",
		Long: "lint looks for what makes vSphere, or a tool around it, refuse an OVA or import it as something\n" +
			"else. It ends with 0 if there is no error, with 1 if there is one.",
		Args: func(c *cobra.Command, args []string) error {
			if rules {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if rules {
				return printRules(c.OutOrStdout(), asJSON)
			}
			findings, err := lint.Check(c.Context(), args[0], time.Now())
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "cannot check the file").On(args[0])
			}
			bad := printFindings(c.OutOrStdout(), filepath.Base(args[0]), findings, asJSON)
			if bad > 0 || strict && len(findings) > 0 {
				return cli.ErrUnwell
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&strict, "strict", false, "warnings count as errors")
	c.Flags().BoolVar(&rules, "rules", false, "print the rules instead")
	return c
}

// printFindings gives the number of errors.
func printFindings(w io.Writer, name string, findings []lint.Finding, asJSON bool) int {
	bad := 0
	for _, f := range findings {
		if f.Severity == lint.Error {
			bad++
		}
	}
	if asJSON {
		if findings == nil {
			findings = []lint.Finding{}
		}
		cli.PrintJSON(w, map[string]any{"file": name, "errors": bad, "warnings": len(findings) - bad, "findings": findings})
		return bad
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%s: %s: %s (%s)\n  why: %s\n  do:  %s\n", f.Severity, f.Where, f.What, f.Rule, f.Why, f.Do)
	}
	fmt.Fprintf(w, "%s: errors %d, warnings %d\n", name, bad, len(findings)-bad)
	return bad
}

func printRules(w io.Writer, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, lint.Rules())
	}
	for _, r := range lint.Rules() {
		fmt.Fprintf(w, "%s (%s)\n  why: %s\n  do:  %s\n", r.ID, r.Severity, r.Why, r.Do)
	}
	return nil
}

func showCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show FILE", Short: "Show what is in an OVA: deployment options, disks, properties", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			content, err := Show(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), content)
			}
			return content.Print(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func extractCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "extract-disk FILE [DISK]", Short: "Write a disk of an OVA (system, data, database, log), or a VMDK, as a raw file",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			id := string(diskrole.System)
			if len(args) == 2 {
				id = args[1]
			}
			if out == "" {
				return fault.New(fault.Invalid, "the file to write is missing").On("--out")
			}
			capacity, err := Extract(c.Context(), args[0], id, out)
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", out, bytesText(capacity))
			}
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "the `file` to write, which must not exist")
	return c
}

func propertiesCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "properties", Short: "Print the list of OVF properties, as Markdown or JSON", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), property.All())
			}
			_, err := io.WriteString(c.OutOrStdout(), property.Markdown())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
