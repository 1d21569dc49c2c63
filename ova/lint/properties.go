package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"berth/appliance/property"
	"berth/ova/descriptor"
)

func (l *linter) properties() {
	seen := map[string]bool{}
	for _, p := range l.doc.Properties {
		where := l.line(p.Line)
		if p.Key == "" || strings.ContainsAny(p.Key, ".:") || strings.ContainsAny(p.Class+p.Instance, ":") {
			l.add("property-key", where, "the key is %q", p.Key)
		}
		if seen[p.Name()] {
			l.add("property-twice", where, "%s is there twice", p.Name())
		}
		seen[p.Name()] = true
		if p.Key == "ip0" {
			l.add("property-ip0", where, "%s", p.Name())
		}
		if p.Label == "" || p.Description == "" || !p.Configurable {
			l.add("property-text", where, "%s has label %q, description %.20q, userConfigurable %t", p.Name(), p.Label, p.Description, p.Configurable)
		}
		l.secret(where, p)
		if err := checkType(p); err != nil {
			l.add("property-type", where, "%s: %v", p.Name(), err)
		}
		if p.Type == "boolean" && (p.Value == "true" || p.Value == "false") {
			l.add("property-boolean", where, "%s has the default %s", p.Name(), p.Value)
		}
		if strings.Contains(strings.ReplaceAll(p.Qualifiers, " ", ""), "MinLen(0)") {
			l.add("property-minlen", where, "%s: %s", p.Name(), p.Qualifiers)
		}
	}
}

var secretWords = regexp.MustCompile(`(?i)passw|passphrase|_pwd|^pwd|secret|private_?key|^tls_cert_key$`)

func (l *linter) secret(where string, p descriptor.Property) {
	hidden := p.Password || p.Type == "password"
	if !hidden && p.Type != "boolean" && p.Type[:min(len(p.Type), 3)] != "int" && secretWords.MatchString(p.Key) {
		l.add("property-secret", where, "%s is no password property", p.Name())
	}
	if hidden && p.Value != "" {
		l.add("property-secret", where, "%s has a default", p.Name())
	}
}

// types are those of DSP0243 1.1 table 6, and VMware's.
var types = []string{"string", "boolean", "int", "uint8", "sint8", "uint16", "sint16", "uint32", "sint32", "uint64", "sint64", "real32", "real64", "real", "password"}

var (
	qualifier = regexp.MustCompile(`^(MinLen|MaxLen|MinValue|MaxValue)\( *(-?[\d.]+) *\)$|^ValueMap\{ *((?:"[^"]*"|-?[\d.]+)(?: *, *(?:"[^"]*"|-?[\d.]+))*) *\}$|^(?:Ip|VimIp|Net|AutoIp|Netmask|Gateway|Dns)(?:\([^)]*\))?$`)
	splitter  = regexp.MustCompile(`(?:[^,{]|\{[^}]*\})+`)
)

func checkType(p descriptor.Property) error {
	kind, network, _ := strings.Cut(p.Type, ":") // ip:NETWORK
	if !slices.Contains(types, kind) && kind != "ip" && kind != "expression" || network != "" && kind != "ip" {
		return fmt.Errorf("there is no type %q", p.Type)
	}
	if len(p.Value) > property.MaxLen {
		return fmt.Errorf("the default has %d bytes", len(p.Value))
	}
	switch {
	case kind == "boolean" && !slices.Contains([]string{"", "true", "false"}, strings.ToLower(p.Value)):
		return fmt.Errorf("the default is %.20q", p.Value)
	case strings.Contains(kind, "int") && p.Value != "":
		if _, err := strconv.ParseInt(strings.TrimSpace(p.Value), 10, 64); err != nil {
			return fmt.Errorf("the default %.20q is no number", p.Value)
		}
	}
	for _, q := range splitter.FindAllString(p.Qualifiers, -1) {
		if err := checkQualifier(strings.TrimSpace(q), p.Value); err != nil {
			return err
		}
	}
	return nil
}

