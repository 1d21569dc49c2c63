// Package agent_test looks after a booted appliance as an administrator does: with the command line on it, and with the
// REST API from another machine.
package agent_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/agent/api"
	"berth/agent/client"
	"berth/appliance/cert"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/tests/boot"
)

// Passwords that shells, YAML, JSON and HTTP have trouble with.
const (
	rootPassword     = "Root1&<>\"'$%\\; ä"
	consolePassword  = "Console1&<>\"'$%\\ ä"
	registryPassword = "Registry1&<>\"'$%\\ ä"
)

// appliance is a booted one, and its console asked from another machine.
type appliance struct {
	*boot.Machine
	t *testing.T
}

func start(t *testing.T, more ...string) appliance {
	t.Helper()
	values := map[string]string{"appliance.root_password": rootPassword, "appliance.console_password": consolePassword,
		"registry.admin_password": registryPassword, "network.hostname": "berth.example.com"}
	for i := 0; i < len(more); i += 2 {
		values[more[i]] = more[i+1]
	}
	a := appliance{boot.Start(t, boot.Options{Environment: values}), t}
	a.ready()
	return a
}

// ready waits until the appliance says that it is.
func (a appliance) ready() {
	a.t.Helper()
	a.Wait(a.t, "the appliance is ready", 2*time.Minute, func() error {
		out, err := a.Try("berth-agent", "status", "--json")
		var s api.Status
		if json.Unmarshal([]byte(out), &s) != nil || s.Phase != api.Ready || s.Health != "healthy" {
			return fmt.Errorf("it is %s, %s: %v %+v %w", s.Phase, s.Health, err, s.Problems, errors.New("not ready"))
		}
		return nil
	})
}

// agent runs berth-agent in the machine; it must succeed.
func (a appliance) agent(args ...string) string {
	a.t.Helper()
	return a.Command(a.t, "berth-agent", args...)
}

// ask runs berth-agent and reads its JSON.
func ask[T any](a appliance, args ...string) T {
	a.t.Helper()
	var v T
	out := a.agent(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		a.t.Fatalf("berth-agent %v: %v: %s", args, err, out)
	}
	return v
}

// console is the REST API at an address, as an administrator's program.
func (a appliance) console(address string) *client.Client {
	transport := a.Client(nil).Transport.(*http.Transport)
	transport.DisableKeepAlives = true
	return client.NewRemote("https://"+address+":5480", "admin", consolePassword, transport)
}

// answers reports how a connection attempt to a port ends.
func (a appliance) answers(port string) error {
	ctx, cancel := context.WithTimeout(a.t.Context(), 3*time.Second)
	defer cancel()
	c, err := a.Dial(ctx, "tcp", a.Address().String()+":"+port)
	if err != nil {
		return err
	}
	return c.Close()
}

// served is the fingerprint of what a port shows.
func (a appliance) served(port string) (string, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), 5*time.Second)
	defer cancel()
	raw, err := a.Dial(ctx, "tcp", a.Address().String()+":"+port)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // the fingerprint is what is asked for
	if err := c.HandshakeContext(ctx); err != nil {
		return "", err
	}
	return cert.Fingerprint(c.ConnectionState().PeerCertificates[0]), nil
}

// One appliance goes through what an administrator does in a year. The parts follow one another.
func TestAgent(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, part := range []struct {
		name string
		do   func(appliance)
	}{
		{"status", status}, {"console", console}, {"services", services}, {"names", names}, {"push while the certificate is renewed", renewal},
		{"ssh", ssh}, {"firewall", doors}, {"time", clock}, {"disks", disks}, {"grow", grow}, {"collector", collector}, {"proxy", outward}, {"configuration", configuration},
		{"passwords", passwords}, {"support bundle", support}, {"network", network}, {"the agent is killed", killed}, {"reboot", reboot},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.do(appliance{a.Machine, t}) }) {
			return // the next would fail because of it
		}
	}
}

