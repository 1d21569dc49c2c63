package boot_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/berthtest"
	"berth/tests/boot"
)

// The packages that change the machine have tests, TestMachine…, for which there must be one that may be changed. Here
// their test programs run in it: on the real systemd, networkd, sshd, nftables.
func TestMachinePackages(t *testing.T) {
	t.Parallel()
	root, err := berthtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	m := boot.Start(t, boot.Options{NoTools: true})
	m.Active(t, "multi-user.target", time.Minute)
	// What it would put right again while a test looks.
	m.Command(t, "systemctl", "stop", "berth-agent.service")
	// The network last: the others' tests are not to wait for an address.
	for _, name := range []string{"systemd", "login", "firewall", "clock", "network"} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), name+".test")
			build := exec.Command("go", "test", "-c", "-o", program, "./appliance/"+name)
			build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("go test -c: %v\n%s", err, out)
			}
			b, err := os.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			inside := "/root/" + name + ".test"
			if _, err := m.Input(string(b), "dd", "of="+inside, "status=none"); err != nil {
				t.Fatal(err)
			}
			m.Command(t, "chmod", "0700", inside)
			out, err := m.Try("env", "BERTH_TEST_MACHINE=1", "BERTH_TEST_DHCP=1", inside, "-test.v", "-test.timeout=90s", "-test.run=^TestMachine[A-Z]")
			if err != nil || !strings.Contains(out, "--- PASS: TestMachine") || strings.Contains(out, "--- SKIP") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