func checkQualifier(q, value string) error {
	m := qualifier.FindStringSubmatch(q)
	if m == nil {
		return fmt.Errorf("the qualifier %.60q is none", q)
	}
	if m[3] != "" {
		if value == "" {
			return nil
		}
		for _, choice := range strings.Split(m[3], ",") {
			if strings.Trim(strings.TrimSpace(choice), `"`) == value {
				return nil
			}
		}
		return fmt.Errorf("the default %.20q is not among the choices", value)
	}
	if m[1] != "MinLen" && m[1] != "MaxLen" {
		return nil // ranges of numbers, and VMware's own for addresses
	}
	n, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || m[1] == "MaxLen" && (n > property.MaxLen || int64(len(value)) > n) || m[1] == "MinLen" && value != "" && int64(len(value)) < n {
		return fmt.Errorf("%s does not go with the default, or with the 65,535 bytes that a value may have", q)
	}
	return nil
}

// propertyTable compares the form with what the appliance of this version reads.
func (l *linter) propertyTable() {
	if l.doc.System.Child("ProductSection").Value("Product") != Product {
		return
	}
	have := map[string]descriptor.Property{}
	for _, p := range l.doc.Properties {
		have[p.Name()] = p
		if _, ok := property.Find(p.Name()); !ok {
			l.add("property-table", l.line(p.Line), "the appliance does not know %s", p.Name())
		}
	}
	for _, want := range property.All() {
		p, ok := have[want.Name()]
		switch {
		case !ok:
			l.add("property-table", l.ovf, "%s is missing", want.Name())
		case p.Type != string(want.Type) || p.Password != want.Password || p.Value != want.Default:
			l.add("property-table", l.line(p.Line), "%s has another type, default or secrecy than the appliance expects", want.Name())
		}
	}
}

// Product is the name by which the appliance's own descriptor is known.
const Product = "Berth"

// deployment looks at the options and at what belongs to which.
func (l *linter) deployment() {
	ids, defaults := map[string]bool{}, 0
	for _, c := range l.doc.Configurations {
		if ids[c.ID] {
			l.add("deployment", l.line(c.Line), "the option %q is there twice", c.ID)
		}
		ids[c.ID] = true
		if c.Default {
			defaults++
		}
	}
	switch {
	case defaults > 1:
		l.add("deployment", l.ovf, "%d of %d options are the default", defaults, len(ids))
	case defaults == 0 && len(ids) > 0:
		l.add("deployment-default", l.ovf, "none of %d options is the default", len(ids))
	}
	for _, i := range l.doc.Items {
		for _, c := range i.Configurations {
			if !ids[c] {
				l.add("deployment", l.line(i.Line), "%s is of the option %q, which does not exist", i, c)
			}
		}
		if len(i.Configurations) > 1 {
			l.add("deployment-list", l.line(i.Line), "%s is of %d options", i, len(i.Configurations))
		}
	}
	options := l.doc.Configurations
	if len(options) == 0 {
		options = []descriptor.Configuration{{}}
	}
	for _, c := range options {
		cpus, memory := 0, 0
		for _, i := range l.itemsOf(c.ID, func(descriptor.Item, string) {}) {
			switch i.Type {
			case descriptor.CPU:
				cpus++
			case descriptor.Memory:
				memory++
			}
		}
		if cpus != 1 || memory != 1 {
			l.add("deployment", l.ovf, "the option %q has %d items for CPUs and %d for memory", c.ID, cpus, memory)
		}
	}
}

var reference = regexp.MustCompile(`\$\{([^}]*)\}`)

func (l *linter) product() {
	names := map[string]bool{}
	for _, p := range l.doc.Properties {
		names[p.Name()] = true
	}
	list := l.doc.System.All("ProductSection")
	for _, s := range list {
		for _, m := range reference.FindAllStringSubmatch(s.Value("AppUrl"), 20) {
			if !names[m[1]] {
				l.add("app-url", l.line(s.Line), "there is no property %q", m[1])
			}
		}
	}
	if len(list) == 0 || list[0].Value("Product") == "" || list[0].Value("Vendor") == "" || list[0].Value("Version") == "" {
		l.add("product", l.ovf, "the first ProductSection names not all of product, vendor and version")
	}
}