func status(a appliance) {
	s := ask[api.Status](a, "status")
	if s.Hostname != "berth.example.com" || s.Registry[0] != "https://berth.example.com" || !slices.Contains(s.Addresses, a.Address().String()) {
		a.t.Errorf("%+v", s)
	}
	for _, port := range []string{"443", "5480"} {
		a.Wait(a.t, port+" has the certificate", 15*time.Second, func() error {
			got, err := a.served(port)
			if now := ask[api.Status](a, "status").Fingerprint; err != nil || got != now {
				return fmt.Errorf("it shows %s and not %s: %w", got, now, errors.Join(err, errors.New("another one")))
			}
			return nil
		})
	}
	a.Wait(a.t, "vSphere is told", 30*time.Second, func() error {
		now := ask[api.Status](a, "status")
		for key, want := range map[string]string{"url": "https://berth.example.com", "version": s.Version, "fingerprint": now.Fingerprint, "phase": "ready", "health": "healthy"} {
			if got := a.GuestInfo("guestinfo.berth." + key); got != want {
				return fmt.Errorf("guestinfo.berth.%s is %q, want %q", key, got, want)
			}
		}
		return nil
	})
	if out := a.agent("health"); !strings.HasPrefix(out, "HEALTHY") {
		a.t.Errorf("%s", out)
	}
}

func console(a appliance) {
	c := a.console(a.Address().String())
	if s, err := c.Status(a.t.Context()); err != nil || s.Phase != api.Ready || s.Code != "" {
		a.t.Errorf("%+v, %v", s, err)
	}
	if s, err := a.console("[" + a.Address6().String() + "]").Status(a.t.Context()); err != nil || s.Phase != api.Ready {
		a.t.Errorf("over IPv6: %+v, %v", s, err)
	}
	ca, err := c.CA(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	trusting := a.Client(ca)
	defer trusting.CloseIdleConnections()
	for _, url := range []string{"https://" + a.Address().String() + "/v2/", "https://" + a.Address().String() + ":5480/api/v1/about"} {
		resp, err := trusting.Get(url)
		if err != nil {
			a.t.Errorf("with the CA alone: %v", err)
			continue
		}
		resp.Body.Close()
	}
	transport := a.Client(nil).Transport
	wrong := client.NewRemote("https://"+a.Address().String()+":5480", "admin", "wrong", transport)
	if _, err := wrong.Status(a.t.Context()); !fault.Is(err, fault.Unauthenticated) {
		a.t.Errorf("a wrong password: %v", err)
	}
	if root := client.NewRemote("https://"+a.Address().String()+":5480", "root", rootPassword, transport); true {
		if _, err := root.Status(a.t.Context()); err != nil {
			a.t.Errorf("root: %v", err)
		}
	}
}

func services(a appliance) {
	for _, s := range ask[[]api.Service](a, "services") {
		if strings.HasPrefix(s.Name, "berth-") && s.Name != "berth-screen" && s.State != "active" {
			a.t.Errorf("%+v", s)
		}
	}
	before := ask[[]api.Service](a, "services")
	if s := ask[api.Service](a, "services", "restart", "berth-core"); s.State != "active" {
		a.t.Errorf("%+v", s)
	}
	pid := func(list []api.Service) int {
		return list[slices.IndexFunc(list, func(s api.Service) bool { return s.Name == "berth-core" })].PID
	}
	if pid(before) == pid(ask[[]api.Service](a, "services")) {
		a.t.Error("berth-core is the same process")
	}
	a.agent("services", "stop", "berth-core")
	out, err := a.Try("berth-agent", "health")
	if err == nil || !strings.Contains(err.Error(), "berth-core does not run") {
		a.t.Errorf("%s %v", out, err)
	}
	a.agent("services", "start", "berth-core")
	for _, args := range [][]string{{"stop", "berth-agent"}, {"stop", "systemd-journald"}, {"start", "../../etc/passwd"}, {"stop", "ssh"}} {
		if out, err := a.Try("berth-agent", append([]string{"services"}, args...)...); err == nil {
			a.t.Errorf("%v: %s", args, out)
		}
	}
	a.ready()
}

func names(a appliance) {
	n := ask[api.Names](a, "names", "set", "images.example.com", "2001:db8::7")
	if !slices.Contains(n.Certificate, "images.example.com") || !slices.Contains(n.Certificate, "2001:db8::7") || len(n.Missing) > 0 {
		a.t.Errorf("%+v", n)
	}
	if out, err := a.Try("berth-agent", "names", "set", "not a name"); err == nil || !strings.Contains(err.Error(), "hostnames") {
		a.t.Errorf("%s, %v", out, err)
	}
	a.ready()
}

// slow is a body that lasts until it is released.
type slow struct {
	parts [][]byte
	next  chan struct{}
}

func (s *slow) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	<-s.next
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

// during pushes a blob, and makes a change while that is under way: it must end well.
func (a appliance) during(change func()) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	c := a.Client(nil)
	defer c.CloseIdleConnections()
	base := "https://" + a.Address().String()
	do := func(method, url string, body io.Reader, want int) (where string, err error) {
		r, err := http.NewRequestWithContext(ctx, method, url, body)
		if err != nil {
			return "", err
		}
		r.SetBasicAuth("admin", registryPassword)
		resp, err := c.Do(r)
		if err != nil {
			return "", err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			return "", fmt.Errorf("%s %s: %s, want %d", method, url, resp.Status, want)
		}
		return resp.Header.Get("Location"), nil
	}
	where, err := do("POST", base+"/v2/library/during/blobs/uploads/", nil, 202)
	if err != nil {
		a.t.Fatal(err)
	}
	if strings.HasPrefix(where, "/") {
		where = base + where
	}
	body := &slow{next: make(chan struct{}, 1)}
	sum := sha256.New()
	for i := range 8 {
		part := []byte(strings.Repeat(fmt.Sprint(i), 64<<10))
		body.parts = append(body.parts, part)
		sum.Write(part)
	}
	done := make(chan error, 1)
	go func() {
		_, err := do("PUT", where+joint(where)+"digest=sha256:"+hex.EncodeToString(sum.Sum(nil)), body, 201)
		done <- err
	}()
	body.next <- struct{}{}
	change()
	close(body.next)
	select {
	case err := <-done:
		if err != nil {
			a.t.Errorf("the push that was under way: %v", err)
		}
	case <-ctx.Done():
		a.t.Error("the push does not end")
	}
}

