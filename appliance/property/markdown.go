package property

import (
	"fmt"
	"strings"
)

// Markdown renders the list as the document that administrators read.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# OVF properties\n\n" +
		"What can be typed into vCenter's form when the appliance is deployed, or given to `govc import.ova -options` and\n" +
		"`ovftool --prop:` under the name in the first column, and to Terraform's `vapp` block under the part of it after the dot, by\n" +
		"which its provider knows properties. Nothing is required: what the first boot cannot do without (○) is asked for by its wizard. ● marks passwords, which vCenter does not show again. Every value may have up to\n" +
		"65,535 bytes and any characters.\n\n" +
		"Made from `appliance/property` by `ova properties`; a test compares them.\n")
	for _, c := range Classes() {
		fmt.Fprintf(&b, "\n## %s\n\n| property | label | values | what it means |\n|---|---|---|---|\n", c.Category)
		for _, p := range Of(c.Name) {
			fmt.Fprintf(&b, "| `%s`%s | %s | %s | %s |\n", p.Name(), p.marks(), p.Label, p.values(), p.Description)
		}
	}
	return b.String()
}

func (p Property) marks() string {
	s := ""
	if p.Password {
		s += " ●"
	}
	if p.Unattended {
		s += " ○"
	}
	return s
}

func (p Property) values() string {
	switch {
	case p.Choices != nil:
		all := make([]string, len(p.Choices))
		for i, c := range p.Choices {
			all[i] = "`" + c + "`"
			if c == p.Default {
				all[i] = "**`" + c + "`**"
			}
		}
		return strings.Join(all, ", ")
	case p.Type == Boolean && p.Default == "False":
		return "true, **false**"
	case p.Type == Boolean:
		return "**true**, false"
	case p.Default != "":
		return "text, default `" + p.Default + "`"
	}
	return "text"
}
