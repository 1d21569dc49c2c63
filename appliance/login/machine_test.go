package login_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"berth/appliance/login"
	"berth/appliance/setting"
	"berth/appliance/systemd"
)

// dial logs in at this machine's sshd, which must have one of its host keys.
func dial(t *testing.T, host []login.Key, how ssh.AuthMethod) error {
	t.Helper()
	known := func(_ string, _ net.Addr, k ssh.PublicKey) error {
		for _, h := range host {
			if h.Fingerprint == ssh.FingerprintSHA256(k) {
				return nil
			}
		}
		t.Error("sshd has a host key that is not in the list")
		return nil
	}
	c, err := ssh.Dial("tcp", "127.0.0.1:22", &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{how}, HostKeyCallback: known, Timeout: 10 * time.Second})
	if err == nil {
		c.Close()
	}
	return err
}

// refused tells that nobody listens.
func refused(err error) bool { return err != nil && strings.Contains(err.Error(), "refused") }

// settle is dial at a sshd that was told to reload: for a moment it does not listen.
func settle(t *testing.T, host []login.Key, how ssh.AuthMethod) error {
	t.Helper()
	err := dial(t, host, how)
	for begun := time.Now(); refused(err) && time.Since(begun) < 3*time.Second; err = dial(t, host, how) {
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// TestMachineSSH switches the real sshd of a container on and off, with a password
// and with a key, and lets it end by itself.
func TestMachineSSH(t *testing.T) {
	if os.Getenv("BERTH_TEST_MACHINE") == "" {
		t.Skip("skipped: it changes the machine's SSH; tests/boot runs it in a container")
	}
	ctx := t.Context()
	units, err := systemd.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer units.Close()
	s := login.NewSSH("/", units)
	apply := func(want setting.SSH) []login.Key {
		t.Helper()
		if err := s.Apply(ctx, want); err != nil {
			t.Fatal(err)
		}
		keys, err := s.HostKeys()
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if err := s.SetPassword(ctx, "root", "Passw0rd $x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetAuthorizedKeys(nil); err != nil {
		t.Fatal(err)
	}
	host := apply(setting.SSH{Enabled: true})
	if err := dial(t, host, ssh.Password("Passw0rd $x")); err != nil {
		t.Errorf("with the password: %v", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetAuthorizedKeys([]string{"no-pty " + string(ssh.MarshalAuthorizedKey(k))}); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(4 * time.Second)
	apply(setting.SSH{Enabled: true, Until: end})
	if err := settle(t, host, ssh.PublicKeys(signer)); err != nil {
		t.Errorf("with the key: %v", err)
	}
	if err := dial(t, host, ssh.Password("Passw0rd $x")); err == nil {
		t.Error("with keys, the password is still taken")
	}
	var last error
	for !refused(last) && time.Now().Before(end.Add(20*time.Second)) {
		time.Sleep(100 * time.Millisecond)
		last = dial(t, host, ssh.PublicKeys(signer))
	}
	if !refused(last) {
		t.Errorf("after its time: %v", last)
	}
	if early := time.Until(end); early > 100*time.Millisecond {
		t.Errorf("it ended %v too early", early)
	}
	apply(setting.SSH{})
}