// A push that is under way when the certificate changes ends well, and who comes after it sees the new one.
func renewal(a appliance) {
	a.during(func() {
		before := ask[api.Certificates](a, "certificate").Server.Fingerprint
		after := ask[api.Certificates](a, "certificate", "renew").Server.Fingerprint
		if before == after {
			a.t.Error("it is the same certificate")
		}
		for _, port := range []string{"443", "5480"} {
			a.Wait(a.t, "the new certificate is on "+port, 15*time.Second, func() error {
				got, err := a.served(port)
				if err == nil && got != after {
					err = fmt.Errorf("it shows %s", got)
				}
				return err
			})
		}
	})
}

func joint(url string) string {
	if strings.Contains(url, "?") {
		return "&"
	}
	return "?"
}

func ssh(a appliance) {
	if err := a.answers("22"); err == nil {
		a.t.Error("sshd runs unasked")
	}
	s := ask[api.SSH](a, "ssh", "on", "--hours", "0.01")
	if !s.Enabled || s.Until.IsZero() || len(s.Fingerprints) == 0 {
		a.t.Errorf("%+v", s)
	}
	if err := a.answers("22"); err != nil {
		a.t.Errorf("it is on, and yet: %v", err)
	}
	a.Wait(a.t, "SSH ends", 2*time.Minute, func() error {
		if err := a.answers("22"); err == nil {
			return errors.New("it answers")
		}
		if now := ask[api.SSH](a, "ssh"); now.Enabled {
			return fmt.Errorf("%+v", now)
		}
		if strings.Contains(a.File(setting.File), "enabled: true") {
			return errors.New("the settings would start it again")
		}
		return nil
	})
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl admin@example.com"
	if _, err := a.Input(key+"\n", "berth-agent", "ssh", "keys", "-"); err != nil {
		a.t.Error(err)
	}
	if got := ask[api.SSH](a, "ssh").Keys; len(got) != 1 || got[0] != key {
		a.t.Errorf("%q", got)
	}
	if out, err := a.Input("no key\n", "berth-agent", "ssh", "keys", "-"); err == nil {
		a.t.Errorf("%s", out)
	}
}

func doors(a appliance) {
	c := a.console(a.Address().String())
	elsewhere := setting.Firewall{Console: []string{"203.0.113.0/24"}}
	if _, err := c.SetFirewall(a.t.Context(), elsewhere, false); !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "firewall.console") {
		a.t.Errorf("who asks shuts himself out: %v", err)
	}
	a.agent("firewall", "set", "--registry", "203.0.113.0/24", "--console", a.Net(0).String()+"/24")
	if err := a.answers("443"); err == nil {
		a.t.Error("the registry is reached from a network that may not")
	}
	if err := a.answers("5480"); err != nil {
		a.t.Errorf("the console is not reached: %v", err)
	}
	a.agent("firewall", "set", "--registry", "", "--console", "")
	if err := a.answers("443"); err != nil {
		a.t.Errorf("the registry is not reached any more: %v", err)
	}
	if out, err := a.Try("berth-agent", "firewall", "set", "--ssh", "10.0.0.0/99"); err == nil || !strings.Contains(err.Error(), "firewall.ssh") {
		a.t.Errorf("%s %v", out, err)
	}
}
