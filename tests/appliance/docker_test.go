// Package appliance is the whole product: an appliance that is told what vCenter's form would tell it, and docker, from
// another machine.
package appliance

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/berthtest"
	"berth/tests/boot"
)

// The passwords have what has broken other appliances' shells and documents.
const (
	rootPassword     = `Root "pass" & <word> 1`
	consolePassword  = `Con$ole 'word' %s \n 2`
	registryPassword = "Reg`istry` $HOME; | 3 ü"
)

// unattended are the properties without which nobody could be spared the wizard, and more.
func unattended(more map[string]string) map[string]string {
	all := map[string]string{
		"appliance.root_password": rootPassword, "appliance.console_password": consolePassword, "registry.admin_password": registryPassword,
		"network.hostname": "registry.berth.test",
	}
	for k, v := range more {
		all[k] = v
	}
	return all
}

// client is a machine beside the appliance, with docker.
type client struct {
	sh     *berthtest.Shell
	daemon *berthtest.Docker
	host   string // as docker names the registry
}

// newClient starts docker where it knows the appliance by name and trusts the CA that it fetches from it, the way the
// guide says.
func newClient(t *testing.T, m *boot.Machine, at netip.Addr) *client {
	t.Helper()
	berthtest.Program(t, "docker")
	berthtest.Program(t, "dockerd")
	c := &client{sh: berthtest.NewShell(t), host: "registry.berth.test"}
	hosts := filepath.Join(c.sh.Dir, "hosts")
	write(t, hosts, fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", at, c.host))
	trusted := filepath.Join(c.sh.Dir, "docker-etc")
	if err := os.MkdirAll(filepath.Join(trusted, "certs.d", c.host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/etc/docker", 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	c.daemon, err = berthtest.StartDocker(m.Enter(map[string]string{"/etc/hosts": hosts, "/etc/docker": trusted})...)
	if err != nil {
		t.Skipf("dockerd cannot start here: %v", err)
	}
	t.Cleanup(c.daemon.Stop)
	c.sh.Env = append(c.sh.Env, c.daemon.Host(), "DOCKER_CONFIG="+c.sh.Dir, "DOCKER_BUILDKIT=0")

	refused := []string{"x509", "certificate"}
	c.sh.Refused(t, refused, "docker", "login", "--username", "admin", "--password", "Wrong-Password-1", c.host)
	ca := m.Outside(t, "curl", "--silent", "--show-error", "--fail", "--insecure", "--max-time", "20", "https://"+netip.AddrPortFrom(at, 443).String()+"/api/v2.0/systeminfo/getcert")
	write(t, filepath.Join(trusted, "certs.d", c.host, "ca.crt"), ca)
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *client) login(t *testing.T) {
	t.Helper()
	c.sh.Input(t, registryPassword, "docker", "login", "--username", "admin", "--password-stdin", c.host)
}

// push builds an image of random layers and pushes it; the result is its name and what identifies it.
func (c *client) push(t *testing.T, tag string, layers int) (name, id string) {
	t.Helper()
	file := "FROM scratch\n"
	dir := filepath.Join(c.sh.Dir, "build-"+tag)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range layers {
		write(t, filepath.Join(dir, fmt.Sprint(n)), string(berthtest.Random(300_000)))
		file += fmt.Sprintf("COPY %d /%d\n", n, n)
	}
	write(t, filepath.Join(dir, "Dockerfile"), file)
	name = c.host + "/library/app:" + tag
	c.sh.Run(t, "docker", "build", "-q", "-t", name, dir)
	c.sh.Run(t, "docker", "push", "-q", name)
	return name, c.id(t, name)
}

func (c *client) id(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(c.sh.Run(t, "docker", "image", "inspect", "-f", "{{.Id}}", name))
}

// pullAgain pulls what the client has forgotten.
func (c *client) pullAgain(t *testing.T, name, id string) {
	t.Helper()
	c.sh.Run(t, "docker", "rmi", name)
	c.sh.Run(t, "docker", "pull", "-q", name)
	if got := c.id(t, name); got != id {
		t.Errorf("%s came back as %s, not %s", name, got, id)
	}
}

// From the form in vCenter to docker push, on an address from DHCP; then a restart, then a power cut.
func TestDeployAndPush(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{Environment: unattended(nil)})
	begun := time.Now()
	m.Serving(t, 2*time.Minute)
	t.Logf("serving %v after systemd took commands", time.Since(begun).Round(100*time.Millisecond))
	c := newClient(t, m, m.Address())
	c.login(t)
	name, id := c.push(t, "1", 3)
	c.pullAgain(t, name, id)

	m.Reboot(t)
	m.Serving(t, 2*time.Minute)
	c.pullAgain(t, name, id)
	second, id2 := c.push(t, "2", 2)

	m.Kill(t)
	m.On(t)
	m.Serving(t, 2*time.Minute)
	// The client's network went with the machine.
	after := newClient(t, m, m.Address())
	after.login(t)
	after.sh.Run(t, "docker", "pull", "-q", name)
	after.sh.Run(t, "docker", "pull", "-q", second)
	if got := after.id(t, name) + after.id(t, second); got != id+id2 {
		t.Errorf("after the power cut: %s, pushed were %s and %s", got, id, id2)
	}
}

// In a network without DHCP and without a router's advertisements the form has the addresses, and docker comes by IPv6.
func TestFixedAddresses(t *testing.T) {
	t.Parallel()
	m := boot.New(t, boot.Options{NoDHCP: true})
	if err := m.SetDocument(boot.Document(unattended(map[string]string{
		"network.mode": "static", "network.ip4": m.Net(77).String(), "network.prefix_or_mask": "255.255.255.0", "network.gateway4": m.Net(1).String(),
		"network.ip6": m.Net6(0x77).String() + "/64", "network.gateway6": m.Net6(1).String(),
		"network.dns": m.Net(1).String() + " ; " + m.Net6(1).String(), "network.search": "berth.test,example.com",
	}))); err != nil {
		t.Fatal(err)
	}
	m.On(t)
	m.ServingAt(t, m.Net6(0x77), 2*time.Minute)
	m.ServingAt(t, m.Net(77), 10*time.Second)
	c := newClient(t, m, m.Net6(0x77))
	c.login(t)
	name, id := c.push(t, "6", 2)
	c.pullAgain(t, name, id)
	for _, want := range []string{m.Net(77).String(), m.Net6(0x77).String()} {
		if out := m.Command(t, "ip", "-o", "addr", "show", "dev", "host0"); !strings.Contains(out, want) {
			t.Errorf("the machine lacks %s: %s", want, out)
		}
	}
	if out := m.Command(t, "hostname", "--fqdn"); strings.TrimSpace(out) != "registry.berth.test" {
		t.Errorf("its name is %s", out)
	}
}
