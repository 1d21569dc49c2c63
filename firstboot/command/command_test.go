package command_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/firstboot/command"
)

func run(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	c := command.New()
	c.PersistentFlags().Bool("json", false, "")
	var out bytes.Buffer
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&out)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// Whatever the form, every fault comes at once under the property's name.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"environment": `<Environment><PropertySection><Property key="network.ip4" value="192.0.2.1"/><Property key="appliance.timezone" value="x"/></PropertySection></Environment>`,
		"lines":       "# mine\nnetwork.ip4=192.0.2.1\nappliance.timezone=x\n",
		"settings":    "network: {ip4: 192.0.2.1}\ntime: {zone: x}\n",
	} {
		out, err := run(t, text, "check", "-")
		if !fault.Is(err, fault.Invalid) || !strings.Contains(out, "network.ip4") || !strings.Contains(out, "zone") {
			t.Errorf("%s: %v:\n%s", name, err, out)
		}
	}
	out, err := run(t, "network.mode=dhcp\nnetwork.adress=192.0.2.1\nnosuch=1\nanything else\n", "check", "-")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(out, "network.adress: there is no such property") || !strings.Contains(out, "nosuch: there is") || !strings.Contains(out, "line 4: it is not NAME=VALUE") {
		t.Errorf("%v:\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(file, []byte("network.mode=static\nnetwork.ip4=192.0.2.1/24\nappliance.root_password=Pass=w0rd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = run(t, "", "check", "--json", file)
	var answer struct {
		Faults  []any
		Missing []string
	}
	if err != nil || json.Unmarshal([]byte(out), &answer) != nil || len(answer.Faults) != 0 || len(answer.Missing) != 2 || strings.Contains(out, "w0rd") {
		t.Errorf("%v: %s", err, out)
	}
	for _, bad := range []string{"<html/>", "<Environment"} {
		if _, err := run(t, bad, "check", "-"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := run(t, "", "check", "/nonexistent"); !fault.Is(err, fault.Invalid) {
		t.Errorf("no file: %v", err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := run(t, "", "status", "--state", dir); err != nil || !strings.Contains(out, "phase: running") {
		t.Errorf("before anything: %v: %s", err, out)
	}
	state := `{"phase":"failed","text":"Prepare the disks: no","hint":"attach it","steps":[{"name":"disks","title":"Prepare the disks","status":"failed","text":"no"}],"warnings":["w1"],"missing":["m1"],"faults":[{"field":"f1","text":"t1","hint":"h1"}]}`
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "", "status", "--state", dir)
	for _, want := range []string{"phase: failed", "attach it", "Prepare the disks", "w1", "m1", "f1: t1", "h1"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%q is not in %v: %s", want, err, out)
		}
	}
}
