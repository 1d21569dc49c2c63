// Package property has the one list of the appliance's OVF properties: what an
// administrator may type into vCenter's form, and what the OVF environment may
// therefore hold.
//
// The descriptor in the OVA, the reader of the OVF environment, the first boot's
// wizard and docs/properties.md are all made from it. A property only carries
// what was typed; what the words mean is checked where they are used, because
// vSphere's clients change values on the way (a boolean comes as "True", a pasted
// certificate loses its line breaks).
package property

import (
	"slices"
	"strings"

	"berth/appliance/fault"
)

// A Type is what vCenter's form offers for a property.
type Type string

// The types. vSphere knows more (ip, real …); these are the ones that all of its
// clients treat the same.
const (
	Text    Type = "string"
	Boolean Type = "boolean"
)

// MaxLen is the length in bytes of the longest value that vCenter stores.
const MaxLen = 65535

// A Property is one field of the form. Its key is unique without the class, too:
// Terraform's provider for vSphere knows no other name. That provider also gives every
// property that nobody has set, and that has no default, the value of one space.
type Property struct {
	Class       string   `json:"class"`             // ovf:class of its ProductSection
	Key         string   `json:"key"`               // ovf:key: without "." and ":" (DSP0243 section 9.5.1)
	Type        Type     `json:"type"`              // what the form offers
	Label       string   `json:"label"`             // the field's name in the form
	Description string   `json:"description"`       // what to type, and what happens if nothing is typed
	Default     string   `json:"default"`           // ovf:value; never a secret
	Choices     []string `json:"choices,omitempty"` // the only values, if there are any; the first is the default
	Password    bool     `json:"password"`          // shown as dots, and write-only in vCenter's API
	// Unattended is true for what the first boot cannot do without: if it is
	// missing, the wizard asks for it.
	Unattended bool `json:"unattended"`
}

// Name is how the property is called in the OVF environment: class.key.
func (p Property) Name() string { return p.Class + "." + p.Key }

// A Class is a group of properties, one ProductSection of the descriptor.
type Class struct {
	Name string // ovf:class
	// Category is its heading in the form. It begins with a number because
	// vSphere's clients sort headings by their letters.
	Category string
}

// Classes are the groups in the order of the form.
func Classes() []Class {
	return []Class{
		{"network", "1. Network"},
		{"appliance", "2. Appliance"},
		{"registry", "3. Registry"},
		{"tls", "4. Certificate"},
		{"proxy", "5. Proxy for outgoing connections"},
		{"syslog", "6. Remote syslog"},
		{"vcenter", "7. vCenter"},
		{"install", "8. Unattended installation and restore"},
	}
}

// All are the properties in the order of the form.
func All() []Property {
	return slices.Concat(network(), appliance(), registry(), certificate(), proxy(), syslog(), vcenter(), install())
}

// Of are the properties of a class, in the order of the form.
func Of(class string) []Property {
	return slices.DeleteFunc(All(), func(p Property) bool { return p.Class != class })
}

// Find gives the property of a name (class.key).
func Find(name string) (Property, bool) {
	for _, p := range All() {
		if p.Name() == name {
			return p, true
		}
	}
	return Property{}, false
}

// Bool reads a boolean as the OVF environment carries it: "True" and "False" from
// vCenter, "true" and "false" from others. Anything else is no boolean.
func Bool(value string) (b, ok bool) {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "true":
		return true, true
	case "false", "":
		return false, true
	}
	return false, false
}

// Check says what is wrong with a value's form: its length, a boolean that is
// none, a choice that is not offered. An empty value is always right. The fault
// names the property and never repeats the value, which may be a secret.
func (p Property) Check(value string) error {
	if value == "" {
		return nil
	}
	if len(value) > MaxLen {
		return fault.New(fault.Invalid, "it is longer than %d bytes", MaxLen).On(p.Name())
	}
	if p.Type == Boolean {
		if _, ok := Bool(value); !ok {
			return fault.New(fault.Invalid, "it must be true or false").On(p.Name())
		}
	}
	if p.Choices != nil && !slices.Contains(p.Choices, strings.ToLower(strings.TrimSpace(value))) {
		return fault.New(fault.Invalid, "it must be one of %s", strings.Join(p.Choices, ", ")).On(p.Name())
	}
	return nil
}
