package property_test

import (
	"os"
	"strings"
	"testing"

	"berth/appliance/property"
)

// What vSphere and the OVF specification ask of every property.
func TestTableKeepsTheRules(t *testing.T) {
	classes := map[string]bool{}
	for i, c := range property.Classes() {
		classes[c.Name] = true
		if len(property.Of(c.Name)) == 0 {
			t.Errorf("class %s has no property", c.Name)
		}
		if int(c.Category[0]-'0') != i+1 {
			t.Errorf("category %q would be sorted to another place", c.Category)
		}
	}
	seen := map[string]bool{}
	for _, p := range property.All() {
		name := p.Name()
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if !classes[p.Class] {
			t.Errorf("%s: there is no class %s", name, p.Class)
		}
		if p.Key == "" || strings.ContainsAny(p.Key+p.Class, ".: ") {
			t.Errorf("%s: key and class may not have '.', ':' or spaces", name)
		}
		if p.Label == "" || !strings.HasSuffix(p.Description, ".") {
			t.Errorf("%s: label and description, please", name)
		}
		if p.Password && (p.Default != "" || p.Choices != nil) {
			t.Errorf("%s: a password has neither default nor choices", name)
		}
		if p.Choices != nil && p.Choices[0] != p.Default {
			t.Errorf("%s: the first choice is the default", name)
		}
		if p.Type == property.Boolean && p.Default != "True" && p.Default != "False" {
			t.Errorf("%s: vSphere takes True and False alone as a boolean's default", name)
		}
		if err := p.Check(p.Default); err != nil {
			t.Errorf("default: %v", err)
		}
	}
	if len(seen) < 30 {
		t.Errorf("%d properties", len(seen))
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"network.mode", "Static", ""},
		{"network.mode", "both", "must be one of dhcp, static"},
		{"appliance.ssh_enabled", "True", ""},
		{"appliance.ssh_enabled", "false", ""},
		{"appliance.ssh_enabled", "yes", "must be true or false"},
		{"tls.private_key", strings.Repeat("x", property.MaxLen), ""},
		{"tls.private_key", strings.Repeat("x", property.MaxLen+1), "longer than"},
		{"registry.admin_password", "& < > \" ' $ % ` \n", ""},
	} {
		p, ok := property.Find(c.name)
		if !ok {
			t.Fatalf("there is no %s", c.name)
		}
		err := p.Check(c.value)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %.20q: got %v, want %q", c.name, c.value, err, c.want)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), c.name) || strings.Contains(err.Error(), c.value)) {
			t.Errorf("%v: it should name the property and keep the value for itself", err)
		}
	}
	if _, ok := property.Find("network.nonsense"); ok {
		t.Error("network.nonsense was found")
	}
}

// docs/properties.md is what Markdown renders; UPDATE=1 writes it.
func TestDocument(t *testing.T) {
	const path = "../../docs/properties.md"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(property.Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != property.Markdown() {
		t.Error("docs/properties.md is not what the table says (UPDATE=1 go test ./appliance/property)")
	}
}

// Terraform's provider for vSphere knows properties by their keys alone, without the class.
func TestKeysAreUnique(t *testing.T) {
	seen := map[string]string{}
	for _, p := range property.All() {
		if other := seen[p.Key]; other != "" {
			t.Errorf("%s and %s have the same key", other, p.Name())
		}
		seen[p.Key] = p.Name()
	}
}
